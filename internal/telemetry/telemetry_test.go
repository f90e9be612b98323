package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tallyhook/internal/telemetry"
)

func TestLogger(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	level := &slog.LevelVar{}
	logger := telemetry.NewLogger(&out, level, "json")
	ctx := t.Context()
	logger.DebugContext(ctx, "not yet")
	level.Set(slog.LevelDebug)
	elsewhere := time.FixedZone("far", 9*3600)
	logger.DebugContext(ctx, "batch committed", slog.Int("events", 3), slog.Time("at", time.Date(2026, 11, 24, 19, 0, 0, 0, elsewhere)))
	var got struct {
		Time, Level, Msg, At string
		Events               int
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("not one JSON line: %v: %s", err, out.String())
	}
	if got.Level != "DEBUG" || got.Msg != "batch committed" || got.Events != 3 || got.At != "2026-11-24T10:00:00Z" || !strings.HasSuffix(got.Time, "Z") {
		t.Errorf("got %+v", got)
	}

	out.Reset()
	telemetry.NewLogger(&out, slog.LevelInfo, "text").InfoContext(ctx, "ready", slog.Int("port", 3000))
	if got, want := out.String(), `level=INFO msg=ready port=3000`; !strings.Contains(got, want) {
		t.Errorf("got %q, want it to contain %q", got, want)
	}
}

// TestNamesAndLint checks that exactly the contract's names of this release
// are there, and that Prometheus' own linter has nothing to say about them.
func TestNamesAndLint(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := telemetry.NewMetrics(reg, "v1.2.3")
	reg.MustRegister(telemetry.NewStoreCollector(func() (telemetry.Snapshot, error) {
		return telemetry.Snapshot{Backend: "sql"}, nil
	}))
	reg.MustRegister(telemetry.NewSpoolCollector(func() (events, bytes int64) { return 3, 700 }))
	m.EventsReceived.WithLabelValues("postmark").Inc()
	m.Events.WithLabelValues("postmark", "applied").Inc()
	m.WebhooksRejected.WithLabelValues("postmark", "auth").Inc()
	m.Ignored.Inc("postmark", "Inbound")
	m.RetryAttempts.WithLabelValues("applied").Inc()
	m.DeadLetters.WithLabelValues("no_enrollment").Inc()
	m.AuthFailures.WithLabelValues("unknown_key").Inc()
	m.HTTPDuration.WithLabelValues("GET", "/health", "200").Observe(0.01)

	want := []string{
		"events_received_total", "events_total", "events_ignored_total", "webhooks_rejected_total", "orphans", "orphans_due", "orphans_leased",
		"orphan_oldest_age_seconds", "orphans_resolved_total", "orphan_wait_seconds", "retry_batch_events", "retry_attempts_total",
		"dead_letters_stored", "dead_letters_total", "replays_total", "commit_batch_events", "commit_duration_seconds",
		"database_up", "queue_backend", "auth_failures_total", "http_requests_in_flight", "http_request_duration_seconds",
		"build_info", "balance_difference", "spool_events", "spool_bytes", "rate_limited_total", "cors_refused_total",
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, f := range families {
		if name, ours := strings.CutPrefix(f.GetName(), "tallyhook_"); ours {
			got[name] = true
		}
	}
	for _, name := range want {
		if !got[name] {
			t.Errorf("%s is missing", name)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s is not in the contract", name)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestKnownValuesStartAtZero(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := telemetry.NewMetrics(reg, "dev")
	m.OrphansResolved.WithLabelValues("adoption").Inc()
	want := `# HELP tallyhook_orphans_resolved_total Orphans tied to their enrollment, by what did it: adoption, retry, replay, assign.
# TYPE tallyhook_orphans_resolved_total counter
tallyhook_orphans_resolved_total{by="adoption"} 1
tallyhook_orphans_resolved_total{by="assign"} 0
tallyhook_orphans_resolved_total{by="replay"} 0
tallyhook_orphans_resolved_total{by="retry"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "tallyhook_orphans_resolved_total"); err != nil {
		t.Error(err)
	}
}

// TestNamesStayBounded counts by names of others: fifty of each provider, and
// nothing that could be a person's.
func TestNamesStayBounded(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := telemetry.NewMetrics(reg, "dev")
	for _, provider := range []string{"brevo", "instantly"} {
		for i := range 200 {
			for range 2 {
				m.Ignored.Inc(provider, "kind_"+strconv.Itoa(i))
			}
		}
	}
	for _, name := range []string{"", "ada@example.com", "soft bounce", strings.Repeat("x", 65), "n\x00", "Ré"} {
		m.Ignored.Inc("mailtrap", name)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "tallyhook_events_ignored_total" {
			continue
		}
		for _, series := range f.GetMetric() { // kind before provider
			got[series.GetLabel()[1].GetValue()+" "+series.GetLabel()[0].GetValue()] = series.GetCounter().GetValue()
		}
	}
	if len(got) != 2*51+2 {
		t.Errorf("got %d series, want 104", len(got))
	}
	for series, want := range map[string]float64{
		"brevo kind_0": 2, "brevo kind_49": 2, "brevo other": 300, "instantly kind_49": 2, "instantly other": 300, "mailtrap soft bounce": 1, "mailtrap other": 5,
	} {
		if got[series] != want {
			t.Errorf("%s: got %v, want %v", series, got[series], want)
		}
	}
}

func TestStoreCollector(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		snapshot telemetry.Snapshot
		err      error
		want     string
	}{
		"Up": {
			snapshot: telemetry.Snapshot{
				Orphans: map[string]int64{"urgent": 7, "custom": 1}, Due: map[string]int64{"urgent": 2},
				Leased: map[string]int64{"bulk": 3}, OldestAge: map[string]time.Duration{"urgent": 90 * time.Second},
				DeadLetters: map[string]int64{"dead": 4}, BalanceDifference: -1, Backend: "sql",
			},
			want: `
tallyhook_balance_difference -1
tallyhook_database_up 1
tallyhook_dead_letters_stored{status="dead"} 4
tallyhook_dead_letters_stored{status="ignored"} 0
tallyhook_dead_letters_stored{status="replayed"} 0
tallyhook_dead_letters_stored{status="replaying"} 0
tallyhook_orphan_oldest_age_seconds{route="bulk"} 0
tallyhook_orphan_oldest_age_seconds{route="custom"} 0
tallyhook_orphan_oldest_age_seconds{route="standard"} 0
tallyhook_orphan_oldest_age_seconds{route="urgent"} 90
tallyhook_orphans{route="bulk"} 0
tallyhook_orphans{route="custom"} 1
tallyhook_orphans{route="standard"} 0
tallyhook_orphans{route="urgent"} 7
tallyhook_orphans_due{route="bulk"} 0
tallyhook_orphans_due{route="custom"} 0
tallyhook_orphans_due{route="standard"} 0
tallyhook_orphans_due{route="urgent"} 2
tallyhook_orphans_leased{route="bulk"} 3
tallyhook_orphans_leased{route="custom"} 0
tallyhook_orphans_leased{route="standard"} 0
tallyhook_orphans_leased{route="urgent"} 0
tallyhook_queue_backend{backend="sql"} 1
`,
		},
		"Down": {
			snapshot: telemetry.Snapshot{Orphans: map[string]int64{"urgent": 7}, Backend: "sql"},
			err:      errors.New("database is gone"),
			want:     "\ntallyhook_database_up 0\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := prometheus.NewPedanticRegistry()
			reg.MustRegister(telemetry.NewStoreCollector(func() (telemetry.Snapshot, error) { return tc.snapshot, tc.err }))
			code, body, _ := scrape(t, telemetry.Handler(reg), "")
			if code != http.StatusOK {
				t.Fatalf("got status %d: %s", code, body)
			}
			var got strings.Builder
			for line := range strings.Lines(body) {
				if strings.HasPrefix(line, "tallyhook_") {
					got.WriteString(line)
				}
			}
			if want := strings.TrimPrefix(tc.want, "\n"); got.String() != want {
				t.Errorf("got\n%swant\n%s", got.String(), want)
			}
		})
	}
}

func TestSpoolCollector(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	reg.MustRegister(telemetry.NewSpoolCollector(func() (events, bytes int64) { return 3, 700 }))
	want := `# HELP tallyhook_spool_bytes Bytes of the spool's events, overhead included; bounded by SPOOL_MAX_BYTES.
# TYPE tallyhook_spool_bytes gauge
tallyhook_spool_bytes 700
# HELP tallyhook_spool_events Events accepted into the spool that are not in the database yet.
# TYPE tallyhook_spool_events gauge
tallyhook_spool_events 3
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestHandlerFormats(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	telemetry.NewMetrics(reg, "v1.2.3")
	h := telemetry.Handler(reg)
	telemetry.Handler(reg) // a second one, on a listener of its own, is no error

	for name, tc := range map[string]struct{ accept, contentType, end string }{
		"Text":        {"", "text/plain", "\n"},
		"OpenMetrics": {"application/openmetrics-text; version=1.0.0", "application/openmetrics-text", "# EOF\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, body, contentType := scrape(t, h, tc.accept)
			if code != http.StatusOK || !strings.HasPrefix(contentType, tc.contentType) || !strings.HasSuffix(body, tc.end) {
				t.Errorf("got %d, %q, ending in %q", code, contentType, body[max(0, len(body)-40):])
			}
			for _, want := range []string{`version="v1.2.3"} 1`, "go_goroutines", "process_start_time_seconds"} {
				if !strings.Contains(body, want) {
					t.Errorf("got no %s", want)
				}
			}
		})
	}
}

func scrape(tb testing.TB, h http.Handler, accept string) (code int, body, contentType string) {
	tb.Helper()
	req := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, "/metrics", http.NoBody)
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec.Code, rec.Body.String(), rec.Header().Get("Content-Type")
}
