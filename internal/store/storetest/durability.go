package storetest

import (
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func tenants() group {
	return group{"Tenant", map[string]func(*World){
		"SameIDsAndAddressesInOneBatch": twins,
		"NamesAreUnique":                tenantNames,
		"RowsOfAnotherAreNotFound":      foreignRows,
	}}
}

func twins(w *World) {
	other, err := w.CreateTenant(w.Ctx(), "twin")
	w.must(err)
	_, ins := w.Campaign(other.ID, nil)
	mine := w.Person("ada@example.com", ref(event.RefMessage, "m"))
	theirs := w.JoinAs(other.ID, ins, campaign.Enrollment{Email: "ada@example.com", Refs: []event.Ref{ref(event.RefMessage, "m")}}).ID
	var batch []event.Event
	for _, tenant := range []int64{w.Tenant, other.ID} {
		batch = append(batch,
			w.Event(event.Opened, For(tenant), ID("1"), Address("ada@example.com")),
			w.Event(event.Unsubscribed, For(tenant), ID("2"), Message("m"), Address("ada@example.com")),
			w.Event(event.Opened, For(tenant), ID("3"), Lead("later")),
		)
	}
	res := w.Put(batch...)
	for i, want := range []uuid.UUID{mine, mine, uuid.Nil, theirs, theirs, uuid.Nil} {
		r, err := w.Event1(batch[i].Tenant, res[i].ID)
		w.must(err)
		Same(w.T, "enrollment", r.Enrollment, want)
		Same(w.T, "duplicates", r.Duplicates, 0)
	}
	d, err := w.AddRefs(w.Ctx(), other.ID, theirs, []event.Ref{ref(event.RefLead, "later")})
	w.must(err)
	Same(w.T, "adopted", d.Adopted, 1)
	w.Waits(res[2].ID, store.ReasonNoEnrollment)
	Same(w.T, "mine", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 3, Applied: 2, Orphaned: 1})
	Same(w.T, "theirs", w.Account(other.ID), store.Ledger{Tenant: other.ID, Received: 3, Applied: 3})
	w.must(w.DeleteSuppression(w.Ctx(), w.Tenant, "ada@example.com", "me"))
	s, err := w.Suppression(w.Ctx(), other.ID, "ada@example.com")
	w.must(err)
	Same(w.T, "theirs stays suppressed", s.Reason(), "unsubscribed")
}

func tenantNames(w *World) {
	a, err := w.CreateTenant(w.Ctx(), "a")
	w.must(err)
	if a.ID == w.Tenant || a.UID == uuid.Nil || a.CreatedAt.IsZero() || a.Name != "a" {
		w.T.Errorf("the tenant is %+v", a)
	}
	_, err = w.CreateTenant(w.Ctx(), "a")
	Kind(w.T, err, fault.Conflict)
	b, err := w.CreateTenant(w.Ctx(), "b")
	w.must(err)
	if b.ID == a.ID || b.UID == a.UID {
		w.T.Error("two tenants share an id")
	}
}

func foreignRows(w *World) {
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	ada := w.Person("ada@example.com")
	for name, read := range map[string]func() error{
		"Template":   func() error { _, err := w.Store.Template(w.Ctx(), other.ID, w.Template); return err },
		"Delete":     func() error { return w.DeleteTemplate(w.Ctx(), other.ID, w.Template, "me") },
		"Instance":   func() error { _, err := w.Store.Instance(w.Ctx(), other.ID, w.Instance); return err },
		"Enrollment": func() error { _, err := w.Enrollment(w.Ctx(), other.ID, ada); return err },
		"Refs":       func() error { _, err := w.AddRefs(w.Ctx(), other.ID, ada, nil); return err },
		"Patch": func() error {
			_, _, err := w.PatchEnrollment(w.Ctx(), other.ID, ada, store.EnrollmentPatch{})
			return err
		},
		"PatchInstance": func() error {
			_, _, err := w.PatchInstance(w.Ctx(), other.ID, w.Instance, store.InstancePatch{})
			return err
		},
	} {
		if err := read(); !fault.Is(err, fault.NotFound) {
			w.T.Errorf("%s: got %v, want not found", name, err)
		}
	}
}

func durability() group {
	return group{"Durable", map[string]func(*World){
		"ReopenKeepsEverything": reopenKeeps,
		"PingAnswers":           func(w *World) { w.must(w.Ping(w.Ctx())) },
		"ABatchIsAllOrNothing":  allOrNothing,
	}}
}

func reopenKeeps(w *World) {
	ada := w.Person("ada@example.com", ref(event.RefLead, "l"))
	w.Send(event.Unsubscribed, ID("1"), Address("ada@example.com"))
	w.Send(event.Unsubscribed, ID("1"), Address("ada@example.com"))
	dead := w.buried(1)[0]
	waiting := w.Send(event.Opened, Lead("?"))
	w.Index()
	snapshot := func() []any {
		rows, _, err := w.Events(w.Ctx(), w.Tenant, store.EventFilter{}, store.Page{Limit: 10})
		w.must(err)
		e, err := w.Enrollment(w.Ctx(), w.Tenant, ada)
		w.must(err)
		n, err := w.Numbers(w.Ctx(), w.Tenant, w.Instance, time.Time{}, time.Time{})
		w.must(err)
		sup, err := w.Suppression(w.Ctx(), w.Tenant, "ada@example.com")
		w.must(err)
		return []any{rows, e, n, sup, w.LetterOf(dead), w.Account(w.Tenant), w.Moments(dead)}
	}
	before := snapshot()
	w.Reopen()
	Same(w.T, "after a restart", snapshot(), before)
	w.Waits(waiting.ID, store.ReasonNoEnrollment)
	w.Clock.Advance(time3)
	Same(w.T, "the queue goes on", len(w.Due()), 1)
	Same(w.T, "and so do duplicates", w.Send(event.Unsubscribed, ID("1"), Address("ada@example.com")).Outcome, event.OutcomeDuplicate)
}

// allOrNothing plants what every store refuses: an event whose id another
// event of another identity has.
func allOrNothing(w *World) {
	w.Person("ada@example.com")
	first := w.Send(event.Opened, Address("ada@example.com"))
	bad := w.Event(event.Opened, Address("ada@example.com"))
	bad.ID = first.ID
	good := w.Event(event.Unsubscribed, Address("ada@example.com"))
	_, err := w.Commit(w.Ctx(), []event.Event{good, bad})
	Kind(w.T, err, fault.Data)
	_, err = w.Event1(w.Tenant, good.ID)
	Kind(w.T, err, fault.NotFound)
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: 1})
	Same(w.T, "suppressed", w.reason("ada@example.com"), "")
	Same(w.T, "the good one alone", w.Put(good)[0].Outcome, event.OutcomeApplied)
}
