// Package limit counts requests against budgets: so many in a period, for each
// address, key, source, or address with source.
//
// Guarantees: a budget's period begins with its first request, and within it
// never more than the rate is let through by this process, however many ask at
// once; memory is bounded whatever is asked for, since of a flood of keys those
// that were quiet longest are forgotten; asking never waits. Shared budgets
// (Shared, Exchange) keep the sum over replicas near the rate, in the background.
package limit

import (
	"sync"
	"time"
)

// Rate is so many in a period; no limit when Count is 0.
type Rate struct {
	Count  int
	Period time.Duration
}

// Key names what a budget belongs to: see Address, Of and Pair.
type Key [32]byte

// Decision says whether a request may pass, and what is left.
type Decision struct {
	Allowed   bool
	Rate      Rate
	Remaining int           // of the period's Count
	Reset     time.Duration // until the period is over and the budget whole
}

// Limited tells whether there is a limit at all.
func (d Decision) Limited() bool { return d.Rate.Count > 0 }

// Window is the budgets of one rate, in the memory of this process. It is
// safe for concurrent use.
//
// A window that begins with the first request is chosen over GCRA because the
// rates are told to operators as "100 in 15 minutes": exactly the 101st is
// refused, however slowly the hundred came, and Reset is the moment at which
// the whole budget is back. Over a window's edge at most twice the count
// passes in one period, as with GCRA and a burst of the count.
type Window struct {
	rate  Rate
	most  int // budgets of one generation
	now   func() time.Time
	begin time.Time // what the int64 times count from: monotonic

	mu         sync.Mutex // guards what follows
	young, old map[Key]spent
}

type spent struct {
	since int64 // nanoseconds after begin
	count int32
}

// NewWindow makes budgets of a rate. At most twice most are kept, at about 100
// bytes each. now is nil for time.Now.
func NewWindow(rate Rate, most int, now func() time.Time) *Window {
	if now == nil {
		now = time.Now
	}
	return &Window{rate: rate, most: max(most, 1), now: now, begin: now(), young: map[Key]spent{}}
}

// Take spends one of a key's budget, if there is one left.
func (w *Window) Take(k Key) Decision {
	if w.rate.Count == 0 {
		return Decision{Allowed: true}
	}
	now := int64(w.now().Sub(w.begin))
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.find(k, now)
	d := w.decide(s, now)
	if d.Allowed {
		s.count++
		d.Remaining--
	}
	w.put(k, s) // also when refused: who keeps knocking is not forgotten
	return d
}

// Give returns what a Take has spent; what was taken in a period that is over
// stays spent.
func (w *Window) Give(k Key) {
	if w.rate.Count == 0 {
		return
	}
	now := int64(w.now().Sub(w.begin))
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.find(k, now); s.count > 0 {
		s.count--
		w.put(k, s)
	}
}

// find gives what a key has spent in the period that runs now; a new one when
// it is over, or when the clock was set back.
func (w *Window) find(k Key, now int64) spent {
	s, ok := w.young[k]
	if !ok {
		s, ok = w.old[k]
	}
	if age := now - s.since; !ok || age < 0 || age >= int64(w.rate.Period) {
		return spent{since: now}
	}
	return s
}

func (w *Window) decide(s spent, now int64) Decision {
	left := w.rate.Count - int(s.count)
	return Decision{
		Allowed: left > 0, Rate: w.rate, Remaining: max(left, 0),
		Reset: w.rate.Period - time.Duration(now-s.since),
	}
}

// put keeps what a key has spent. A full generation becomes the old one, and
// the old one is forgotten: making room costs nothing, whatever comes.
func (w *Window) put(k Key, s spent) {
	if _, known := w.young[k]; !known && len(w.young) >= w.most {
		w.young, w.old = make(map[Key]spent, w.most/8), w.young
	}
	w.young[k] = s
}

// Len is how many budgets are kept.
func (w *Window) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.young) + len(w.old)
}
