package storetest

import (
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func identities() group {
	return group{"Identity", map[string]func(*World){
		"ARepeatedCommitCountsNoDuplicateTwice": repeatedDuplicate,
		"ResendIsADuplicate":                    resend,
		"DuplicatesWithinABatch":                withinBatch,
		"OtherTypeSourceOrTenantIsAnew":         otherScope,
		"WithoutIDFieldsDecide":                 fieldsDecide,
		"OwnIDAgainIsNoDuplicate":               ownID,
		"OwnIDAgainTellsTodaysState":            ownIDLater,
		"BatchesOverlapInAnyOrder":              overlap,
		"DuplicateTellsWhereTheFirstIs":         duplicateOfOrphan,
		"ResendAcrossMidnightIsDuplicate":       acrossMidnight,
		"SourceCountsWhatItBrought":             sourceCounts,
	}}
}

func resend(w *World) {
	w.Person("ada@example.com")
	first := w.Send(event.Opened, ID("1"), Address("ada@example.com"))
	var last time.Time
	for range 3 {
		w.Clock.Advance(time.Hour)
		e := w.Event(event.Opened, ID("1"), Address("ada@example.com"))
		last = e.ReceivedAt
		res := w.Put(e)[0]
		Same(w.T, "outcome", res.Outcome, event.OutcomeDuplicate)
		Same(w.T, "id", res.ID, first.ID)
		Same(w.T, "state", res.State, event.Applied)
		_, err := w.Event1(w.Tenant, e.ID)
		Kind(w.T, err, fault.NotFound)
	}
	r := w.Record(first.ID)
	Same(w.T, "duplicates", r.Duplicates, 3)
	Same(w.T, "last duplicate", r.LastDuplicateAt, last)
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: 1})
	Same(w.T, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 4, Duplicates: 3, Applied: 1})
	Same(w.T, "timeline", w.Moments(first.ID), []string{"received", "applied", "duplicate"})
}

func withinBatch(w *World) {
	w.Person("ada@example.com")
	var batch []event.Event
	for range 5 {
		batch = append(batch, w.Event(event.Opened, ID("1"), Address("ada@example.com")), w.Event(event.Clicked, Address("ada@example.com")))
	}
	res := w.Put(batch...)
	first := res[0]
	Same(w.T, "first", first.Outcome, event.OutcomeApplied)
	for i := 2; i < len(res); i += 2 {
		Same(w.T, "outcome", res[i].Outcome, event.OutcomeDuplicate)
		Same(w.T, "id", res[i].ID, first.ID)
	}
	Same(w.T, "duplicates", w.Record(first.ID).Duplicates, 4)
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: 1, event.Clicked: 5})
}

func otherScope(w *World) {
	w.Person("ada@example.com")
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	scope := func(e *event.Event) { e.SourceID = uuid.Must(uuid.NewV7()); e.Scope = e.SourceID.String() }
	for _, opts := range [][]Option{{}, {scope}, {scope}, {From("postmark")}, {For(other.ID)}} {
		for _, typ := range []event.Type{event.Opened, event.Clicked} {
			res := w.Send(typ, append([]Option{ID("1"), Address("ada@example.com")}, opts...)...)
			if res.Outcome == event.OutcomeDuplicate {
				w.T.Errorf("%s is taken for a duplicate", typ)
			}
		}
	}
	Same(w.T, "duplicates", w.Account(w.Tenant).Duplicates+w.Account(other.ID).Duplicates, 0)
}

func fieldsDecide(w *World) {
	at := w.Clock.Now()
	same := []Option{ID(""), Address("ada@example.com"), At(at)}
	first := w.Send(event.Opened, same...)
	Same(w.T, "same again", w.Send(event.Opened, same...).ID, first.ID)
	Same(w.T, "folded", w.Send(event.Opened, ID(""), Address("<ADA@example.com>"), At(at)).ID, first.ID)
	for name, change := range map[string]Option{
		"Time":     At(at.Add(time.Second)),
		"Step":     func(e *event.Event) { e.StepNumber = 2 },
		"Address":  Address("bob@example.com"),
		"Message":  Message("m"),
		"Machine":  func(e *event.Event) { e.Machine = event.MachineYes },
		"Metadata": func(e *event.Event) { e.Metadata = []byte(`{"a":1}`) },
	} {
		if res := w.Send(event.Opened, append(same[:3:3], change)...); res.Outcome == event.OutcomeDuplicate {
			w.T.Errorf("%s differs and it is taken for a duplicate", name)
		}
	}
}

func ownID(w *World) {
	w.Person("ada@example.com")
	batch := []event.Event{
		w.Event(event.Opened, Address("ada@example.com")), w.Event(event.Opened, Address("early@example.com")),
		w.Event(event.Unsubscribed, Address("ada@example.com")),
	}
	first := w.Put(batch...)
	before := w.Account(w.Tenant)
	again := w.Put(batch...)
	for i := range first {
		Same(w.T, "outcome", again[i].Outcome, first[i].Outcome)
		Same(w.T, "id", again[i].ID, first[i].ID)
		Same(w.T, "reason", again[i].Reason, first[i].Reason)
		Same(w.T, "duplicates", w.Record(first[i].ID).Duplicates, 0)
	}
	Same(w.T, "ledger", w.Account(w.Tenant), before)
}

func ownIDLater(w *World) {
	e := w.Event(event.Opened, Address("ada@example.com"))
	Same(w.T, "first", w.Put(e)[0].Outcome, event.OutcomeOrphaned)
	w.Person("ada@example.com")
	Same(w.T, "later", w.Put(e)[0].Outcome, event.OutcomeApplied)
	Same(w.T, "duplicates", w.Record(e.ID).Duplicates, 0)
}

func overlap(w *World) {
	a, b := w.Event(event.Opened, ID("a"), Lead("l")), w.Event(event.Opened, ID("b"), Lead("l"))
	again := func(e event.Event) event.Event { e.ID = uuid.Must(uuid.NewV7()); return e }
	w.Put(a, b)
	res := w.Put(again(b), again(a))
	Same(w.T, "b", res[0].ID, b.ID)
	Same(w.T, "a", res[1].ID, a.ID)
	Same(w.T, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 4, Duplicates: 2, Orphaned: 2})
}

func duplicateOfOrphan(w *World) {
	first := w.Send(event.Opened, ID("1"), Address("ada@example.com"))
	res := w.Send(event.Opened, ID("1"), Address("ada@example.com"))
	Same(w.T, "state", res.State, event.Orphaned)
	Same(w.T, "reason", res.Reason, store.ReasonNoEnrollment)
	w.Spend()
	Same(w.T, "state", w.Send(event.Opened, ID("1"), Address("ada@example.com")).State, event.Dead)
	Same(w.T, "duplicates", w.Record(first.ID).Duplicates, 2)
}

func acrossMidnight(w *World) {
	w.Clock.Advance(8*time.Hour + 59*time.Minute + 59*time.Second)
	at := w.Clock.Now()
	first := w.Send(event.Opened, ID(""), Address("ada@example.com"), At(at))
	estimated := func(e *event.Event) { e.ProviderEventID, e.OccurredAt, e.OccurredAtEstimated = "", e.ReceivedAt, true }
	guess := w.Send(event.Clicked, Address("ada@example.com"), estimated)
	w.Clock.Advance(2 * time.Second)
	Same(w.T, "day", w.Clock.Now().Day(), at.Day()+1)
	Same(w.T, "told time", w.Send(event.Opened, ID(""), Address("ada@example.com"), At(at)).ID, first.ID)
	Same(w.T, "estimated time", w.Send(event.Clicked, Address("ada@example.com"), estimated).ID, guess.ID)
}

func sourceCounts(w *World) {
	src := store.Source{ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, Provider: "lemlist", Name: "x", Sealed: []byte{1}, CreatedAt: w.Clock.Now()}
	w.must(w.CreateSource(w.Ctx(), src))
	mine := func(e *event.Event) { e.SourceID, e.Scope = src.ID, src.ID.String() }
	a, b := w.Event(event.Opened, Lead("l"), mine), w.Event(event.Opened, ID("1"), Lead("l"), mine)
	w.Put(a, b)
	w.Put(a, b) // the retry of a commit whose outcome was unknown
	w.Send(event.Opened, ID("1"), Lead("l"), mine)
	got, err := w.Source(w.Ctx(), w.Tenant, src.ID)
	w.must(err)
	Same(w.T, "received, duplicates included", got.Received, 3)
	if !got.LastReceivedAt.After(b.ReceivedAt) {
		w.T.Errorf("last received at %v, want after %v", got.LastReceivedAt, b.ReceivedAt)
	}
}

// repeatedDuplicate: when nobody heard of a commit, its events are committed
// again with the same ids, duplicates among them.
func repeatedDuplicate(w *World) {
	first := w.Event(event.Opened, ID("1"), Address("ada@example.com"))
	again, new1 := first, w.Event(event.Opened, ID("2"), Address("ada@example.com"))
	again.ID = uuid.Must(uuid.NewV7())
	twin := new1
	twin.ID = uuid.Must(uuid.NewV7())
	w.Put(first)
	for range 3 {
		res := w.Put(again, new1, twin)
		Same(w.T, "outcomes", []event.Outcome{res[0].Outcome, res[1].Outcome, res[2].Outcome},
			[]event.Outcome{event.OutcomeDuplicate, event.OutcomeOrphaned, event.OutcomeDuplicate})
	}
	Same(w.T, "duplicates of the first", w.Record(first.ID).Duplicates, int64(1))
	Same(w.T, "duplicates of the new one", w.Record(new1.ID).Duplicates, int64(1))
	Same(w.T, "duplicates", w.Account(w.Tenant).Duplicates, int64(2))
	Same(w.T, "received", w.Account(w.Tenant).Received, int64(4))
	more, err := w.ForgetDuplicates(w.Ctx(), time.Now().Add(time.Hour), 2)
	w.must(err)
	Same(w.T, "more to forget", more, true)
	more, err = w.ForgetDuplicates(w.Ctx(), time.Now().Add(time.Hour), 2)
	w.must(err)
	Same(w.T, "no more to forget", more, false)
}
