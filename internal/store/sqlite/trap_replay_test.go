package sqlite_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/deadletter"
	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
)

func replays(w *storetest.World) *deadletter.Service {
	return deadletter.New(w, deadletter.Options{Now: w.Clock.Now, Logger: discard(), Metrics: metrics()})
}

func buried(w *storetest.World, n int) []uuid.UUID {
	w.T.Helper()
	batch := make([]event.Event, n)
	ids := make([]uuid.UUID, n)
	for i := range batch {
		batch[i] = w.Event(event.Replied, storetest.Address(fmt.Sprintf("p%d@example.com", i)))
		ids[i] = batch[i].ID
	}
	w.Put(batch...)
	w.Spend()
	return ids
}

func finished(t testing.TB, w *storetest.World, id uuid.UUID) store.Replay {
	t.Helper()
	var r store.Replay
	until(t, "the end of the replay", func() bool {
		var err error
		r, err = w.ReplayProgress(t.Context(), w.Tenant, id)
		return err == nil && r.Status != "running"
	})
	storetest.Same(t, "status", r.Status, "done")
	storetest.Same(t, "sum of the outcomes", r.Applied+r.Orphaned+r.Duplicate+r.Dead+r.Skipped, r.Matched)
	return r
}

// TestTrapBulkReplayMeetsALateEnrollment enrolls people while their letters are
// being replayed: each event is applied once, whoever was faster.
func TestTrapBulkReplayMeetsALateEnrollment(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	const n = 200
	ids := buried(w, n)
	svc := replays(w)
	svc.Start()
	defer svc.Stop()
	r, err := svc.StartReplay(t.Context(), w.Tenant, nil, store.LetterFilter{}, false, "me")
	if err != nil {
		t.Fatal(err)
	}
	for i := n - 1; i >= 0; i -= 2 {
		w.Person(fmt.Sprintf("p%d@example.com", i))
	}
	r = finished(t, w, r.ID)
	storetest.Same(t, "matched", r.Matched, n)
	storetest.Same(t, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Replied: n / 2})
	letters, _, err := w.Letters(t.Context(), w.Tenant, store.LetterFilter{Status: store.LetterReplayed}, store.Page{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "replayed", len(letters), n)
	for i, id := range ids {
		want := event.Orphaned
		if i%2 == 1 {
			want = event.Applied
		}
		storetest.Same(t, "state", w.Record(id).State, want)
	}
}

// TestTrapBulkReplayIsKilled stops between a part and its booking, and restarts.
func TestTrapBulkReplayIsKilled(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	const n = 120
	buried(w, n)
	_, mapped := w.Campaign(w.Tenant, nil)
	r, err := w.StartReplay(t.Context(), w.Tenant, nil, store.LetterFilter{}, false, "me")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		part, ok, err := w.NextReplay(t.Context(), 50)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		var ids []uuid.UUID
		for _, l := range part.Letters {
			ids = append(ids, l.ID)
		}
		if _, err := w.ReplayLetters(t.Context(), w.Tenant, ids); err != nil {
			t.Fatal(err)
		}
		w.Reopen() // killed before it is booked
	}
	for i := range 10 {
		w.Join(mapped, campaign.Enrollment{Email: fmt.Sprintf("p%d@example.com", i)})
	}
	svc := replays(w)
	svc.Start()
	defer svc.Stop()
	r = finished(t, w, r.ID)
	storetest.Same(t, "matched", r.Matched, n)
	storetest.Same(t, "totals", w.Totals(mapped), map[event.Type]int64{event.Replied: 10})
	for _, status := range []store.LetterStatus{store.LetterDead, store.LetterReplaying} {
		rows, _, err := w.Letters(t.Context(), w.Tenant, store.LetterFilter{Status: status}, store.Page{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		storetest.Same(t, string(status), len(rows), 0)
	}
}
