package store

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
)

// Meetings gather what events have met that were not the first of their
// identity.
type Meetings struct {
	Duplicates []*Work   // deliveries of an event that another delivery had brought before
	Repeats    []*Repeat // of each event that was met, how often; made by Count
	Effects    *Effects  // what duplicates do to the ledgers; made by Count

	met []int64 // the number of what each duplicate has met
}

// Repeat is how often a stored event was delivered again.
type Repeat struct {
	Seq    int64
	Tenant int64
	N      int64
	At     time.Time // of the last one
}

// NewMeetings makes an empty set.
func NewMeetings() *Meetings { return &Meetings{Effects: NewEffects()} }

// Meet tells an event of the first one of its identity: seq is its number, and
// first tells its id, state, reason and enrollment. Meeting one's own id is
// the retry of a commit, not a duplicate.
func (m *Meetings) Meet(w *Work, seq int64, first Result) {
	w.Result = first
	if first.ID == w.Event.ID {
		w.Result.Outcome, w.Again = event.Outcome(first.State), true
		return
	}
	w.Result.Outcome = event.OutcomeDuplicate
	m.Duplicates, m.met = append(m.Duplicates, w), append(m.met, seq)
}

// Count sums the duplicates up. counted says of which deliveries the store has
// just noted, by their ids, that they are counted; the others were before, by a
// commit of which nobody heard.
func (m *Meetings) Count(counted map[uuid.UUID]bool) {
	by := map[int64]*Repeat{}
	for i, w := range m.Duplicates {
		if !counted[w.Event.ID] {
			w.Again = true
			continue
		}
		if w.Result.Retired { // its count is with the archived ones
			l := m.Effects.Ledger(w.Event.Tenant)
			l.Received++
			l.Archived++
			continue
		}
		r := by[m.met[i]]
		if r == nil {
			r = &Repeat{Seq: m.met[i], Tenant: w.Event.Tenant}
			by[r.Seq] = r
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
}

// FirstIDAt is the least UUIDv7 (RFC 9562, section 5.7) of a moment: ids that
// were made before it are less.
func FirstIDAt(t time.Time) uuid.UUID {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], uint64(t.UnixMilli())<<16)
	return id
}
