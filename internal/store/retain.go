package store

import (
	"fmt"
	"time"

	"tallyhook/internal/event"
)

// ReasonTooOld is why an event is dead that is older than what its identity
// could be told by.
const ReasonTooOld = "too_old"

// Retention is what is removed and when, seen from one moment.
type Retention struct {
	Events     time.Time // settled events that were received before it
	Identities time.Time // what tells a duplicate of one of those; not later than Events
}

// Retired is what one step has removed.
type Retired struct {
	Events int64
	Bodies int64 // dead letters without an event, set aside or replayed
	More   bool  // there may be more to remove
}

// Date buries a new event whose own time lies before the horizon: whether it
// was here before cannot be told any more. Without a horizon identities are
// kept for ever.
func (w *Work) Date(now time.Time, horizon time.Duration) {
	e := w.Event
	if horizon > 0 && w.Bury == "" && !e.OccurredAtEstimated && e.OccurredAt.Before(now.Add(-horizon)) {
		w.Bury, w.BuryDetail = ReasonTooOld, fmt.Sprintf("it happened more than %s ago, before what is known of duplicates; replay it if it is new", horizon)
	}
}

// Retire takes a stored event out of the account: what was counted stays
// counted, as archived. Its part of the facts and counters is added to gone.
func (x *Effects) Retire(r *Record, gone *Effects) {
	x.Book(r.Tenant, r.State, -1)
	l := x.Ledger(r.Tenant)
	l.Duplicates -= r.Duplicates
	l.Archived += 1 + r.Duplicates
	if r.State == event.Applied {
		gone.Apply(&r.Event, r.Instance, r.Enrollment)
	}
}
