package orphan

import (
	"context"
	"errors"
	"slices"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// tally is what became of a claim's events. One that is nowhere in it is not
// the claim's any more, or was not due.
type tally struct {
	results []store.Result
	failed  []store.Claimed // alone, for a reason of their own, and not buried yet
	left    []store.Claimed // not tried: the store is away
}

// retry runs a claim through the processor; when the store refuses the data of
// one orphan, the claim is halved until that one is alone.
func (w *Worker) retry(ctx context.Context, claim store.Claim, t *tally) error {
	results, err := w.queue.Retry(ctx, claim)
	if refused := fault.Is(err, fault.Data); err != nil && refused && len(claim.Events) > 1 {
		half := len(claim.Events) / 2
		// One half that cannot be settled must not keep the other waiting.
		var errs []error
		for _, part := range [][]store.Claimed{claim.Events[:half], claim.Events[half:]} {
			errs = append(errs, w.retry(ctx, store.Claim{Token: claim.Token, External: claim.External, Events: part}, t))
		}
		return errors.Join(errs...)
	} else if refused {
		results, err = w.queue.Failed(ctx, claim, "the database refuses this event")
		if err == nil && len(results) == 0 {
			t.failed = append(t.failed, claim.Events...)
		}
	}
	w.storeDown.Store(err != nil)
	if err != nil {
		t.left = append(t.left, claim.Events...)
		return err
	}
	t.results = append(t.results, results...)
	w.count(results)
	return nil
}

func (w *Worker) count(results []store.Result) {
	for _, r := range results {
		w.opt.Metrics.RetryAttempts.WithLabelValues(string(r.Outcome)).Inc()
		switch r.Outcome {
		case event.OutcomeApplied:
			w.opt.Metrics.OrphansResolved.WithLabelValues(r.By).Inc()
			w.opt.Metrics.OrphanWait.Observe(r.Waited.Seconds())
		case event.OutcomeDead:
			w.opt.Metrics.DeadLetters.WithLabelValues(r.Reason).Inc()
		case event.OutcomeOrphaned, event.OutcomeDuplicate, event.OutcomeIgnored, event.OutcomeSpooled:
		}
	}
}

// waits tells whether an event waits again after its attempt.
func waits(r store.Result) bool { return r.State == event.Orphaned }

func parked(e store.Claimed, delay time.Duration) store.Parked {
	return store.Parked{Seq: e.Seq, Tenant: e.Tenant, Route: e.Route, Delay: max(0, delay)}
}

func numbers(events []store.Claimed) map[int64]bool {
	set := make(map[int64]bool, len(events))
	for _, e := range events {
		set[e.Seq] = true
	}
	return set
}

func sortedSeqs(events []store.Claimed) []int64 {
	seqs := make([]int64, len(events))
	for i, e := range events {
		seqs[i] = e.Seq
	}
	slices.Sort(seqs)
	return seqs
}
