package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/httpapi"
	"tallyhook/internal/orphan"
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
	backend := orphan.BackendSQL
	queue := map[string]any{"status": "up"}
	if w := a.worker.Load(); w != nil {
		st := w.Status()
		backend = st.Backend
		if st.Rebuilding {
			queue["rebuilding"] = true
		}
	}
	queue["backend"] = backend
	database := map[string]any{"status": "up", "engine": a.store.name}
	h := httpapi.HealthReport{Status: "healthy", Version: a.version, Components: map[string]map[string]any{"database": database, "queue": queue}}
	var degraded bool
	if h.Components["redis"], degraded = a.redisHealth(); degraded {
		h.Status = "degraded"
	}
	if a.spool != nil {
		st := a.spool.Stats()
		database["spool"] = map[string]any{"events": st.Events, "bytes": st.Bytes, "max_bytes": a.cfg.SpoolMaxBytes, "set_aside": st.Aside}
		if st.Events > 0 && h.Status == "healthy" {
			h.Status = "degraded"
			database["status"], database["detail"] = "degraded", "events wait in the spool and are being replayed"
		}
	}
	if a.cfg.RetentionEvents > 0 {
		database["retention"] = a.retentionHealth()
	}
	start := time.Now()
	if err := a.store.Ping(ctx); err != nil {
		h.Status = "unhealthy"
		database["status"] = "down"
		database["detail"] = "the database does not answer; nothing is accepted until it does"
		if a.spool != nil {
			database["detail"] = "the database does not answer; events are accepted into the spool, everything else is refused until it does"
		}
		queue["status"], queue["detail"] = "down", "nothing is retried while the database is away"
		return h
	}
	if since, _, ok := a.store.refusing(); !ok {
		h.Status = "unhealthy"
		database["status"], database["since"] = "down", since.UTC().Format(time.RFC3339)
		database["detail"] = "the database can be read but refuses writes (a full disk, a lock held by another program): nothing is accepted; see the log"
		if a.spool != nil {
			database["detail"] = "the database can be read but refuses writes (a full disk, a lock held by another program): events are accepted into the spool; see the log"
		}
		queue["status"], queue["detail"] = "degraded", "it can be read; nothing is retried until the database takes writes"
		return h
	}
	if a.committer.Away() {
		h.Status = "unhealthy"
		database["status"], database["detail"] = "down", "the database answers, but the last commits have failed: events are accepted into the spool; see the log"
		return h
	}
	database["latency_ms"] = float64(time.Since(start).Microseconds()) / 1000
	depth, oldest, err := a.store.QueueDepth(ctx)
	if err != nil {
		h.Status = "degraded"
		queue["status"], queue["detail"] = "degraded", "its depth cannot be read"
		return h
	}
	queue["depth"] = depth
	if !oldest.IsZero() {
		queue["oldest_age_seconds"] = int64(time.Since(oldest).Seconds())
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
		DeadLetters: map[string]int64{}, Backend: orphan.BackendSQL,
	}
	if w := a.worker.Load(); w != nil {
		s.Backend = w.Backend()
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
	if s.KeyExpiry, err = a.store.NextKeyExpiry(ctx); err != nil {
		return s, err
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
