package postgres_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
)

// TestEventAndEnrollmentAtOnceLeavesNobodyWaiting: whoever commits last sees
// the other, on two replicas.
func TestEventAndEnrollmentAtOnceLeavesNobodyWaiting(t *testing.T) {
	t.Parallel()
	pairs := 3000
	if *long {
		pairs = 50_000
	}
	w := storetest.New(t, open)
	other := replica(w)
	storetest.AtOnce(w, pairs, storetest.Replica{Store: w.Store, Accept: w.Commit}, storetest.Replica{Store: other, Accept: other.Commit})
}

// TestCampaignAndEnrollmentAtOnceLeaveNobodyWaiting: what an event needs comes
// from two transactions at the same moment, and neither has it all.
func TestCampaignAndEnrollmentAtOnceLeaveNobodyWaiting(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	other := replica(w)
	const n = 60
	ambiguous := func(i int) store.Result {
		addr := fmt.Sprintf("p%d@example.com", i)
		w.Person(addr)
		_, third := w.Campaign(w.Tenant, nil)
		w.Join(third, campaign.Enrollment{Email: addr})
		return w.Send(event.Replied, storetest.Address(addr), storetest.InCampaign(fmt.Sprint("cam ", i)))
	}
	ids := make([]uuid.UUID, n)
	for i := range n / 2 { // of these the rows in the queue are gone
		ids[i] = ambiguous(i).ID
	}
	w.Spend()
	for i := n / 2; i < n; i++ {
		ids[i] = ambiguous(i).ID
	}
	for i, ev := range ids {
		_, instance := w.Campaign(w.Tenant, nil)
		var id uuid.UUID
		together(t, func() error {
			_, _, err := other.PatchInstance(t.Context(), w.Tenant, instance, store.InstancePatch{ProviderCampaigns: map[string]string{"lemlist": fmt.Sprint("cam ", i)}})
			return err
		}, func() error {
			d, err := w.Enroll(t.Context(), w.Tenant, instance, []campaign.Enrollment{{Email: fmt.Sprintf("p%d@example.com", i)}}, false, store.Idempotency{})
			id = d[0].ID
			return err
		})
		w.IsApplied(ev, id)
	}
}

// TestOneContactEnrolledByManyAtOnceIsOne enrolls the same people on two
// replicas in opposite orders: each is enrolled once, and nobody fails.
func TestOneContactEnrolledByManyAtOnceIsOne(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	other := replica(w)
	const n = 150
	var forth, back []campaign.Enrollment
	for i := range n {
		e := campaign.Enrollment{Email: fmt.Sprintf("p%d@example.com", i), ContactID: fmt.Sprint(i), Refs: []event.Ref{{Provider: "lemlist", Kind: event.RefLead, Value: fmt.Sprint(i % 7)}}}
		forth, back = append(forth, e), append([]campaign.Enrollment{e}, back...)
	}
	made := map[uuid.UUID]int{}
	var mu sync.Mutex
	enroll := func(s storetest.Store, in []campaign.Enrollment) func() error {
		return func() error {
			got, err := s.Enroll(t.Context(), w.Tenant, w.Instance, in, false, store.Idempotency{})
			mu.Lock()
			defer mu.Unlock()
			for _, d := range got {
				if !d.Conflict {
					made[d.ID]++
				}
			}
			return err
		}
	}
	together(t, enroll(w.Store, forth), enroll(other, back), enroll(w.Store, back[:20]), enroll(other, forth[:3]))
	storetest.Same(t, "enrolled", len(made), n)
	rows, _, err := w.Enrollments(t.Context(), w.Tenant, w.Instance, store.EnrollmentFilter{}, store.Page{Limit: 1000})
	must(t, err)
	storetest.Same(t, "enrollments", len(rows), n)
	// Seven leads have some twenty owners each: an event of one is ambiguous.
	w.Waits(w.Send(event.Opened, storetest.Lead("3")).ID, store.ReasonAmbiguous)
}

// TestOnePersonOfManyEventsAtOnceIsOneEnrollment: events of the same people come
// in on two replicas at once, from a source that enrolls, while some of them
// are enrolled by hand.
func TestOnePersonOfManyEventsAtOnceIsOneEnrollment(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	storetest.EnrollAtOnce(w, 400, w.Store, replica(w))
}

// TestMappingAndEventAtOnceEnroll: an event and what it needs to enroll, the
// campaign's mapping or its instance's activation, are committed at the same
// moment on two replicas. No attempt of the schedule is spent.
func TestMappingAndEventAtOnceEnroll(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	other := replica(w)
	paused, active := string(campaign.Paused), string(campaign.Active)
	for i := range 60 {
		name := fmt.Sprint("cam ", i)
		_, instance := w.Campaign(w.Tenant, nil)
		patch := store.InstancePatch{ProviderCampaigns: map[string]string{"lemlist": name}}
		if i%2 == 1 {
			patch.Status = &paused
			_, _, err := w.PatchInstance(t.Context(), w.Tenant, instance, patch)
			must(t, err)
			patch = store.InstancePatch{Status: &active}
		}
		addr, lead := storetest.Address(fmt.Sprintf("p%d@example.com", i)), storetest.Lead(fmt.Sprint("lead ", i))
		both := w.Event(event.Sent, addr, lead, storetest.Enrolling(name))
		alone := w.Event(event.ProfileVisited, lead, storetest.Enrolling(name))
		together(t, func() error {
			_, _, err := other.PatchInstance(t.Context(), w.Tenant, instance, patch)
			return err
		}, func() error {
			_, err := w.Commit(t.Context(), []event.Event{both})
			return err
		}, func() error {
			_, err := other.Commit(t.Context(), []event.Event{alone})
			return err
		})
		rows, _, err := w.Enrollments(t.Context(), w.Tenant, instance, store.EnrollmentFilter{}, store.Page{Limit: 10})
		must(t, err)
		if len(rows) != 1 {
			t.Fatalf("campaign %d: %d enrollments, want one", i, len(rows))
		}
		for _, e := range []event.Event{both, alone} {
			w.IsApplied(e.ID, rows[0].ID)
			storetest.Same(t, "attempts", w.Record(e.ID).Attempts, 0)
		}
	}
}
