package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
)

// TestEventAndEnrollmentAtOnceLeavesNobodyWaiting commits thousands of events
// and the enrollments that they belong to at the same moments, on two replicas.
// No worker runs and the clock does not reach the schedule, so whatever is
// applied in the end was applied by the two of them.
func TestEventAndEnrollmentAtOnceLeavesNobodyWaiting(t *testing.T) {
	t.Parallel()
	pairs := 3000
	if *long {
		pairs = 50_000
	}
	w := storetest.New(t, open)
	stores := []storetest.Store{w.Store, replica(w)}
	ids := make([]uuid.UUID, pairs)
	people := make([]uuid.UUID, pairs)
	room := make(chan struct{}, 16)
	var group sync.WaitGroup
	do := func(fn func(storetest.Store)) {
		room <- struct{}{}
		s := stores[rand.IntN(2)]
		group.Go(func() { fn(s); <-room })
	}
	for i := range pairs {
		addr, lead := fmt.Sprintf("p%d@example.com", i), fmt.Sprint("lead ", i)
		by := storetest.Address(addr)
		if i%2 == 1 {
			by = storetest.Lead(lead)
		}
		send := func(s storetest.Store) {
			res, err := s.Commit(t.Context(), []event.Event{w.Event(event.Replied, by)})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = res[0].ID
		}
		enroll := func(s storetest.Store) {
			// Another who is enrolled in the same request makes it a bulk one.
			in := []campaign.Enrollment{{Email: addr, Refs: []event.Ref{{Provider: "lemlist", Kind: event.RefLead, Value: lead}}}}
			if i%3 == 0 {
				in = append(in, campaign.Enrollment{ContactID: fmt.Sprint("companion ", i)})
			}
			d, err := s.Enroll(t.Context(), w.Tenant, w.Instance, in, false, store.Idempotency{})
			if err != nil {
				t.Error(err)
				return
			}
			people[i] = d[0].ID
		}
		if rand.IntN(2) == 0 {
			do(send)
			do(enroll)
		} else {
			do(enroll)
			do(send)
		}
	}
	group.Wait()
	if t.Failed() {
		return
	}
	storetest.Same(t, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: int64(pairs), Applied: int64(pairs)})
	storetest.Same(t, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Replied: int64(pairs)})
	_, waiting, err := w.NextDue(t.Context())
	must(t, err)
	storetest.Same(t, "somebody waits", waiting, false)
	by := map[string]int{}
	for i, id := range ids {
		r := w.Record(id)
		if r.Enrollment != people[i] {
			t.Fatalf("event %d belongs to %s, want %s", i, r.Enrollment, people[i])
		}
		storetest.Same(t, "attempts", r.Attempts, 0)
		by[r.SettledBy]++
	}
	t.Logf("settled by %v", by)
	storetest.Same(t, "settled by others than the two", by["live"]+by["adoption"], pairs)
	n, err := w.Numbers(t.Context(), w.Tenant, w.Instance, time.Time{}, time.Time{})
	must(t, err)
	storetest.Same(t, "status", n.Status["completed"], int64(pairs))
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
