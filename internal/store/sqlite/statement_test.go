package sqlite_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
)

// mix makes a batch of n events of every kind there is: applied by each rank,
// orphaned, duplicate, suppressing, ignored, of two tenants and a source.
func mix(w *storetest.World, other int64, source uuid.UUID, round, n int) []event.Event {
	batch := make([]event.Event, n)
	for i := range batch {
		opts := []storetest.Option{storetest.Address(fmt.Sprintf("p%d@example.com", i%5))}
		typ := event.Opened
		switch i % 10 {
		case 1:
			typ = event.Unsubscribed
		case 2:
			opts = append(opts, storetest.Message("m"))
		case 3:
			opts = []storetest.Option{storetest.Lead(fmt.Sprintf("unknown %d %d", round, i))}
		case 4:
			opts = append(opts, storetest.ID(fmt.Sprint("the same in round ", round)))
		case 5:
			opts = append(opts, storetest.For(other))
		case 6:
			opts = append(opts, func(e *event.Event) { e.SourceID, e.Scope = source, source.String() })
		case 7:
			opts = append(opts, storetest.InCampaign("cam"))
		case 8:
			opts = append(opts, func(e *event.Event) { e.Control, e.Kind, e.Type, e.Channel = true, "note", "", "" })
		case 9:
			opts = append(opts, storetest.Of(uuid.Must(uuid.NewV7())))
		}
		batch[i] = w.Event(typ, opts...)
	}
	return batch
}

// TestConstantStatements holds the number of statements against the size of
// the batch: it must not grow.
func TestConstantStatements(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	other, err := w.CreateTenant(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	_, mapped := w.Campaign(w.Tenant, map[string]string{"lemlist": "cam"})
	for i := range 5 {
		w.Person(fmt.Sprintf("p%d@example.com", i), event.Ref{Provider: "lemlist", Kind: event.RefMessage, Value: "m"})
		w.Join(mapped, campaign.Enrollment{Email: fmt.Sprintf("p%d@example.com", i)})
	}
	source := store.Source{ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, Provider: "lemlist", Name: "s", Sealed: []byte{}, CreatedAt: w.Clock.Now()}
	if err := w.CreateSource(t.Context(), source); err != nil {
		t.Fatal(err)
	}
	round := 0
	commit := func(n int) int64 {
		round += 2
		w.Put(mix(w, other.ID, source.ID, round, 10)...)
		batch := mix(w, other.ID, source.ID, round, n)
		return statements(t, w, func() { w.Put(batch...) })
	}
	small, large := commit(20), commit(500)
	storetest.Same(t, "statements of a commit of 500 against 20", large, small)

	// Retries, adoptions and replays are batches of the same processor.
	retry := func(n int) int64 {
		w.Spend()
		w.Flood(n, storetest.Lead("nobody"))
		w.Clock.Advance(3 * time.Second)
		claim, err := w.Claim(t.Context(), n, time.Minute, 0)
		if err != nil || len(claim.Events) != n {
			t.Fatalf("claimed %d of %d, %v", len(claim.Events), n, err)
		}
		return statements(t, w, func() {
			if _, err := w.Retry(t.Context(), claim); err != nil {
				t.Fatal(err)
			}
		})
	}
	storetest.Same(t, "statements of a retry of 50 against 2", retry(50), retry(2))
	adopt := func(n int) int64 {
		round++
		a := fmt.Sprintf("late%d@example.com", round)
		w.Flood(n, storetest.Address(a))
		return statements(t, w, func() { w.Person(a) })
	}
	storetest.Same(t, "statements of an adoption of 300 against 2", adopt(300), adopt(2))
	letters := func(n int) int64 {
		w.Spend()
		var dead []event.Event
		for range n {
			dead = append(dead, w.Event(event.Opened, storetest.Lead("buried")))
		}
		if _, err := w.CommitDead(t.Context(), dead, store.ReasonPoison, "x"); err != nil {
			t.Fatal(err)
		}
		rows, _, err := w.Letters(t.Context(), w.Tenant, store.LetterFilter{}, store.Page{Limit: n})
		if err != nil {
			t.Fatal(err)
		}
		var ids []uuid.UUID
		for _, l := range rows {
			ids = append(ids, l.ID)
		}
		return statements(t, w, func() {
			if _, err := w.ReplayLetters(t.Context(), w.Tenant, ids); err != nil {
				t.Fatal(err)
			}
		})
	}
	storetest.Same(t, "statements of a replay of 40 against 2", letters(40), letters(2))
}
