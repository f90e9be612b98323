package orphan

import (
	"slices"
	"sync/atomic"
	"time"

	"tallyhook/internal/store"
)

// bell wakes a loop that is asleep until its next look.
type bell struct {
	rung chan struct{}
	next atomic.Int64 // when the loop looks next by itself, in ns since 1970
}

func newBell() *bell { return &bell{rung: make(chan struct{}, 1)} }

// ring has the loop look as soon as it has ended what it is at. It never waits.
func (b *bell) ring() {
	select {
	case b.rung <- struct{}{}:
	default: // it rings already
	}
}

// sleep notes how long the loop sleeps.
func (b *bell) sleep(d time.Duration) { b.next.Store(time.Now().Add(d).UnixNano()) }

// asleep tells whether the loop sleeps for longer than d.
func (b *bell) asleep(d time.Duration) bool { return b.next.Load() > time.Now().Add(d).UnixNano() }

// Wake has every loop look now for what there is to do: another replica has
// said that there is something. It never waits, and may be called from anywhere.
func (w *Worker) Wake() {
	w.bells.adopt.ring()
	w.bells.stored.ring()
	w.bells.indexed.ring()
}

// soon wakes the loops, here and on other replicas, when an event is due before
// they look next: whoever looks sees until when to sleep. A loop is not woken
// more often than it may poll. What is due later is looked for in time anyway.
func (w *Worker) soon(parked []store.Parked) {
	if len(parked) == 0 {
		return
	}
	first := slices.MinFunc(parked, func(a, b store.Parked) int { return int(a.Delay - b.Delay) }).Delay
	if first >= pollCeiling {
		return
	}
	for _, b := range []*bell{w.bells.stored, w.bells.indexed} {
		if b.asleep(max(first, pollFloor)) {
			b.ring()
		}
	}
	if w.opt.Due != nil {
		w.opt.Due()
	}
}
