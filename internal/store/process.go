package store

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
)

// By names who settles an event.
const (
	ByLive     = "live"
	ByAdoption = "adoption"
	ByRetry    = "retry"
	ByReplay   = "replay"
	ByAssign   = "assign"
)

// Work is one event on its way through the processor.
type Work struct {
	Event *event.Event
	Seq   int64
	Fresh bool        // not stored yet
	Met   int64       // number of the stored event of the same identity; 0 = none
	From  event.State // the state a stored event has
	By    string

	Again      bool // our own id was there: a commit of unknown outcome is repeated
	ParkedAt   time.Time
	Reason     string     // why a stored event was waiting until now
	Attempts   int        // spent so far; of an orphan
	Failures   int        // of an orphan
	Bury       string     // reason to bury whatever is found: a fresh event that cannot be processed
	BuryDetail string     //
	Forced     uuid.UUID  // a person said where it belongs
	Erase      bool       // its contact is erased: nothing personal of it is kept, and it waits for nothing
	Hushed     bool       // it is stored and its contact is erased: what it says of its address is not to be on the list in clear
	Address    event.Hash // of a fresh event that is erased: the tombstone of its address, zero when it has none

	Identity event.Hash // of a fresh event
	Keys     []event.Key
	Found    []Found
	Decision Decision
	Instance uuid.UUID
	To       event.State
	Changed  bool // our insert or update was the one that happened
	Result   Result
}

// WorkOf takes a stored event into the processor, in the state it was read in.
func WorkOf(r *Record, by string) *Work {
	return &Work{Event: &r.Event, Seq: r.Seq, From: r.State, By: by, ParkedAt: r.ParkedAt, Reason: r.Reason}
}

// Enrollment is where an event has come to belong; uuid.Nil while nowhere.
func (w *Work) Enrollment() uuid.UUID {
	if w.To != event.Applied {
		return uuid.Nil
	}
	return w.Decision.Enrollment
}

// Unmatched tells whether the event waits, after this, for an enrollment.
func (w *Work) Unmatched() bool {
	return (w.To == event.Orphaned || w.To == event.Dead) && w.Bury == ""
}

// Spent is how many attempts the event has spent, this one included.
func (w *Work) Spent() int {
	if w.By == ByRetry && w.Bury == "" {
		return w.Attempts + 1
	}
	return w.Attempts
}

// Entry is a line for an event's timeline.
type Entry struct {
	Tenant int64
	Seq    int64
	Moment
}

// Departures are events that have left the state they waited in, by what is
// to be tidied up behind them. One event may be in several.
type Departures struct {
	Queue   []*Work // out of the retry schedule
	Waiting []*Work // no longer waiting for their keys
	Letters []*Work // their dead letters are replayed
	Settled []*Work // applied: to be found by their enrollment
}

// Steps are what a store does, in its own dialect and all in one transaction,
// of the way of a batch through the processor. Each is given all events that
// it concerns at once, at least one, and should cost a constant number of statements.
type Steps interface {
	// Lookup finds the owners of match keys.
	Lookup(l *Lookup) error
	// Hold keeps everybody else from giving the keys to an enrollment, until
	// the end of the transaction. again tells that others may have done so
	// before, so that what was looked up may not be true any more. fresh: the
	// keys are of events that are not stored yet.
	Hold(keys []TenantKey, fresh bool) (again bool, err error)
	// Erased gives those of the keys that are of contacts who were erased. It
	// sees what whoever held the keys before has done.
	Erased(keys []TenantKey) (map[TenantKey]bool, error)
	// Enroll makes enrollments and gives others what events have told of them,
	// and takes in what waited for any of it, but for the events under way.
	Enroll(joiners []*Joiner, under []*Work) error
	// Insert stores fresh events in the state they have been decided to have.
	Insert(fresh []*Work) error
	// Settle moves stored events from one state to another and sets Changed on
	// those that still were in the first. The others stay and get the truer reason.
	Settle(moved, others []*Work) error
	// Depart tidies up behind events that Settle has moved.
	Depart(d Departures) error
	// Park puts orphans into the retry schedule and notes what they wait for.
	Park(works []*Work) error
	// Spend spends an attempt of orphans that were retried and wait on, where
	// it is still the one that was seen, and is due.
	Spend(works []*Work) error
	// Bury makes dead letters.
	Bury(works []*Work) error
	// Remember writes timeline entries; received, applied and duplicates are
	// columns of the event and need none.
	Remember(entries []Entry) error
	// Effect writes facts and the statuses that they amount to, and sums.
	Effect(x *Effects) error
}

// Rules are what the processor decides by.
type Rules struct {
	Now time.Time // of the transaction
	// Delay gives the time until an orphan's next attempt after it has spent
	// n attempts; ok is false when the schedule is spent.
	Delay func(n int) (d time.Duration, ok bool)
}

// Limit is how many attempts the schedule has.
func (r Rules) Limit() int {
	for n := 0; ; n++ {
		if _, ok := r.Delay(n); !ok {
			return n
		}
	}
}

// Process is the one processor (law 3): live events, adoption, retries,
// replays and assignments all pass through it, in one transaction, whatever
// the store. Stored events must be given in the state that the same
// transaction read.
func Process(s Steps, r Rules, works []*Work) error {
	if len(works) == 0 {
		return nil
	}
	if err := match(s, works); err != nil {
		return err
	}
	if err := r.enroll(s, works); err != nil {
		return err
	}
	for _, w := range works {
		r.decide(w)
	}
	if err := insert(s, works); err != nil {
		return err
	}
	if err := settle(s, works); err != nil {
		return err
	}
	if err := r.schedule(s, works); err != nil {
		return err
	}
	if err := r.bury(s, works); err != nil {
		return err
	}
	if err := hush(s, works); err != nil {
		return err
	}
	x := NewEffects()
	for _, w := range works {
		if w.Changed {
			x.account(w)
		}
	}
	if x.Empty() {
		return nil
	}
	return s.Effect(x)
}

// account books what a changed event does to ledger, facts, counters and list.
func (x *Effects) account(w *Work) {
	if w.Fresh {
		x.Ledger(w.Event.Tenant).Received++
	} else {
		x.Book(w.Event.Tenant, w.From, -1)
	}
	switch {
	case !w.speaks():
	case w.Erase:
		x.suppress(w.Event, w.Address, "")
	default:
		x.Suppress(w.Event)
	}
	x.Book(w.Event.Tenant, w.To, 1)
	if w.To == event.Applied {
		x.Apply(w.Event, w.Instance, w.Decision.Enrollment)
	}
}

// speaks tells whether what the event says of its address counts from now on:
// when it comes in, but of one that may be forged when a person has replayed it.
func (w *Work) speaks() bool {
	switch {
	case w.Event.Control || w.Hushed:
		return false
	case w.Fresh:
		return w.Bury != ReasonNonceReused
	}
	return w.By == ByReplay && w.Reason == ReasonNonceReused
}

// decide turns a match into the state an event goes to.
func (r Rules) decide(w *Work) {
	w.Result = Result{ID: w.Event.ID, By: w.By}
	switch {
	case w.Erase:
		w.To, w.Decision = event.Ignored, Decision{Reason: ReasonErased, Detail: erasedDetail}
		w.Result.Outcome = event.OutcomeIgnored
	case w.Bury != "":
		w.To, w.Decision = event.Dead, Decision{Reason: w.Bury, Detail: w.BuryDetail}
		w.Result.Outcome = event.OutcomeDead
	case w.Event.Control:
		w.To = event.Ignored
		w.Result.Outcome = event.OutcomeIgnored
	case w.Decision.Enrollment != uuid.Nil && w.Instance != uuid.Nil:
		w.To = event.Applied
		w.Result.Outcome, w.Result.Enrollment = event.OutcomeApplied, w.Decision.Enrollment
		w.Result.Waited = max(0, r.Now.Sub(w.Event.ReceivedAt))
	case w.Fresh && w.Event.IgnoreUnmatched && w.Decision.Reason == ReasonNoEnrollment:
		w.To = event.Ignored
		w.Result.Outcome = event.OutcomeIgnored
	case w.By == ByRetry && r.last(w.Attempts):
		w.To = event.Dead
		w.Result.Outcome = event.OutcomeDead
	case w.By == ByAdoption && w.From == event.Dead:
		w.To = event.Dead // stays where it is
		w.Result.Outcome = event.OutcomeDead
	default:
		w.To = event.Orphaned
		w.Result.Outcome = event.OutcomeOrphaned
	}
	w.Result.State, w.Result.Reason, w.Result.Detail = w.To, w.Decision.Reason, w.Decision.Detail
}

// last tells whether the next attempt is the schedule's last, when so many are spent.
func (r Rules) last(spent int) bool {
	_, more := r.Delay(spent + 1)
	return !more
}

func insert(s Steps, works []*Work) error {
	fresh := make([]*Work, 0, len(works))
	for _, w := range works {
		if w.Fresh {
			fresh = append(fresh, w)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := s.Insert(fresh); err != nil {
		return err
	}
	for _, w := range fresh {
		w.Changed = true
	}
	return nil
}

// settle changes the state of events that are stored already; only what the
// database says has changed has effects. The reason that a waiting event shows
// stays true: an address that gained a second enrollment turns "no enrollment"
// into "ambiguous".
func settle(s Steps, works []*Work) error {
	var moved, others []*Work
	for _, w := range works {
		switch {
		case w.Fresh:
		case w.To != w.From:
			moved = append(moved, w)
		case w.Decision.Reason != w.Reason:
			others = append(others, w)
		}
	}
	if len(moved)+len(others) == 0 {
		return nil
	}
	if err := s.Settle(moved, others); err != nil {
		return err
	}
	var d Departures
	for _, w := range moved {
		if !w.Changed {
			continue
		}
		if w.From == event.Orphaned {
			d.Queue = append(d.Queue, w)
		}
		if w.From == event.Dead {
			d.Letters = append(d.Letters, w)
		}
		if w.To == event.Applied {
			d.Settled = append(d.Settled, w)
		}
		// Of the dead letters only those wait that lacked an enrollment.
		if w.To == event.Applied || w.Bury != "" || w.Erase {
			d.Waiting = append(d.Waiting, w)
		}
	}
	if len(d.Queue)+len(d.Letters)+len(d.Settled)+len(d.Waiting) == 0 {
		return nil
	}
	return s.Depart(d)
}

// schedule puts events that became orphans into the retry schedule, and
// spends an attempt of those that were retried and still wait.
func (r Rules) schedule(s Steps, works []*Work) error {
	var parked, retried []*Work
	for _, w := range works {
		switch {
		case w.To != event.Orphaned:
		case w.Changed:
			w.Attempts = 0
			r.plan(w, 0)
			parked = append(parked, w)
		case w.By == ByRetry:
			r.plan(w, w.Attempts+1)
			retried = append(retried, w)
		}
	}
	if len(parked) > 0 {
		if err := s.Park(parked); err != nil {
			return err
		}
	}
	if len(retried) > 0 {
		return s.Spend(retried)
	}
	return nil
}

// plan sets when an orphan that has spent so many attempts is tried next.
func (r Rules) plan(w *Work, spent int) {
	d, _ := r.Delay(spent)
	w.Result.NextAttemptAt = r.Now.Add(d).Truncate(time.Microsecond)
}

// bury makes dead letters of events that died in this transaction.
func (r Rules) bury(s Steps, works []*Work) error {
	var dead []*Work
	var entries []Entry
	for _, w := range works {
		if w.Changed && w.To == event.Dead {
			dead = append(dead, w)
			entries = append(entries, Entry{w.Event.Tenant, w.Seq, Moment{r.Now, "buried", w.Decision.Reason + ": " + w.Decision.Detail}})
		}
	}
	if len(dead) == 0 {
		return nil
	}
	if err := s.Bury(dead); err != nil {
		return err
	}
	return s.Remember(entries)
}

// Tried gives the results of retried events and what their timelines tell.
func (r Rules) Tried(works []*Work) ([]Result, []Entry) {
	limit := r.Limit()
	results := make([]Result, len(works))
	entries := make([]Entry, 0, len(works))
	for i, w := range works {
		results[i] = w.Result
		results[i].Seq = w.Seq
		detail := fmt.Sprintf("attempt %d of %d: ", w.Attempts+1, limit)
		if w.To == event.Applied {
			detail += "the enrollment was found"
		} else {
			detail += w.Decision.Reason + ", " + w.Decision.Detail
		}
		entries = append(entries, Entry{w.Event.Tenant, w.Seq, Moment{r.Now, "attempt", detail}})
	}
	return results, entries
}

// ParkedOf tells a queue beside the database of events that came to wait at
// the given moment.
func ParkedOf(works []*Work, now time.Time) []Parked {
	all := make([]Parked, len(works))
	for i, w := range works {
		all[i] = Parked{Seq: w.Seq, Tenant: w.Event.Tenant, Route: w.Event.Route(), Delay: max(0, w.Result.NextAttemptAt.Sub(now))}
	}
	return all
}

// GoneOf tells a queue beside the database of events that left the schedule.
// One that left it by a retry is its claimer's to settle.
func GoneOf(works []*Work) []Claimed {
	var all []Claimed
	for _, w := range works {
		if w.By != ByRetry {
			all = append(all, Claimed{Seq: w.Seq, Tenant: w.Event.Tenant, Route: w.Event.Route()})
		}
	}
	return all
}
