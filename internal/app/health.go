package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/httpapi"
	"tallyhook/internal/telemetry"
)

const (
	probeTimeout = 2 * time.Second // of one look at the store
	countTimeout = 4 * time.Second // of counting its gauges
)

// Ready tells whether the server takes requests.
func (a *App) Ready() bool { return a.ready.Load() }

// Health looks at each component: O(1), and it changes nothing.
func (a *App) Health(ctx context.Context) httpapi.HealthReport {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	h := httpapi.HealthReport{Status: "healthy", Version: a.version, Components: map[string]map[string]any{
		"database": {"status": "up", "engine": a.store.name},
		"redis":    {"status": "disabled", "detail": "no REDIS_URL is set; the queue is in the database"},
		"queue":    {"status": "up", "backend": "sql"},
	}}
	start := time.Now()
	if err := a.store.Ping(ctx); err != nil {
		h.Status = "unhealthy"
		h.Components["database"] = map[string]any{"status": "down", "engine": a.store.name, "detail": "the database does not answer; nothing is accepted until it does"}
		h.Components["queue"] = map[string]any{"status": "down", "backend": "sql", "detail": "the queue is in the database"}
		return h
	}
	if since, _, ok := a.store.refusing(); !ok {
		h.Status = "unhealthy"
		h.Components["database"] = map[string]any{
			"status": "down", "engine": a.store.name, "since": since.UTC().Format(time.RFC3339),
			"detail": "the database can be read but refuses writes (a full disk, a lock held by another program): nothing is accepted; see the log",
		}
		h.Components["queue"]["status"], h.Components["queue"]["detail"] = "degraded", "it can be read; nothing is retried until the database takes writes"
		return h
	}
	h.Components["database"]["latency_ms"] = float64(time.Since(start).Microseconds()) / 1000
	depth, oldest, err := a.store.QueueDepth(ctx)
	if err != nil {
		h.Status = "degraded"
		h.Components["queue"] = map[string]any{"status": "degraded", "backend": "sql", "detail": "its depth cannot be read"}
		return h
	}
	q := h.Components["queue"]
	q["depth"] = depth
	if !oldest.IsZero() {
		q["oldest_age_seconds"] = int64(time.Since(oldest).Seconds())
	}
	return h
}

const snapshotAge = 5 * time.Second // how old the gauges of a scrape may be

// snapshots keeps the last one, so that scrapes cost the store one count in
// snapshotAge, however many come.
type snapshots struct {
	mu   sync.Mutex
	last telemetry.Snapshot
	at   time.Time
}

func (a *App) snapshot() (telemetry.Snapshot, error) {
	a.gauges.mu.Lock()
	defer a.gauges.mu.Unlock()
	if !a.gauges.at.IsZero() && time.Since(a.gauges.at) < snapshotAge {
		return a.gauges.last, nil
	}
	if err := a.probe(); err != nil {
		return a.gauges.last, err
	}
	s, err := a.readSnapshot()
	if err != nil {
		// The database is up; counting a great many took too long. The last
		// figures are better than none, and are not asked for again at once.
		a.log.Warn("gauges not counted, the last ones are shown", slog.Any("error", err))
		s = a.gauges.last
	}
	a.gauges.last, a.gauges.at = s, time.Now()
	return s, nil
}

// probe tells whether the database answers and takes writes.
func (a *App) probe() error {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	if _, err, ok := a.store.refusing(); !ok {
		return err
	}
	return a.store.Ping(ctx)
}

// readSnapshot counts what the store's gauges show.
func (a *App) readSnapshot() (telemetry.Snapshot, error) {
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	s := telemetry.Snapshot{
		Orphans: map[string]int64{}, Due: map[string]int64{}, Leased: map[string]int64{}, OldestAge: map[string]time.Duration{},
		DeadLetters: map[string]int64{}, Backend: "sql",
	}
	routes, err := a.store.QueueStats(ctx)
	if err != nil {
		return s, err
	}
	for _, r := range event.Routes() {
		st := routes[r]
		s.Orphans[string(r)], s.Due[string(r)], s.Leased[string(r)] = st.Depth, st.Due, st.Leased
		if !st.OldestAt.IsZero() {
			s.OldestAge[string(r)] = time.Since(st.OldestAt)
		}
	}
	letters, err := a.store.LetterCounts(ctx)
	if err != nil {
		return s, err
	}
	for status, n := range letters {
		s.DeadLetters[string(status)] = n
	}
	ledgers, err := a.store.Ledgers(ctx)
	if err != nil {
		return s, err
	}
	for _, l := range ledgers {
		if d := l.Difference(); d < 0 {
			s.BalanceDifference -= d
		} else {
			s.BalanceDifference += d
		}
	}
	return s, nil
}
