package storetest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func erasures() group {
	return group{"Erasure", map[string]func(*World){
		"AContactGoesAndTheNumbersStay":   eraseAll,
		"WhatIsResentMeetsWhatItWas":      eraseResend,
		"WhatIsNewIsIgnoredAndBare":       eraseNew,
		"TheAddressStaysSuppressed":       eraseSuppression,
		"AnErasedContactIsNotTakenIn":     eraseEnroll,
		"NoEventEnrollsAnErasedContact":   eraseEnrolls,
		"NorOneThatWaited":                eraseEnrollsWaiting,
		"AReplayKeepsItOffTheList":        eraseReplay,
		"AnotherTenantsContactStays":      eraseTenant,
		"OneStepAtATimeOverRestarts":      eraseRestart,
		"ByWhicheverNameItIsFound":        eraseNames,
		"WhileEventsOfTheContactComeIn":   func(w *World) { eraseRace(w, func(*event.Event) {}) },
		"WhileEventsEnrollTheContact":     eraseRaceEnrolls,
		"BodiesThatNameTheContactGo":      eraseBodies,
		"FromMemoryAndFromTheIndexOnDisk": eraseIndexed,
	}}
}

const (
	adaAddress = "ada.lovelace@example.com"
	adaProfile = "https://www.linkedin.com/in/ada-lovelace-1815"
	adaContact = "crm-ada-1815"
	adaMessage = "msg-of-ada"
	adaPhone   = "555-0100-ada"
)

// AdaTraces are what no part of a store may hold after EraseAda.
func AdaTraces() []string {
	return []string{adaAddress, "ada.lovelace", "ADA.LOVELACE", "ada-lovelace-1815", adaContact, adaPhone}
}

// Erase erases a contact to the end, n events a step.
func (w *World) Erase(c store.Contact, n int) store.Erasure {
	w.T.Helper()
	e, err := w.StartErasure(w.Ctx(), w.Tenant, c, "me")
	w.must(err)
	return w.EraseOn(e.ID, n)
}

// EraseOn goes on with an erasure to its end. On a server with other writers
// it has to wait for those that began before it.
func (w *World) EraseOn(id uuid.UUID, n int) (e store.Erasure) {
	w.T.Helper()
	w.eventually("the erasure is done", func() bool {
		for more := true; more; {
			var err error
			more, err = w.NextErasure(w.Ctx(), n)
			w.must(err)
		}
		var err error
		e, err = w.Erasure(w.Ctx(), w.Tenant, id)
		w.must(err)
		return e.Status == "done"
	})
	return e
}

func personal(e *event.Event) {
	e.Metadata = fmt.Appendf(nil, `{"phone":%q,"variant":"b"}`, adaPhone)
	e.URL = "https://example.com/?to=" + adaAddress
	e.Payload = fmt.Appendf(nil, `{"to":"Ada <%s>","phone":%q}`, strings.ToUpper(adaAddress), adaPhone)
}

// Ada is a contact with events in every state, and a neighbour.
type Ada struct {
	Enrollment, Second, Neighbour          uuid.UUID
	Applied, Orphan, Dead, Ignored, Silent store.Result
	Other                                  store.Result
}

// EnrollAda fills a World with a contact that is to be erased.
func (w *World) EnrollAda() Ada {
	w.T.Helper()
	var a Ada
	_, second := w.Campaign(w.Tenant, nil)
	a.Enrollment = w.Join(w.Instance, campaign.Enrollment{
		Email: adaAddress, ContactID: adaContact, LinkedInURL: adaProfile, Metadata: fmt.Appendf(nil, `{"phone":%q}`, adaPhone),
		Refs: []event.Ref{{Provider: "lemlist", Kind: event.RefMessage, Value: adaMessage}, {Provider: "lemlist", Kind: event.RefLead, Value: "lead-" + adaContact}},
	}).ID
	a.Neighbour = w.Person("bob@example.com")
	address := Address("Ada <" + strings.ToUpper(adaAddress) + ">")
	a.Applied = w.Send(event.Opened, address, personal)
	w.Send(event.Replied, address, personal, Lead("lead-"+adaContact))
	a.Silent = w.Send(event.ProfileVisited, Message(adaMessage), personal) // names no address
	a.Other = w.Send(event.Clicked, Address("bob@example.com"))
	a.Orphan = w.Send(event.Delivered, address, Of(uuid.New()), personal)
	dead := w.Event(event.Sent, address, personal)
	res, err := w.CommitDead(w.Ctx(), []event.Event{dead}, store.ReasonPoison, "x")
	w.must(err)
	a.Dead = res[0]
	a.Ignored = w.Send("", address, personal, func(e *event.Event) { e.Control, e.Kind = true, "hook.created" })
	a.Second = w.Join(second, campaign.Enrollment{Email: adaAddress}).ID
	w.Send(event.Unsubscribed, address, personal)
	return a
}

func eraseAll(w *World) {
	a := w.EnrollAda()
	numbers := func() store.Numbers {
		n, err := w.Numbers(w.Ctx(), w.Tenant, w.Instance, time.Time{}, time.Time{})
		w.must(err)
		return n
	}
	before, account := numbers(), w.Account(w.Tenant)
	status := w.Status(a.Enrollment)
	e := w.Erase(store.Contact{Email: strings.ToUpper(adaAddress)}, 2)
	Same(w.T, "enrollments", e.Enrollments, 2)
	Same(w.T, "events", e.Events, 7)
	Same(w.T, "numbers", numbers(), before)
	Same(w.T, "status", w.Status(a.Enrollment), status)
	account.Orphaned, account.Dead, account.Ignored = account.Orphaned-2, account.Dead-1, account.Ignored+3
	Same(w.T, "account", w.Account(w.Tenant), account)
	w.Balanced()
	for what, res := range map[string]store.Result{"applied": a.Applied, "orphan": a.Orphan, "dead": a.Dead, "ignored": a.Ignored, "silent": a.Silent} {
		r := w.Record(res.ID)
		w.bare(what, &r)
	}
	Same(w.T, "an applied event stays where it is", w.Record(a.Applied.ID).Enrollment, a.Enrollment)
	Same(w.T, "its variant stays", string(w.Record(a.Applied.ID).Metadata), `{"variant":"b"}`)
	for what, res := range map[string]store.Result{"orphan": a.Orphan, "dead": a.Dead} {
		Same(w.T, what+": state", w.Record(res.ID).State, event.Ignored)
		Same(w.T, what+": reason", w.Record(res.ID).Reason, store.ReasonErased)
	}
	Same(w.T, "the dead letter", w.LetterOf(a.Dead.ID).Status, store.LetterIgnored)
	Same(w.T, "the neighbour", w.Record(a.Other.ID).Email, "bob@example.com")
	Same(w.T, "timeline", w.Moments(a.Applied.ID), []string{"received", "applied", "erased"})
	Same(w.T, "timeline of the orphan", w.Moments(a.Orphan.ID)[0], "received")
	for _, id := range []uuid.UUID{a.Enrollment, a.Second} {
		got, err := w.Enrollment(w.Ctx(), w.Tenant, id)
		w.must(err)
		Same(w.T, "enrollment", fmt.Sprint(got.Email, got.LinkedInURL, got.ContactID, string(got.Metadata), got.Refs), "[]")
	}
	rows, _, err := w.Events(w.Ctx(), w.Tenant, store.EventFilter{Email: adaAddress}, store.Page{Limit: 10})
	w.must(err)
	Same(w.T, "events by the address", len(rows), 0)
	rows, _, err = w.Events(w.Ctx(), w.Tenant, store.EventFilter{Enrollment: a.Enrollment}, store.Page{Limit: 10})
	w.must(err)
	Same(w.T, "events of the enrollment", len(rows), 3)
	w.Clock.Advance(time.Hour)
	Same(w.T, "nothing of it is retried", len(w.Due()), 0)
}

// bare checks that nothing personal is left of an event.
func (w *World) bare(what string, r *store.Record) {
	w.T.Helper()
	all := fmt.Sprintf("%s|%s|%s|%s|%s|%s|%s|%s|%s", r.Email, r.URL, r.LeadID, r.ActionID, r.Metadata, r.Payload, r.ProviderEventID, r.ProviderMessageID, r.EnrollmentID)
	for _, trace := range AdaTraces() {
		if strings.Contains(strings.ToLower(all), strings.ToLower(trace)) {
			w.T.Errorf("%s: the event still holds %q: %s", what, trace, all)
		}
	}
	Same(w.T, what+": address", r.Email, "")
	Same(w.T, what+": payload", string(r.Payload), "{}")
}

func eraseResend(w *World) {
	w.Person(adaAddress)
	byID := w.Event(event.Opened, ID("1"), Address(adaAddress), personal)
	byFields := w.Event(event.Clicked, ID(""), Address(adaAddress), personal)
	orphan := w.Event(event.Sent, Address(adaAddress), Of(uuid.New()), personal)
	all := []event.Event{byID, byFields, orphan}
	first := w.Put(all...)
	w.Erase(store.Contact{Email: adaAddress}, 100)
	w.Clock.Advance(36 * time.Hour) // across midnight
	again := make([]event.Event, len(all))
	for i, e := range all {
		e.ID, e.ReceivedAt = uuid.Must(uuid.NewV7()), w.Clock.Now()
		again[i] = e
	}
	for i, r := range w.Put(again...) {
		Same(w.T, "outcome", r.Outcome, event.OutcomeDuplicate)
		Same(w.T, "of", r.ID, first[i].ID)
		rec := w.Record(r.ID)
		w.bare("resent", &rec)
		Same(w.T, "duplicates", rec.Duplicates, 1)
	}
	Same(w.T, "what is given back is not changed", all[0].Email, adaAddress)
	Same(w.T, "account", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 6, Duplicates: 3, Applied: 2, Ignored: 1})
}

func eraseNew(w *World) {
	a := w.EnrollAda()
	w.Erase(store.Contact{Email: adaAddress}, 100)
	totals := w.Totals(w.Instance)
	for what, e := range map[string]event.Event{
		"by address":    w.Event(event.Opened, Address(adaAddress), personal),
		"by message":    w.Event(event.Opened, Message(adaMessage), personal),
		"by enrollment": w.Event(event.Opened, Of(a.Enrollment), personal),
		"by fields":     w.Event(event.Clicked, ID(""), Address(adaAddress), personal),
	} {
		r := w.Put(e)[0]
		Same(w.T, what+": outcome", r.Outcome, event.OutcomeIgnored)
		rec := w.Record(r.ID)
		w.bare(what, &rec)
		Same(w.T, what+": reason", rec.Reason, store.ReasonErased)
		e.ID = uuid.Must(uuid.NewV7())
		twice := w.Put(e, e)
		Same(w.T, what+": resent", twice[0].Outcome, event.OutcomeDuplicate)
		Same(w.T, what+": resent is the first", twice[1].ID, r.ID)
	}
	Same(w.T, "nothing counts for a campaign", w.Totals(w.Instance), totals)
	Same(w.T, "others go on", w.Send(event.Opened, Address("bob@example.com")).Outcome, event.OutcomeApplied)
	manual := w.Send(event.Resubscribed, Of(a.Second), func(e *event.Event) { e.Scope, e.Provider = "manual", "manual" })
	Same(w.T, "a person's act", manual.Outcome, event.OutcomeApplied)
	rows, _, err := w.Events(w.Ctx(), w.Tenant, store.EventFilter{Email: adaAddress}, store.Page{Limit: 10})
	w.must(err)
	Same(w.T, "events by the address", len(rows), 0)
}

func eraseSuppression(w *World) {
	w.Send(event.Complained, Address(adaAddress))
	w.Erase(store.Contact{Email: adaAddress}, 100)
	Same(w.T, "reason stays", w.reason(adaAddress), "complained")
	w.Erase(store.Contact{Email: "never.seen@example.com"}, 100)
	Same(w.T, "who was not on the list is", w.reason("never.seen@example.com"), "manual")
	rows, _, err := w.Suppressions(w.Ctx(), w.Tenant, time.Time{}, store.Page{Limit: 10})
	w.must(err)
	Same(w.T, "on the list", len(rows), 2)
	for _, r := range rows {
		Same(w.T, "address on the list", r.Email, "")
	}
	w.Send(event.Unsubscribed, Address("never.seen@example.com"), personal)
	Same(w.T, "a later event counts", w.reason("never.seen@example.com"), "unsubscribed")
	s, err := w.PutSuppression(w.Ctx(), w.Tenant, adaAddress, "me")
	w.must(err)
	Same(w.T, "by hand", s.Reason(), "complained")
	w.must(w.DeleteSuppression(w.Ctx(), w.Tenant, adaAddress, "me"))
	Same(w.T, "taken off", w.reason(adaAddress), "")
	Same(w.T, "and taken in again", w.Send(event.Opened, Address(adaAddress)).Outcome, event.OutcomeOrphaned)
	w.Send(event.Unsubscribed, Address(adaAddress))
	Same(w.T, "on the list in clear", w.reason(adaAddress), "unsubscribed")
	w.Erase(store.Contact{Email: adaAddress}, 100)
	Same(w.T, "erased once more", w.reason(adaAddress), "unsubscribed")
}

func eraseEnroll(w *World) {
	a := w.EnrollAda()
	w.Erase(store.Contact{Email: adaAddress}, 100)
	res, err := w.Enroll(w.Ctx(), w.Tenant, w.Instance, []campaign.Enrollment{
		{Email: adaAddress}, {Email: "eve@example.com"},
	}, false, store.Idempotency{})
	w.must(err)
	Kind(w.T, res[0].Err, fault.Conflict)
	Same(w.T, "the other one", res[1].Err, nil)
	email := adaAddress
	_, _, err = w.PatchEnrollment(w.Ctx(), w.Tenant, a.Neighbour, store.EnrollmentPatch{Email: &email})
	Kind(w.T, err, fault.Conflict)
	_, _, err = w.PatchEnrollment(w.Ctx(), w.Tenant, a.Enrollment, store.EnrollmentPatch{Metadata: []byte(`{}`)})
	Kind(w.T, err, fault.Conflict)
	_, err = w.AddRefs(w.Ctx(), w.Tenant, a.Enrollment, []event.Ref{{Provider: "x", Kind: event.RefLead, Value: "y"}})
	Kind(w.T, err, fault.Conflict)
	w.must(w.DeleteSuppression(w.Ctx(), w.Tenant, adaAddress, "me"))
	again := w.Join(w.Instance, campaign.Enrollment{Email: adaAddress})
	Same(w.T, "has come back", w.Send(event.Opened, Address(adaAddress)).Enrollment, again.ID)
}

// eraseEnrolls: a source that enrolls brings nobody back, by whatever name.
func eraseEnrolls(w *World) {
	in := w.tool()
	address, lead := Address(adaAddress), Lead("l")
	w.Send(event.Sent, lead, address, Enrolling("cam"), personal)
	was := w.one(in)
	w.Erase(store.Contact{Email: adaAddress}, 100)
	for _, opts := range [][]Option{{address}, {lead}, {lead, address}, {Lead("another"), address}, {Of(was.ID), Lead("third")}} {
		r := w.Send(event.Opened, append(opts, Enrolling("cam"), personal)...)
		Same(w.T, "outcome", r.Outcome, event.OutcomeIgnored)
		Same(w.T, "reason", r.Reason, store.ReasonErased)
		stored := w.Record(r.ID)
		w.bare("new", &stored)
	}
	// In one batch with somebody else.
	res := w.Put(w.Event(event.Opened, address, Enrolling("cam")), w.Event(event.Opened, Address("eve@example.com"), Enrolling("cam")))
	Same(w.T, "outcomes", []event.Outcome{res[0].Outcome, res[1].Outcome}, []event.Outcome{event.OutcomeIgnored, event.OutcomeApplied})
	got := w.enrolled(in)
	Same(w.T, "enrollments", len(got), 2)
	for _, e := range got {
		if e.ID == was.ID {
			Same(w.T, "the erased one", []any{e.Email, len(e.Refs)}, []any{"", 0})
		} else {
			Same(w.T, "the new one", e.Email, "eve@example.com")
		}
	}
	// Taken off the list, the address may come back.
	w.must(w.DeleteSuppression(w.Ctx(), w.Tenant, adaAddress, "me"))
	Same(w.T, "has come back", w.Send(event.Opened, address, Enrolling("cam")).Outcome, event.OutcomeApplied)
}

// eraseEnrollsWaiting: while the erasure has not come to what waits, that
// enrolls nobody either; nor does the erasure itself.
func eraseEnrollsWaiting(w *World) {
	in := w.tool()
	w.setStatus(in, campaign.Paused)
	r := w.Send(event.Sent, Lead("l"), Address(adaAddress), Enrolling("cam"), personal)
	later := w.Send(event.Opened, Address("eve@example.com"), Enrolling("cam"))
	w.Waits(r.ID, store.ReasonNoEnrollment)
	e, err := w.StartErasure(w.Ctx(), w.Tenant, store.Contact{Email: adaAddress}, "me")
	w.must(err)
	Same(w.T, "adopted", w.setStatus(in, campaign.Active).Adopted, 1)
	w.Clock.Advance(time3)
	w.Due()
	w.Waits(r.ID, store.ReasonNoEnrollment)
	w.EraseOn(e.ID, 100)
	stored := w.Record(r.ID)
	Same(w.T, "state", []any{stored.State, stored.Reason}, []any{event.Ignored, store.ReasonErased})
	w.bare("what waited", &stored)
	w.IsApplied(later.ID, w.one(in).ID)
}

// eraseReplay: what may be forged says nothing of its address until a person
// replays it, and then not in clear.
func eraseReplay(w *World) {
	dead := w.Event(event.Unsubscribed, Address(adaAddress))
	_, err := w.CommitDead(w.Ctx(), []event.Event{dead}, store.ReasonNonceReused, "x")
	w.must(err)
	e, err := w.StartErasure(w.Ctx(), w.Tenant, store.Contact{Email: adaAddress}, "me")
	w.must(err)
	w.mustReplay(w.LetterOf(dead.ID))
	list, _, err := w.Suppressions(w.Ctx(), w.Tenant, time.Time{}, store.Page{Limit: 10})
	w.must(err)
	Same(w.T, "list", len(list), 1)
	Same(w.T, "address", list[0].Email, "")
	w.EraseOn(e.ID, 100)
	Same(w.T, "state", w.Record(dead.ID).State, event.Ignored)
}

func eraseTenant(w *World) {
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	_, instance := w.Campaign(other.ID, nil)
	theirs := w.JoinAs(other.ID, instance, campaign.Enrollment{Email: adaAddress, ContactID: adaContact})
	kept := w.Send(event.Unsubscribed, For(other.ID), Address(adaAddress), personal)
	w.EnrollAda()
	e, err := w.StartErasure(w.Ctx(), w.Tenant, store.Contact{Email: adaAddress, ContactID: adaContact}, "me")
	w.must(err)
	_, err = w.Erasure(w.Ctx(), other.ID, e.ID)
	Kind(w.T, err, fault.NotFound)
	w.EraseOn(e.ID, 100)
	r, err := w.Event1(other.ID, kept.ID)
	w.must(err)
	Same(w.T, "their event", r.Email, adaAddress)
	Same(w.T, "their next event", w.Send(event.Opened, For(other.ID), Address(adaAddress)).Enrollment, theirs.ID)
	s, err := w.Suppression(w.Ctx(), other.ID, adaAddress)
	w.must(err)
	Same(w.T, "their list", s.Reason(), "unsubscribed")
	got, err := w.Enrollment(w.Ctx(), other.ID, theirs.ID)
	w.must(err)
	Same(w.T, "their enrollment", got.ContactID, adaContact)
}

func eraseRestart(w *World) {
	w.Person(adaAddress)
	for range 7 {
		w.Send(event.Opened, Address(adaAddress), personal)
	}
	e, err := w.StartErasure(w.Ctx(), w.Tenant, store.Contact{Email: adaAddress}, "me")
	w.must(err)
	w.eventually("the erasure is done", func() bool {
		_, err := w.NextErasure(w.Ctx(), 1)
		w.must(err)
		w.Reopen()
		e, err = w.Erasure(w.Ctx(), w.Tenant, e.ID)
		w.must(err)
		return e.Status == "done"
	})
	Same(w.T, "events", e.Events, 7)
	Same(w.T, "after the restart", w.Send(event.Opened, Address(adaAddress)).Outcome, event.OutcomeIgnored)
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: 7})
}

func eraseNames(w *World) {
	for name, c := range map[string]store.Contact{
		"contact id": {ContactID: "crm-1"}, "profile": {LinkedInURL: "https://linkedin.com/in/Person/"},
	} {
		person := w.Join(w.Instance, campaign.Enrollment{Email: adaAddress, ContactID: "crm-1", LinkedInURL: "https://www.linkedin.com/in/person?x=1"})
		res := w.Send(event.Opened, Address(adaAddress), personal)
		e := w.Erase(c, 100)
		Same(w.T, name+": enrollments", e.Enrollments, 1)
		r := w.Record(res.ID)
		w.bare(name, &r)
		got, err := w.Enrollment(w.Ctx(), w.Tenant, person.ID)
		w.must(err)
		Same(w.T, name+": address", got.Email, "")
		Same(w.T, name+": suppressed", w.reason(adaAddress), "manual")
		w.must(w.DeleteSuppression(w.Ctx(), w.Tenant, adaAddress, "me"))
	}
	nobody := w.Erase(store.Contact{ContactID: "nobody"}, 100)
	Same(w.T, "nobody", fmt.Sprint(nobody.Enrollments, nobody.Events), "0 0")
}

// eraseRace lets events of the contact come in while it is erased: whichever
// commits first, nothing of it is left.
// eraseRaceEnrolls: the erasure and the events that make the enrollment want
// the same keys.
func eraseRaceEnrolls(w *World) {
	in := w.tool()
	enrolling := Enrolling("cam")
	eraseRace(w, func(e *event.Event) {
		enrolling(e)
		e.LeadID = "l"
	})
	for _, e := range w.enrolled(in) {
		if e.Email != "" || len(e.Refs) > 0 {
			w.T.Errorf("the enrollment %s still holds %q and %v", e.ID, e.Email, e.Refs)
		}
	}
}

func eraseRace(w *World, opt Option) {
	w.Person(adaAddress)
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(w.Ctx())
	defer cancel()
	var mu sync.Mutex
	var sent []uuid.UUID
	begun := make(chan struct{}, 4)
	for range 4 {
		group.Go(func() {
			for n := 0; n < 200 && ctx.Err() == nil; n++ {
				res, err := w.Commit(context.WithoutCancel(ctx), []event.Event{
					w.Event(event.Opened, Address(adaAddress), personal, opt),
					w.Event(event.Unsubscribed, Address(adaAddress), Of(uuid.New()), personal),
				})
				if err != nil {
					w.T.Error(err)
					return
				}
				mu.Lock()
				sent = append(sent, res[0].ID, res[1].ID)
				mu.Unlock()
				if n == 5 {
					begun <- struct{}{}
				}
			}
		})
	}
	<-begun
	w.Erase(store.Contact{Email: adaAddress}, 10)
	cancel()
	group.Wait()
	for _, id := range sent {
		r := w.Record(id)
		if r.Email != "" || !bytes.Equal(r.Payload, []byte("{}")) || r.State == event.Orphaned {
			w.T.Fatalf("event %d is %s and still holds %q and %q", r.Seq, r.State, r.Email, r.Payload)
		}
	}
	rows, _, err := w.Suppressions(w.Ctx(), w.Tenant, time.Time{}, store.Page{Limit: 10})
	w.must(err)
	Same(w.T, "on the list", len(rows), 1)
	Same(w.T, "in clear", rows[0].Email, "")
}

func eraseBodies(w *World) {
	source := store.Source{ID: row16(1), Tenant: w.Tenant, Provider: "generic", Name: "s", Sealed: []byte{}, CreatedAt: w.Clock.Now()}
	w.must(w.CreateSource(w.Ctx(), source))
	keep := func(body string) store.Letter {
		l := store.Letter{
			ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, SourceID: source.ID, Provider: "generic", Reason: store.ReasonUndecodable, Error: "x",
			Body: []byte(body), Headers: map[string]string{"a": "b"},
		}
		_, err := w.CommitBody(w.Ctx(), l)
		w.must(err)
		return l
	}
	named := []store.Letter{
		keep(`{"to": "` + adaAddress), keep(`{"to": "` + strings.ToUpper(adaAddress)), keep(`to=` + strings.ReplaceAll(adaAddress, "@", "%40")),
		keep(`{"to": "` + strings.ReplaceAll(adaAddress, "@", `\u0040`)),
	}
	for i := range 30 {
		keep(fmt.Sprint("nobody's ", i))
	}
	other := keep(`{"to": "bob@example.com`)
	e := w.Erase(store.Contact{Email: adaAddress}, 100)
	Same(w.T, "bodies", e.Letters, int64(len(named)))
	for _, l := range named {
		got, err := w.Letter(w.Ctx(), w.Tenant, l.ID)
		w.must(err)
		Same(w.T, "body", string(got.Body), "")
		Same(w.T, "status", got.Status, store.LetterIgnored)
		l.ID = uuid.Must(uuid.NewV7())
		res, err := w.CommitBody(w.Ctx(), l)
		w.must(err)
		Same(w.T, "the same body again", res.Outcome, event.OutcomeDuplicate)
		Same(w.T, "is the same letter", res.ID, got.ID)
	}
	got, err := w.Letter(w.Ctx(), w.Tenant, other.ID)
	w.must(err)
	Same(w.T, "another's body", string(got.Body), `{"to": "bob@example.com`)
}

func row16(n byte) uuid.UUID { return uuid.UUID{n} }

func eraseIndexed(w *World) {
	w.Reopen(func(o *Options) { o.Generation = 50 })
	w.Person(adaAddress)
	var ids []uuid.UUID
	for range 6 {
		ids = append(ids, w.Flood(20, Address(adaAddress), personal)...)
		w.Flood(20, Address("bob@example.com"))
		_, err := w.IndexNext(w.Ctx(), 7) // one is on its way to the disk
		w.must(err)
	}
	e := w.Erase(store.Contact{Email: adaAddress}, 33)
	Same(w.T, "events", e.Events, int64(len(ids)))
	w.Index()
	for range 2 {
		rows, _, err := w.Events(w.Ctx(), w.Tenant, store.EventFilter{Email: adaAddress}, store.Page{Limit: 10})
		w.must(err)
		Same(w.T, "events by the address", len(rows), 0)
		rows, _, err = w.Events(w.Ctx(), w.Tenant, store.EventFilter{Email: "bob@example.com"}, store.Page{Limit: 1000})
		w.must(err)
		Same(w.T, "events of another address", len(rows), 120)
		w.Reopen()
	}
	for _, id := range ids {
		r := w.Record(id)
		w.bare("indexed", &r)
	}
	again := w.Event(event.Delivered, Address(adaAddress), personal)
	Same(w.T, "new", w.Put(again)[0].Outcome, event.OutcomeIgnored)
}
