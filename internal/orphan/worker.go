package orphan

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"tallyhook/internal/store"
	"tallyhook/internal/telemetry"
)

// Queue is what the worker needs of the retry schedule and the processor
// behind it.
type Queue interface {
	// Claim takes only what has been claimable for overdue.
	Claim(ctx context.Context, n int, lease, overdue time.Duration) (store.Claim, error)
	Retry(ctx context.Context, claim store.Claim) ([]store.Result, error)
	Failed(ctx context.Context, claim store.Claim, detail string) ([]store.Result, error)
	Release(ctx context.Context, claim store.Claim) error
	Orphans(ctx context.Context, after int64, n int) ([]store.Parked, error)
	NextDue(ctx context.Context) (due time.Time, ok bool, err error)
	AdoptNext(ctx context.Context, n int) (more bool, err error)
}

// Options of the worker; zero durations and Buffer take the defaults.
type Options struct {
	Batch   int           // orphans in one claim
	Lease   time.Duration // at least three times the store's deadline
	Now     func() time.Time
	Logger  *slog.Logger
	Metrics *telemetry.Metrics

	// Index is a queue beside the database to claim from; nil: there is none,
	// and the database's own schedule is worked.
	Index Index
	// Sweep is how often the database is asked for what is overdue while the
	// index is worked, 10 s.
	Sweep time.Duration
	// Grace is how long something has to be overdue before the sweep takes it
	// from under the index, 30 s.
	Grace time.Duration
	// Due is called when events were parked that are due before the other
	// replicas look next. It must not wait. nil: there are no others.
	Due func()
	// Buffer is how many new orphans may wait to be parked in the index, 20,000;
	// more cost a rebuild.
	Buffer int
}

const (
	pollFloor   = 250 * time.Millisecond // never poll more often when idle
	pollCeiling = time.Second            // never sleep longer: signals can be lost
	adoptBatch  = 250                    // events of a large adoption in one turn of the writer
)

// Worker retries due orphans and continues large adoptions.
type Worker struct {
	queue  Queue
	opt    Options
	stop   context.CancelFunc
	finish sync.WaitGroup

	storeDown atomic.Bool // the last look at the database failed
	bells     struct{ adopt, stored, indexed *bell }
	buffer    buffer
	status    status
}

// Start starts a worker; Stop ends it.
func Start(q Queue, o Options) *Worker {
	o.Sweep, o.Grace, o.Buffer = cmp.Or(o.Sweep, 10*time.Second), cmp.Or(o.Grace, 30*time.Second), cmp.Or(o.Buffer, 20_000)
	ctx, cancel := context.WithCancel(context.Background())
	w := &Worker{queue: q, opt: o, stop: cancel}
	w.bells.adopt, w.bells.stored, w.bells.indexed = newBell(), newBell(), newBell()
	w.status.backend = BackendSQL
	w.finish.Go(func() { w.loop(ctx, "adopt", w.bells.adopt, w.adopt) })
	if o.Index != nil {
		w.status.backend = BackendFallback
		w.buffer.open(o.Buffer)
		w.finish.Go(func() { w.watch(ctx) })
		w.finish.Go(func() { w.park(ctx) })
		w.finish.Go(func() { w.loop(ctx, "retry orphans of the index", w.bells.indexed, w.claimIndexed) })
	}
	w.finish.Go(func() { w.loop(ctx, "retry orphans", w.bells.stored, w.claimStored) })
	return w
}

// Stop claims no more, settles what is claimed, parks what waits to be parked,
// and returns when every loop has ended.
func (w *Worker) Stop() {
	w.stop()
	w.finish.Wait()
	if w.opt.Index != nil {
		w.flush(context.Background())
	}
}

// loop runs step back to back while it has more to do, else at the poll rate
// or when woken, and backs off while the store is away.
func (w *Worker) loop(ctx context.Context, op string, bell *bell, step func(context.Context) (wait time.Duration, err error)) {
	failures := 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-bell.rung:
		}
		wait, err := step(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			wait = min(pollFloor<<min(failures, 5), 5*time.Second)
			w.opt.Logger.ErrorContext(ctx, "worker step failed", slog.String("op", op), errorAttr(err), slog.Duration("retry_in", wait))
		default:
			failures = 0
		}
		bell.sleep(wait)
		timer.Reset(wait)
	}
}

func errorAttr(err error) slog.Attr { return slog.Any("error", err) }

// claimStored is a turn of the loop that claims from the database: whatever is
// due, or while the index is worked, only what is overdue, which the index must
// have lost.
func (w *Worker) claimStored(ctx context.Context) (time.Duration, error) {
	indexed := w.Backend() == BackendRedis
	overdue := time.Duration(0)
	if indexed {
		overdue = w.opt.Grace
	}
	claim, err := w.queue.Claim(ctx, w.opt.Batch, w.opt.Lease, overdue)
	w.storeDown.Store(err != nil && ctx.Err() == nil)
	switch {
	case err != nil:
		return 0, err
	case len(claim.Events) > 0:
	case indexed:
		return w.opt.Sweep, nil
	default:
		return w.untilDue(ctx)
	}
	// What is claimed is settled even when the worker is told to stop now.
	work := context.WithoutCancel(ctx)
	w.opt.Metrics.RetryBatch.Observe(float64(len(claim.Events)))
	t := &tally{}
	if err = w.retry(work, claim, t); err != nil {
		// No attempt is spent: the orphans are given back as they were.
		if rerr := w.queue.Release(work, claim); rerr != nil {
			w.opt.Logger.WarnContext(ctx, "claim not released, its lease will run out", errorAttr(rerr))
		}
	}
	w.parkAgain(claim, t)
	return 0, err
}

func (w *Worker) untilDue(ctx context.Context) (time.Duration, error) {
	due, ok, err := w.queue.NextDue(ctx)
	if err != nil || !ok {
		return pollCeiling, err
	}
	return min(max(due.Sub(w.opt.Now()), pollFloor), pollCeiling), nil
}

func (w *Worker) adopt(ctx context.Context) (time.Duration, error) {
	more, err := w.queue.AdoptNext(context.WithoutCancel(ctx), adoptBatch)
	if more {
		return 0, err
	}
	return pollFloor, err
}
