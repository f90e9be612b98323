package postgres_test

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
)

// counter counts statements and round trips.
type counter struct{ statements, trips atomic.Int64 }

func (c *counter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.statements.Add(1)
	c.trips.Add(1)
	return ctx
}

func (c *counter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (c *counter) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	c.trips.Add(1)
	return ctx
}

func (c *counter) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {
	c.statements.Add(1)
}

func (c *counter) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// cost is what fn takes; the second look is part of it.
func (c *counter) cost(fn func()) [2]int64 {
	statements, trips := c.statements.Load(), c.trips.Load()
	fn()
	return [2]int64{c.statements.Load() - statements, c.trips.Load() - trips}
}

// TestConstantStatements holds the number of statements, and of round trips,
// against the size of the batch: neither may grow.
func TestConstantStatements(t *testing.T) {
	t.Parallel()
	c := &counter{}
	w := storetest.New(t, traced(c))
	other, err := w.CreateTenant(t.Context(), "other")
	must(t, err)
	_, mapped := w.Campaign(w.Tenant, map[string]string{"lemlist": "cam"})
	for i := range 5 {
		w.Person(fmt.Sprintf("p%d@example.com", i), event.Ref{Provider: "lemlist", Kind: event.RefMessage, Value: "m"})
		w.Join(mapped, campaign.Enrollment{Email: fmt.Sprintf("p%d@example.com", i)})
	}
	source := store.Source{ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, Provider: "lemlist", Name: "s", Sealed: []byte{}, CreatedAt: w.Clock.Now()}
	must(t, w.CreateSource(t.Context(), source))
	round := 0
	commit := func(n int) [2]int64 {
		round += 2
		w.Put(w.Mix(other.ID, source.ID, round, 10)...)
		batch := w.Mix(other.ID, source.ID, round, n)
		return c.cost(func() { w.Put(batch...) })
	}
	commit(20) // statements are prepared
	small, large := commit(20), commit(500)
	storetest.Same(t, "a commit of 500 against 20", large, small)
	t.Logf("a commit of every kind of event takes %d statements in %d round trips, its second look included", large[0], large[1])
	plain := func(n int) [2]int64 {
		batch := make([]event.Event, n)
		for i := range batch {
			batch[i] = w.Event(event.Opened, storetest.Message(fmt.Sprint("plain ", i)), storetest.Of(uuid.Nil))
			batch[i].EnrollmentID, batch[i].Email, batch[i].Campaign = "", fmt.Sprintf("q%d@example.com", i%3), ""
		}
		return c.cost(func() { w.Put(batch...) })
	}
	for i := range 3 {
		w.Person(fmt.Sprintf("q%d@example.com", i))
	}
	plain(10)
	small, large = plain(10), plain(500)
	storetest.Same(t, "a commit of 500 opens against 10", large, small)
	t.Logf("a commit of opens takes %d statements in %d round trips", large[0], large[1])
	// So do events that enroll, whoever waits for them, and nonces; a batch with
	// neither pays for neither.
	w.Campaign(w.Tenant, map[string]string{"lemlist": "tool"})
	enroll := func(n, lead int, opts ...storetest.Option) [2]int64 {
		batch := w.Newcomers(n, lead, opts...)
		return c.cost(func() { w.Put(batch...) })
	}
	enroll(2, 0, storetest.Enrolling("tool"))
	small, large = enroll(10, 1000, storetest.Enrolling("tool")), enroll(180, 2000, storetest.Enrolling("tool")) // as many keys as are locked one by one
	storetest.Same(t, "a commit that enrolls 90 against 5", large, small)
	known := enroll(20, 2000, storetest.Enrolling("tool"))
	storetest.Same(t, "a source that enrolls, of known people, against an ordinary one", known, enroll(20, 2000, storetest.InCampaign("tool")))
	once := func(n int) [2]int64 {
		batch := w.Newcomers(n, 2000, storetest.InCampaign("tool"))
		for i := range batch {
			storetest.Once(fmt.Sprint(n, " ", i), batch[i:i+1]...)
		}
		return c.cost(func() { w.Put(batch...) })
	}
	storetest.Same(t, "nonces", [][2]int64{once(20), once(180)}, [][2]int64{{known[0] + 1, known[1] + 1}, {known[0] + 1, known[1] + 1}})
	t.Logf("a commit of known people's events takes %d statements in %d round trips, one that enrolls %d in %d", known[0], known[1], large[0], large[1])

	// Retries, adoptions and replays are batches of the same processor.
	retry := func(n int) [2]int64 {
		w.Spend()
		w.Flood(n, storetest.Lead("nobody"))
		w.Clock.Advance(3 * time.Second)
		claim, err := w.Claim(t.Context(), n, time.Minute, 0)
		must(t, err)
		storetest.Same(t, "claimed", len(claim.Events), n)
		return c.cost(func() {
			_, err := w.Retry(t.Context(), claim)
			must(t, err)
		})
	}
	retry(2)
	storetest.Same(t, "a retry of 50 against 2", retry(50), retry(2))
	claim := func(n int) [2]int64 {
		w.Spend()
		w.Flood(n, storetest.Lead("nobody"))
		w.Clock.Advance(3 * time.Second)
		return c.cost(func() {
			_, err := w.Claim(t.Context(), n, time.Minute, 0)
			must(t, err)
		})
	}
	storetest.Same(t, "a claim of 100 against 2", claim(100), claim(2))
	adopt := func(n int) [2]int64 {
		round++
		a := fmt.Sprintf("late%d@example.com", round)
		w.Flood(n, storetest.Address(a))
		return c.cost(func() { w.Person(a) })
	}
	adopt(2)
	storetest.Same(t, "an adoption of 300 against 2", adopt(300), adopt(2))
}

// unbound are the statements that name no tenant, by their beginning, and why.
func unbound() map[string]string {
	return map[string]string{
		"SELECT 1 FROM tenant LIMIT":              "is the database there?",
		"SELECT  FROM api_key WHERE hash":         "who calls? The tenant is not known yet",
		"DELETE FROM duplicate WHERE id IN":       "housekeeping, of whatever tenant",
		"UPDATE api_key SET last_used_at":         "keys that were used, of whatever tenant",
		"SELECT  FROM former_token WHERE ends":    "the snapshot of all tenants' sources",
		"SELECT  FROM source WHERE":               "whose webhook is it? The conditions are the callers'",
		"SELECT  FROM enrollment WHERE  ORDER BY": "its conditions begin with the tenant",
		"SELECT  FROM  WHERE  ORDER BY e.seq":     "its conditions begin with the tenant",
		"SELECT  FROM dead_letter d WHERE":        "its conditions begin with the tenant",
		"SELECT count(*), coalesce(max(d.seq)":    "its conditions begin with the tenant",
		"WITH RECURSIVE slots":                    "the slots that there are",
		"INSERT INTO tenant":                      "makes tenants",
		"SELECT value FROM setting":               "the server's own",
		"INSERT INTO setting":                     "the server's own",
		"SELECT current_setting":                  "of the database server",
		"SELECT CASE WHEN b.whole":                "a number made of the tenant",
		"SELECT pg_advisory":                      "a number made of tenant and key",
		"SELECT coalesce(min(expires_at)":         "a metric over all tenants",
		"SELECT  FROM tenant WHERE":               "the tenants themselves",
		"SELECT 1 FROM tenant WHERE uid":          "the tenants themselves",
		"UPDATE tenant":                           "the tenants themselves",
		"UPDATE idempotency SET sealed":           "housekeeping, of whatever tenant",
		"SELECT pg_try_advisory":                  "one replica at a time",
		"SELECT pg_snapshot":                      "of the database server",
		"SELECT status, count(*) FROM dead":       "a metric over all tenants",
		"SELECT o.route, o.depth":                 "a metric over all tenants",
		"SELECT coalesce((SELECT sum(orphaned)":   "a metric over all tenants",
		"SELECT pg_notify":                        "from replica to replica",
		"SELECT count(*) FROM pg_listening":       "of this connection",
		"SELECT EXISTS (SELECT 1 FROM adopting)":  "is there work for the worker, of whatever tenant?",
	}
}

// TestEveryStatementNamesTheTenant reads the package's source: a statement
// that forgets the tenant reads or changes somebody else's rows.
func TestEveryStatementNamesTheTenant(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	must(t, err)
	sql := regexp.MustCompile(`^\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\s`)
	used := map[string]bool{}
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		must(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			expr, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			text, ok := literal(expr)
			if !ok {
				return true
			}
			if sql.MatchString(text) {
				found++
				if !strings.Contains(text, "tenant_id") && !excused(text, used) {
					t.Errorf("%s: a statement names no tenant: %s", name, text)
				}
			}
			return false
		})
	}
	if found < 100 {
		t.Errorf("found %d statements, which cannot be all", found)
	}
	for begin := range unbound() {
		if !used[begin] {
			t.Errorf("no statement begins with %q any more", begin)
		}
	}
}

func excused(text string, used map[string]bool) bool {
	for begin := range unbound() {
		if strings.HasPrefix(strings.TrimSpace(text), begin) {
			used[begin] = true
			return true
		}
	}
	return false
}

// literal is the text of a string that may be put together of several; what is
// not written there, such as the names of columns, is left out.
func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(e.Value)
		return s, err == nil
	case *ast.BinaryExpr:
		if e.Op != token.ADD {
			return "", false
		}
		a, okA := literal(e.X)
		b, okB := literal(e.Y)
		return a + b, okA || okB
	case *ast.CallExpr: // such as c.bind("...", args)
		return "", false
	}
	return "", false
}
