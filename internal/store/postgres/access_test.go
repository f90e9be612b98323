package postgres_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
)

// TestReplicasTouchKeysTogether notes on two replicas when the same keys were
// used: the latest stays, and neither stops the other.
func TestReplicasTouchKeysTogether(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	other := replica(w)
	used := map[uuid.UUID]time.Time{}
	for n := range byte(20) {
		k := store.Key{ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, Name: "k", Hash: [32]byte{n}, Scopes: []string{"admin"}, CreatedAt: w.Clock.Now()}
		must(t, w.CreateKey(w.Ctx(), k))
		used[k.ID] = w.Clock.Now()
	}
	touch := func(s storetest.Store, d time.Duration) func() error {
		moved := map[uuid.UUID]time.Time{}
		for id, when := range used {
			moved[id] = when.Add(d)
		}
		return func() error { return s.TouchKeys(w.Ctx(), moved) }
	}
	together(t, touch(w.Store, 0), touch(other, time.Hour), touch(w.Store, time.Minute), touch(other, time.Second))
	rows, _, err := w.Keys(w.Ctx(), w.Tenant, store.Page{Limit: 100})
	must(t, err)
	storetest.Same(t, "keys", len(rows), len(used))
	for _, k := range rows {
		storetest.Same(t, "last used", k.LastUsedAt, used[k.ID].Add(time.Hour))
	}
}

// TestSumsOfReplicas has two replicas take events in: what each counts for
// itself is one sum in every report.
func TestSumsOfReplicas(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	w.Person("ada@example.com")
	src := store.Source{ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, Provider: "lemlist", Name: "s", TokenHash: [32]byte{1}, Sealed: []byte{1}, CreatedAt: w.Clock.Now()}
	must(t, w.CreateSource(w.Ctx(), src))
	from := func(e *event.Event) { e.SourceID, e.Scope = src.ID, src.ID.String() }
	replicas := []storetest.Store{w.Store, replica(w)}
	const rounds, each = 5, 8
	var last time.Time
	for range rounds {
		fns := make([]func() error, 4)
		for i := range fns {
			batch := make([]event.Event, each)
			for j := range batch {
				a := "ada@example.com"
				if j%2 == 1 {
					a = "nobody@example.com"
				}
				batch[j] = w.Event(event.Opened, storetest.Address(a), from)
				last = batch[j].ReceivedAt
			}
			fns[i] = func() error {
				_, err := replicas[i%2].Commit(w.Ctx(), batch)
				return err
			}
		}
		together(t, fns...)
	}
	const all = rounds * 4 * each
	storetest.Same(t, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: all, Applied: all / 2, Orphaned: all / 2})
	storetest.Same(t, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: all / 2})
	got, err := w.Source(w.Ctx(), w.Tenant, src.ID)
	must(t, err)
	storetest.Same(t, "received", got.Received, all)
	storetest.Same(t, "last received", got.LastReceivedAt, last)
}
