package orphan

import (
	"context"
	"log/slog"
	"sync"

	"tallyhook/internal/store"
)

const parkBatch = 1000 // orphans parked in one call

// buffer holds what is to be told to the index. It is bounded, and what it
// cannot take is only noted: the rebuild that follows repairs it.
type buffer struct {
	mu      sync.Mutex
	max     int
	parked  []store.Parked
	gone    []store.Claimed
	lost    bool          // something was dropped since the last rebuild began
	dropped int64         // since the start
	filled  chan struct{} // there is something
}

// open makes the buffer ready. What was committed before is unknown to the
// index until it is rebuilt.
func (b *buffer) open(size int) { b.max, b.lost, b.filled = size, true, make(chan struct{}, 1) }

// add takes in what there is room for.
func (b *buffer) add(parked []store.Parked, gone []store.Claimed) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.parked)+len(parked) > b.max {
		b.lose(len(parked))
	} else {
		b.parked = append(b.parked, parked...)
	}
	// What stays in the index though it is gone is dropped by the next claim.
	if len(b.gone)+len(gone) <= b.max {
		b.gone = append(b.gone, gone...)
	}
	select {
	case b.filled <- struct{}{}:
	default:
	}
}

func (b *buffer) lose(n int) {
	b.lost = b.lost || n > 0
	b.dropped += int64(n)
}

// take empties the buffer.
func (b *buffer) take() ([]store.Parked, []store.Claimed) {
	b.mu.Lock()
	defer b.mu.Unlock()
	parked, gone := b.parked, b.gone
	b.parked, b.gone = nil, nil
	return parked, gone
}

// begin forgets what was lost: a rebuild that begins now repairs it.
func (b *buffer) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost = false
}

// doubt notes that the index may lack something.
func (b *buffer) doubt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost = true
}

// miss notes that the index lacks some orphans.
func (b *buffer) miss(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lose(n)
}

func (b *buffer) losses() (lost bool, dropped int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lost, b.dropped
}

// Park tells the worker of events that have come to wait, so that it parks
// them in the index, and is not asleep when they are due. It never waits, and
// may be called from anywhere.
func (w *Worker) Park(parked []store.Parked) {
	w.tell(parked, nil)
	if w.Backend() != BackendRedis { // else the index has them first
		w.soon(parked)
	}
}

// Gone tells the worker of events that wait no longer, for example because
// they were adopted. It never waits. Who is not told of is found out when its
// turn comes.
func (w *Worker) Gone(gone []store.Claimed) {
	w.tell(nil, gone)
}

func (w *Worker) tell(parked []store.Parked, gone []store.Claimed) {
	switch {
	case w.opt.Index == nil || len(parked)+len(gone) == 0:
	case w.opt.Index.State().Up:
		w.buffer.add(parked, gone)
	default:
		w.buffer.miss(len(parked)) // the rebuild that follows finds them
	}
}

// parkAgain tells the index of what the database's own claim left waiting.
func (w *Worker) parkAgain(claim store.Claim, t *tally) {
	if w.opt.Index == nil {
		return
	}
	now := w.opt.Now()
	of := make(map[int64]store.Claimed, len(claim.Events))
	for _, e := range claim.Events {
		of[e.Seq] = e
	}
	var again []store.Parked
	var gone []store.Claimed
	for _, r := range t.results {
		if e := of[r.Seq]; waits(r) {
			again = append(again, parked(e, r.NextAttemptAt.Sub(now)))
		} else {
			gone = append(gone, e)
		}
	}
	w.tell(again, gone)
}

// park empties the buffer into the index until the worker stops.
func (w *Worker) park(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.buffer.filled:
			w.flush(context.WithoutCancel(ctx))
		}
	}
}

func (w *Worker) flush(ctx context.Context) {
	parked, gone := w.buffer.take()
	for len(parked) > 0 {
		n := min(parkBatch, len(parked))
		err := w.opt.Index.Park(ctx, parked[:n])
		if err != nil && w.opt.Index.State().Up { // one connection was cut: not worth a rebuild
			err = w.opt.Index.Park(ctx, parked[:n])
		}
		if err != nil {
			w.buffer.miss(len(parked))
			if w.opt.Index.State().Up { // else that is known
				w.opt.Logger.WarnContext(ctx, "orphans not parked in the index, it will be rebuilt", slog.Int("events", len(parked)), errorAttr(err))
			}
			break
		}
		w.soon(parked[:n])
		parked = parked[n:]
	}
	if len(gone) == 0 {
		return
	}
	if err := w.opt.Index.Remove(ctx, gone); err != nil && w.opt.Index.State().Up {
		w.opt.Logger.WarnContext(ctx, "settled events not taken out of the index, a claim will", slog.Int("events", len(gone)), errorAttr(err))
	}
}
