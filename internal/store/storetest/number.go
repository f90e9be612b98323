package storetest

import (
	"sort"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func numbers() group {
	return group{"Number", map[string]func(*World){
		"TalliesAndUniques":      tallies,
		"SinceAndUntil":          window,
		"StatusCounts":           statusCounts,
		"LedgersHoldEveryTenant": ledgers,
	}}
}

func tallies(w *World) {
	at := time.Date(2026, 11, 24, 10, 7, 30, 0, time.UTC)
	ada, bob := w.Person("ada@example.com"), w.Person("bob@example.com")
	step := func(n int, meta string) Option {
		return func(e *event.Event) { e.StepNumber, e.Metadata = n, []byte(meta) }
	}
	machine := func(m event.Machine) Option { return func(e *event.Event) { e.Machine = m } }
	a, b := Address("ada@example.com"), Address("bob@example.com")
	w.Send(event.Opened, a, At(at), step(1, `{"variant":"A"}`))
	w.Send(event.Opened, a, At(at.Add(5*time.Minute)), step(1, `{"variant":"A"}`))
	w.Send(event.Opened, a, At(at.Add(time.Hour)), step(1, `{"variant":"A"}`))
	w.Send(event.Opened, b, At(at), machine(event.MachineYes))
	w.Send(event.Bounced, b, At(at), HardBounce)
	w.Send(event.Bounced, b, At(at))
	w.Send(event.Resubscribed, b, At(at), From("postmark"))
	w.Send(event.Resubscribed, b, At(at), func(e *event.Event) { e.OccurredAtEstimated = true })
	n, err := w.Numbers(w.Ctx(), w.Tenant, w.Instance, time.Time{}, time.Time{})
	w.must(err)

	bucket := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	wantTallies := []store.Tally{
		{Bucket: bucket, Type: event.Opened, Step: 1, Provider: "lemlist", Variant: "A", Count: 2},
		{Bucket: bucket.Add(time.Hour), Type: event.Opened, Step: 1, Provider: "lemlist", Variant: "A", Count: 1},
		{Bucket: bucket, Type: event.Opened, Machine: event.MachineYes, Provider: "lemlist", Count: 1},
		{Bucket: bucket, Type: event.Bounced, Qualifier: "hard", Provider: "lemlist", Count: 1},
		{Bucket: bucket, Type: event.Bounced, Qualifier: "soft", Provider: "lemlist", Count: 1},
		{Bucket: bucket, Type: event.Resubscribed, Provider: "postmark", Count: 1},
		{Bucket: bucket, Type: event.Resubscribed, Qualifier: "void", Provider: "lemlist", Count: 1},
	}
	wantUniques := []store.UniqueRow{
		{Enrollment: ada, Type: event.Opened, Step: 1, Provider: "lemlist", Variant: "A", Count: 3, FirstAt: at, LastAt: at.Add(time.Hour)},
		{Enrollment: bob, Type: event.Opened, Machine: event.MachineYes, Provider: "lemlist", Count: 1, FirstAt: at, LastAt: at},
		{Enrollment: bob, Type: event.Bounced, Qualifier: "hard", Provider: "lemlist", Count: 1, FirstAt: at, LastAt: at},
		{Enrollment: bob, Type: event.Bounced, Qualifier: "soft", Provider: "lemlist", Count: 1, FirstAt: at, LastAt: at},
		{Enrollment: bob, Type: event.Resubscribed, Provider: "postmark", Count: 1, FirstAt: at, LastAt: at},
		{Enrollment: bob, Type: event.Resubscribed, Qualifier: "void", Provider: "lemlist", Count: 1, FirstAt: at, LastAt: at},
	}
	Same(w.T, "tallies", sorted(n.Tallies), sorted(wantTallies))
	Same(w.T, "uniques", sorted(n.Uniques), sorted(wantUniques))
}

// sorted orders rows by what they show, so that sets can be compared.
func sorted[T any](rows []T) []T {
	show := func(r T) string { return cmp.Diff(nil, any(r)) }
	keyed := make(map[string][]T, len(rows))
	keys := make([]string, 0, len(rows))
	for _, r := range rows {
		k := show(r)
		if _, ok := keyed[k]; !ok {
			keys = append(keys, k)
		}
		keyed[k] = append(keyed[k], r)
	}
	sort.Strings(keys)
	out := make([]T, 0, len(rows))
	for _, k := range keys {
		out = append(out, keyed[k]...)
	}
	return out
}

func window(w *World) {
	w.Person("ada@example.com")
	start := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	for h := range 4 {
		w.Send(event.Opened, Address("ada@example.com"), At(start.Add(time.Duration(h)*time.Hour)), func(e *event.Event) { e.StepNumber = h + 1 })
	}
	n, err := w.Numbers(w.Ctx(), w.Tenant, w.Instance, start.Add(time.Hour), start.Add(3*time.Hour))
	w.must(err)
	Same(w.T, "tallies", len(n.Tallies), 2)
	Same(w.T, "uniques", len(n.Uniques), 2)
	n, err = w.Numbers(w.Ctx(), w.Tenant, w.Instance, start.Add(3*time.Hour), time.Time{})
	w.must(err)
	Same(w.T, "since only", len(n.Tallies), 1)
	n, err = w.Numbers(w.Ctx(), w.Tenant, w.Instance, time.Time{}, start.Add(time.Hour))
	w.must(err)
	Same(w.T, "until only", len(n.Tallies), 1)
}

func statusCounts(w *World) {
	w.Person("active@example.com")
	for typ, a := range map[event.Type]string{
		event.Complained: "c@example.com", event.Unsubscribed: "u@example.com", event.Replied: "r@example.com", event.Bounced: "b@example.com",
	} {
		w.Person(a)
		w.Send(typ, Address(a), HardBounce)
	}
	n, err := w.Numbers(w.Ctx(), w.Tenant, w.Instance, time.Time{}, time.Time{})
	w.must(err)
	Same(w.T, "status", n.Status, map[string]int64{"active": 1, "completed": 1, "bounced": 1, "unsubscribed": 1, "complained": 1})
	_, empty := w.Campaign(w.Tenant, nil)
	n, err = w.Numbers(w.Ctx(), w.Tenant, empty, time.Time{}, time.Time{})
	w.must(err)
	Same(w.T, "empty", n.Status, map[string]int64{"active": 0, "completed": 0, "bounced": 0, "unsubscribed": 0, "complained": 0})
}

func ledgers(w *World) {
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	w.Send(event.Opened, Lead("l"))
	all, err := w.Ledgers(w.Ctx())
	w.must(err)
	Same(w.T, "ledgers", all, []store.Ledger{{Tenant: w.Tenant, Received: 1, Orphaned: 1}, {Tenant: other.ID}})
}

func assignments() group {
	return group{"Assign", map[string]func(*World){
		"AnOrphanIsSettled":           assignOrphan,
		"ADeadLetterIsSettled":        assignDead,
		"AnAppliedEventMoves":         assignMoves,
		"TheLastOfItsKindLeaves":      assignLast,
		"MovingAfterIndexing":         assignIndexed,
		"ToTheSameIsNoChange":         assignSame,
		"WhatIsNotThereIsNotFound":    assignUnknown,
		"AnIgnoredEventBelongsNowher": assignIgnored,
	}}
}

func assignOrphan(w *World) {
	ada := w.Join(w.Instance, campaignOf("7")).ID
	res := w.Send(event.Replied, Lead("l"))
	got, err := w.Assign(w.Ctx(), w.Tenant, res.ID, ada, "key-1")
	w.must(err)
	Same(w.T, "outcome", []any{got.Outcome, got.State, got.By}, []any{event.OutcomeApplied, event.Applied, "assign"})
	w.IsApplied(res.ID, ada)
	Same(w.T, "status", w.Status(ada), campaign.StatusCompleted)
	Same(w.T, "timeline", w.Moments(res.ID), []string{"received", "parked", "assigned", "applied"})
	// Only this event: the next of its lead waits, nobody has said whose it is.
	w.Waits(w.Send(event.Replied, Lead("l")).ID, store.ReasonNoEnrollment)
}

func assignDead(w *World) {
	ada := w.Join(w.Instance, campaignOf("7")).ID
	id := w.buried(1)[0]
	_, err := w.Assign(w.Ctx(), w.Tenant, id, ada, "me")
	w.must(err)
	w.IsApplied(id, ada)
	Same(w.T, "letter", w.LetterOf(id).Status, store.LetterReplayed)
}

func assignMoves(w *World) {
	_, other := w.Campaign(w.Tenant, nil)
	ada := w.Person("ada@example.com")
	bob := w.Join(other, campaign.Enrollment{Email: "bob@example.com"}).ID
	early := w.Clock.Now()
	w.Clock.Advance(time.Hour)
	w.Send(event.Replied, Address("ada@example.com"), At(early))
	wrong := w.Send(event.Replied, Address("ada@example.com"))
	w.Send(event.Opened, Address("ada@example.com"))
	stop := w.Send(event.Unsubscribed, Address("ada@example.com"))

	got, err := w.Assign(w.Ctx(), w.Tenant, wrong.ID, bob, "me")
	w.must(err)
	Same(w.T, "outcome", got.Outcome, event.OutcomeApplied)
	w.IsApplied(wrong.ID, bob)
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Replied: 1, event.Opened: 1, event.Unsubscribed: 1})
	Same(w.T, "totals of the other", w.Totals(other), map[event.Type]int64{event.Replied: 1})
	Same(w.T, "bob", w.Status(bob), campaign.StatusCompleted)
	_, err = w.Assign(w.Ctx(), w.Tenant, stop.ID, bob, "me")
	w.must(err)
	Same(w.T, "ada", w.Status(ada), campaign.StatusCompleted)
	Same(w.T, "bob", w.Status(bob), campaign.StatusUnsubscribed)
	// Both moves are in the timeline, with where it was before.
	all, err := w.Timeline(w.Ctx(), w.Tenant, wrong.ID)
	w.must(err)
	Same(w.T, "timeline", w.Moments(wrong.ID), []string{"received", "applied", "assigned", "applied"})
	if !strings.Contains(all[1].Detail, ada.String()) || !strings.Contains(all[2].Detail, ada.String()) || !strings.Contains(all[3].Detail, bob.String()) {
		w.T.Errorf("the timeline does not tell the move: %+v", all)
	}
}

func assignLast(w *World) {
	ada, bob := w.Person("ada@example.com"), w.Person("bob@example.com")
	res := w.Send(event.Complained, Address("ada@example.com"))
	for _, to := range []uuid.UUID{bob, ada, bob} {
		_, err := w.Assign(w.Ctx(), w.Tenant, res.ID, to, "me")
		w.must(err)
	}
	Same(w.T, "ada", w.Status(ada), campaign.StatusActive)
	Same(w.T, "bob", w.Status(bob), campaign.StatusComplained)
	n, err := w.Numbers(w.Ctx(), w.Tenant, w.Instance, time.Time{}, time.Time{})
	w.must(err)
	Same(w.T, "uniques", len(n.Uniques), 1)
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Complained: 1})
}

func assignIndexed(w *World) {
	w.Reopen(smallGenerations)
	ada, bob := w.Person("ada@example.com"), w.Person("bob@example.com")
	w.Send(event.Opened, Address("ada@example.com"))
	w.Index()
	res := w.Send(event.Opened, Address("ada@example.com"))
	for range 2 {
		_, err := w.Assign(w.Ctx(), w.Tenant, res.ID, bob, "me")
		w.must(err)
		w.Index()
		for id, want := range map[uuid.UUID]int{ada: 1, bob: 1} {
			rows, _, err := w.Events(w.Ctx(), w.Tenant, store.EventFilter{Enrollment: id}, store.Page{Limit: 10})
			w.must(err)
			Same(w.T, "events", len(rows), want)
		}
	}
}

func assignSame(w *World) {
	ada := w.Person("ada@example.com")
	res := w.Send(event.Opened, Address("ada@example.com"))
	got, err := w.Assign(w.Ctx(), w.Tenant, res.ID, ada, "me")
	w.must(err)
	Same(w.T, "outcome", got.Outcome, event.OutcomeApplied)
	Same(w.T, "timeline", w.Moments(res.ID), []string{"received", "applied"})
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: 1})
}

func assignUnknown(w *World) {
	ada := w.Person("ada@example.com")
	res := w.Send(event.Opened, Lead("l"))
	_, err := w.Assign(w.Ctx(), w.Tenant, uuid.Must(uuid.NewV7()), ada, "me")
	Kind(w.T, err, fault.NotFound)
	_, err = w.Assign(w.Ctx(), w.Tenant, res.ID, uuid.Must(uuid.NewV7()), "me")
	Kind(w.T, err, fault.NotFound)
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	_, err = w.Assign(w.Ctx(), other.ID, res.ID, ada, "me")
	Kind(w.T, err, fault.NotFound)
	w.Waits(res.ID, store.ReasonNoEnrollment)
}

func assignIgnored(w *World) {
	e := w.Event("", Address("ada@example.com"))
	e.Control, e.Kind, e.Channel = true, "x", ""
	w.Put(e)
	_, err := w.Assign(w.Ctx(), w.Tenant, e.ID, w.Person("ada@example.com"), "me")
	Kind(w.T, err, fault.Conflict)
}
