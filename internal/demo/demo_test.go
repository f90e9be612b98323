package demo_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"tallyhook/internal/app"
	"tallyhook/internal/config"
	"tallyhook/internal/demo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// page takes what a play prints, and says when a text has come.
type page struct {
	mu    sync.Mutex
	text  strings.Builder
	waits map[string]chan struct{}
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text.Write(b)
	for text, ch := range p.waits {
		if strings.Contains(p.text.String(), text) {
			close(ch)
			delete(p.waits, text)
		}
	}
	return len(b), nil
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// await waits until the text was printed.
func (p *page) await(t *testing.T, text string) {
	t.Helper()
	ch := make(chan struct{})
	p.mu.Lock()
	if strings.Contains(p.text.String(), text) {
		close(ch)
	} else {
		if p.waits == nil {
			p.waits = map[string]chan struct{}{}
		}
		p.waits[text] = ch
	}
	p.mu.Unlock()
	select {
	case <-ch:
	case <-time.After(time.Minute):
		t.Fatalf("%q was not printed; printed was:\n%s", text, p)
	}
}

// serve runs a real server with an empty store.
func serve(t *testing.T) *app.App {
	t.Helper()
	cfg, err := config.Load(map[string]string{
		"PORT": "0", "DATABASE_URL": "sqlite:" + filepath.Join(t.TempDir(), "t.db"),
		// Only an enrollment settles what waits here, not a retry or a burial.
		"RETRY_SCHEDULE": "1h",
		"RATE_LIMIT_API": "0", // the play is sixteen times as fast here
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.New(t.Context(), cfg, app.Options{Version: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	a.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return a
}

// get reads an answer's data.
func get(t *testing.T, a *app.App, path string, into any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.URL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-API-Key", a.AdminKey())
	r.Close = true
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // only read
	if res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s", path, res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(&struct {
		Data any `json:"data"`
	}{into}); err != nil {
		t.Fatal(err)
	}
}

type balance struct {
	Difference int64 `json:"difference"`
	Tenants    []struct {
		Difference int64            `json:"difference"`
		Ledger     map[string]int64 `json:"ledger"`
		Counters   int64            `json:"counters"`
	} `json:"tenants"`
	Counters []any `json:"counters"`
}

func wantBalance(t *testing.T, a *app.App) map[string]int64 {
	t.Helper()
	var b balance
	get(t, a, "/api/admin/balance", &b)
	if b.Difference != 0 || len(b.Counters) != 0 || len(b.Tenants) != 1 || b.Tenants[0].Counters != 0 {
		t.Fatalf("balance: %+v", b)
	}
	return b.Tenants[0].Ledger
}

func wantNarrow(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if utf8.RuneCountInString(line) > 100 {
			t.Errorf("line has more than 100 columns: %q", line)
		}
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("line holds a control character: %q", line)
		}
	}
}

func TestPlay(t *testing.T) {
	t.Parallel()
	a := serve(t)
	var out page
	p := demo.Start(t.Context(), demo.Options{
		URL: a.URL(), Key: a.AdminKey(), ShowKey: a.AdminKey(), Out: &out, Speed: 1e6, Tick: 20 * time.Millisecond, People: 40,
	})
	out.await(t, "days are over")
	out.await(t, "live")
	p.Stop()
	p.Stop()
	<-p.Done()
	t.Log("\n" + out.String())
	wantNarrow(t, out.String())

	l := wantBalance(t, a)
	if l["received"] < 350 || l["duplicates"] == 0 || l["ignored"] == 0 || l["orphaned"] == 0 || l["dead"] != 0 || l["undecodable"] != 0 {
		t.Errorf("ledger: %v", l)
	}
	sum := regexp.MustCompile(`(\d+) events received, (\d+) applied \((\d+) of them had waited\)`).FindStringSubmatch(out.String())
	if sum == nil {
		t.Fatal("no sum at the end")
	}
	var n [4]int64
	for i := range 4 {
		if err := json.Unmarshal([]byte(sum[i]), &n[i]); i > 0 && err != nil {
			t.Fatal(err)
		}
	}
	if n[1] != l["received"] || n[2] != l["applied"] {
		t.Errorf("printed %d received, %d applied; the ledger has %d and %d", n[1], n[2], l["received"], l["applied"])
	}
	if part := float64(n[3]) / float64(n[1]); part < 0.08 || part > 0.25 {
		t.Errorf("%.0f %% of the events came early, want about 15 %%", 100*part)
	}
	if strings.Contains(out.String(), " ! ") {
		t.Error("something was refused")
	}

	var instances []struct{ ID, Name, Status string }
	get(t, a, "/api/campaigns", &instances)
	if len(instances) != 1 || instances[0].Status != "active" || !strings.HasSuffix(instances[0].Name, " 1") {
		t.Errorf("campaigns: %+v", instances)
	}
	var perf struct {
		Totals  map[string]int64 `json:"totals"`
		Machine map[string]int64 `json:"machine"`
	}
	get(t, a, "/api/campaigns/instances/"+instances[0].ID+"/performance", &perf)
	for _, what := range []string{"sent", "delivered", "opened", "clicked", "replied", "connection_sent", "connection_accepted", "message_sent"} {
		if perf.Totals[what] == 0 {
			t.Errorf("nothing was %s", what)
		}
	}
	if perf.Machine["opened"] == 0 {
		t.Error("no program opened anything")
	}
}

// TestStartAgain stops a play while somebody's events wait, and finds them
// again.
func TestStartAgain(t *testing.T) {
	t.Parallel()
	a := serve(t)
	o := demo.Options{URL: a.URL(), Key: a.AdminKey(), Speed: 1e6, Tick: time.Hour, People: 60}
	var first, second page
	o.Out = &first
	p := demo.Start(t.Context(), o)
	first.await(t, "not enrolled yet")
	p.Stop()
	before := wantBalance(t, a)
	if before["orphaned"] == 0 {
		t.Fatalf("nothing waits: %v", before)
	}

	o.Out, o.Speed = &second, 0.001 // so that the new play itself changes next to nothing
	p = demo.Start(t.Context(), o)
	second.await(t, "This is")
	p.Stop()
	t.Log("\n" + second.String())
	wantNarrow(t, second.String())
	after := wantBalance(t, a)
	if !strings.Contains(second.String(), "waited there all the while") || after["applied"] <= before["applied"] {
		t.Errorf("nobody was picked up: %v, then %v", before, after)
	}
	if after["received"] < before["received"] {
		t.Errorf("events are gone: %v, then %v", before, after)
	}
	var sources []struct{ Name string }
	get(t, a, "/api/sources", &sources)
	if len(sources) != 3 {
		t.Errorf("sources: %+v", sources)
	}
	var templates []struct{ Name string }
	get(t, a, "/api/campaigns/templates", &templates)
	if len(templates) != 1 {
		t.Errorf("templates: %+v", templates)
	}
	var instances []struct{ Name string }
	get(t, a, "/api/campaigns", &instances)
	if len(instances) != 2 {
		t.Errorf("campaigns: %+v", instances)
	}
}

func TestServerThatRefuses(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		switch asked.Add(1) {
		case 1, 2:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"title":"Service Unavailable","detail":"the database is away"}`))
		case 3:
			w.WriteHeader(http.StatusTooManyRequests)
		case 4:
			_, _ = w.Write([]byte(`{"data":[],"next_cursor":null}`))
		default:
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"title":"Unauthorized","detail":"the API key is not known"}`))
		}
	}))
	defer s.Close()
	var out page
	p := demo.Start(t.Context(), demo.Options{URL: s.URL, Key: "k", Out: &out, Speed: 1000})
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		t.Fatal("it goes on without a key")
	}
	p.Stop()
	t.Log("\n" + out.String())
	wantNarrow(t, out.String())
	for text, times := range map[string]int{
		"the database is away": 1, "answers again": 1, "the API key is not known": 1, "asks to slow down": 0,
	} {
		flat := strings.Join(strings.Fields(strings.ReplaceAll(out.String(), "!", "")), " ") // however it was wrapped
		if n := strings.Count(flat, text); n != times {
			t.Errorf("%q was printed %d times, want %d", text, n, times)
		}
	}
}

func TestStopWithoutAServer(t *testing.T) {
	t.Parallel()
	hangs, asked := make(chan struct{}), make(chan struct{}, 1)
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{}; <-hangs }))
	defer s.Close()
	defer close(hangs)
	for name, url := range map[string]string{"Hangs": s.URL, "IsNotThere": "http://127.0.0.1:1"} {
		var out page
		p := demo.Start(t.Context(), demo.Options{URL: url, Key: "k", Out: &out})
		if name == "IsNotThere" {
			out.await(t, "does not answer")
		} else {
			<-asked
		}
		p.Stop()
	}
}
