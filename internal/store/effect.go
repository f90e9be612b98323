package store

import (
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
)

// BucketSize is the resolution of counters in event time. A quarter of an
// hour serves every time zone there is.
const BucketSize = 15 * time.Minute

// FactRow is a fact of one enrollment to be added.
type FactRow struct {
	Tenant     int64
	Instance   uuid.UUID
	Enrollment uuid.UUID
	Key        campaign.FactKey
}

// FactSum is what is added to a fact.
type FactSum struct {
	Count       int64
	First, Last time.Time
}

// CounterRow is a counter of one instance.
type CounterRow struct {
	Tenant   int64
	Instance uuid.UUID
	Bucket   int64 // unix seconds
	Key      campaign.FactKey
}

// SuppressionRow is an address to be put on, or taken off, a tenant's list.
type SuppressionRow struct {
	Tenant int64
	Key    event.Hash
}

// Effects gather what a batch of events does, so that a store writes it with
// a constant number of statements whatever the size of the batch.
type Effects struct {
	Facts        map[FactRow]FactSum
	Counters     map[CounterRow]int64
	Suppressions map[SuppressionRow]*campaign.Suppression
	Ledgers      map[int64]*Ledger
}

// NewEffects makes an empty set.
func NewEffects() *Effects {
	return &Effects{
		Facts:        map[FactRow]FactSum{},
		Counters:     map[CounterRow]int64{},
		Suppressions: map[SuppressionRow]*campaign.Suppression{},
		Ledgers:      map[int64]*Ledger{},
	}
}

// Empty tells whether there is nothing to write.
func (x *Effects) Empty() bool {
	return len(x.Facts)+len(x.Counters)+len(x.Suppressions)+len(x.Ledgers) == 0
}

// AddSums adds the counters and the accounts of another set.
func (x *Effects) AddSums(y *Effects) {
	for row, n := range y.Counters {
		x.Counters[row] += n
	}
	for tenant, l := range y.Ledgers {
		x.Ledger(tenant).add(l)
	}
}

func (l *Ledger) add(m *Ledger) {
	l.Received += m.Received
	l.Duplicates += m.Duplicates
	l.Applied += m.Applied
	l.Orphaned += m.Orphaned
	l.Dead += m.Dead
	l.Ignored += m.Ignored
	l.Archived += m.Archived
	l.Undecodable += m.Undecodable
}

// Ledger is the tenant's account, made when needed.
func (x *Effects) Ledger(tenant int64) *Ledger {
	l := x.Ledgers[tenant]
	if l == nil {
		l = &Ledger{Tenant: tenant}
		x.Ledgers[tenant] = l
	}
	return l
}

// Book moves one event from one state to another in the tenant's account.
func (x *Effects) Book(tenant int64, state event.State, n int64) {
	l := x.Ledger(tenant)
	switch state {
	case event.Applied:
		l.Applied += n
	case event.Orphaned:
		l.Orphaned += n
	case event.Dead:
		l.Dead += n
	case event.Ignored:
		l.Ignored += n
	case event.Spooled: // is no state of a row
	}
}

// Apply adds an event's facts and counts to its enrollment.
func (x *Effects) Apply(e *event.Event, instance, enrollment uuid.UUID) {
	k := campaign.FactOf(e)
	row := FactRow{e.Tenant, instance, enrollment, k}
	sum, ok := x.Facts[row]
	if !ok || e.OccurredAt.Before(sum.First) {
		sum.First = e.OccurredAt
	}
	if !ok || e.OccurredAt.After(sum.Last) {
		sum.Last = e.OccurredAt
	}
	sum.Count++
	x.Facts[row] = sum
	x.Counters[CounterOf(e, instance)]++
}

// CounterOf is the counter that an event belongs to.
func CounterOf(e *event.Event, instance uuid.UUID) CounterRow {
	return CounterRow{e.Tenant, instance, e.OccurredAt.Truncate(BucketSize).Unix(), campaign.FactOf(e)}
}

// Suppress notes what a new event says about its address, whether or not the
// event has an enrollment.
func (x *Effects) Suppress(e *event.Event) {
	if addr := event.NormalAddress(e.Email); addr != "" {
		x.suppress(e, event.AddressKey(addr), addr)
	}
}

// suppress is Suppress of an address by its key, which is zero when there is
// none. The address itself is not told of who is erased.
func (x *Effects) suppress(e *event.Event, key event.Hash, addr string) {
	if key == (event.Hash{}) || (!e.Suppresses() && !e.Lifts()) {
		return
	}
	row := SuppressionRow{e.Tenant, key}
	s := x.Suppressions[row]
	if s == nil {
		s = &campaign.Suppression{Email: addr}
		x.Suppressions[row] = s
	}
	later := func(t *time.Time) {
		if e.OccurredAt.After(*t) {
			*t = e.OccurredAt
		}
	}
	switch e.Type {
	case event.Unsubscribed:
		later(&s.UnsubscribedAt)
	case event.Resubscribed:
		later(&s.ResubscribedAt)
	case event.Complained:
		later(&s.ComplainedAt)
	case event.Bounced:
		later(&s.BouncedAt)
	default: // Suppresses and Lifts name no other
	}
}
