package orphan

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/telemetry"
)

// Queue is what the worker needs of the retry schedule and the processor
// behind it.
type Queue interface {
	Claim(ctx context.Context, n int, lease, overdue time.Duration) (store.Claim, error)
	Retry(ctx context.Context, claim store.Claim) ([]store.Result, error)
	Failed(ctx context.Context, claim store.Claim, detail string) ([]store.Result, error)
	Release(ctx context.Context, claim store.Claim) error
	NextDue(ctx context.Context) (due time.Time, ok bool, err error)
	AdoptNext(ctx context.Context, n int) (more bool, err error)
}

// Options of the worker.
type Options struct {
	Batch   int           // orphans in one claim
	Lease   time.Duration // at least three times the store's deadline
	Now     func() time.Time
	Logger  *slog.Logger
	Metrics *telemetry.Metrics
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
}

// Start starts a worker; Stop ends it.
func Start(q Queue, o Options) *Worker {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Worker{queue: q, opt: o, stop: cancel}
	w.finish.Go(func() { w.loop(ctx, "retry orphans", w.retry) })
	w.finish.Go(func() { w.loop(ctx, "adopt", w.adopt) })
	return w
}

// Stop claims no more, settles what is claimed, and returns when both loops
// have ended.
func (w *Worker) Stop() {
	w.stop()
	w.finish.Wait()
}

// loop runs step back to back while it has more to do, else at the poll rate,
// and backs off while the store is away.
func (w *Worker) loop(ctx context.Context, op string, step func(context.Context) (wait time.Duration, err error)) {
	failures := 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		wait, err := step(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			wait = min(pollFloor<<min(failures, 5), 5*time.Second)
			w.opt.Logger.ErrorContext(ctx, "worker step failed", slog.String("op", op), slog.Any("error", err), slog.Duration("retry_in", wait))
		default:
			failures = 0
		}
		timer.Reset(wait)
	}
}

func (w *Worker) retry(ctx context.Context) (time.Duration, error) {
	claim, err := w.queue.Claim(ctx, w.opt.Batch, w.opt.Lease, 0)
	if err != nil {
		return 0, err
	}
	if len(claim.Events) == 0 {
		return w.untilDue(ctx)
	}
	// What is claimed is settled even when the worker is told to stop now.
	work := context.WithoutCancel(ctx)
	w.opt.Metrics.RetryBatch.Observe(float64(len(claim.Events)))
	if err := w.settle(work, claim); err != nil {
		// No attempt is spent: the orphans are given back as they were.
		if rerr := w.queue.Release(work, claim); rerr != nil {
			w.opt.Logger.WarnContext(ctx, "claim not released, its lease will run out", slog.Any("error", rerr))
		}
		return 0, err
	}
	return 0, nil
}

// settle retries a claim; when the store refuses the data of one orphan, the
// claim is halved until that one is alone.
func (w *Worker) settle(ctx context.Context, claim store.Claim) error {
	results, err := w.queue.Retry(ctx, claim)
	if err != nil && !fault.Is(err, fault.Data) {
		return err
	}
	if err != nil && len(claim.Events) == 1 {
		results, err = w.queue.Failed(ctx, claim, "the database refuses this event")
		if err != nil {
			return err
		}
	} else if err != nil {
		half := len(claim.Events) / 2
		// One half that cannot be settled must not keep the other waiting.
		var errs []error
		for _, part := range [][]store.Claimed{claim.Events[:half], claim.Events[half:]} {
			errs = append(errs, w.settle(ctx, store.Claim{Token: claim.Token, Events: part}))
		}
		return errors.Join(errs...)
	}
	for _, r := range results {
		w.opt.Metrics.RetryAttempts.WithLabelValues(string(r.Outcome)).Inc()
		switch r.Outcome {
		case event.OutcomeApplied:
			w.opt.Metrics.OrphansResolved.WithLabelValues(r.By).Inc()
			w.opt.Metrics.OrphanWait.Observe(r.Waited.Seconds())
		case event.OutcomeDead:
			w.opt.Metrics.DeadLetters.WithLabelValues(r.Reason).Inc()
		case event.OutcomeOrphaned, event.OutcomeDuplicate, event.OutcomeIgnored:
		}
	}
	return nil
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
