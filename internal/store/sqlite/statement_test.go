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
		w.Put(w.Mix(other.ID, source.ID, round, 10)...)
		batch := w.Mix(other.ID, source.ID, round, n)
		return statements(t, w, func() { w.Put(batch...) })
	}
	small, large := commit(20), commit(500)
	storetest.Same(t, "statements of a commit of 500 against 20", large, small)

	// So do events that enroll, whoever waits for them, and nonces; a batch with
	// neither pays for neither.
	w.Campaign(w.Tenant, map[string]string{"lemlist": "tool"})
	enroll := func(n, lead int, opts ...storetest.Option) int64 {
		batch := w.Newcomers(n, lead, opts...)
		return statements(t, w, func() { w.Put(batch...) })
	}
	enroll(2, 0, storetest.Enrolling("tool"))
	small, large = enroll(10, 1000, storetest.Enrolling("tool")), enroll(500, 2000, storetest.Enrolling("tool"))
	storetest.Same(t, "statements of a commit that enrolls 250 against 5", large, small)
	known := enroll(20, 2000, storetest.Enrolling("tool"))
	storetest.Same(t, "a source that enrolls, of known people, against an ordinary one", known, enroll(20, 2000, storetest.InCampaign("tool")))
	once := func(n int) int64 {
		batch := w.Newcomers(n, 2000, storetest.InCampaign("tool"))
		for i := range batch {
			storetest.Once(fmt.Sprint(n, " ", i), batch[i:i+1]...)
		}
		return statements(t, w, func() { w.Put(batch...) })
	}
	storetest.Same(t, "nonces", []int64{once(20), once(400)}, []int64{known + 1, known + 1})
	t.Logf("a commit of known people's events takes %d statements, one that enrolls %d", known, large)

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
