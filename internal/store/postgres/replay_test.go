package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"tallyhook/internal/campaign"
	"tallyhook/internal/deadletter"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
	"tallyhook/internal/telemetry"
	"tallyhook/internal/testenv"
)

// buried makes n dead letters, each of an address of its own.
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

func startReplay(w *storetest.World) uuid.UUID {
	w.T.Helper()
	r, err := w.StartReplay(w.Ctx(), w.Tenant, nil, store.LetterFilter{}, false, "me")
	must(w.T, err)
	return r.ID
}

func progress(w *storetest.World, id uuid.UUID) store.Replay {
	w.T.Helper()
	r, err := w.ReplayProgress(w.Ctx(), w.Tenant, id)
	must(w.T, err)
	r.CreatedAt, r.UpdatedAt = time.Time{}, time.Time{}
	return r
}

// whole checks that every letter that a replay matched has one outcome.
func whole(w *storetest.World, id uuid.UUID, matched int64) store.Replay {
	w.T.Helper()
	r := progress(w, id)
	storetest.Same(w.T, "matched", r.Matched, matched)
	storetest.Same(w.T, "sum of the outcomes", r.Applied+r.Orphaned+r.Duplicate+r.Dead+r.Skipped, r.Matched)
	return r
}

func next(w *storetest.World, s storetest.Store, n int) store.ReplayBatch {
	w.T.Helper()
	b, ok, err := s.NextReplay(w.Ctx(), n)
	must(w.T, err)
	if !ok {
		w.T.Fatal("no part of a replay is to be had")
	}
	return b
}

// take replays the letters of a part and does not book them.
func take(w *storetest.World, s storetest.Store, b store.ReplayBatch) (map[uuid.UUID]store.Result, error) {
	return s.ReplayLetters(w.Ctx(), b.Tenant, letterIDs(b))
}

// carry replays a part and books it.
func carry(w *storetest.World, s storetest.Store, b store.ReplayBatch) error {
	got, err := take(w, s, b)
	if err != nil {
		return err
	}
	return s.FinishReplayBatch(w.Ctx(), b, got)
}

// carryOn replays on one replica, n letters at a time, until it finds nothing to do.
func carryOn(w *storetest.World, s storetest.Store, n int) {
	w.T.Helper()
	for {
		b, ok, err := s.NextReplay(w.Ctx(), n)
		must(w.T, err)
		if !ok {
			return
		}
		must(w.T, carry(w, s, b))
	}
}

func letterIDs(b store.ReplayBatch) []uuid.UUID {
	ids := make([]uuid.UUID, len(b.Letters))
	for i, l := range b.Letters {
		ids[i] = l.ID
	}
	return ids
}

func count(w *storetest.World, status store.LetterStatus) int64 {
	w.T.Helper()
	st, err := w.LetterStats(w.Ctx(), w.Tenant)
	must(w.T, err)
	return st.ByStatus[status]
}

// handed notes which letters a store has handed out, to whichever replica.
type handed struct {
	storetest.Store
	mu   *sync.Mutex
	seen map[uuid.UUID]int
	more chan<- struct{} // told of each part that is finished; may be nil
}

func (h *handed) NextReplay(ctx context.Context, n int) (store.ReplayBatch, bool, error) {
	b, ok, err := h.Store.NextReplay(ctx, n)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range b.Letters {
		h.seen[l.ID]++
	}
	return b, ok, err
}

func (h *handed) FinishReplayBatch(ctx context.Context, b store.ReplayBatch, outcomes map[uuid.UUID]store.Result) error {
	err := h.Store.FinishReplayBatch(ctx, b, outcomes)
	if h.more != nil {
		select {
		case h.more <- struct{}{}:
		default:
		}
	}
	return err
}

func service(w *storetest.World, s deadletter.Store) *deadletter.Service {
	return deadletter.New(s, deadletter.Options{
		Now: w.Clock.Now, Logger: slog.New(slog.DiscardHandler), Metrics: telemetry.NewMetrics(prometheus.NewRegistry(), "test"),
	})
}

func ended(w *storetest.World, id uuid.UUID) {
	w.T.Helper()
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		if progress(w, id).Status != "running" {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-w.T.Context().Done():
			w.T.Fatal("the replay did not end")
		}
	}
}

// TestReplicasShareAReplay has two replicas, with two workers each, at one bulk
// replay: each letter is handed out, replayed and counted once.
func TestReplicasShareAReplay(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	const n = 120
	ids := buried(w, n)
	id := startReplay(w)
	var mu sync.Mutex
	seen := map[uuid.UUID]int{}
	work := func(s storetest.Store) func() error {
		h := &handed{Store: s, mu: &mu, seen: seen}
		return func() error {
			for {
				r, err := h.ReplayProgress(w.Ctx(), w.Tenant, id)
				if err != nil || r.Status != "running" {
					return err
				}
				b, ok, err := h.NextReplay(w.Ctx(), 7)
				if err == nil && ok { // else another is at it
					err = carry(w, h, b)
				}
				if err != nil {
					return err
				}
			}
		}
	}
	other := replica(w)
	together(t, work(w.Store), work(other), work(w.Store), work(other))
	r := whole(w, id, n)
	storetest.Same(t, "replay", r, store.Replay{ID: id, Status: "done", Matched: n, Orphaned: n})
	storetest.Same(t, "letters handed out", len(seen), n)
	for l, times := range seen {
		if times != 1 {
			t.Errorf("letter %s was handed out %d times", l, times)
		}
	}
	for _, id := range ids {
		replayed := 0
		for _, m := range w.Moments(id) {
			if m == "replayed" {
				replayed++
			}
		}
		storetest.Same(t, "replayed", replayed, 1)
	}
}

// TestReplaysAdvanceTogether has two replicas each at a replay of its own, of
// the same letters: whoever is second finds them settled.
func TestReplaysAdvanceTogether(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	buried(w, 4)
	one, two := startReplay(w), startReplay(w)
	other := replica(w)
	a, b := next(w, w.Store, 2), next(w, other, 2)
	if a.ID == b.ID {
		t.Errorf("both replicas are at %s", a.ID)
	}
	storetest.Same(t, "letters", letterIDs(a), letterIDs(b))
	_, ok, err := w.NextReplay(t.Context(), 2)
	must(t, err)
	storetest.Same(t, "a third", ok, false)
	together(t, func() error { return carry(w, w.Store, a) }, func() error { return carry(w, other, b) })
	carryOn(w, w.Store, 2)
	for _, id := range []uuid.UUID{one, two} {
		r := whole(w, id, 4)
		storetest.Same(t, "status", r.Status, "done")
	}
	storetest.Same(t, "replayed", count(w, store.LetterReplayed), 4)
}

// TestReplicaDiesWithAPart lets a replica die at two points of a part; the other takes over the same letters once the lease is over, and not before.
func TestReplicaDiesWithAPart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		taken bool // the dead replica has replayed its letters, and not booked them
		want  store.Replay
	}{
		"BeforeReplaying": {false, store.Replay{Status: "done", Matched: 10, Orphaned: 10}},
		"BeforeBooking":   {true, store.Replay{Status: "done", Matched: 10, Orphaned: 10}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := storetest.New(t, open)
			buried(w, 10)
			id := startReplay(w)
			gone := mortal(w)
			held := next(w, gone, 4)
			var err error
			if c.taken {
				_, err = take(w, gone, held)
			}
			must(t, errors.Join(err, gone.Close()))
			_, ok, err := w.NextReplay(t.Context(), 4)
			must(t, err)
			storetest.Same(t, "while the lease runs", ok, false)

			w.Clock.Advance(time.Hour)
			again := next(w, w.Store, 4)
			storetest.Same(t, "the part", letterIDs(again), letterIDs(held))
			must(t, carry(w, w.Store, again))
			carryOn(w, w.Store, 4)
			c.want.ID = id
			storetest.Same(t, "replay", whole(w, id, 10), c.want)
			storetest.Same(t, "left marked", count(w, store.LetterReplaying), 0)
		})
	}
}

// TestSlowReplicaBooksNothing lets a replica come back after another has taken
// its part over: only the first booking counts, whoever's it is.
func TestSlowReplicaBooksNothing(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	buried(w, 6)
	id := startReplay(w)
	other := replica(w)
	slow := next(w, w.Store, 4)
	w.Clock.Advance(time.Hour)
	quick := next(w, other, 4)
	storetest.Same(t, "the part", letterIDs(quick), letterIDs(slow))
	must(t, carry(w, other, quick))
	last := next(w, other, 4)
	storetest.Same(t, "the rest", len(last.Letters), 2)
	must(t, carry(w, w.Store, slow))
	storetest.Same(t, "replay", progress(w, id), store.Replay{ID: id, Status: "running", Matched: 6, Orphaned: 4})
	_, ok, err := w.NextReplay(t.Context(), 4)
	must(t, err)
	storetest.Same(t, "the slow one has not given the other's part away", ok, false)
	must(t, carry(w, other, last))
	carryOn(w, other, 4)
	storetest.Same(t, "replay", whole(w, id, 6), store.Replay{ID: id, Status: "done", Matched: 6, Orphaned: 6})
}

// TestCancelFreesADeadReplicasPart cancels while nobody is left to book a part.
func TestCancelFreesADeadReplicasPart(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	buried(w, 5)
	id := startReplay(w)
	held := next(w, w.Store, 2)
	storetest.Same(t, "marked", count(w, store.LetterReplaying), 2)
	_, err := replica(w).CancelReplay(t.Context(), w.Tenant, id, "me")
	must(t, err)
	storetest.Same(t, "replay", whole(w, id, 5), store.Replay{ID: id, Status: "cancelled", Matched: 5, Skipped: 5})
	storetest.Same(t, "marked", count(w, store.LetterReplaying), 0)
	// It was not dead after all.
	for range 2 {
		must(t, carry(w, w.Store, held))
		storetest.Same(t, "replay", whole(w, id, 5), store.Replay{ID: id, Status: "cancelled", Matched: 5, Orphaned: 2, Skipped: 3})
	}
}

// TestTrapBulkReplayMeetsALateEnrollmentOnTwoReplicas enrolls people on one
// replica while another carries a bulk replay, and while that one is closed in
// the middle: each event is applied once, whoever was faster.
func TestTrapBulkReplayMeetsALateEnrollmentOnTwoReplicas(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	const n = 200
	ids := buried(w, n)
	first := mortal(w)
	part := make(chan struct{}, 1)
	a := service(w, &handed{Store: first, mu: &sync.Mutex{}, seen: map[uuid.UUID]int{}, more: part})
	b := service(w, w)
	a.Start()
	r, err := a.StartReplay(t.Context(), w.Tenant, nil, store.LetterFilter{}, false, "me")
	must(t, err)
	together(t,
		func() error {
			for i := n - 1; i >= 0; i -= 2 {
				in := []campaign.Enrollment{{Email: fmt.Sprintf("p%d@example.com", i)}}
				if _, err := w.Enroll(w.Ctx(), w.Tenant, w.Instance, in, false, store.Idempotency{}); err != nil {
					return err
				}
			}
			return nil
		},
		func() error {
			<-part
			a.Stop()
			b.Start()
			return first.Close()
		},
	)
	defer b.Stop()
	ended(w, r.ID)
	whole(w, r.ID, n)
	storetest.Same(t, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Replied: n / 2})
	storetest.Same(t, "replayed", count(w, store.LetterReplayed), n)
	for i, id := range ids {
		want := event.Orphaned
		if i%2 == 1 {
			want = event.Applied
		}
		storetest.Same(t, "state", w.Record(id).State, want)
	}
}

// TestIgnoringMeetsReplaying lets a person set letters aside while they are
// replayed: what is ignored afterwards was not taken in.
func TestIgnoringMeetsReplaying(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	const n = 40
	events := buried(w, n)
	letters := make([]uuid.UUID, n)
	for i, id := range events {
		letters[i] = w.LetterOf(id).ID
	}
	other := replica(w)
	refused := make([]error, n)
	together(t,
		func() error {
			for i, id := range letters {
				refused[i] = w.SetLetter(w.Ctx(), w.Tenant, id, store.LetterDead, store.LetterIgnored, "me")
				if refused[i] != nil && !fault.Is(refused[i], fault.Conflict) {
					return refused[i]
				}
			}
			return nil
		},
		func() error {
			for i := n - 5; i >= 0; i -= 5 {
				if _, err := other.ReplayLetters(w.Ctx(), w.Tenant, letters[i:i+5]); err != nil {
					return err
				}
			}
			return nil
		},
	)
	for i, id := range events {
		l, err := w.Letter(w.Ctx(), w.Tenant, letters[i])
		must(t, err)
		state, status := event.Orphaned, store.LetterReplayed
		if refused[i] == nil {
			state, status = event.Dead, store.LetterIgnored
		}
		storetest.Same(t, "state", w.Record(id).State, state)
		storetest.Same(t, "status", l.Status, status)
	}
}

// TestIgnoringMeetsAdoption: a letter that is set aside while an enrollment is
// about to adopt its event is not adopted.
func TestIgnoringMeetsAdoption(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	id := w.Send(event.Opened, storetest.Address("ada@example.com")).ID
	w.Spend()
	letter := w.LetterOf(id)
	conn := raw(t, w)
	exec(t, conn, `BEGIN`)
	exec(t, conn, `SELECT 1 FROM event WHERE id = $1 FOR UPDATE`, id[:]) // as SetLetter begins
	done := make(chan int)
	go func() {
		d := w.Join(w.Instance, campaign.Enrollment{Email: "ada@example.com"})
		done <- d.Adopted
	}()
	testenv.Eventually(t, time.Minute, "the enrollment waits for the event", func() bool {
		var n int
		must(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n))
		return n > 0
	})
	exec(t, conn, `UPDATE dead_letter SET status = 'ignored' WHERE id = $1`, letter.ID[:])
	exec(t, conn, `COMMIT`)
	if n := <-done; n != 0 {
		t.Errorf("adopted %d, want 0", n)
	}
	storetest.Same(t, "event", w.Record(id).State, event.Dead)
	storetest.Same(t, "letter", w.LetterOf(id).Status, store.LetterIgnored)
}
