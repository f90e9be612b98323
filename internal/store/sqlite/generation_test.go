package sqlite_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/sqlite"
	"tallyhook/internal/store/storetest"
)

func generations(n int) func(*storetest.Options) {
	return func(o *storetest.Options) { o.Generation = n }
}

// TestGenerationsKeepIdentity resends events that are in memory, on their way
// to the disk and in several generations, over restarts.
func TestGenerationsKeepIdentity(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open, generations(7))
	ada := w.Person("ada@example.com")
	var sent []event.Event
	random := rand.New(rand.NewPCG(1, 2))
	duplicates := int64(0)
	for round := range 40 {
		var batch []event.Event
		for range 1 + random.IntN(9) {
			e := w.Event(event.Opened, storetest.Address("ada@example.com"), storetest.Message(fmt.Sprint("m", len(sent)+len(batch))))
			batch = append(batch, e)
		}
		fresh := len(batch)
		for range random.IntN(5) {
			if len(sent) > 0 {
				again := sent[random.IntN(len(sent))]
				again.ID = uuid.Must(uuid.NewV7())
				batch = append(batch, again, again)
				batch[len(batch)-1].ID = uuid.Must(uuid.NewV7()) // twice in one batch
			}
		}
		for i, r := range w.Put(batch...) {
			if want := i >= fresh; (r.Outcome == event.OutcomeDuplicate) != want {
				t.Fatalf("round %d: event %d is %s, duplicate should be %v", round, i, r.Outcome, want)
			}
		}
		duplicates += int64(len(batch) - fresh)
		sent = append(sent, batch[:fresh]...)
		switch random.IntN(6) {
		case 0:
			w.Reopen() // a run that was begun is thrown away
		case 1:
			w.Index()
		default: // a step or two
			for range random.IntN(3) {
				if _, err := w.IndexNext(t.Context(), 1+random.IntN(5)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	storetest.Same(t, "ledger", w.Account(w.Tenant), store.Ledger{
		Tenant: w.Tenant, Received: int64(len(sent)) + duplicates, Duplicates: duplicates, Applied: int64(len(sent)),
	})
	find := func(f store.EventFilter) int {
		rows, _, err := w.Events(t.Context(), w.Tenant, f, store.Page{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return len(rows)
	}
	for range 2 {
		storetest.Same(t, "by address", find(store.EventFilter{Email: "ada@example.com"}), len(sent))
		storetest.Same(t, "by enrollment", find(store.EventFilter{Enrollment: ada}), len(sent))
		for i := range sent {
			storetest.Same(t, "by message", find(store.EventFilter{MessageID: fmt.Sprint("m", i)}), 1)
		}
		w.Reopen()
	}
}

// TestGenerationsAreSearchedWhileTheyAreWritten: no reader misses an event that
// is just moving from memory to the disk.
func TestGenerationsAreSearchedWhileTheyAreWritten(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open, generations(20))
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		for ctx.Err() == nil {
			if _, err := w.IndexNext(context.WithoutCancel(ctx), 7); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for n := 1; n <= 150; n++ {
		w.Send(event.Opened, storetest.Address("ada@example.com"))
		rows, _, err := w.Events(t.Context(), w.Tenant, store.EventFilter{Email: "ada@example.com"}, store.Page{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != n {
			t.Fatalf("found %d of %d events", len(rows), n)
		}
	}
	stop()
	group.Wait()
}

// TestIndexIsReadAgainAfterACommitOfUnknownOutcome, also when reading it again
// fails at first, and in the middle of writing a generation.
func TestIndexIsReadAgainAfterACommitOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open, generations(4))
	s := embedded(t, w)
	gone, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for n := range 30 {
		first := w.Send(event.Opened, storetest.ID(fmt.Sprint(n)), storetest.Address("ada@example.com"))
		if n%3 == 0 {
			if _, err := w.IndexNext(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
		}
		s.Distrust()
		if n%2 == 0 {
			_, err := w.Commit(gone, []event.Event{w.Event(event.Opened)})
			storetest.Kind(t, err, fault.Unavailable)
		}
		if n%5 == 0 {
			w.Index()
		}
		for _, back := range []int{n, n / 2, 0} {
			res := w.Send(event.Opened, storetest.ID(fmt.Sprint(back)), storetest.Address("ada@example.com"))
			storetest.Same(t, fmt.Sprint("event ", back, " again after ", n), res.Outcome, event.OutcomeDuplicate)
			if back == n {
				storetest.Same(t, "id", res.ID, first.ID)
			}
		}
	}
	rows, _, err := w.Events(t.Context(), w.Tenant, store.EventFilter{Email: "ada@example.com"}, store.Page{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "found", len(rows), 30)
}

// TestMigrationsApplyOnceToAnEmptyDatabase opens a file that is not there, and
// what that made.
func TestMigrationsApplyOnceToAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new.db")
	var first []store.Migration
	for n := range 3 {
		s, err := sqlite.Open(t.Context(), sqlite.Options{
			Path: path, TxTimeout: 30 * time.Second, Now: storetest.NewClock().Now, Delay: func(int) (time.Duration, bool) { return 0, false },
		})
		if err != nil {
			t.Fatal(err)
		}
		all, err := sqlite.Migrations(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			first = all
		}
		storetest.Same(t, "migrations", all, first)
		for _, m := range all {
			if m.AppliedAt.IsZero() {
				t.Errorf("migration %d is pending", m.Version)
			}
		}
		ledgers, err := s.Ledgers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		storetest.Same(t, "tenants", ledgers, []store.Ledger{{Tenant: store.DefaultTenant}})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(first) == 0 {
		t.Error("there are no migrations")
	}
}
