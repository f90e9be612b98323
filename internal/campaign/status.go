package campaign

import (
	"time"

	"tallyhook/internal/event"
)

// Status is where an enrollment stands.
type Status string

// The statuses, highest first.
const (
	StatusComplained   Status = "complained"
	StatusUnsubscribed Status = "unsubscribed"
	StatusBounced      Status = "bounced"
	StatusCompleted    Status = "completed"
	StatusActive       Status = "active"
)

// Statuses lists every status, highest first.
func Statuses() []Status {
	return []Status{StatusComplained, StatusUnsubscribed, StatusBounced, StatusCompleted, StatusActive}
}

// FactKey is what is remembered of an enrollment's events: that a thing of
// this kind happened, how often, when first and when last.
type FactKey struct {
	Type      event.Type
	Qualifier string // bounce: hard or soft; resubscribed: "void" when it may not lift
	Step      int
	Machine   event.Machine
	Provider  string
	Variant   string
}

// FactOf is the fact that an event adds to.
func FactOf(e *event.Event) FactKey {
	k := FactKey{
		Type: e.Type, Step: e.StepNumber, Machine: e.Machine, Provider: e.Provider,
		Variant: VariantOf(e.Metadata),
	}
	switch {
	case e.Type == event.Bounced:
		k.Qualifier = string(e.Bounce)
	case e.Type == event.Resubscribed && !e.Lifts():
		k.Qualifier = "void"
	}
	return k
}

// Facts are what the status depends on.
type Facts struct {
	Complained   bool
	BouncedHard  bool
	Replied      bool
	Unsubscribed time.Time // latest; zero = never
	Resubscribed time.Time // latest that lifts; zero = never
}

// Add takes one fact in.
func (f *Facts) Add(k FactKey, last time.Time) {
	switch {
	case k.Type == event.Complained:
		f.Complained = true
	case k.Type == event.Bounced && k.Qualifier == string(event.Hard):
		f.BouncedHard = true
	case k.Type.Answers():
		f.Replied = true
	case k.Type == event.Unsubscribed && last.After(f.Unsubscribed):
		f.Unsubscribed = last
	case k.Type == event.Resubscribed && k.Qualifier == "" && last.After(f.Resubscribed):
		f.Resubscribed = last
	}
}

// Status is the status that the facts amount to. It has no memory: the same
// facts give the same status whatever order they came in.
func (f *Facts) Status() Status {
	switch {
	case f.Complained:
		return StatusComplained
	case !f.Unsubscribed.IsZero() && !f.Resubscribed.After(f.Unsubscribed):
		return StatusUnsubscribed
	case f.BouncedHard:
		return StatusBounced
	case f.Replied:
		return StatusCompleted
	}
	return StatusActive
}

// Decisive tells whether facts of this type can change a status at all.
func Decisive(k FactKey) bool {
	var f Facts
	f.Add(k, time.Unix(1, 0))
	return f != Facts{}
}
