package orphan

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/store"
)

// Backends of the queue.
const (
	BackendSQL      = "sql"          // no index is configured
	BackendRedis    = "redis"        // the index is worked
	BackendFallback = "sql-fallback" // the index is away, or being rebuilt
)

const (
	watchEvery  = 100 * time.Millisecond
	safetyEvery = time.Minute     // between two looks at the index's settings
	rebuildPage = 1000            // orphans read and parked at once
	rebuildWait = 5 * time.Second // after a rebuild that failed, at most
)

// status is what Status tells, kept by the watch.
type status struct {
	mu         sync.Mutex
	backend    string
	rebuilding bool
	rebuilt    time.Time
	parked     int64
	findings   []store.Finding
	looked     time.Time // at the settings; also when they could not be read
}

// Status is how the queue stands. It is known without asking anybody.
type Status struct {
	Backend    string           // one of the Backend constants
	Index      store.QueueState // zero when none is configured
	Rebuilding bool
	RebuiltAt  time.Time       // zero: not since the start
	Parked     int64           // orphans that the last rebuild read
	Dropped    int64           // orphans that could not be parked at once, since the start; rebuilds made up for them
	Findings   []store.Finding // of the last look at the index's settings, once a minute
	LookedAt   time.Time       // when that was; zero: never
}

// Status tells how the queue stands.
func (w *Worker) Status() Status {
	w.status.mu.Lock()
	s := Status{
		Backend: w.status.backend, Rebuilding: w.status.rebuilding, RebuiltAt: w.status.rebuilt,
		Parked: w.status.parked, Findings: w.status.findings, LookedAt: w.status.looked,
	}
	w.status.mu.Unlock()
	if w.opt.Index != nil {
		s.Index = w.opt.Index.State()
		_, s.Dropped = w.buffer.losses()
	}
	return s
}

// Backend is where the queue is worked now.
func (w *Worker) Backend() string {
	w.status.mu.Lock()
	defer w.status.mu.Unlock()
	return w.status.backend
}

// watch sees to it that the index is worked while it is there and whole, and
// the database otherwise, and rebuilds the index when it may lack something.
func (w *Worker) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var again time.Time // no rebuild before
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		st := w.opt.Index.State()
		lost, _ := w.buffer.losses()
		if st.Up && st.Whole && !lost {
			w.work(ctx, BackendRedis, "")
			w.look(ctx)
			continue
		}
		reason := st.Reason
		if st.Up {
			reason = "it may lack orphans"
		}
		w.work(ctx, BackendFallback, reason)
		if st.Up && !time.Now().Before(again) {
			w.look(ctx)
			if w.rebuild(ctx) {
				failures = 0
			} else {
				failures++
				again = time.Now().Add(min(pollFloor<<min(failures, 5), rebuildWait))
			}
		}
	}
}

// work notes where the queue is worked, and wakes the claimer of the database
// when that is its own again.
func (w *Worker) work(ctx context.Context, backend, reason string) {
	w.status.mu.Lock()
	was := w.status.backend
	w.status.backend = backend
	w.status.mu.Unlock()
	if was == backend {
		return
	}
	w.opt.Logger.InfoContext(ctx, "queue backend changed", slog.String("from", was), slog.String("to", backend), slog.String("reason", reason))
	w.bells.stored.ring()
}

// rebuild parks every orphan that the database has, while the queue is worked.
// Parking is idempotent, so what is parked or settled meanwhile does no harm.
func (w *Worker) rebuild(ctx context.Context) (ok bool) {
	w.setRebuilding(true)
	defer w.setRebuilding(false)
	start := time.Now()
	w.buffer.begin()
	n, err := w.parkAll(ctx)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		w.buffer.doubt()
		w.opt.Logger.WarnContext(ctx, "index not rebuilt", slog.Int64("parked", n), errorAttr(err))
		return false
	}
	w.status.mu.Lock()
	w.status.rebuilt, w.status.parked = w.opt.Now(), n
	w.status.mu.Unlock()
	w.opt.Logger.InfoContext(ctx, "index rebuilt", slog.Int64("parked", n), slog.Duration("took", time.Since(start)))
	return true
}

func (w *Worker) setRebuilding(on bool) {
	w.status.mu.Lock()
	defer w.status.mu.Unlock()
	w.status.rebuilding = on
}

func (w *Worker) parkAll(ctx context.Context) (n int64, err error) {
	generation := uuid.NewString()
	if err := w.opt.Index.BeginRebuild(ctx, generation); err != nil {
		return 0, err
	}
	for after := int64(0); ; {
		page, err := w.queue.Orphans(ctx, after, rebuildPage)
		if err != nil {
			return n, err
		}
		if len(page) == 0 {
			break
		}
		if err := w.opt.Index.Park(ctx, page); err != nil {
			return n, err
		}
		n += int64(len(page))
		after = page[len(page)-1].Seq
	}
	ok, err := w.opt.Index.FinishRebuild(ctx, generation)
	if err == nil && !ok {
		err = errors.New("it lost something meanwhile, or another process rebuilt it too")
	}
	return n, err
}

// look asks for the index's settings, once in a while.
func (w *Worker) look(ctx context.Context) {
	w.status.mu.Lock()
	due := time.Since(w.status.looked) >= safetyEvery
	w.status.mu.Unlock()
	if !due {
		return
	}
	looked := time.Now()
	findings, err := w.opt.Index.Safety(ctx)
	if err != nil { // that it is away shows in its state
		looked, findings = looked.Add(rebuildWait-safetyEvery), nil
	}
	for _, f := range findings {
		w.opt.Logger.WarnContext(ctx, "the index is not safe", slog.String("what", f.What), slog.String("is", f.Is), slog.String("want", f.Want))
	}
	w.status.mu.Lock()
	defer w.status.mu.Unlock()
	w.status.looked = looked
	if err == nil {
		w.status.findings = findings
	}
}
