package store

import (
	"time"

	"tallyhook/internal/event"
)

// Meetings gather what events have met that were not the first of their
// identity.
type Meetings struct {
	Repeats []*Repeat // of each event that was met, how often
	Effects *Effects  // what duplicates do to the ledgers
	by      map[int64]*Repeat
}

// Repeat is how often a stored event was delivered again.
type Repeat struct {
	Seq    int64
	Tenant int64
	N      int64
	At     time.Time // of the last one
}

// NewMeetings makes an empty set.
func NewMeetings() *Meetings {
	return &Meetings{Effects: NewEffects(), by: map[int64]*Repeat{}}
}

// Meet tells an event of the first one of its identity: seq is its number, and
// first tells its id, state, reason and enrollment. Meeting one's own id is
// the retry of a commit, not a duplicate.
func (m *Meetings) Meet(w *Work, seq int64, first Result) {
	w.Result, w.Result.Seq = first, 0
	if first.ID == w.Event.ID {
		w.Result.Outcome, w.Again = event.Outcome(first.State), true
		return
	}
	w.Result.Outcome = event.OutcomeDuplicate
	r := m.by[seq]
	if r == nil {
		r = &Repeat{Seq: seq, Tenant: w.Event.Tenant}
		m.by[seq] = r
		m.Repeats = append(m.Repeats, r)
	}
	r.N++
	if w.Event.ReceivedAt.After(r.At) {
		r.At = w.Event.ReceivedAt
	}
	l := m.Effects.Ledger(w.Event.Tenant)
	l.Received++
	l.Duplicates++
}
