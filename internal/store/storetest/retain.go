package storetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

const day = 24 * time.Hour

func retentions() group {
	return group{"Retention", map[string]func(*World){
		"WhatIsSettledGoesAndTheNumbersStay":    retainAll,
		"AResendWithinTheHorizonIsADuplicate":   retainResend,
		"BeyondTheHorizonItIsDead":              retainHorizon,
		"NumbersAreNeverGivenTwice":             retainNumbers,
		"AnAssignmentKeepsWhatIsArchived":       retainAssign,
		"DuplicatesWhileTheirEventsAreRemoved":  retainRace,
		"AnErasureAfterItFindsTheRest":          retainErase,
		"ARandomHistoryKeepsItsSums":            retainHistory,
		"BodiesThatNobodyNeedsGo":               retainBodies,
		"AnotherTenantsAccountIsItsOwn":         retainTenants,
		"StepByStepOverRestartsItComesToAnEnd":  retainRestart,
		"WithoutAnythingOldNothingIsTouched":    retainNothing,
		"AnIndexOnDiskForgetsWhatIsRemovedLast": retainIndexed,
	}}
}

// Retain removes what is older than keep, and identities older than horizon, n
// events a step, and counts the events.
func (w *World) Retain(keep, horizon time.Duration, n int) (events int64) {
	w.T.Helper()
	now := w.Clock.Now()
	for more := true; more; {
		r, err := w.Retire(w.Ctx(), store.Retention{Events: now.Add(-keep), Identities: now.Add(-horizon)}, n)
		w.must(err)
		events, more = events+r.Events, r.More
	}
	return events
}

func (w *World) numbers() store.Numbers {
	w.T.Helper()
	n, err := w.Numbers(w.Ctx(), w.Tenant, w.Instance, time.Time{}, time.Time{})
	w.must(err)
	return n
}

func retainAll(w *World) {
	ada := w.Person("ada@example.com")
	applied := w.Send(event.Opened, Address("ada@example.com"))
	w.Send(event.Replied, Address("ada@example.com"))
	twice := w.Event(event.Clicked, Address("ada@example.com"), func(e *event.Event) { e.Metadata = []byte(`{"variant":"b"}`) })
	w.Put(twice)
	again := twice
	again.ID = uuid.Must(uuid.NewV7())
	w.Put(again)
	ignored := w.Send("", Address("ada@example.com"), func(e *event.Event) { e.Control, e.Kind = true, "hook" })
	dead, err := w.CommitDead(w.Ctx(), []event.Event{w.Event(event.Sent), w.Event(event.Sent)}, store.ReasonPoison, "x")
	w.must(err)
	w.must(w.SetLetter(w.Ctx(), w.Tenant, w.LetterOf(dead[0].ID).ID, store.LetterDead, store.LetterIgnored, "me"))
	w.Clock.Advance(10 * day)
	orphan := w.Send(event.Opened, Address("nobody@example.com"))
	w.Clock.Advance(31 * day)
	fresh := w.Send(event.Opened, Address("ada@example.com"))
	before, status := w.numbers(), w.Status(ada)
	Same(w.T, "removed", w.Retain(30*day, 60*day, 2), 5)
	Same(w.T, "numbers", w.numbers(), before)
	Same(w.T, "status", w.Status(ada), status)
	for what, id := range map[string]uuid.UUID{"applied": applied.ID, "twice": twice.ID, "ignored": ignored.ID, "set aside": dead[0].ID} {
		_, err := w.Event1(w.Tenant, id)
		if !fault.Is(err, fault.NotFound) {
			w.T.Errorf("%s: got %v, want none", what, err)
		}
	}
	Same(w.T, "an orphan stays", w.Record(orphan.ID).State, event.Orphaned)
	Same(w.T, "a dead letter stays", w.Record(dead[1].ID).State, event.Dead)
	Same(w.T, "what is young stays", w.Record(fresh.ID).State, event.Applied)
	Same(w.T, "account", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 9, Applied: 1, Orphaned: 1, Dead: 1, Archived: 6})
	w.Balanced()
	rows, _, err := w.Events(w.Ctx(), w.Tenant, store.EventFilter{Email: "ada@example.com"}, store.Page{Limit: 10})
	w.must(err)
	Same(w.T, "found by the address", len(rows), 1)
	Same(w.T, "again nothing", w.Retain(30*day, 60*day, 2), 0)
}

func retainResend(w *World) {
	w.Reopen(func(o *Options) { o.Generation = 10 })
	ada := w.Person("ada@example.com")
	var sent []event.Event
	for i := range 25 {
		id := ID(fmt.Sprint("e", i))
		if i%2 == 1 {
			id = ID("") // by its fields
		}
		sent = append(sent, w.Event(event.Opened, id, Address("ada@example.com")))
	}
	first := w.Put(sent...)
	_, err := w.IndexNext(w.Ctx(), 4) // on its way to the disk
	w.must(err)
	w.Clock.Advance(10 * day)
	Same(w.T, "removed", w.Retain(7*day, 35*day, 7), 25)
	received := int64(25)
	resend := func(what string) {
		w.T.Helper()
		again := make([]event.Event, len(sent))
		for i, e := range sent {
			e.ID, e.ReceivedAt = uuid.Must(uuid.NewV7()), w.Clock.Now()
			again[i] = e
		}
		for i, r := range w.Put(append(again, again[0])...) {
			Same(w.T, what+": outcome", r.Outcome, event.OutcomeDuplicate)
			Same(w.T, what+": of", r.ID, first[i%25].ID)
			Same(w.T, what+": enrollment", r.Enrollment, ada)
		}
		received += 26
		Same(w.T, what+": account", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: received, Archived: received})
		w.Balanced()
	}
	resend("at once")
	w.Reopen()
	resend("after a restart")
	w.Index()
	resend("from the disk")
	w.Reopen()
	resend("from the disk, after a restart")
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: 25})
}

func retainHorizon(w *World) {
	w.Reopen(func(o *Options) { o.Horizon = 35 * day })
	w.Person("ada@example.com")
	e := w.Event(event.Opened, ID("1"), Address("ada@example.com"))
	w.Put(e)
	w.Clock.Advance(36 * day)
	w.Send(event.Opened, Address("ada@example.com"))
	w.Retain(7*day, 35*day, 10)
	e.ID, e.ReceivedAt = uuid.Must(uuid.NewV7()), w.Clock.Now()
	e.ProviderEventID = "another"
	r := w.Put(e)[0]
	Same(w.T, "outcome", r.Outcome, event.OutcomeDead)
	Same(w.T, "letter", w.LetterOf(r.ID).Reason, store.ReasonTooOld)
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: 2})
	res, err := w.ReplayLetters(w.Ctx(), w.Tenant, []uuid.UUID{w.LetterOf(r.ID).ID})
	w.must(err)
	Same(w.T, "a person may replay it", res[w.LetterOf(r.ID).ID].Outcome, event.OutcomeApplied)
	timeless := w.Send(event.Clicked, Address("ada@example.com"), func(e *event.Event) { e.OccurredAtEstimated = true })
	Same(w.T, "an event without a time", timeless.Outcome, event.OutcomeApplied)
}

func retainNumbers(w *World) {
	w.Reopen(func(o *Options) { o.Generation = 3 })
	w.Person("ada@example.com")
	last := int64(0)
	for range 6 {
		var ids []uuid.UUID
		for range 5 {
			ids = append(ids, w.Send(event.Opened, Address("ada@example.com")).ID)
		}
		for _, id := range ids {
			seq := w.Record(id).Seq
			if seq <= last {
				w.T.Fatalf("number %d was given after %d", seq, last)
			}
			last = seq
		}
		w.Index()
		w.Clock.Advance(100 * day)
		Same(w.T, "removed", w.Retain(7*day, 35*day, 2), 5)
		w.Reopen()
	}
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: 30})
}

func retainAssign(w *World) {
	ada, bob := w.Person("ada@example.com"), w.Person("bob@example.com")
	early := w.Clock.Now()
	w.Send(event.Unsubscribed, Address("ada@example.com"))
	w.Send(event.Opened, Address("ada@example.com"), At(early))
	w.Clock.Advance(40 * day)
	moved := w.Send(event.Opened, Address("ada@example.com"))
	Same(w.T, "removed", w.Retain(30*day, 60*day, 10), 2)
	_, err := w.Assign(w.Ctx(), w.Tenant, moved.ID, bob, "me")
	w.must(err)
	w.Balanced()
	Same(w.T, "status by archived facts", w.Status(ada), campaign.StatusUnsubscribed)
	opened := map[uuid.UUID]int64{}
	for _, u := range w.numbers().Uniques {
		if u.Type == event.Opened {
			opened[u.Enrollment] = u.Count
			if u.Enrollment == ada {
				Same(w.T, "first opened", u.FirstAt, early.Truncate(time.Microsecond))
			}
		}
	}
	Same(w.T, "opened by", opened, map[uuid.UUID]int64{ada: 1, bob: 1})
}

// retainRace resends events while they are removed: each delivery is counted
// with the event or with what is archived, and never on neither.
func retainRace(w *World) {
	w.Person("ada@example.com")
	var sent []event.Event
	for i := range 200 {
		sent = append(sent, w.Event(event.Opened, ID(fmt.Sprint(i)), Address("ada@example.com")))
	}
	w.Put(sent...)
	w.Clock.Advance(40 * day)
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(w.Ctx())
	defer cancel()
	for part := range 4 {
		group.Go(func() {
			for n := 0; n < 20 && ctx.Err() == nil; n++ {
				again := make([]event.Event, 0, 50)
				for i := part; i < len(sent); i += 4 {
					e := sent[i]
					e.ID, e.ReceivedAt = uuid.Must(uuid.NewV7()), w.Clock.Now()
					again = append(again, e)
				}
				res, err := w.Commit(context.WithoutCancel(ctx), again)
				if err != nil {
					w.T.Error(err)
					return
				}
				for _, r := range res {
					if r.Outcome != event.OutcomeDuplicate {
						w.T.Errorf("outcome %s, want duplicate", r.Outcome)
					}
				}
			}
		})
	}
	removed := int64(0)
	w.eventually("all are removed", func() bool { // what is being counted on is passed over
		removed += w.Retain(30*day, 60*day, 7)
		return removed == int64(len(sent))
	})
	group.Wait()
	l := w.Account(w.Tenant)
	Same(w.T, "archived is all", l.Archived, l.Received)
}

func retainErase(w *World) {
	a := w.EnrollAda()
	w.Clock.Advance(40 * day)
	late := w.Send(event.Clicked, Address(adaAddress), personal)
	w.Retain(30*day, 60*day, 10)
	before, status := w.numbers(), w.Status(a.Enrollment)
	w.Erase(store.Contact{Email: adaAddress}, 10)
	r := w.Record(late.ID)
	w.bare("late", &r)
	Same(w.T, "numbers", w.numbers(), before)
	Same(w.T, "status", w.Status(a.Enrollment), status)
	w.Clock.Advance(40 * day)
	w.Retain(30*day, 60*day, 10)
	Same(w.T, "numbers in the end", w.numbers(), before)
}

// retainHistory lets time pass over every kind of event, and removes, resends,
// retries and moves in between.
func retainHistory(w *World) {
	people := []uuid.UUID{w.Person("p0@example.com"), w.Person("p1@example.com"), w.Person("p2@example.com")}
	var old []event.Event
	for round := range 12 {
		batch := make([]event.Event, 0, 40)
		for i := range 30 {
			n := round*31 + i*7
			e := w.Event(event.Types()[n%len(event.Types())], Address(fmt.Sprintf("p%d@example.com", n%5)))
			batch = append(batch, e)
		}
		for i := range min(len(old), 10) {
			e := old[(round*13+i*17)%len(old)]
			e.ID, e.ReceivedAt = uuid.Must(uuid.NewV7()), w.Clock.Now()
			batch = append(batch, e)
		}
		res := w.Put(batch...)
		old = append(old, batch...)
		for i, r := range res {
			if r.Outcome == event.OutcomeApplied && i%9 == 0 {
				_, err := w.Assign(w.Ctx(), w.Tenant, r.ID, people[(round+i)%3], "me")
				w.must(err)
			}
		}
		w.Clock.Advance(time.Duration(round%4) * 4 * day)
		w.Due()
		before := w.numbers()
		w.Retain(10*day, 35*day, 11)
		Same(w.T, "numbers", w.numbers(), before)
		w.Balanced()
	}
	if l := w.Account(w.Tenant); l.Archived == 0 {
		w.T.Error("nothing was removed: this proves nothing")
	}
}

func retainBodies(w *World) {
	source := store.Source{ID: row16(1), Tenant: w.Tenant, Provider: "generic", Name: "s", Sealed: []byte{}, CreatedAt: w.Clock.Now()}
	w.must(w.CreateSource(w.Ctx(), source))
	var ids []uuid.UUID
	for i := range 3 {
		l := store.Letter{ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, SourceID: source.ID, Provider: "generic", Reason: store.ReasonUndecodable, Error: "x", Body: fmt.Append(nil, i)}
		_, err := w.CommitBody(w.Ctx(), l)
		w.must(err)
		ids = append(ids, l.ID)
	}
	w.must(w.SetLetter(w.Ctx(), w.Tenant, ids[0], store.LetterDead, store.LetterIgnored, "me"))
	w.must(w.SettleBody(w.Ctx(), w.Tenant, ids[1], store.LetterReplayed, "", ""))
	w.Clock.Advance(40 * day)
	w.Retain(30*day, 60*day, 1)
	for i, want := range []bool{false, false, true} {
		_, err := w.Letter(w.Ctx(), w.Tenant, ids[i])
		Same(w.T, fmt.Sprint("body ", i, " is there"), err == nil, want)
	}
	Same(w.T, "undecodable", w.Account(w.Tenant).Undecodable, 1)
}

func retainTenants(w *World) {
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	w.Send("", For(other.ID), func(e *event.Event) { e.Control, e.Kind = true, "hook" })
	w.Clock.Advance(40 * day)
	w.Send("", func(e *event.Event) { e.Control, e.Kind = true, "hook" })
	Same(w.T, "removed", w.Retain(30*day, 60*day, 10), 1)
	Same(w.T, "theirs", w.Account(other.ID), store.Ledger{Tenant: other.ID, Received: 1, Archived: 1})
	Same(w.T, "ours", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 1, Ignored: 1})
}

func retainRestart(w *World) {
	w.Person("ada@example.com")
	w.Flood(20, Address("ada@example.com"))
	w.Clock.Advance(40 * day)
	now := w.Clock.Now()
	removed := int64(0)
	for more := true; more; {
		r, err := w.Retire(w.Ctx(), store.Retention{Events: now.Add(-30 * day), Identities: now.Add(-60 * day)}, 3)
		w.must(err)
		removed, more = removed+r.Events, r.More
		w.Balanced()
		w.Reopen()
	}
	Same(w.T, "removed", removed, 20)
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Delivered: 20})
}

func retainNothing(w *World) {
	w.Person("ada@example.com")
	w.Flood(20, Address("ada@example.com"))
	account := w.Account(w.Tenant)
	Same(w.T, "removed", w.Retain(30*day, 60*day, 3), 0)
	Same(w.T, "account", w.Account(w.Tenant), account)
}

func retainIndexed(w *World) {
	w.Reopen(func(o *Options) { o.Generation = 10 })
	w.Person("ada@example.com")
	e := w.Event(event.Opened, ID("1"), Address("ada@example.com"))
	w.Put(e)
	w.Flood(40, Address("ada@example.com"))
	w.Index()
	w.Clock.Advance(40 * day)
	Same(w.T, "removed", w.Retain(30*day, 35*day, 5), 41)
	e.ID = uuid.Must(uuid.NewV7())
	Same(w.T, "its identity is forgotten", w.Put(e)[0].Outcome, event.OutcomeApplied)
	rows, _, err := w.Events(w.Ctx(), w.Tenant, store.EventFilter{Email: "ada@example.com"}, store.Page{Limit: 100})
	w.must(err)
	Same(w.T, "found by the address", len(rows), 1)
}
