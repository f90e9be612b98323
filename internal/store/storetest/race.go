package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

// Replica is where events and enrollments come in.
type Replica struct {
	Store
	Accept func(ctx context.Context, events []event.Event) ([]store.Result, error)
}

// AtOnce commits pairs of an event and the enrollment that it belongs to at the
// same moments, each at one of the replicas. No worker runs and the clock does
// not reach the schedule, so whatever is applied in the end was applied by the
// two of them; and all must be.
func AtOnce(w *World, pairs int, replicas ...Replica) {
	w.T.Helper()
	ids := make([]uuid.UUID, pairs)
	people := make([]uuid.UUID, pairs)
	room := make(chan struct{}, 32)
	var group sync.WaitGroup
	do := func(fn func(Replica)) {
		room <- struct{}{}
		r := replicas[rand.IntN(len(replicas))] //nolint:gosec // any order will do
		group.Go(func() { fn(r); <-room })
	}
	for i := range pairs {
		addr, lead := fmt.Sprintf("p%d@example.com", i), fmt.Sprint("lead ", i)
		by := Address(addr)
		if i%2 == 1 {
			by = Lead(lead)
		}
		send := func(r Replica) {
			res, err := r.Accept(w.T.Context(), []event.Event{w.Event(event.Replied, by)})
			if err != nil {
				w.T.Error(err)
				return
			}
			ids[i] = res[0].ID
		}
		enroll := func(r Replica) {
			// Another who is enrolled in the same request makes it a bulk one.
			in := []campaign.Enrollment{{Email: addr, Refs: []event.Ref{{Provider: "lemlist", Kind: event.RefLead, Value: lead}}}}
			if i%3 == 0 {
				in = append(in, campaign.Enrollment{ContactID: fmt.Sprint("companion ", i)})
			}
			d, err := r.Enroll(w.T.Context(), w.Tenant, w.Instance, in, false, store.Idempotency{})
			if err != nil {
				w.T.Error(err)
				return
			}
			people[i] = d[0].ID
		}
		if rand.IntN(2) == 0 { //nolint:gosec // any order will do
			do(send)
			do(enroll)
		} else {
			do(enroll)
			do(send)
		}
	}
	group.Wait()
	if w.T.Failed() {
		return
	}
	Same(w.T, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: int64(pairs), Applied: int64(pairs)})
	Same(w.T, "completed", w.Totals(w.Instance), map[event.Type]int64{event.Replied: int64(pairs)})
	_, waiting, err := w.NextDue(w.T.Context())
	w.must(err)
	Same(w.T, "somebody waits", waiting, false)
	by := map[string]int{}
	stored := map[uuid.UUID]store.Record{}
	for after := int64(0); ; {
		rows, next, err := w.Events(w.T.Context(), w.Tenant, store.EventFilter{}, store.Page{Limit: 1000, After: after})
		w.must(err)
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
			w.T.Fatalf("event %d belongs to %s, want %s", i, r.Enrollment, people[i])
		}
		Same(w.T, "attempts", r.Attempts, 0)
		by[r.SettledBy]++
	}
	w.T.Logf("settled by %v", by)
	Same(w.T, "settled by others than the two", by["live"]+by["adoption"], pairs)
	n, err := w.Numbers(w.T.Context(), w.Tenant, w.Instance, time.Time{}, time.Time{})
	w.must(err)
	Same(w.T, "status", n.Status["completed"], int64(pairs))
}
