package sqlite_test

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
// and the enrollments that they belong to at the same moments. No worker runs
// and the clock does not reach the schedule, so whatever is applied in the end
// was applied by the two of them.
func TestEventAndEnrollmentAtOnceLeavesNobodyWaiting(t *testing.T) {
	t.Parallel()
	pairs := 2000
	if *long {
		pairs = 50_000
	}
	w := storetest.New(t, open)
	acc := committer(w)
	ids := make([]uuid.UUID, pairs)
	people := make([]uuid.UUID, pairs)
	room := make(chan struct{}, 64)
	var group sync.WaitGroup
	do := func(fn func()) {
		room <- struct{}{}
		group.Go(func() { fn(); <-room })
	}
	for i := range pairs {
		addr, lead := fmt.Sprintf("p%d@example.com", i), fmt.Sprint("lead ", i)
		by := storetest.Address(addr)
		if i%2 == 1 {
			by = storetest.Lead(lead)
		}
		send := func() {
			res, err := acc.Accept(t.Context(), []event.Event{w.Event(event.Replied, by)})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = res[0].ID
		}
		enroll := func() {
			// Another who is enrolled in the same request makes it a bulk one.
			in := []campaign.Enrollment{{Email: addr, Refs: []event.Ref{{Provider: "lemlist", Kind: event.RefLead, Value: lead}}}}
			if i%3 == 0 {
				in = append(in, campaign.Enrollment{ContactID: fmt.Sprint("companion ", i)})
			}
			d, err := w.Enroll(t.Context(), w.Tenant, w.Instance, in, false, store.Idempotency{})
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
	storetest.Same(t, "completed", w.Totals(w.Instance), map[event.Type]int64{event.Replied: int64(pairs)})
	_, waiting, err := w.NextDue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "somebody waits", waiting, false)
	by := map[string]int{}
	stored := map[uuid.UUID]store.Record{}
	for after := int64(0); ; {
		rows, next, err := w.Events(t.Context(), w.Tenant, store.EventFilter{}, store.Page{Limit: 1000, After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			stored[r.ID] = r
		}
		if next == 0 {
			break
		}
		after = next
	}
	for i, id := range ids {
		r := stored[id]
		if r.Enrollment != people[i] {
			t.Fatalf("event %d belongs to %s, want %s", i, r.Enrollment, people[i])
		}
		storetest.Same(t, "attempts", r.Attempts, 0)
		by[r.SettledBy]++
	}
	t.Logf("settled by %v", by)
	storetest.Same(t, "settled by others than the two", by["live"]+by["adoption"], pairs)
	n, err := w.Numbers(t.Context(), w.Tenant, w.Instance, time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "status", n.Status["completed"], int64(pairs))
}
