package storetest

import (
	"fmt"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func suppressions() group {
	return group{"Suppression", map[string]func(*World){
		"EventsSuppressWithoutAnEnrollment": suppressWithout,
		"OrderDoesNotMatter":                suppressOrder,
		"ResubscribedLiftsUnsubscribedOnly": suppressLift,
		"EqualEstimatedOrFutureLiftsNot":    suppressNoLift,
		"ByHand":                            suppressByHand,
		"RemovedIsVoidUntilToday":           suppressRemoved,
		"ListPagesAndSince":                 suppressList,
		"NoOtherEventSuppresses":            suppressOthers,
	}}
}

func (w *World) reason(email string) string {
	w.T.Helper()
	s, err := w.Suppression(w.Ctx(), w.Tenant, email)
	if fault.Is(err, fault.NotFound) {
		return ""
	}
	w.must(err)
	return s.Reason()
}

func suppressWithout(w *World) {
	w.Send(event.Unsubscribed, Address("Ada <ADA@example.com>"))
	w.Send(event.Complained, Address("bob@example.com"))
	w.Send(event.Bounced, HardBounce, Address("eve@example.com"))
	Same(w.T, "ada", w.reason("ada@example.com"), "unsubscribed")
	Same(w.T, "bob", w.reason("Bob@example.com"), "complained")
	Same(w.T, "eve", w.reason("eve@example.com"), "bounced")
	s, err := w.Suppression(w.Ctx(), w.Tenant, "ADA@example.com")
	w.must(err)
	Same(w.T, "address", s.Email, "ada@example.com")
	if s.Since().IsZero() || s.UpdatedAt.IsZero() {
		w.T.Errorf("the suppression has no time: %+v", s)
	}
}

func suppressOrder(w *World) {
	at := w.Clock.Now()
	w.Clock.Advance(time.Hour)
	says := []func(string) event.Event{
		func(a string) event.Event { return w.Event(event.Unsubscribed, Address(a), At(at)) },
		func(a string) event.Event { return w.Event(event.Resubscribed, Address(a), At(at.Add(time.Minute))) },
		func(a string) event.Event { return w.Event(event.Unsubscribed, Address(a), At(at.Add(2*time.Minute))) },
		func(a string) event.Event { return w.Event(event.Resubscribed, Address(a), At(at.Add(3*time.Minute))) },
	}
	for n, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 3, 0, 2}, {2, 0, 3, 1}} {
		addr := fmt.Sprintf("p%d@example.com", n)
		for i, k := range order {
			w.Put(says[k](addr))
			if i == 2 && k != 3 && order[3] == 3 {
				Same(w.T, "before the last word", w.reason(addr), "unsubscribed")
			}
		}
		Same(w.T, fmt.Sprint(order), w.reason(addr), "")
		s := w.Event(event.Unsubscribed, Address(addr), At(at.Add(4*time.Minute)))
		w.Put(s)
		Same(w.T, fmt.Sprint(order), w.reason(addr), "unsubscribed")
	}
}

func suppressLift(w *World) {
	a := Address("ada@example.com")
	w.Send(event.Unsubscribed, a)
	w.Send(event.Bounced, HardBounce, a)
	w.Send(event.Resubscribed, a)
	Same(w.T, "bounced stays", w.reason("ada@example.com"), "bounced")
	w.Send(event.Complained, a)
	w.Send(event.Resubscribed, a)
	Same(w.T, "complained stays", w.reason("ada@example.com"), "complained")
	// A resubscription alone puts nobody on the list.
	w.Send(event.Resubscribed, Address("bob@example.com"))
	Same(w.T, "bob", w.reason("bob@example.com"), "")
}

func suppressNoLift(w *World) {
	at := w.Clock.Now()
	w.Clock.Advance(time.Hour)
	for name, o := range map[string]Option{
		"equal":     At(at),
		"earlier":   At(at.Add(-time.Second)),
		"future":    At(at.Add(2 * time.Hour)),
		"estimated": func(e *event.Event) { e.OccurredAtEstimated = true },
	} {
		a := Address(name + "@example.com")
		w.Send(event.Resubscribed, a, o)
		w.Send(event.Unsubscribed, a, At(at))
		w.Send(event.Resubscribed, a, o)
		Same(w.T, name, w.reason(name+"@example.com"), "unsubscribed")
	}
}

func suppressByHand(w *World) {
	s, err := w.PutSuppression(w.Ctx(), w.Tenant, "Ada@example.com", "me")
	w.must(err)
	Same(w.T, "reason", s.Reason(), "manual")
	Same(w.T, "address", s.Email, "ada@example.com")
	w.Send(event.Resubscribed, Address("ada@example.com"))
	Same(w.T, "resubscribed lifts no act of a person", w.reason("ada@example.com"), "manual")
	w.must(w.DeleteSuppression(w.Ctx(), w.Tenant, "ADA@example.com", "me"))
	Same(w.T, "deleted", w.reason("ada@example.com"), "")
	Kind(w.T, w.DeleteSuppression(w.Ctx(), w.Tenant, "ada@example.com", "me"), fault.NotFound)
	Kind(w.T, w.DeleteSuppression(w.Ctx(), w.Tenant, "nobody@example.com", "me"), fault.NotFound)
	_, err = w.PutSuppression(w.Ctx(), w.Tenant, "ada@example.com", "me")
	w.must(err)
	Same(w.T, "put again", w.reason("ada@example.com"), "manual")
}

func suppressRemoved(w *World) {
	a := Address("ada@example.com")
	at := w.Clock.Now()
	w.Send(event.Complained, a)
	w.must(w.DeleteSuppression(w.Ctx(), w.Tenant, "ada@example.com", "me"))
	w.Send(event.Complained, a, At(at)) // late, from before
	Same(w.T, "what lies before is void", w.reason("ada@example.com"), "")
	w.Send(event.Complained, a)
	Same(w.T, "what comes after counts", w.reason("ada@example.com"), "complained")
}

func suppressList(w *World) {
	for i := range 5 {
		w.Send(event.Unsubscribed, Address(fmt.Sprintf("p%d@example.com", i)))
	}
	w.Clock.Advance(time.Hour)
	since := w.Clock.Now()
	w.must(w.DeleteSuppression(w.Ctx(), w.Tenant, "p3@example.com", "me"))
	w.Send(event.Complained, Address("p1@example.com"))
	list := func(since time.Time, limit int) (got []string, pages int) {
		for after := int64(0); ; {
			rows, next, err := w.Suppressions(w.Ctx(), w.Tenant, since, store.Page{Limit: limit, After: after})
			w.must(err)
			for _, r := range rows {
				got = append(got, r.Email)
			}
			pages++
			if next == 0 {
				return got, pages
			}
			after = next
		}
	}
	got, pages := list(time.Time{}, 2)
	Same(w.T, "all, newest first", got, []string{"p4@example.com", "p2@example.com", "p1@example.com", "p0@example.com"})
	Same(w.T, "pages", pages, 2)
	got, _ = list(since, 10)
	Same(w.T, "changed since", got, []string{"p1@example.com"})
}

func suppressOthers(w *World) {
	for _, typ := range event.Types() {
		if typ != event.Unsubscribed && typ != event.Complained {
			w.Send(typ, Address("ada@example.com")) // a bounce is a soft one
		}
	}
	w.Send(event.Unsubscribed, Message("without an address"))
	rows, _, err := w.Suppressions(w.Ctx(), w.Tenant, time.Time{}, store.Page{Limit: 10})
	w.must(err)
	Same(w.T, "suppressed", len(rows), 0)
}
