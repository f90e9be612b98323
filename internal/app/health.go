package app

import (
	"context"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/httpapi"
	"tallyhook/internal/telemetry"
)

const probeTimeout = 2 * time.Second // of one look at the store

// Ready tells whether the server takes requests.
func (a *App) Ready() bool { return a.ready.Load() }

// Health looks at each component: O(1), and it changes nothing.
func (a *App) Health(ctx context.Context) httpapi.HealthReport {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	h := httpapi.HealthReport{Status: "healthy", Version: a.version, Components: map[string]map[string]any{
		"database": {"status": "up", "engine": "sqlite"},
		"redis":    {"status": "disabled", "detail": "no REDIS_URL is set; the queue is in the database"},
		"queue":    {"status": "up", "backend": "sql"},
	}}
	start := time.Now()
	if err := a.store.Ping(ctx); err != nil {
		h.Status = "unhealthy"
		h.Components["database"] = map[string]any{"status": "down", "engine": "sqlite", "detail": "the database does not answer; nothing is accepted until it does"}
		h.Components["queue"] = map[string]any{"status": "down", "backend": "sql", "detail": "the queue is in the database"}
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

// snapshot is what the store's gauges show at a scrape.
func (a *App) snapshot() (telemetry.Snapshot, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
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
