package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/postgres"
	"tallyhook/internal/store/storetest"
)

// Each test of this file is a trap of the design, by its name.

// forgetful ends between each commit and its second look.
func forgetful(t testing.TB, o storetest.Options) storetest.Store {
	t.Helper()
	s := open(t, o)
	p, ok := s.(*postgres.Store)
	if !ok {
		t.Fatal("not the store on PostgreSQL")
	}
	p.CrashBeforeLook()
	return s
}

// until polls for what another session brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s does not come about", what)
		}
	}
}

// waiters counts the sessions of a database that wait for a lock.
func waiters(t testing.TB, conn *pgx.Conn) (n int) {
	t.Helper()
	must(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n))
	return n
}

func TestTrapUnsubscribedAndRepliedAtOnce(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	other := replica(w)
	for n := range 100 {
		addr := fmt.Sprintf("p%d@example.com", n)
		id := w.Person(addr)
		put := func(s storetest.Store, typ event.Type) func() error {
			e := w.Event(typ, storetest.Address(addr))
			return func() error {
				_, err := s.Commit(t.Context(), []event.Event{e})
				return err
			}
		}
		together(t, put(w.Store, event.Unsubscribed), put(other, event.Replied))
		storetest.Same(t, "status", w.Status(id), campaign.StatusUnsubscribed)
	}
}

func TestTrapBurialAgainstEnrollmentAtOnce(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	other := replica(w)
	buried := 0
	for n := range 60 {
		addr := fmt.Sprintf("p%d@example.com", n)
		res := w.Send(event.Replied, storetest.Address(addr))
		for range storetest.Attempts - 1 {
			w.Clock.Advance(time.Minute)
			w.Due()
		}
		w.Clock.Advance(time.Minute)
		claim, err := w.Claim(t.Context(), 50, time.Minute, 0)
		must(t, err)
		storetest.Same(t, "claimed", len(claim.Events), 1)
		var id uuid.UUID
		together(t, func() error {
			_, err := w.Retry(t.Context(), claim)
			return err
		}, func() error {
			d, err := other.Enroll(t.Context(), w.Tenant, w.Instance, []campaign.Enrollment{{Email: addr}}, false, store.Idempotency{})
			id = d[0].ID
			return err
		})
		w.IsApplied(res.ID, id)
		storetest.Same(t, "status", w.Status(id), campaign.StatusCompleted)
		if slices.Contains(w.Moments(res.ID), "buried") {
			buried++
		}
	}
	t.Logf("%d of 60 were buried first and adopted from there", buried)
	rows, _, err := w.Letters(t.Context(), w.Tenant, store.LetterFilter{Status: store.LetterDead}, store.Page{Limit: 10})
	must(t, err)
	storetest.Same(t, "dead", len(rows), 0)
}

// missEachOther commits an event and its enrollment so that neither sees the
// other: the event's transaction is held at its end, where it writes the ledger.
func missEachOther(w *storetest.World, addr string) (ev, person uuid.UUID) {
	w.T.Helper()
	conn := raw(w.T, w)
	hold, err := conn.Begin(w.Ctx())
	must(w.T, err)
	_, err = hold.Exec(w.Ctx(), "LOCK TABLE ledger IN EXCLUSIVE MODE")
	must(w.T, err)
	e := w.Event(event.Replied, storetest.Address(addr))
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := w.Commit(w.Ctx(), []event.Event{e}); err != nil {
			w.T.Error(err)
		}
	})
	watch := raw(w.T, w)
	until(w.T, "the event's transaction waits at its end", func() bool { return waiters(w.T, watch) == 1 })
	d := w.Join(w.Instance, campaign.Enrollment{Email: addr})
	storetest.Same(w.T, "adopted", d.Adopted, 0)
	must(w.T, hold.Commit(w.Ctx()))
	group.Wait()
	return e.ID, d.ID
}

func TestTrapNeitherSeesTheOther(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	ev, person := missEachOther(w, "ada@example.com")
	w.IsApplied(ev, person)
	storetest.Same(t, "timeline", w.Moments(ev), []string{"received", "parked", "adopted"})
}

// TestTrapCrashBetweenCommitAndSecondLook: then the schedule finds the event.
func TestTrapCrashBetweenCommitAndSecondLook(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, forgetful)
	ev, person := missEachOther(w, "ada@example.com")
	w.Waits(ev, store.ReasonNoEnrollment) // the trap is real
	w.Clock.Advance(time.Second)
	w.Due()
	w.IsApplied(ev, person)
	storetest.Same(t, "status", w.Status(person), campaign.StatusCompleted)
}

// TestTrapCrashAfterABurial: what a buried event's enrollment may have missed,
// the recheck a minute later finds.
func TestTrapCrashAfterABurial(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, forgetful)
	dead := w.Send(event.Replied, storetest.Address("ada@example.com")).ID
	person := w.Person("eve@example.com")
	w.Spend()
	from, to := event.AddressKey("eve@example.com"), event.AddressKey("ada@example.com")
	exec(t, raw(t, w), `UPDATE match_key SET key = $2 WHERE key = $1`, from[:], to[:]) // an owner that nobody has noticed
	more, err := w.AdoptNext(t.Context(), 10)
	must(t, err)
	storetest.Same(t, "more before the minute is over", more, false)
	storetest.Same(t, "state", w.Record(dead).State, event.Dead)
	w.Clock.Advance(time.Minute)
	w.Drain()
	w.IsApplied(dead, person)
	storetest.Same(t, "letter", w.LetterOf(dead).Status, store.LetterReplayed)
}

func TestTrapBatchesInOppositeOrderOnTheSameIdentities(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	other := replica(w)
	for n := range 12 {
		addr := fmt.Sprintf("p%d@example.com", n)
		w.Person(addr)
	}
	const size = 100
	for round := range 10 {
		batch := func() []event.Event {
			all := make([]event.Event, size)
			for i := range all {
				all[i] = w.Event(event.Replied, storetest.ID(fmt.Sprint(round, " ", i)), storetest.Address(fmt.Sprintf("p%d@example.com", i%13)))
			}
			return all
		}
		a, b := batch(), batch()
		slices.Reverse(b)
		outcomes := map[event.Outcome]int{}
		var mu sync.Mutex
		put := func(s storetest.Store, events []event.Event) func() error {
			return func() error {
				res, err := s.Commit(t.Context(), events)
				mu.Lock()
				defer mu.Unlock()
				for _, r := range res {
					outcomes[r.Outcome]++
				}
				return err
			}
		}
		together(t, put(w.Store, a), put(other, b))
		storetest.Same(t, "outcomes", outcomes, map[event.Outcome]int{event.OutcomeApplied: 93, event.OutcomeOrphaned: 7, event.OutcomeDuplicate: size})
	}
	storetest.Same(t, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 2000, Applied: 930, Orphaned: 70, Duplicates: 1000})
}

// failures notes what statements fail with.
type failures struct {
	mu    sync.Mutex
	codes []string
}

func (f *failures) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (f *failures) TraceQueryEnd(_ context.Context, _ *pgx.Conn, d pgx.TraceQueryEndData) {
	f.note(d.Err)
}

func (f *failures) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (f *failures) TraceBatchQuery(_ context.Context, _ *pgx.Conn, d pgx.TraceBatchQueryData) {
	f.note(d.Err)
}

func (f *failures) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

func (f *failures) note(err error) {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.codes = append(f.codes, pg.Code)
	}
}

func (f *failures) has(code string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.codes, code)
}

// traced opens stores whose statements a tracer sees.
func traced(tracer pgx.QueryTracer) storetest.Opener {
	return func(t testing.TB, o storetest.Options) storetest.Store {
		t.Helper()
		opt := options(o, server.Database(t, o.Path))
		opt.Tracer = tracer
		s, err := postgres.Open(context.WithoutCancel(t.Context()), opt)
		must(t, err)
		return s
	}
}

// TestTrapDeadlockIsTriedAgain provokes a deadlock in which the store is the
// victim: another session holds one enrollment and then wants the other.
func TestTrapDeadlockIsTriedAgain(t *testing.T) {
	t.Parallel()
	f := &failures{}
	w := storetest.New(t, traced(f))
	a, b := w.Person("a@example.com"), w.Person("b@example.com")
	conn := raw(t, w)
	exec(t, conn, "SET deadlock_timeout = '1min'") // the other one notices
	hold, err := conn.Begin(t.Context())
	must(t, err)
	_, err = hold.Exec(t.Context(), "SELECT 1 FROM enrollment WHERE id = $1 FOR UPDATE", b[:])
	must(t, err)
	var group sync.WaitGroup
	events := []event.Event{
		w.Event(event.Replied, storetest.Address("a@example.com")), w.Event(event.Unsubscribed, storetest.Address("b@example.com")),
		w.Event(event.Replied, storetest.Lead("l")),
	}
	group.Go(func() {
		if _, err := w.Commit(t.Context(), events); err != nil {
			t.Error(err)
		}
	})
	watch := raw(t, w)
	until(t, "the commit waits for b", func() bool { return waiters(t, watch) == 1 })
	_, err = hold.Exec(t.Context(), "SELECT 1 FROM enrollment WHERE id = $1 FOR UPDATE", a[:])
	must(t, err) // the commit gave way
	must(t, hold.Commit(t.Context()))
	group.Wait()
	if !f.has("40P01") {
		t.Fatal("there was no deadlock")
	}
	storetest.Same(t, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 3, Applied: 2, Orphaned: 1})
	storetest.Same(t, "statuses", []campaign.Status{w.Status(a), w.Status(b)}, []campaign.Status{campaign.StatusCompleted, campaign.StatusUnsubscribed})
	storetest.Same(t, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Replied: 1, event.Unsubscribed: 1})
}

// TestTrapALockIsHeldBySomebodyElse: the deadline holds, nothing is counted and
// no attempt is spent.
func TestTrapALockIsHeldBySomebodyElse(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	ada := w.Person("ada@example.com")
	waiting := w.Send(event.Opened, storetest.Lead("l"))
	w.Clock.Advance(10 * time.Second)
	claim, err := w.Claim(t.Context(), 10, time.Minute, 0)
	must(t, err)
	w.Reopen(func(o *storetest.Options) { o.TxTimeout = 4 * time.Second })
	conn := raw(t, w)
	hold, err := conn.Begin(t.Context())
	must(t, err)
	_, err = hold.Exec(t.Context(), "SELECT 1 FROM enrollment FOR UPDATE")
	must(t, err)
	_, err = hold.Exec(t.Context(), "SELECT 1 FROM orphan FOR UPDATE")
	must(t, err)
	e := w.Event(event.Replied, storetest.Address("ada@example.com"))
	address := "countess@example.com"
	for _, fn := range map[string]func() error{
		"Commit": func() error { _, err := w.Commit(t.Context(), []event.Event{e}); return err },
		"Retry":  func() error { _, err := w.Retry(t.Context(), claim); return err },
		"Failed": func() error { _, err := w.Failed(t.Context(), claim, "x"); return err },
		"Assign": func() error { _, err := w.Assign(t.Context(), w.Tenant, waiting.ID, ada, "me"); return err },
		"Patch": func() error {
			_, _, err := w.PatchEnrollment(t.Context(), w.Tenant, ada, store.EnrollmentPatch{Email: &address})
			return err
		},
	} {
		err := fn()
		storetest.Kind(t, err, fault.Unavailable)
	}
	must(t, hold.Rollback(t.Context()))
	w.Reopen(func(o *storetest.Options) { o.TxTimeout = 30 * time.Second })
	storetest.Same(t, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 1, Orphaned: 1})
	storetest.Same(t, "attempts", w.Record(waiting.ID).Attempts, 0)
	got, err := w.Retry(t.Context(), claim)
	must(t, err)
	storetest.Same(t, "retried when the lock is gone", len(got), 1)
	storetest.Same(t, "committed when the lock is gone", w.Put(e)[0].Outcome, event.OutcomeApplied)
}

// TestTrapUnstorableInput: what the database refuses is an error of the data,
// so that the committer isolates it, and leaves nothing behind.
func TestTrapUnstorableInput(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	w.Person("ada@example.com")
	for name, spoil := range map[string]storetest.Option{
		"NUL":     storetest.InCampaign("a\x00b"),
		"NotUTF8": storetest.InCampaign("a\xffb"),
		"Type":    func(e *event.Event) { e.Type = "\x00" },
		"URL":     func(e *event.Event) { e.URL = "https://example.com/\x00" },
	} {
		good, bad := w.Event(event.Opened, storetest.Address("ada@example.com")), w.Event(event.Opened, storetest.Address("ada@example.com"), spoil)
		_, err := w.Commit(t.Context(), []event.Event{good, bad})
		if !fault.Is(err, fault.Data) {
			t.Errorf("%s: got %v, want an error of the data", name, err)
		}
		storetest.Same(t, "the good one alone", w.Put(good)[0].Outcome, event.OutcomeApplied)
	}
	storetest.Same(t, "what fits is stored", w.Send(event.Opened, storetest.Address("ada@example.com"), func(e *event.Event) { e.StepNumber = 1 << 40 }).Outcome, event.OutcomeApplied)
	storetest.Same(t, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 5, Applied: 5})
}

// TestTrapLastAttemptClaimedByTwoAtOnce: of two replicas, one holding a lease
// of another queue, one spends the last attempt, and there is one letter.
func TestTrapLastAttemptClaimedByTwoAtOnce(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	other := replica(w)
	const n = 30
	w.Flood(n, storetest.Lead("l"))
	for range storetest.Attempts - 1 {
		w.Clock.Advance(time.Minute)
		w.Due()
	}
	w.Clock.Advance(time.Minute)
	own, err := w.Claim(t.Context(), n, time.Minute, 0)
	must(t, err)
	external := store.Claim{External: true, Events: own.Events}
	var spent [2]int
	together(t, func() error {
		got, err := w.Retry(t.Context(), own)
		spent[0] = len(got)
		return err
	}, func() error {
		got, err := other.Retry(t.Context(), external)
		spent[1] = len(got)
		return err
	})
	storetest.Same(t, "attempts spent", spent[0]+spent[1], n)
	st, err := w.LetterStats(t.Context(), w.Tenant)
	must(t, err)
	storetest.Same(t, "letters", st.Total, n)
}

// TestTwoReplicasClaimApart: what one takes the other passes over, and neither
// waits for the other.
func TestTwoReplicasClaimApart(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	other := replica(w)
	const n = 400
	w.Flood(n, storetest.Lead("l"))
	w.Clock.Advance(time.Minute)
	var mu sync.Mutex
	seen := map[int64]int{}
	claim := func(s storetest.Store) func() error {
		return func() error {
			for {
				c, err := s.Claim(t.Context(), 20, time.Hour, 0)
				if err != nil || len(c.Events) == 0 {
					return err
				}
				mu.Lock()
				for _, e := range c.Events {
					seen[e.Seq]++
				}
				mu.Unlock()
			}
		}
	}
	together(t, claim(w.Store), claim(other), claim(w.Store), claim(other))
	storetest.Same(t, "claimed", len(seen), n)
	for seq, times := range seen {
		if times != 1 {
			t.Errorf("orphan %d was claimed %d times", seq, times)
		}
	}
}
