package storetest

import (
	"fmt"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func adoptions() group {
	return group{"Adoption", map[string]func(*World){
		"EnrollingAdopts":                   adoptByEnroll,
		"RefsAdopt":                         adoptByRefs,
		"ANewAddressAdopts":                 adoptByAddress,
		"AMappedCampaignAdopts":             adoptByCampaign,
		"MergingAdopts":                     adoptByMerge,
		"DeadLettersAreAdopted":             adoptDead,
		"ALetterSaysWhyItWaitsNow":          letterExplains,
		"BulkEnrollmentSharesTheBound":      adoptInBulk,
		"RestoringALetterAdopts":            adoptOnRestore,
		"IgnoredLettersAreNot":              adoptIgnored,
		"RestoredLettersAreAgain":           adoptRestored,
		"AmbiguousStaysAndSaysSo":           adoptAmbiguous,
		"AnAddressThatMovesAwayEndsDoubt":   adoptAfterMove,
		"MoreThanOneTransactionHolds":       adoptMany,
		"AdoptingCountsEachEventOnce":       adoptCountsOnce,
		"AdoptionGoesOnAfterARestart":       adoptReopen,
		"SecondEnrollmentEndsALargeOne":     adoptManyAmbiguous,
		"BulkEnrollmentAdoptsForEach":       adoptBulk,
		"AdoptedIsToldAfterTheCommit":       adoptTold,
		"OnlyTheTenantsOwnEventsAreAdopted": adoptOwn,
	}}
}

func adoptByEnroll(w *World) {
	var ids []uuid.UUID
	for _, o := range []Option{Address("ada@example.com"), Message("<m>"), Lead("l"), Action("a")} {
		ids = append(ids, w.Send(event.Opened, o).ID)
	}
	stranger := w.Send(event.Opened, Address("bob@example.com"))
	d := w.Join(w.Instance, campaign.Enrollment{Email: "ADA@example.com", Refs: []event.Ref{
		ref(event.RefMessage, "m"), ref(event.RefLead, "l"), ref(event.RefAction, "a"),
	}})
	Same(w.T, "adopted", d.Adopted, 4)
	Same(w.T, "adopting", d.Adopting, 0)
	for _, id := range ids {
		w.IsApplied(id, d.ID)
	}
	w.Waits(stranger.ID, store.ReasonNoEnrollment)
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: 4})
}

func adoptByRefs(w *World) {
	ada := w.Person("ada@example.com")
	a, b := w.Send(event.Opened, Message("m")), w.Send(event.Replied, Lead("l"))
	d, err := w.AddRefs(w.Ctx(), w.Tenant, ada, []event.Ref{ref(event.RefMessage, "m"), ref(event.RefLead, "l")})
	w.must(err)
	Same(w.T, "enrolled", d, store.Enrolled{ID: ada, Adopted: 2})
	w.IsApplied(a.ID, ada)
	w.IsApplied(b.ID, ada)
	Same(w.T, "status", w.Status(ada), campaign.StatusCompleted)
	d, err = w.AddRefs(w.Ctx(), w.Tenant, ada, []event.Ref{ref(event.RefMessage, "m")})
	w.must(err)
	Same(w.T, "the same again", d, store.Enrolled{ID: ada})
	_, err = w.AddRefs(w.Ctx(), w.Tenant, uuid.Must(uuid.NewV7()), nil)
	Kind(w.T, err, fault.NotFound)
}

func adoptByAddress(w *World) {
	id := w.Join(w.Instance, campaign.Enrollment{ContactID: "7"}).ID
	res := w.Send(event.Opened, Address("ada@example.com"))
	addr := "Ada@Example.com"
	e, d, err := w.PatchEnrollment(w.Ctx(), w.Tenant, id, store.EnrollmentPatch{Email: &addr})
	w.must(err)
	Same(w.T, "adopted", d.Adopted, 1)
	Same(w.T, "address", e.Email, addr)
	w.IsApplied(res.ID, id)
	// What was tied before stays, the old address finds nobody now.
	next := "ada@example.org"
	_, _, err = w.PatchEnrollment(w.Ctx(), w.Tenant, id, store.EnrollmentPatch{Email: &next})
	w.must(err)
	w.IsApplied(res.ID, id)
	w.Waits(w.Send(event.Opened, Address("ada@example.com")).ID, store.ReasonNoEnrollment)
	w.IsApplied(w.Send(event.Opened, Address("ada@example.org")).ID, id)
}

func adoptByCampaign(w *World) {
	_, other := w.Campaign(w.Tenant, nil)
	w.Person("ada@example.com")
	second := w.Join(other, campaign.Enrollment{Email: "ada@example.com"}).ID
	res := w.Send(event.Opened, InCampaign("cam"), Address("ada@example.com"))
	w.Waits(res.ID, store.ReasonAmbiguous)
	_, d, err := w.PatchInstance(w.Ctx(), w.Tenant, other, store.InstancePatch{ProviderCampaigns: map[string]string{"Lemlist": "cam"}})
	w.must(err)
	Same(w.T, "adopted", d.Adopted, 1)
	w.IsApplied(res.ID, second)
}

func adoptByMerge(w *World) {
	ada := w.Person("ada@example.com")
	res := w.Send(event.Opened, Message("m"))
	got, err := w.Enroll(w.Ctx(), w.Tenant, w.Instance, []campaign.Enrollment{
		{Email: "ada@example.com", Refs: []event.Ref{ref(event.RefMessage, "m")}},
	}, true, store.Idempotency{})
	w.must(err)
	Same(w.T, "merged", got[0], store.Enrolled{ID: ada, Merged: true, Adopted: 1})
	w.IsApplied(res.ID, ada)
}

func adoptDead(w *World) {
	res := w.Send(event.Opened, Address("ada@example.com"))
	w.Spend()
	letter := w.LetterOf(res.ID)
	d := w.Join(w.Instance, campaign.Enrollment{Email: "ada@example.com"})
	Same(w.T, "adopted", d.Adopted, 1)
	w.IsApplied(res.ID, d.ID)
	got, err := w.Letter(w.Ctx(), w.Tenant, letter.ID)
	w.must(err)
	Same(w.T, "letter", got.Status, store.LetterReplayed)
	Same(w.T, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 1, Applied: 1})
}

func adoptIgnored(w *World) {
	res := w.Send(event.Opened, Address("ada@example.com"))
	w.Spend()
	letter := w.LetterOf(res.ID)
	w.must(w.SetLetter(w.Ctx(), w.Tenant, letter.ID, store.LetterDead, store.LetterIgnored, "me"))
	d := w.Join(w.Instance, campaign.Enrollment{Email: "ada@example.com"})
	Same(w.T, "adopted", d.Adopted, 0)
	Same(w.T, "state", w.Record(res.ID).State, event.Dead)
	Same(w.T, "letter", w.LetterOf(res.ID).Status, store.LetterIgnored)
}

func adoptRestored(w *World) {
	res := w.Send(event.Opened, Address("ada@example.com"))
	w.Spend()
	letter := w.LetterOf(res.ID)
	w.must(w.SetLetter(w.Ctx(), w.Tenant, letter.ID, store.LetterDead, store.LetterIgnored, "me"))
	w.must(w.SetLetter(w.Ctx(), w.Tenant, letter.ID, store.LetterIgnored, store.LetterDead, "me"))
	w.IsApplied(res.ID, w.Person("ada@example.com"))
}

func adoptAmbiguous(w *World) {
	_, other := w.Campaign(w.Tenant, map[string]string{"lemlist": "cam"})
	res := w.Send(event.Opened, Lead("l"), InCampaign("cam"), Address("ada@example.com"))
	w.Person("ada@example.com")
	w.Waits(res.ID, store.ReasonNoEnrollment) // not in the mapped instance
	refs := []event.Ref{ref(event.RefLead, "l")}
	first := w.Join(w.Instance, campaign.Enrollment{ContactID: "1"}).ID
	second := w.Join(other, campaign.Enrollment{ContactID: "2"}).ID
	for _, id := range []uuid.UUID{first, second} {
		_, err := w.AddRefs(w.Ctx(), w.Tenant, id, []event.Ref{ref(event.RefLead, "later")})
		w.must(err)
	}
	doubt := w.Send(event.Opened, Lead("later"))
	w.Waits(doubt.ID, store.ReasonAmbiguous)
	d, err := w.AddRefs(w.Ctx(), w.Tenant, first, refs)
	w.must(err)
	Same(w.T, "adopted", d.Adopted, 1)
	w.IsApplied(res.ID, first)
	w.Waits(doubt.ID, store.ReasonAmbiguous)
}

func adoptAfterMove(w *World) {
	_, other := w.Campaign(w.Tenant, nil)
	ada := w.Person("ada@example.com")
	second := w.Join(other, campaign.Enrollment{Email: "ada@example.com"}).ID
	res := w.Send(event.Opened, Address("ada@example.com"))
	w.Waits(res.ID, store.ReasonAmbiguous)
	moved := "countess@example.com"
	_, d, err := w.PatchEnrollment(w.Ctx(), w.Tenant, second, store.EnrollmentPatch{Email: &moved})
	w.must(err)
	Same(w.T, "adopted", d.Adopted, 1)
	w.IsApplied(res.ID, ada)
}

func adoptMany(w *World) {
	const n = 2300
	w.Flood(n, Address("ada@example.com"))
	d := w.Join(w.Instance, campaign.Enrollment{Email: "ada@example.com"})
	Same(w.T, "adopted", d.Adopted, 1000)
	Same(w.T, "adopting", d.Adopting, n-1000)
	Same(w.T, "totals", w.Totals(w.Instance)[event.Delivered], 1000)
	// An event that comes now is not behind them.
	w.IsApplied(w.Send(event.Delivered, Address("ada@example.com")).ID, d.ID)
	w.Drain()
	Same(w.T, "totals", w.Totals(w.Instance)[event.Delivered], n+1)
	_, waiting, err := w.NextDue(w.Ctx())
	w.must(err)
	Same(w.T, "still waits", waiting, false)
	more, err := w.AdoptNext(w.Ctx(), 500)
	w.must(err)
	Same(w.T, "more", more, false)
}

func adoptCountsOnce(w *World) {
	const n = 1500
	w.Flood(n, Address("ada@example.com"), Lead("l"))
	d := w.Join(w.Instance, campaign.Enrollment{Email: "ada@example.com", Refs: []event.Ref{ref(event.RefLead, "l")}})
	Same(w.T, "adopted", d.Adopted, 1000)
	Same(w.T, "adopting", d.Adopting, n-1000)
	w.Drain()
	Same(w.T, "totals", w.Totals(w.Instance)[event.Delivered], n)
}

func adoptReopen(w *World) {
	const n = 1700
	w.Flood(n, Address("ada@example.com"))
	ada := w.Person("ada@example.com")
	w.Reopen()
	more, err := w.AdoptNext(w.Ctx(), 100)
	w.must(err)
	Same(w.T, "more", more, true)
	w.Reopen()
	w.Drain()
	Same(w.T, "totals", w.Totals(w.Instance)[event.Delivered], n)
	Same(w.T, "status", w.Status(ada), campaign.StatusActive)
}

func adoptManyAmbiguous(w *World) {
	const n = 1200
	ids := w.Flood(n, Address("ada@example.com"))
	w.Person("ada@example.com")
	_, other := w.Campaign(w.Tenant, nil)
	d := w.Join(other, campaign.Enrollment{Email: "ada@example.com"})
	Same(w.T, "adopted", d.Adopted, 0)
	w.Drain()
	Same(w.T, "totals", w.Totals(w.Instance)[event.Delivered], 1000)
	Same(w.T, "totals of the other", w.Totals(other)[event.Delivered], 0)
	w.Waits(ids[n-1], store.ReasonAmbiguous)
}

func adoptBulk(w *World) {
	var in []campaign.Enrollment
	for i := range 450 {
		addr := fmt.Sprintf("p%d@example.com", i)
		w.Send(event.Opened, Address(addr))
		in = append(in, campaign.Enrollment{Email: addr})
	}
	got, err := w.Enroll(w.Ctx(), w.Tenant, w.Instance, in, false, store.Idempotency{})
	w.must(err)
	Same(w.T, "results", len(got), len(in))
	for i, d := range got {
		Same(w.T, in[i].Email, []any{d.Adopted, d.Conflict, d.Err}, []any{1, false, nil})
	}
	Same(w.T, "totals", w.Totals(w.Instance)[event.Opened], int64(len(in)))
}

func adoptTold(w *World) {
	var told []store.Result
	w.Reopen(func(o *Options) { o.Adopted = func(r []store.Result) { told = append(told, r...) } })
	res := w.Send(event.Opened, Address("ada@example.com"))
	w.Send(event.Opened, Lead("l"))
	w.Clock.Advance(time3)
	w.Person("ada@example.com")
	Same(w.T, "told", len(told), 1)
	Same(w.T, "id", told[0].ID, res.ID)
	Same(w.T, "by", told[0].By, "adoption")
	if told[0].Waited < time3 {
		w.T.Errorf("waited %v, want at least %v", told[0].Waited, time3)
	}
	// A conflict rolls nothing back that was told.
	_, err := w.Enroll(w.Ctx(), w.Tenant, w.Instance, []campaign.Enrollment{{Email: "ada@example.com"}}, false, store.Idempotency{})
	w.must(err)
	Same(w.T, "told", len(told), 1)
}

func adoptOwn(w *World) {
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	theirs := w.Send(event.Opened, For(other.ID), Address("ada@example.com"))
	d := w.Join(w.Instance, campaign.Enrollment{Email: "ada@example.com"})
	Same(w.T, "adopted", d.Adopted, 0)
	r, err := w.Event1(other.ID, theirs.ID)
	w.must(err)
	Same(w.T, "state", r.State, event.Orphaned)
}

// adoptInBulk: what one transaction takes in is bounded however many contacts it
// enrolls, and what is left follows.
func adoptInBulk(w *World) {
	var people []campaign.Enrollment
	var ids []uuid.UUID
	for i := range 5 {
		email := fmt.Sprintf("p%d@example.com", i)
		people = append(people, campaign.Enrollment{Email: email})
		ids = append(ids, w.Flood(400, Address(email))...)
	}
	res, err := w.Enroll(w.Ctx(), w.Tenant, w.Instance, people, false, store.Idempotency{})
	w.must(err)
	adopted, left := 0, int64(0)
	for _, r := range res {
		adopted += r.Adopted
		left += r.Adopting
	}
	Same(w.T, "adopted at once", adopted, 1000)
	Same(w.T, "adopting", left, int64(1000))
	for more := true; more; {
		more, err = w.AdoptNext(w.Ctx(), 150)
		w.must(err)
	}
	for _, id := range ids {
		Same(w.T, "state", w.Record(id).State, event.Applied)
	}
}

// adoptOnRestore: an enrollment that came while a letter was ignored takes its
// event in as soon as it is restored.
func adoptOnRestore(w *World) {
	dead := w.Send(event.Opened, Address("ada@example.com")).ID
	w.Spend()
	letter := w.LetterOf(dead).ID
	w.must(w.SetLetter(w.Ctx(), w.Tenant, letter, store.LetterDead, store.LetterIgnored, "me"))
	ada := w.Person("ada@example.com")
	Same(w.T, "while ignored", w.Record(dead).State, event.Dead)
	w.must(w.SetLetter(w.Ctx(), w.Tenant, letter, store.LetterIgnored, store.LetterDead, "me"))
	w.IsApplied(dead, ada)
	Same(w.T, "letter", w.LetterOf(dead).Status, store.LetterReplayed)
}

// letterExplains: a letter says why its event waits now, not why it once did.
func letterExplains(w *World) {
	dead := w.Send(event.Opened, Address("ada@example.com")).ID
	w.Spend()
	letter := w.LetterOf(dead).ID
	w.must(w.SetLetter(w.Ctx(), w.Tenant, letter, store.LetterDead, store.LetterIgnored, "me"))
	_, second := w.Campaign(w.Tenant, nil)
	w.Person("ada@example.com")
	w.Join(second, campaign.Enrollment{Email: "ada@example.com"})
	w.must(w.SetLetter(w.Ctx(), w.Tenant, letter, store.LetterIgnored, store.LetterDead, "me"))
	Same(w.T, "event", w.Record(dead).Reason, store.ReasonAmbiguous)
	Same(w.T, "letter", w.LetterOf(dead).Reason, store.ReasonAmbiguous)
}
