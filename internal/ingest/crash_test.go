package ingest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"tallyhook/internal/event"
	"tallyhook/internal/ingest"
	"tallyhook/internal/store"
	"tallyhook/internal/store/spool"
	"tallyhook/internal/store/sqlite"
	"tallyhook/internal/store/storetest"
	"tallyhook/internal/telemetry"
	"tallyhook/internal/testenv"
)

// The environment that makes this test binary the process that is killed.
const (
	childDir  = "TALLYHOOK_TEST_CHILD_DIR"
	childTask = "TALLYHOOK_TEST_CHILD_TASK"
)

const perRequest = 20 // events of one request of the child

func embedded(dir string) sqlite.Options {
	return sqlite.Options{
		Path: filepath.Join(dir, "tallyhook.db"), TxTimeout: 3 * time.Second, Now: time.Now, Serve: true,
		Delay: func(int) (time.Duration, bool) { return time.Hour, true },
	}
}

// child is a server without its edge: a store, a spool, a committer. It says
// "ready", waits for a line, and then accepts events without end, saying the
// ids of each request that was answered, or drains, saying what is left.
func child(dir, task string) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	ctx := context.Background()
	st, err := sqlite.Open(ctx, embedded(dir))
	must(err)
	sp, err := spool.Open(ctx, spool.Options{Dir: filepath.Join(dir, "spool")})
	must(err)
	say := func(format string, args ...any) {
		_, err := fmt.Fprintf(os.Stdout, format+"\n", args...)
		must(err)
	}
	say("ready")
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	must(err)
	c := ingest.NewCommitter(st, ingest.Options{
		Spool: sp, MaxBatch: perRequest, Probe: 10 * time.Millisecond, Now: time.Now,
		Logger: slog.New(slog.DiscardHandler), Metrics: telemetry.NewMetrics(prometheus.NewRegistry(), "test"),
	})
	if task == "drain" {
		for left := sp.Stats().Events; left > 0; {
			if now := sp.Stats().Events; now != left {
				left = now
				say("left %d", left)
			}
		}
		c.Close()
		must(sp.Close())
		must(st.Close())
		say("empty")
		return
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				events := make([]event.Event, perRequest)
				ids := make([]string, perRequest)
				for i := range events {
					id := uuid.Must(uuid.NewV7())
					events[i] = event.Event{
						ID: id, Tenant: store.DefaultTenant, Scope: "api:x", Provider: "x", Type: event.Opened, Channel: event.Email,
						LeadID: "l", ProviderEventID: id.String(), Payload: []byte("{}"),
					}
				}
				results, err := c.Accept(ctx, events)
				must(err)
				for i, r := range results {
					ids[i] = string(r.Outcome) + ":" + r.ID.String()
				}
				say("ok %s", strings.Join(ids, " "))
			}
		})
	}
	wg.Wait()
}

// process is a running child.
type process struct {
	cmd   *exec.Cmd
	lines chan string // closed with its end
	in    io.WriteCloser
}

func launch(t *testing.T, dir, task string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.CommandContext(context.WithoutCancel(t.Context()), exe), lines: make(chan string, 1000)}
	p.cmd.Env = append(os.Environ(), childDir+"="+dir, childTask+"="+task)
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(p.kill)
	if first := <-p.lines; first != "ready" {
		t.Fatalf("the child says %q", first)
	}
	return p
}

func (p *process) begin(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(p.in, "go\n"); err != nil {
		t.Fatal(err)
	}
}

// kill ends the child as a crash does, and gives what it still said.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill()
	for range p.lines { // to its end, before Wait closes the pipe
	}
	_ = p.cmd.Wait()
}

// TestCrashesLoseNothing kills the process while it spools, and again while it
// takes out what was spooled.
func TestCrashesLoseNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	answered := map[uuid.UUID]bool{}
	for round := range 3 {
		p := launch(t, dir, "accept")
		unlock := testenv.Lock(t, filepath.Join(dir, "tallyhook.db"))
		p.begin(t)
		for n := 0; n < 25+20*round; n++ {
			ids, ok := strings.CutPrefix(<-p.lines, "ok ")
			if !ok {
				t.Fatal("the child does not accept")
			}
			for text := range strings.FieldsSeq(ids) {
				id, spooled := strings.CutPrefix(text, "spooled:")
				if !spooled {
					t.Fatalf("the database is locked, and the child answers %s", text)
				}
				answered[uuid.MustParse(id)] = true
			}
		}
		p.kill()
		unlock()

		p = launch(t, dir, "drain") // and it is killed on its way, too
		p.begin(t)
		for line := range p.lines {
			left, err := strconv.Atoi(strings.TrimPrefix(line, "left "))
			if err != nil || left < perRequest*(10+round) {
				break
			}
		}
		p.kill()
	}
	p := launch(t, dir, "drain")
	p.begin(t)
	last := ""
	for line := range p.lines {
		last = line
	}
	if last != "empty" {
		t.Fatalf("the child ended with %q", last)
	}

	st, err := sqlite.Open(t.Context(), embedded(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	for id := range answered {
		if r, err := st.Event(t.Context(), store.DefaultTenant, id); err != nil || r.Duplicates != 0 {
			t.Fatalf("event %s was answered: %d duplicates, %v", id, r.Duplicates, err)
		}
	}
	ledgers, err := st.Ledgers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := ledgers[0]
	if l.Received < int64(len(answered)) || l.Received != l.Orphaned {
		t.Errorf("%d were answered, the account is %+v", len(answered), l)
	}
	b, err := st.Balance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "balance", []any{b.Difference, b.Tenants[0].Ledger}, []any{int64(0), b.Tenants[0].Recount})
	t.Logf("%d events were answered, %d are stored", len(answered), l.Received)
}

// TestStorm lets the database come and go while requests come in.
func TestStorm(t *testing.T) {
	t.Parallel()
	f := startSpooled(t, away(t), ingest.Options{MaxBatch: 50, MaxWait: overdue}, spool.Options{})
	stop := make(chan struct{})
	var mu sync.Mutex
	answered := map[uuid.UUID]event.Outcome{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				results, err := f.Accept(context.Background(), f.some(3))
				if err != nil {
					t.Errorf("accept: %v", err)
					return
				}
				mu.Lock()
				for _, r := range results {
					answered[r.ID] = r.Outcome
				}
				mu.Unlock()
			}
		})
	}
	for range 3 {
		unlock := testenv.Lock(t, f.Path())
		testenv.Eventually(t, 5*time.Minute, "the database is known to be away", f.Away)
		before := f.spool.Stats().Events
		testenv.Eventually(t, 5*time.Minute, "more is spooled", func() bool { return f.spool.Stats().Events > before+100 })
		unlock()
		testenv.Eventually(t, 5*time.Minute, "the database is known to be back", func() bool { return !f.Away() })
		testenv.Eventually(t, 5*time.Minute, "a request is committed at once", func() bool {
			mu.Lock()
			defer mu.Unlock()
			for _, o := range answered {
				if o == event.OutcomeOrphaned {
					return true
				}
			}
			return false
		})
	}
	close(stop) // how fast the spool empties beside requests is the machine's affair
	wg.Wait()
	f.awaitEmpty(t)
	f.Close()
	kinds := map[event.Outcome]int{}
	for id, o := range answered {
		kinds[o]++
		storetest.Same(t, "duplicates", f.Record(id).Duplicates, 0)
	}
	storetest.Same(t, "account", f.Account(f.Tenant), store.Ledger{Tenant: f.Tenant, Received: int64(len(answered)), Orphaned: int64(len(answered))})
	if len(kinds) != 2 {
		t.Errorf("the outcomes were %v", kinds)
	}
	t.Logf("the outcomes were %v", kinds)
}
