package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tallyhook/internal/app"
	"tallyhook/internal/bench"
	"tallyhook/internal/config"
	"tallyhook/internal/event"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestHistogram(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	values := make([]time.Duration, 5000)
	var a, b bench.Histogram
	for i := range values {
		values[i] = time.Duration(rnd.Int64N(1 << (1 + rnd.IntN(45))))
		if i%2 == 0 {
			a.Add(values[i])
		} else {
			b.Add(values[i])
		}
	}
	a.Merge(&b)
	slices.Sort(values)
	if got, want := a.Count(), uint64(len(values)); got != want {
		t.Errorf("count: got %d, want %d", got, want)
	}
	if got, want := a.Max(), values[len(values)-1]; got != want {
		t.Errorf("max: got %v, want %v", got, want)
	}
	for _, q := range []float64{0.001, 0.5, 0.99, 0.999, 1} {
		want := values[max(int(q*float64(len(values)))-1, 0)]
		if got := a.Quantile(q); got < want || got > want+want/64+1 {
			t.Errorf("quantile %v: got %d, want %d to %d", q, got, want, want+want/64)
		}
	}
}

func TestHistogramEdges(t *testing.T) {
	t.Parallel()
	var h bench.Histogram
	if got := h.Quantile(0.99); got != 0 {
		t.Errorf("of nothing: got %v, want 0", got)
	}
	h.Add(-time.Second)
	h.Add(1<<63 - 1)
	if got, want := []time.Duration{h.Quantile(0), h.Quantile(0.5), h.Quantile(1)}, []time.Duration{0, 0, 1<<63 - 1}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMixIsValidAndUnique(t *testing.T) {
	t.Parallel()
	m := bench.NewMix("0a1b2c3d", time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC))
	contacts := map[string]bool{}
	for i := range 1000 {
		contacts[m.Address(i)] = true
	}
	var bodies [][]byte
	for range 500 {
		bodies = append(bodies, m.Append(nil, 1, false))
	}
	arrays := [][]byte{m.Append(nil, 100, true), m.Append(nil, 1000, true), m.AppendOrphans(nil, 400), m.Append(nil, 1, true)}
	var events []event.Event
	for _, b := range bodies {
		e, err := event.Decode(b, "body", event.Strict)
		if err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		events = append(events, e)
	}
	for _, b := range arrays {
		items, err := event.DecodeArray(b, "body", event.Strict)
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range items {
			if it.Err != nil {
				t.Fatal(it.Err)
			}
			events = append(events, it.Event)
		}
	}
	seen, orphans, byMessage := map[event.Hash]bool{}, 0, 0
	strangers := map[string]bool{}
	for i := range events {
		e := &events[i]
		e.Scope = "api:" + e.Provider
		seen[e.Identity()] = true
		if n := len(e.Payload); n < 550 || n > 650 {
			t.Errorf("event of %d bytes, want about 600", n)
		}
		switch {
		case !contacts[e.Email]:
			orphans++
			strangers[e.Email] = true
		case e.ProviderMessageID != "":
			byMessage++
		}
	}
	if got, want := len(events), 2001; got != want {
		t.Fatalf("got %d events, want %d", got, want)
	}
	if got, want := len(seen), len(events); got != want {
		t.Errorf("got %d identities, want %d", got, want)
	}
	if got, want := orphans, 400+80; got != want || len(strangers) != want {
		t.Errorf("got %d orphans of %d addresses, want %d of each", got, len(strangers), want)
	}
	if byMessage < 600 || byMessage > 900 {
		t.Errorf("got %d events found by message, want about half of 1521", byMessage)
	}
}

// TestSuite runs every part against a real server, far too short to mean
// anything about speed.
func TestSuite(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const key = "0123456789abcdef0123456789abcdef"
	dir := t.TempDir()
	cfg, err := config.Load(nil, []string{
		"PORT=0", "API_KEY=" + key, "DATABASE_URL=sqlite:" + filepath.Join(dir, "t.db"), "RETRY_SCHEDULE=24h",
		"RATE_LIMIT_API=0", "RATE_LIMIT_WEBHOOK=0",
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.New(ctx, cfg, app.Options{Version: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	a.Start()
	defer func() {
		if err := a.Stop(ctx); err != nil {
			t.Error(err)
		}
		checks, err := app.Doctor(ctx, cfg)
		if err != nil {
			t.Error(err)
		}
		for _, c := range checks {
			if !c.OK {
				t.Errorf("doctor: %s: %s", c.Name, c.Detail)
			}
		}
	}()
	r, err := bench.Measure(ctx, bench.Target{URL: a.URL(), Key: key, PID: os.Getpid()}, bench.Options{
		Duration: 50 * time.Millisecond, Connections: []int{1, 8}, Array: 100, Orphans: []int{0, 100}, Repetitions: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		t.Errorf("problem: %s", p)
	}
	if got, want := len(r.Cells), 7; got != want { // three parts with two cells, and the open loop
		t.Errorf("got %d cells, want %d", got, want)
	}
	for _, c := range r.Cells {
		// A busy machine may refuse: that is counted, and is no error.
		if c.Events == 0 || c.Errors != 0 || c.PerSecond <= 0 || c.Latency.P50 <= 0 {
			t.Errorf("got %+v", c)
		}
	}
	if got, want := len(r.Adoption), 2; got != want {
		t.Fatalf("got %d adoptions, want %d", got, want)
	}
	for _, ad := range r.Adoption {
		if ad.With.P50 <= 0 || ad.Without.P50 <= 0 {
			t.Errorf("got %+v", ad)
		}
	}
	if len(r.Checks) == 0 {
		t.Error("nothing was checked")
	}

	l, err := bench.Load(ctx, bench.Target{URL: a.URL(), Key: key}, bench.Options{Duration: 50 * time.Millisecond, Rate: 200})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Cells) != 1 || l.Cells[0].Events == 0 || l.Cells[0].Errors+l.Cells[0].Refused != 0 {
		t.Errorf("open loop: got %+v", l.Cells)
	}
}

func TestLoadCountsErrors(t *testing.T) {
	t.Parallel()
	_, err := bench.Load(context.Background(), bench.Target{URL: "http://127.0.0.1:1", Key: "x"}, bench.Options{
		Duration: 10 * time.Millisecond, Connections: []int{1},
	})
	if err == nil {
		t.Error("a server that is not there must be an error")
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	r := bench.Report{
		Version: "v1.2.3", Date: time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC), CellSeconds: 5, LogLevel: "info", TookSeconds: 123.4,
		Machine: bench.Machine{CPUs: 2, Model: "A CPU", MemoryMiB: 24000, System: "linux/amd64", Go: "go1.26", FileSystem: "ext4"},
		Mix:     "events of 600 bytes",
		SQLite:  []bench.SQLiteYardstick{{Batch: 500, Rows: 650000, PerSecond: 130000}},
		HTTP: []bench.Cell{{
			Part: bench.PartYardstick, Connections: 32, Events: 250000, PerSecond: 50000, CPU: 0.0181,
			Latency: bench.Latency{P50: 0.5, P99: 4.25, P999: 11, Max: 20},
		}},
		Cells: []bench.Cell{
			{
				Part: bench.PartAPI, Connections: 32, Events: 100000, PerSecond: 20000, CPU: 0.05, PeakMiB: 88.25, OfHTTP: 0.4, OfSQLite: 0.1538,
				Latency: bench.Latency{P50: 1.5, P99: 10.2, P999: 30, Max: 45},
			},
			{
				Part: bench.PartArray, Connections: 1, Array: 100, Events: 300000, PerSecond: 60000, OfSQLite: 0.46,
				Latency: bench.Latency{P50: 1.6, P99: 9, P999: 31, Max: 1045},
			},
			{Part: bench.PartOpen, Rate: 10000, Events: 50000, PerSecond: 9990, Refused: 2, Errors: 1, ErrorSample: "503 Service Unavailable"},
		},
		Adoption: []bench.Adoption{{
			Parked: 1000000, Repetitions: 200, ParkedPerS: 40000,
			With: bench.Latency{P50: 1, P99: 3, Max: 4}, Without: bench.Latency{P50: 0.8, P99: 2.5, Max: 3},
		}},
		Checks: []string{"it ended well"}, Problems: []string{"one request failed"},
	}
	var text, markdown, asJSON bytes.Buffer
	for _, err := range []error{r.WriteText(&text), r.WriteMarkdown(&markdown), r.WriteJSON(&asJSON)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, got := range map[string][]byte{"report.txt": text.Bytes(), "report.md": markdown.Bytes(), "report.json": asJSON.Bytes()} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (make golden writes it anew): -want +got\n%s", name, diff)
		}
	}
	var back bench.Report
	if err := json.Unmarshal(asJSON.Bytes(), &back); err != nil {
		t.Error(err)
	}
}
