package storetest

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

func eventsEnroll() group {
	return group{"EventsEnroll", map[string]func(*World){
		"TheFirstEventEnrolls":                 firstEventEnrolls,
		"OnePersonOfABatchIsOneEnrollment":     enrolledOnceInABatch,
		"LeadAndAddressAreTiedInAnyOrder":      leadAndAddressInAnyOrder,
		"WhoIsEnrolledByHandGainsTheLead":      handGainsLead,
		"AnAddressIsNotReplaced":               addressStays,
		"OneAddressInTwoCampaignsIsTwo":        oneAddressTwoCampaigns,
		"AMappedCampaignEnrollsWhoWaited":      mappingEnrolls,
		"AnActivatedInstanceEnrollsWhoWaited":  activationEnrolls,
		"WhatIsUnclearWaits":                   unclearWaits,
		"WhoIsEnrolledElsewhereIsEnrolledHere": enrolledElsewhere,
		"StatusAndListAreAsEver":               enrolledSuppressed,
		"TakesInWhatWaited":                    enrolledAdopts,
		"TakesInNoMoreThanTheBound":            enrolledAdoptsManyMore,
		"ARetryEnrolls":                        retryEnrolls,
		"ACommitRepeatedEnrollsOnce":           enrolledOnceThoughRepeated,
		"NeighboursOfTheBatchAreFound":         neighboursAreFound,
		"TwoTenantsAreTwo":                     enrolledInTwoTenants,
		"OfManyCommitsAtOnceEachPersonIsOne":   func(w *World) { EnrollAtOnce(w, 60, w.Store, w.Store) },
	}}
}

// Enrolling makes an event one of a source that enrolls, in a provider's campaign.
func Enrolling(c string) Option {
	return func(e *event.Event) { e.EnrollUnmatched, e.Campaign = true, c }
}

// tool is an instance that the provider's campaign "cam" is mapped to.
func (w *World) tool() uuid.UUID {
	w.T.Helper()
	_, id := w.Campaign(w.Tenant, map[string]string{"lemlist": "cam"})
	return id
}

// enrolled lists an instance's enrollments.
func (w *World) enrolled(instance uuid.UUID) []campaign.Enrollment {
	w.T.Helper()
	rows, _, err := w.Enrollments(w.Ctx(), w.Tenant, instance, store.EnrollmentFilter{}, store.Page{Limit: 1000})
	w.must(err)
	return rows
}

// one is the only enrollment of an instance.
func (w *World) one(instance uuid.UUID) campaign.Enrollment {
	w.T.Helper()
	rows := w.enrolled(instance)
	if len(rows) != 1 {
		w.T.Fatalf("the instance has %d enrollments, want one: %+v", len(rows), rows)
	}
	return rows[0]
}

func (w *World) setStatus(instance uuid.UUID, status campaign.InstanceStatus) store.Enrolled {
	w.T.Helper()
	to := string(status)
	_, d, err := w.PatchInstance(w.Ctx(), w.Tenant, instance, store.InstancePatch{Status: &to})
	w.must(err)
	return d
}

// Newcomers are n events of n/2 people, by lead and address, from a number on;
// where they are new, an event of an ordinary source waits for the first of them.
func (w *World) Newcomers(n, from int, opts ...Option) []event.Event {
	w.T.Helper()
	batch := make([]event.Event, n)
	for i := range batch {
		p := from + i/2
		batch[i] = w.Event(event.Opened, append([]Option{Lead(fmt.Sprint("newcomer ", p)), Address(fmt.Sprintf("newcomer%d@example.com", p))}, opts...)...)
	}
	w.Send(event.Clicked, Address(fmt.Sprintf("newcomer%d@example.com", from)))
	return batch
}

func firstEventEnrolls(w *World) {
	in := w.tool()
	r := w.Send(event.Sent, Lead("l"), Address("Ada <ADA@example.com>"), Enrolling("cam"))
	Same(w.T, "outcome", r.Outcome, event.OutcomeApplied)
	ada := w.one(in)
	Same(w.T, "enrollment", []any{r.Enrollment, ada.Email, string(ada.Status), ada.Refs}, []any{ada.ID, "ada@example.com", "active", []event.Ref{ref(event.RefLead, "l")}})
	w.IsApplied(r.ID, ada.ID)
	Same(w.T, "settled by", w.Record(r.ID).SettledBy, store.ByLive)
	Same(w.T, "timeline", w.Moments(r.ID), []string{"received", "enrolled", "applied"})
	// From now on everybody finds her.
	w.IsApplied(w.Send(event.Opened, Lead("l")).ID, ada.ID)
	w.IsApplied(w.Send(event.Opened, From("postmark"), Address("ada@example.com")).ID, ada.ID)
	again := w.Send(event.Opened, Lead("l"), Address("ada@example.com"), Enrolling("cam"))
	Same(w.T, "timeline of the next", w.Moments(again.ID), []string{"received", "applied"})
	Same(w.T, "totals", w.Totals(in), map[event.Type]int64{event.Sent: 1, event.Opened: 3})
	w.one(in)
}

func enrolledOnceInABatch(w *World) {
	in := w.tool()
	res := w.Put(
		w.Event(event.Opened, Lead("l"), Enrolling("cam")),
		w.Event(event.Clicked, Address("ada@example.com"), Enrolling("cam")),
		w.Event(event.Sent, Lead("l"), Address("ada@example.com"), Enrolling("cam")),
		w.Event(event.Replied, Lead("l"), Address("ada@example.com"), Enrolling("cam")),
		w.Event(event.Sent, Address("bob@example.com"), Enrolling("cam")),
		w.Event(event.ProfileVisited, Lead("c"), Enrolling("cam")),
	)
	Same(w.T, "enrollments", len(w.enrolled(in)), 3)
	for i, r := range res {
		Same(w.T, "outcome", r.Outcome, event.OutcomeApplied)
		Same(w.T, fmt.Sprintf("event %d is hers", i), r.Enrollment == res[0].Enrollment, i < 4)
	}
	Same(w.T, "status", w.Status(res[0].Enrollment), campaign.StatusCompleted)
	told := 0
	for _, r := range res[:4] {
		for _, m := range w.Moments(r.ID) {
			if m == "enrolled" {
				told++
			}
		}
	}
	Same(w.T, "events that tell of making her enrollment", told, 1)
}

// leadAndAddressInAnyOrder: an event that tells both ties them together for
// those that tell one of them, whichever comes first.
func leadAndAddressInAnyOrder(w *World) {
	in := w.tool()
	for i, order := range [][]int{{0, 1, 2}, {1, 0, 2}, {1, 2, 0}, {2, 1, 0}} {
		lead, addr := Lead(fmt.Sprint("lead ", i)), Address(fmt.Sprintf("p%d@example.com", i))
		all := []event.Event{
			w.Event(event.ProfileVisited, lead, Enrolling("cam")),
			w.Event(event.Sent, lead, addr, Enrolling("cam")),
			w.Event(event.Opened, addr, Enrolling("cam")),
		}
		of := map[uuid.UUID]bool{}
		for _, n := range order {
			of[w.Put(all[n])[0].Enrollment] = true
		}
		Same(w.T, fmt.Sprint("enrollments after ", order), len(of), 1)
	}
	Same(w.T, "enrollments", len(w.enrolled(in)), 4)
	for _, e := range w.enrolled(in) {
		Same(w.T, "what is known", []bool{e.Email != "", len(e.Refs) == 1}, []bool{true, true})
	}
}

func handGainsLead(w *World) {
	in := w.tool()
	ada := w.Join(in, campaign.Enrollment{Email: "ada@example.com"}).ID
	waits := w.Send(event.ProfileVisited, Lead("l"), InCampaign("cam"))
	w.Waits(waits.ID, store.ReasonNoEnrollment)
	w.IsApplied(w.Send(event.Sent, Lead("l"), Address("ada@example.com"), Enrolling("cam")).ID, ada)
	w.IsApplied(waits.ID, ada)
	w.IsApplied(w.Send(event.MessageSent, Lead("l"), Enrolling("cam")).ID, ada)
	w.one(in)
}

func addressStays(w *World) {
	in := w.tool()
	w.Send(event.Sent, Lead("l"), Address("ada@example.com"), Enrolling("cam"))
	ada := w.one(in)
	w.IsApplied(w.Send(event.Sent, Lead("l"), Address("new@example.com"), Enrolling("cam")).ID, ada.ID)
	Same(w.T, "address", w.one(in).Email, "ada@example.com")
}

func oneAddressTwoCampaigns(w *World) {
	in := w.tool()
	_, two := w.Campaign(w.Tenant, map[string]string{"lemlist": "cam2"})
	_, three := w.Campaign(w.Tenant, map[string]string{"lemlist": "cam3"})
	var batch []event.Event
	for _, c := range []string{"cam", "cam2", "cam3"} {
		batch = append(batch, w.Event(event.Sent, Address("ada@example.com"), Enrolling(c)))
	}
	w.Put(batch...)
	for _, id := range []uuid.UUID{in, two, three} {
		w.one(id)
	}
	w.Waits(w.Send(event.Opened, Address("ada@example.com")).ID, store.ReasonAmbiguous)
	// Two of them go: what is left is no longer ambiguous.
	for _, id := range []uuid.UUID{in, two} {
		other := fmt.Sprint("moved", id, "@example.com")
		_, _, err := w.PatchEnrollment(w.Ctx(), w.Tenant, w.one(id).ID, store.EnrollmentPatch{Email: &other})
		w.must(err)
	}
	w.IsApplied(w.Send(event.Opened, Address("ada@example.com")).ID, w.one(three).ID)
}

// mappingEnrolls: events that came before their campaign was mapped enroll when
// it is, also those that were buried meanwhile, and also those without an address.
func mappingEnrolls(w *World) {
	dead := w.Send(event.Sent, Lead("l"), Address("ada@example.com"), Enrolling("cam"))
	w.Spend()
	Same(w.T, "state", w.Record(dead.ID).State, event.Dead)
	waits := w.Send(event.ProfileVisited, Lead("l"), Enrolling("cam"))
	bob := w.Send(event.ProfileVisited, Lead("b"), Enrolling("cam"))
	ordinary := w.Send(event.Opened, Address("eve@example.com"), InCampaign("cam"))
	_, in := w.Campaign(w.Tenant, nil)
	_, d, err := w.PatchInstance(w.Ctx(), w.Tenant, in, store.InstancePatch{ProviderCampaigns: map[string]string{"lemlist": "cam"}})
	w.must(err)
	Same(w.T, "adopted", d.Adopted, 3)
	Same(w.T, "enrollments", len(w.enrolled(in)), 2)
	r := w.Record(dead.ID)
	w.IsApplied(waits.ID, r.Enrollment)
	Same(w.T, "bob's", w.Record(bob.ID).State, event.Applied)
	Same(w.T, "timeline", w.Moments(bob.ID), []string{"received", "parked", "enrolled", "adopted"})
	Same(w.T, "letter", w.LetterOf(dead.ID).Status, store.LetterReplayed)
	w.Waits(ordinary.ID, store.ReasonNoEnrollment)
	// So does an instance that is made with its campaign.
	late := w.Send(event.Sent, Address("dora@example.com"), Enrolling("cam4"))
	_, made := w.Campaign(w.Tenant, map[string]string{"lemlist": "cam4"})
	w.IsApplied(late.ID, w.one(made).ID)
}

func activationEnrolls(w *World) {
	in := w.tool()
	w.setStatus(in, campaign.Paused)
	r := w.Send(event.Sent, Lead("l"), Address("ada@example.com"), Enrolling("cam"))
	w.Waits(r.ID, store.ReasonNoEnrollment)
	Same(w.T, "detail", w.Record(r.ID).Detail, "the instance that the provider's campaign is mapped to is not active, so nobody is enrolled in it")
	w.Clock.Advance(time3)
	w.Due()
	w.Waits(r.ID, store.ReasonNoEnrollment)
	Same(w.T, "adopted", w.setStatus(in, campaign.Active).Adopted, 1)
	w.IsApplied(r.ID, w.one(in).ID)
	// Who is enrolled is found whatever the instance is, and nobody else.
	w.setStatus(in, campaign.Completed)
	w.IsApplied(w.Send(event.Opened, Lead("l"), Enrolling("cam")).ID, w.one(in).ID)
	w.Waits(w.Send(event.Opened, Lead("b"), Enrolling("cam")).ID, store.ReasonNoEnrollment)
	w.one(in)
}

func unclearWaits(w *World) {
	in := w.tool()
	_, other := w.Campaign(w.Tenant, nil)
	for _, id := range []uuid.UUID{w.Instance, other} {
		w.Join(id, campaign.Enrollment{Email: "twice@example.com", Refs: []event.Ref{ref(event.RefLead, "twice")}})
	}
	for name, c := range map[string]struct {
		reason string
		opts   []Option
	}{
		"NoCampaign":        {store.ReasonNoEnrollment, []Option{Address("ada@example.com"), Lead("l"), Enrolling("")}},
		"UnmappedCampaign":  {store.ReasonNoEnrollment, []Option{Address("ada@example.com"), Lead("l"), Enrolling("unknown")}},
		"OtherProvider":     {store.ReasonNoEnrollment, []Option{From("postmark"), Address("ada@example.com"), Enrolling("cam")}},
		"Nobody":            {store.ReasonNoEnrollment, []Option{Message("m"), Enrolling("cam")}},
		"NoAddress":         {store.ReasonNoEnrollment, []Option{Address("not an address"), Enrolling("cam")}},
		"UnknownEnrollment": {store.ReasonNoEnrollment, []Option{Of(uuid.Must(uuid.NewV7())), Address("ada@example.com"), Enrolling("cam")}},
		"AmbiguousLead":     {store.ReasonAmbiguous, []Option{Lead("twice"), Address("ada@example.com"), Enrolling("cam")}},
		"OrdinarySource":    {store.ReasonNoEnrollment, []Option{Address("ada@example.com"), InCampaign("cam")}},
	} {
		r := w.Send(event.Opened, c.opts...)
		Same(w.T, name, []any{r.Outcome, r.Reason}, []any{event.OutcomeOrphaned, c.reason})
	}
	control := w.Event("", Address("ada@example.com"), Enrolling("cam"))
	control.Control, control.Kind, control.Channel = true, "campaignComplete", ""
	Same(w.T, "control", w.Put(control)[0].Outcome, event.OutcomeIgnored)
	Same(w.T, "enrollments", len(w.enrolled(in)), 0)
}

func enrolledElsewhere(w *World) {
	in := w.tool()
	elsewhere := w.Person("ada@example.com")
	here := w.Send(event.Sent, Address("ada@example.com"), Enrolling("cam"))
	w.IsApplied(here.ID, w.one(in).ID)
	if w.one(in).ID == elsewhere {
		w.T.Error("it is the other instance's enrollment")
	}
}

// enrolledSuppressed: a suppressed address is enrolled as by hand, since the
// tool has written to it; the list stays as it is.
func enrolledSuppressed(w *World) {
	in := w.tool()
	_, err := w.PutSuppression(w.Ctx(), w.Tenant, "ada@example.com", "me")
	w.must(err)
	w.IsApplied(w.Send(event.Sent, Address("ada@example.com"), Enrolling("cam")).ID, w.one(in).ID)
	Same(w.T, "on the list", w.reason("ada@example.com"), "manual")
	Same(w.T, "status", w.one(in).Status, campaign.StatusActive)
	gone := w.Send(event.Unsubscribed, Address("bob@example.com"), Enrolling("cam"))
	Same(w.T, "status", w.Status(gone.Enrollment), campaign.StatusUnsubscribed)
	Same(w.T, "on the list", w.reason("bob@example.com"), "unsubscribed")
}

func enrolledAdopts(w *World) {
	in := w.tool()
	byAddress := w.Send(event.Delivered, From("postmark"), Address("ada@example.com"))
	byLead := w.Send(event.ProfileVisited, Lead("l"))
	dead := w.Send(event.Clicked, Address("ada@example.com"))
	w.Spend()
	waits := w.Send(event.Opened, Address("ada@example.com"), InCampaign("cam"))
	r := w.Send(event.Sent, Lead("l"), Address("ada@example.com"), Enrolling("cam"))
	for _, ev := range []uuid.UUID{r.ID, byAddress.ID, byLead.ID, dead.ID, waits.ID} {
		w.IsApplied(ev, w.one(in).ID)
	}
	Same(w.T, "timeline", w.Moments(waits.ID), []string{"received", "parked", "adopted"})
	Same(w.T, "account", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 5, Applied: 5})
}

func enrolledAdoptsManyMore(w *World) {
	in := w.tool()
	const more = 30
	w.Flood(store.AdoptLimit+more, Address("ada@example.com"))
	w.Send(event.Sent, Address("ada@example.com"), Enrolling("cam"))
	w.one(in)
	Same(w.T, "applied", w.Account(w.Tenant).Applied, store.AdoptLimit+1)
	w.Drain()
	Same(w.T, "applied in the end", w.Account(w.Tenant).Applied, store.AdoptLimit+more+1)
}

// retryEnrolls: what an adoption has not come to yet enrolls when it is tried.
func retryEnrolls(w *World) {
	const people = 20
	w.Flood(store.AdoptLimit, Lead("first"), Enrolling("cam"))
	var batch []event.Event
	for i := range people {
		a := Address(fmt.Sprintf("p%d@example.com", i))
		batch = append(batch, w.Event(event.Sent, a, Enrolling("cam")), w.Event(event.Opened, a, Lead(fmt.Sprint(i)), Enrolling("cam")))
	}
	w.Put(batch...)
	_, in := w.Campaign(w.Tenant, map[string]string{"lemlist": "cam"})
	Same(w.T, "applied at once", w.Account(w.Tenant).Applied, store.AdoptLimit)
	w.one(in)
	w.Clock.Advance(time3)
	w.Due()
	total := int64(store.AdoptLimit + 2*people)
	Same(w.T, "account", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: total, Applied: total})
	Same(w.T, "totals", w.Totals(in), map[event.Type]int64{event.Delivered: store.AdoptLimit, event.Sent: people, event.Opened: people})
	Same(w.T, "people", len(w.enrolled(in)), people+1)
	w.Drain()
}

func enrolledOnceThoughRepeated(w *World) {
	in := w.tool()
	batch := []event.Event{w.Event(event.Sent, Address("ada@example.com"), Enrolling("cam")), w.Event(event.Opened, Lead("l"), Enrolling("cam"))}
	w.Put(batch...)
	for _, r := range w.Put(batch...) {
		Same(w.T, "outcome", r.Outcome, event.OutcomeApplied)
	}
	w.Reopen()
	w.Put(batch...)
	Same(w.T, "enrollments", len(w.enrolled(in)), 2)
	Same(w.T, "account", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 2, Applied: 2})
}

// neighboursAreFound: an event of an ordinary source in the same batch belongs
// to the enrollment as if it had come after.
func neighboursAreFound(w *World) {
	in := w.tool()
	res := w.Put(w.Event(event.Opened, From("postmark"), Address("ada@example.com")), w.Event(event.Sent, Address("ada@example.com"), Enrolling("cam")))
	for _, r := range res {
		w.IsApplied(r.ID, w.one(in).ID)
	}
}

func enrolledInTwoTenants(w *World) {
	in := w.tool()
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	_, theirs := w.Campaign(other.ID, map[string]string{"lemlist": "cam"})
	same := []Option{Lead("l"), Address("ada@example.com"), Enrolling("cam")}
	w.Put(w.Event(event.Sent, same...), w.Event(event.Sent, append(same, For(other.ID))...))
	w.one(in)
	rows, _, err := w.Enrollments(w.Ctx(), other.ID, theirs, store.EnrollmentFilter{}, store.Page{Limit: 10})
	w.must(err)
	Same(w.T, "theirs", len(rows), 1)
	Same(w.T, "applied", []int64{w.Account(w.Tenant).Applied, w.Account(other.ID).Applied}, []int64{1, 1})
}

// EnrollAtOnce commits events of the same people at the same moments, in random
// orders, on two stores of one database, while some are enrolled by hand: each
// is one enrollment, and every event counts.
func EnrollAtOnce(w *World, people int, a, b Store) {
	w.T.Helper()
	in := w.tool()
	const each = 4
	var group sync.WaitGroup
	for n := range each {
		s := []Store{a, b}[n%2]
		order := rand.Perm(people) //nolint:gosec // any order will do
		size := 1 + rand.IntN(20)  //nolint:gosec // any size will do
		group.Go(func() {
			var batch []event.Event
			for at, p := range order {
				batch = append(batch, w.Event(event.Opened, Lead(fmt.Sprint("lead ", p)), Address(fmt.Sprintf("p%d@example.com", p)), Enrolling("cam")))
				if len(batch) < size && at < people-1 {
					continue
				}
				if _, err := s.Commit(w.Ctx(), batch); err != nil {
					w.T.Error(err)
					return
				}
				batch = nil
			}
		})
	}
	group.Go(func() {
		for p := 0; p < people; p += 3 {
			e := campaign.Enrollment{Email: fmt.Sprintf("p%d@example.com", p)}
			if _, err := b.Enroll(w.Ctx(), w.Tenant, in, []campaign.Enrollment{e}, true, store.Idempotency{}); err != nil {
				w.T.Error(err)
				return
			}
		}
	})
	group.Wait()
	if w.T.Failed() {
		return
	}
	total := int64(each * people)
	Same(w.T, "account", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: total, Applied: total})
	Same(w.T, "opened", w.Totals(in), map[event.Type]int64{event.Opened: total})
	rows := w.enrolled(in)
	Same(w.T, "enrollments", len(rows), people)
	for _, e := range rows {
		Same(w.T, "leads of "+e.Email, len(e.Refs), 1)
	}
}
