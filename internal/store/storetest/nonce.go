package storetest

import (
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func nonces() group {
	return group{"Nonce", map[string]func(*World){
		"TheSameAgainIsADuplicate":          nonceRepeated,
		"AnotherEventIsRefused":             nonceTaken,
		"TwoInOneBatch":                     nonceTwins,
		"ServesAllEventsOfItsRequest":       nonceOfMany,
		"BelongsToATenantAndASource":        nonceScopes,
		"SurvivesARestart":                  nonceRestart,
		"IsKeptWithABurial":                 nonceBuried,
		"IsForgottenInSteps":                nonceForgotten,
		"OfCommitsAtOnceBelongsToOneOfThem": func(w *World) { NonceAtOnce(w, 40, w.Store, w.Store) },
	}}
}

// Once makes events those of one request with a nonce.
func Once(nonce string, events ...event.Event) []event.Event {
	n := event.NonceOf("source", nonce, events)
	for i := range events {
		events[i].Nonce = n
	}
	return events
}

// anew is a delivery of the same event again.
func anew(e event.Event) event.Event {
	e.ID = uuid.Must(uuid.NewV7())
	return e
}

func (w *World) unknown(id uuid.UUID) {
	w.T.Helper()
	if _, err := w.Event1(w.Tenant, id); err == nil {
		w.T.Errorf("the event %s is stored", id)
	}
}

func nonceRepeated(w *World) {
	e := Once("t", w.Event(event.Opened, Address("ada@example.com")))[0]
	first := w.Put(e)[0]
	Same(w.T, "outcome", first.Outcome, event.OutcomeOrphaned)
	again := w.Put(anew(e))[0]
	Same(w.T, "the same again", []any{again.Outcome, again.ID, again.Refused}, []any{event.OutcomeDuplicate, e.ID, false})
	same := w.Put(e)[0]
	Same(w.T, "the same commit repeated", []any{same.Outcome, same.Refused}, []any{event.OutcomeOrphaned, false})
	Same(w.T, "account", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 2, Duplicates: 1, Orphaned: 1})
	// Signed anew, the event is the one that is there.
	signed := Once("t2", anew(e))[0]
	Same(w.T, "signed anew", w.Put(signed)[0].Outcome, event.OutcomeDuplicate)
}

// nonceTaken: what comes with a nonce that came with something else is refused
// by itself, and stored nowhere; its neighbours do not notice.
func nonceTaken(w *World) {
	ada := w.Person("ada@example.com")
	source := store.Source{ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, Provider: "mailgun", Name: "m", Sealed: []byte{}, CreatedAt: w.Clock.Now()}
	w.must(w.CreateSource(w.Ctx(), source))
	from := func(e *event.Event) { e.SourceID = source.ID }
	w.Put(Once("t", w.Event(event.Opened, Address("ada@example.com"), from))...)
	forged := Once("t", w.Event(event.Unsubscribed, Address("ada@example.com"), from))[0]
	res := w.Put(w.Event(event.Clicked, Address("ada@example.com"), from), forged, w.Event(event.Opened, Address("bob@example.com"), from))
	Same(w.T, "outcomes", []event.Outcome{res[0].Outcome, res[1].Outcome, res[2].Outcome},
		[]event.Outcome{event.OutcomeApplied, "", event.OutcomeOrphaned})
	Same(w.T, "refused", []bool{res[0].Refused, res[1].Refused, res[2].Refused}, []bool{false, true, false})
	w.unknown(forged.ID)
	Same(w.T, "status", string(w.Status(ada)), "active")
	Same(w.T, "account", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 3, Applied: 2, Orphaned: 1})
	got, err := w.Source(w.Ctx(), w.Tenant, source.ID)
	w.must(err)
	Same(w.T, "received by the source", got.Received, 3)
	// Under a nonce of its own the same event is welcome: its identity is free.
	Same(w.T, "signed for itself", w.Put(Once("t2", anew(forged))...)[0].Outcome, event.OutcomeApplied)
}

func nonceTwins(w *World) {
	a, b := Once("t", w.Event(event.Opened))[0], Once("t", w.Event(event.Opened))[0]
	res := w.Put(a, b, anew(a))
	Same(w.T, "refused", []bool{res[0].Refused, res[1].Refused, res[2].Refused}, []bool{false, true, false})
	Same(w.T, "the twin", res[2].Outcome, event.OutcomeDuplicate)
	w.unknown(b.ID)
}

func nonceOfMany(w *World) {
	batch := Once("t", w.Event(event.Opened), w.Event(event.Clicked), w.Event(event.Opened))
	for _, r := range w.Put(batch...) {
		Same(w.T, "outcome", r.Outcome, event.OutcomeOrphaned)
	}
	fewer := Once("t", anew(batch[0]), anew(batch[1]))
	for _, r := range w.Put(fewer...) {
		Same(w.T, "another set of events is refused", r.Refused, true)
	}
}

func nonceScopes(w *World) {
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	w.Campaign(other.ID, nil)
	mine, theirs := w.Event(event.Opened), w.Event(event.Opened, For(other.ID))
	elsewhere := []event.Event{w.Event(event.Opened)}
	elsewhere[0].Nonce = event.NonceOf("another source", "t", elsewhere)
	res := w.Put(Once("t", mine)[0], Once("t", theirs)[0], elsewhere[0])
	for _, r := range res {
		Same(w.T, "outcome", r.Outcome, event.OutcomeOrphaned)
	}
}

func nonceRestart(w *World) {
	w.Put(Once("t", w.Event(event.Opened))...)
	w.Reopen()
	Same(w.T, "refused", w.Put(Once("t", w.Event(event.Opened))...)[0].Refused, true)
}

// nonceBuried: an event that is buried has its nonce like any other, and is
// buried also where the nonce was taken: it was accepted already.
func nonceBuried(w *World) {
	bury := func(e event.Event) store.Result {
		res, err := w.CommitDead(w.Ctx(), []event.Event{e}, store.ReasonNonceReused, "x")
		w.must(err)
		return res[0]
	}
	Same(w.T, "buried", bury(Once("t", w.Event(event.Opened))[0]).Outcome, event.OutcomeDead)
	late := Once("t", w.Event(event.Clicked))[0]
	Same(w.T, "refused", w.Put(late)[0].Refused, true)
	Same(w.T, "buried too", bury(late).Outcome, event.OutcomeDead)
	l := w.LetterOf(late.ID)
	Same(w.T, "its letter", l.Reason, store.ReasonNonceReused)
	// It may be forged: it has no effect until a person says otherwise.
	forged := Once("t", w.Event(event.Unsubscribed, Address("ada@example.com")))[0]
	bury(forged)
	ada := w.Person("ada@example.com")
	_, err := w.Suppression(w.Ctx(), w.Tenant, "ada@example.com")
	Kind(w.T, err, fault.NotFound)
	Same(w.T, "status", w.Status(ada), campaign.StatusActive)
	_, err = w.ReplayLetters(w.Ctx(), w.Tenant, []uuid.UUID{w.LetterOf(forged.ID).ID})
	w.must(err)
	w.IsApplied(forged.ID, ada)
	Same(w.T, "status", w.Status(ada), campaign.StatusUnsubscribed)
	Same(w.T, "suppressed", w.reason("ada@example.com"), "unsubscribed")
}

func nonceForgotten(w *World) {
	var batch []event.Event
	for i := range 5 {
		batch = append(batch, Once(fmt.Sprint("old ", i), w.Event(event.Opened))...)
	}
	w.Put(batch...)
	w.Clock.Advance(time.Hour)
	before := w.Clock.Now()
	w.Put(Once("young", w.Event(event.Opened))...)
	for _, want := range []bool{true, true, false} {
		more, err := w.ForgetNonces(w.Ctx(), before, 2)
		w.must(err)
		Same(w.T, "more", more, want)
	}
	Same(w.T, "a forgotten one", w.Put(Once("old 3", w.Event(event.Opened))...)[0].Outcome, event.OutcomeOrphaned)
	Same(w.T, "a young one", w.Put(Once("young", w.Event(event.Opened))...)[0].Refused, true)
}

// NonceAtOnce commits pairs of different events under one nonce at the same
// moment, on two stores of one database: of each pair one is stored.
func NonceAtOnce(w *World, pairs int, a, b Store) {
	w.T.Helper()
	var group sync.WaitGroup
	refused := make([][2]store.Result, pairs)
	for side, s := range []Store{a, b} {
		group.Go(func() {
			for i := range pairs {
				res, err := s.Commit(w.Ctx(), append(Once(fmt.Sprint("t", i), w.Event(event.Opened)), w.Event(event.Clicked)))
				if err != nil {
					w.T.Error(err)
					return
				}
				refused[i][side] = res[0]
				Same(w.T, "the neighbour", res[1].Outcome, event.OutcomeOrphaned)
			}
		})
	}
	group.Wait()
	if w.T.Failed() {
		return
	}
	for i, r := range refused {
		if r[0].Refused == r[1].Refused {
			w.T.Errorf("nonce %d: refused %v and %v, want one of them", i, r[0].Refused, r[1].Refused)
		}
		for _, one := range r {
			if one.Refused {
				w.unknown(one.ID)
			}
		}
	}
	Same(w.T, "account", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: int64(3 * pairs), Orphaned: int64(3 * pairs)})
}
