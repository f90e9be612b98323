package orphan

import (
	"context"
	"time"

	"tallyhook/internal/store"
)

// Index is a queue beside the database: numbers, due times and leases, quick to
// claim from. It may be away, and it may forget; the database is the truth.
// Errors are of kind Unavailable and say nothing about an event.
type Index interface {
	// State tells, without asking anybody, whether the index is there and whole.
	State() store.QueueState
	Park(ctx context.Context, parked []store.Parked) error
	// Claim gives with the claim how long it is until there is more; negative
	// when nothing waits.
	Claim(ctx context.Context, n int, lease time.Duration) (claim store.Claim, next time.Duration, err error)
	Settle(ctx context.Context, claim store.Claim, done []store.Claimed, again []store.Parked) error
	Remove(ctx context.Context, gone []store.Claimed) error
	BeginRebuild(ctx context.Context, generation string) error
	FinishRebuild(ctx context.Context, generation string) (ok bool, err error)
	Safety(ctx context.Context) ([]store.Finding, error)
}

// failedDelay is how long an event waits that failed alone for a reason of its
// own; the store hides it as long.
const failedDelay = time.Minute

// claimIndexed is a turn of the loop that claims from the index.
func (w *Worker) claimIndexed(ctx context.Context) (time.Duration, error) {
	if !w.opt.Index.State().Up {
		return pollFloor, nil
	}
	// While the database is known to be down nothing is claimed.
	if w.storeDown.Load() {
		if _, _, err := w.queue.NextDue(ctx); err != nil {
			return 0, err
		}
	}
	// A claim whose answer is not waited for would hold its events for nothing.
	work := context.WithoutCancel(ctx)
	claim, next, err := w.opt.Index.Claim(work, w.opt.Batch, w.opt.Lease)
	if err != nil {
		return pollFloor, nil //nolint:nilerr // the index says itself when it is down, and the other loop takes over
	}
	if len(claim.Events) == 0 {
		if next < 0 {
			return pollCeiling, nil
		}
		return min(max(next, pollFloor), pollCeiling), nil
	}
	if ctx.Err() != nil { // told to stop meanwhile
		return 0, w.settleIndexed(work, claim, &tally{left: claim.Events})
	}
	w.opt.Metrics.RetryBatch.Observe(float64(len(claim.Events)))
	t := &tally{}
	err = w.retry(work, claim, t)
	if serr := w.settleIndexed(work, claim, t); serr != nil {
		w.opt.Logger.WarnContext(ctx, "claim not settled in the index, its lease will run out", errorAttr(serr))
	}
	return 0, err
}

// settleIndexed tells the index what became of a claim: what is over is taken
// out, what waits again waits as long as the store says, and what could not be
// tried is given back. What the store did not touch is either no orphan any
// more, or another claimer's attempt put it off: the store is asked which.
func (w *Worker) settleIndexed(ctx context.Context, claim store.Claim, t *tally) error {
	now := w.opt.Now()
	settled := map[int64]store.Result{}
	for _, r := range t.results {
		settled[r.Seq] = r
	}
	left, failed := numbers(t.left), numbers(t.failed)
	var done, unknown []store.Claimed
	var again []store.Parked
	for _, e := range claim.Events {
		r, ok := settled[e.Seq]
		switch {
		case ok && waits(r):
			again = append(again, parked(e, r.NextAttemptAt.Sub(now)))
		case ok:
			done = append(done, e)
		case left[e.Seq]:
			again = append(again, parked(e, 0))
		case failed[e.Seq]:
			again = append(again, parked(e, failedDelay))
		default:
			unknown = append(unknown, e)
		}
	}
	waiting, err := w.stillWaiting(ctx, unknown)
	for _, e := range unknown {
		if delay, ok := waiting[e.Seq]; ok {
			again = append(again, parked(e, delay))
		} else if err == nil {
			done = append(done, e)
		}
	}
	if serr := w.opt.Index.Settle(ctx, claim, done, again); serr != nil {
		return serr
	}
	return err
}

// stillWaiting finds which events are orphans still, and until when. It needs
// one query for numbers that lie together, at worst one for each.
func (w *Worker) stillWaiting(ctx context.Context, events []store.Claimed) (map[int64]time.Duration, error) {
	waiting := map[int64]time.Duration{}
	seqs := sortedSeqs(events)
	for len(seqs) > 0 {
		page, err := w.queue.Orphans(ctx, seqs[0]-1, len(seqs))
		if err != nil {
			return waiting, err
		}
		if len(page) == 0 {
			return waiting, nil // no orphan has so high a number
		}
		for _, p := range page {
			waiting[p.Seq] = p.Delay
		}
		for last := page[len(page)-1].Seq; len(seqs) > 0 && seqs[0] <= last; {
			seqs = seqs[1:]
		}
	}
	return waiting, nil
}
