package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3/driver"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/ingest"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
)

// Each test of this file is a trap of the design, by its name.

// both runs two things at the same moment.
func both(a, b func()) {
	var group sync.WaitGroup
	start := make(chan struct{})
	for _, fn := range []func(){a, b} {
		group.Go(func() { <-start; fn() })
	}
	close(start)
	group.Wait()
}

func TestTrapUnsubscribedAndRepliedAtOnce(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	for n := range 100 {
		addr := fmt.Sprintf("p%d@example.com", n)
		id := w.Person(addr)
		put := func(typ event.Type) func() {
			e := w.Event(typ, storetest.Address(addr))
			return func() {
				if _, err := w.Commit(t.Context(), []event.Event{e}); err != nil {
					t.Error(err)
				}
			}
		}
		both(put(event.Unsubscribed), put(event.Replied))
		storetest.Same(t, "status", w.Status(id), campaign.StatusUnsubscribed)
	}
}

func TestTrapBurialAgainstEnrollmentAtOnce(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	buried := 0
	for n := range 40 {
		addr := fmt.Sprintf("p%d@example.com", n)
		res := w.Send(event.Replied, storetest.Address(addr))
		for range storetest.Attempts - 1 {
			w.Clock.Advance(time.Minute)
			w.Due()
		}
		w.Clock.Advance(time.Minute)
		claim, err := w.Claim(t.Context(), 50, time.Minute, 0)
		if err != nil || len(claim.Events) != 1 {
			t.Fatalf("claimed %d, %v", len(claim.Events), err)
		}
		var id uuid.UUID
		both(func() {
			if _, err := w.Retry(t.Context(), claim); err != nil {
				t.Error(err)
			}
		}, func() {
			d, err := w.Enroll(t.Context(), w.Tenant, w.Instance, []campaign.Enrollment{{Email: addr}}, false, store.Idempotency{})
			if err != nil {
				t.Error(err)
				return
			}
			id = d[0].ID
		})
		w.IsApplied(res.ID, id)
		storetest.Same(t, "status", w.Status(id), campaign.StatusCompleted)
		for _, m := range w.Moments(res.ID) {
			if m == "buried" {
				buried++
			}
		}
	}
	t.Logf("%d of 40 were buried first and adopted from there", buried)
	rows, _, err := w.Letters(t.Context(), w.Tenant, store.LetterFilter{Status: store.LetterDead}, store.Page{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "dead", len(rows), 0)
}

// TestTrapCrashBetweenCommitAndSecondLook takes pictures of the database, as a
// crash at that moment would leave it, while events and their enrollments are
// committed. In none of them an event waits for an enrollment that is there:
// on SQLite there is no second look, and so no moment before it.
func TestTrapCrashBetweenCommitAndSecondLook(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	db := raw(t, w)
	dir := t.TempDir()
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		defer close(done)
		for n := range 150 {
			addr := fmt.Sprintf("p%d@example.com", n)
			both(func() { w.Send(event.Opened, storetest.Address(addr)) }, func() { w.Person(addr) })
		}
	})
	pictures := 0
	for running := true; running; pictures++ {
		select {
		case <-done:
			running = false
		default:
		}
		exec(t, db, "VACUUM INTO ?", filepath.Join(dir, fmt.Sprint(pictures)))
	}
	group.Wait()
	for n := range pictures {
		picture, err := driver.Open("file:" + filepath.Join(dir, fmt.Sprint(n)))
		if err != nil {
			t.Fatal(err)
		}
		var waiting int
		err = picture.QueryRowContext(t.Context(), `SELECT count(*) FROM event e JOIN enrollment n ON n.email = e.email WHERE e.state <> 'applied'`).Scan(&waiting)
		if err := errors.Join(err, picture.Close()); err != nil {
			t.Fatal(err)
		}
		storetest.Same(t, "events that wait for an enrollment that is there", waiting, 0)
	}
	t.Logf("%d pictures", pictures)
}

// forgetful commits and then does not know it: each time it is told to.
type forgetful struct {
	*storetest.World
	forget atomic.Int64
}

func (f *forgetful) Commit(ctx context.Context, events []event.Event) ([]store.Result, error) {
	res, err := f.World.Commit(ctx, events)
	if err == nil && f.forget.Add(-1) >= 0 {
		return nil, fault.Wrap(fault.Unavailable, "commit", errors.New("the connection was lost"))
	}
	return res, err
}

// TestTrapCommitOutcomeUnknownThenRetried, within the committer and by the
// sender after it was refused; over a restart, too.
func TestTrapCommitOutcomeUnknownThenRetried(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open, generations(5))
	w.Person("ada@example.com")
	f := &forgetful{World: w}
	acc := ingest.NewCommitter(f, ingest.Options{MaxWait: time.Minute, Now: w.Clock.Now, Logger: discard(), Metrics: metrics()})
	defer acc.Close()
	events := func() []event.Event {
		return []event.Event{
			w.Event(event.Opened, storetest.ID("a"), storetest.Address("ada@example.com")),
			w.Event(event.Opened, storetest.ID("b"), storetest.Address("early@example.com")),
		}
	}
	f.forget.Store(1) // the committer's own second try meets its own ids
	first := events()
	res, err := acc.Accept(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "outcomes", []event.Outcome{res[0].Outcome, res[1].Outcome}, []event.Outcome{event.OutcomeApplied, event.OutcomeOrphaned})
	storetest.Same(t, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 2, Applied: 1, Orphaned: 1})

	// The same again after a restart and out of a generation: still no duplicate.
	w.Index()
	w.Reopen()
	again := w.Put(first...)
	storetest.Same(t, "outcome", again[0].Outcome, event.OutcomeApplied)
	storetest.Same(t, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 2, Applied: 1, Orphaned: 1})

	// Refused altogether, the sender sends again: a new id, one duplicate.
	f.forget.Store(2)
	lost := w.Event(event.Clicked, storetest.ID("c"), storetest.Address("ada@example.com"))
	_, err = acc.Accept(t.Context(), []event.Event{lost})
	storetest.Kind(t, err, fault.Unavailable)
	lost.ID = uuid.Nil
	res, err = acc.Accept(t.Context(), []event.Event{lost})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "outcome", res[0].Outcome, event.OutcomeDuplicate)
	storetest.Same(t, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: 1, event.Clicked: 1})
}

func TestTrapBatchesInOppositeOrderOnTheSameIdentities(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open, generations(30))
	const rounds = 50
	for n := range rounds {
		var ids [2][2]uuid.UUID
		put := func(i int, order ...string) func() {
			batch := make([]event.Event, 2)
			for k, id := range order {
				batch[k] = w.Event(event.Opened, storetest.ID(fmt.Sprint(id, n)), storetest.Address("ada@example.com"))
			}
			return func() {
				res, err := w.Commit(t.Context(), batch)
				if err != nil {
					t.Error(err)
					return
				}
				ids[i] = [2]uuid.UUID{res[0].ID, res[1].ID}
			}
		}
		both(put(0, "A", "B"), put(1, "B", "A"))
		storetest.Same(t, "both mean the same events", ids[0], [2]uuid.UUID{ids[1][1], ids[1][0]})
	}
	storetest.Same(t, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 4 * rounds, Duplicates: 2 * rounds, Orphaned: 2 * rounds})
}

// TestTrapUnstorableInputInABatchOfGoodEvents sends what databases choke on.
func TestTrapUnstorableInputInABatchOfGoodEvents(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	w.Person("ada@example.com")
	acc := committer(w)
	long := make([]byte, event.MaxID+1)
	for i := range long {
		long[i] = 'x'
	}
	item := func(more string) string {
		return `{"event_type":"opened","channel":"email","email":"ada@example.com"` + more + `}`
	}
	body := "[" + item(`,"provider_event_id":"1"`) + "," + item(`,"provider_event_id":"\u0000"`) + "," +
		item(`,"metadata":{"a":"\u0000"}`) + "," + item(`,"provider_message_id":"`+string(long)+`"`) + "," +
		item(`,"step_number":9223372036854775808`) + "," + item(`,"provider_event_id":"2","metadata":{"n":18446744073709551617}`) + "]"
	items, ferr := event.DecodeArray([]byte(body), "body", event.Strict)
	if ferr != nil {
		t.Fatal(ferr)
	}
	var good []event.Event
	for i := range items {
		if bad := i > 0 && i < 5; (items[i].Err != nil) != bad {
			t.Errorf("item %d: error is %v", i, items[i].Err)
		}
		if items[i].Err == nil {
			e := items[i].Event
			e.Tenant, e.Provider, e.Scope = w.Tenant, "custom", "api:custom"
			good = append(good, e)
		}
	}
	res, err := acc.Accept(t.Context(), good)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "accepted", len(res), 2)
	for _, r := range res {
		storetest.Same(t, "outcome", r.Outcome, event.OutcomeApplied)
	}
	storetest.Same(t, "metadata", string(w.Record(res[1].ID).Metadata), `{"n":18446744073709551617}`)

	// A provider's adapter is lenient; Accept is not, and neither is the store
	// hurt by what is beyond all limits.
	nul := w.Event(event.Opened, storetest.Message("a\x00b"))
	_, err = acc.Accept(t.Context(), []event.Event{nul})
	storetest.Kind(t, err, fault.Invalid)
	odd := []event.Event{
		w.Event(event.Opened, storetest.Message("a\x00b")), w.Event(event.Opened, storetest.Lead(string(make([]byte, 1<<20)))),
		w.Event(event.Opened, storetest.Address("\xff\xfe@example.com")), w.Event(event.Opened, storetest.Address("ada@example.com")),
	}
	got := w.Put(odd...)
	storetest.Same(t, "the neighbour", got[3].Outcome, event.OutcomeApplied)
}

func TestTrapLastAttemptClaimedByTwoAtOnce(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	for range 15 {
		res := w.Send(event.Opened, storetest.Lead("nobody"))
		for range storetest.Attempts - 1 {
			w.Clock.Advance(time.Minute)
			w.Due()
		}
		w.Clock.Advance(time.Minute)
		claim := func() store.Claim {
			c, err := w.Claim(t.Context(), 50, time.Second, 0)
			if err != nil || len(c.Events) != 1 {
				t.Fatalf("claimed %d, %v", len(c.Events), err)
			}
			w.Clock.Advance(2 * time.Second) // the lease runs out: the other may have it
			return c
		}
		first, second := claim(), claim()
		var settled atomic.Int64
		retry := func(c store.Claim) func() {
			return func() {
				got, err := w.Retry(t.Context(), c)
				if err != nil {
					t.Error(err)
				}
				settled.Add(int64(len(got)))
			}
		}
		both(retry(first), retry(second))
		storetest.Same(t, "retried", settled.Load(), 1)
		storetest.Same(t, "attempts", w.LetterOf(res.ID).Attempts, storetest.Attempts)
		storetest.Same(t, "timeline", w.Moments(res.ID), []string{"received", "parked", "attempt", "attempt", "attempt", "buried"})
	}
}

func TestTrapLeasesThatRanOutDuringAnOutage(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	ids := w.Flood(120, storetest.Lead("nobody"))
	w.Clock.Advance(time.Minute)
	var held []store.Claim
	for range 3 {
		c, err := w.Claim(t.Context(), 50, 15*time.Second, 0)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	gone, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, err := w.Retry(gone, held[0])
	storetest.Kind(t, err, fault.Unavailable)
	storetest.Kind(t, w.Release(gone, held[0]), fault.Unavailable)
	w.Reopen()
	w.Clock.Advance(3 * time.Hour)
	// The first claimer comes back late and still holds what nobody took since.
	got, err := w.Retry(t.Context(), held[0])
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "retried by who held them", len(got), 50)
	storetest.Same(t, "retried by others", len(w.Due()), 70)
	for _, c := range held {
		got, err := w.Retry(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		storetest.Same(t, "retried too late", len(got), 0)
	}
	for _, id := range ids {
		storetest.Same(t, "attempts", w.Record(id).Attempts, 1)
	}
}

// TestTrapTwinTenantsInOneBatch lets two tenants send the same ids and
// addresses at the same moment, so that the committer mixes them.
func TestTrapTwinTenantsInOneBatch(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open, generations(64))
	other, err := w.CreateTenant(t.Context(), "twin")
	if err != nil {
		t.Fatal(err)
	}
	_, theirs := w.Campaign(other.ID, nil)
	w.Person("ada@example.com")
	w.JoinAs(other.ID, theirs, campaign.Enrollment{Email: "ada@example.com"})
	acc := committer(w)
	var group sync.WaitGroup
	const n = 100
	for i := range n {
		for _, tenant := range []int64{w.Tenant, other.ID} {
			for range 2 {
				group.Go(func() {
					e := w.Event(event.Opened, storetest.For(tenant), storetest.ID(fmt.Sprint(i)), storetest.Address("ada@example.com"))
					if _, err := acc.Accept(t.Context(), []event.Event{e}); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
	group.Wait()
	for _, tenant := range []int64{w.Tenant, other.ID} {
		storetest.Same(t, "ledger", w.Account(tenant), store.Ledger{Tenant: tenant, Received: 2 * n, Duplicates: n, Applied: n})
	}
	storetest.Same(t, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: n})
}

// TestTrapAMillionOrphansUnderOneAddress is 20,000 of them unless -long is given.
func TestTrapAMillionOrphansUnderOneAddress(t *testing.T) {
	t.Parallel()
	n := 20_000
	if *long {
		n = 1_000_000
	}
	w := storetest.New(t, open)
	w.Flood(n, storetest.Address("ada@example.com"))
	bystander := w.Send(event.Replied, storetest.Address("bob@example.com"))

	d := w.Join(w.Instance, campaign.Enrollment{Email: "ada@example.com"})
	storetest.Same(t, "adopted", d.Adopted, 1000)
	storetest.Same(t, "adopting", d.Adopting, int64(n-1000))
	// Nobody is held up by the rest, and it ends without any retry.
	bob := w.Join(w.Instance, campaign.Enrollment{Email: "bob@example.com"})
	w.IsApplied(bystander.ID, bob.ID)
	w.IsApplied(w.Send(event.Delivered, storetest.Address("ada@example.com")).ID, d.ID)
	w.Drain()
	storetest.Same(t, "totals", w.Totals(w.Instance)[event.Delivered], int64(n+1))
	storetest.Same(t, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: int64(n + 2), Applied: int64(n + 2)})
}

// TestTrapSourceDeletedWhileItsEventsWait: sources are soft-deleted, so what
// waits, is adopted and is resent never meets a missing one.
func TestTrapSourceDeletedWhileItsEventsWait(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	src := store.Source{ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, Provider: "lemlist", Name: "s", Sealed: []byte{}, CreatedAt: w.Clock.Now()}
	if err := w.CreateSource(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	mine := func(e *event.Event) { e.SourceID, e.Scope = src.ID, src.ID.String() }
	waits := w.Send(event.Replied, mine, storetest.ID("1"), storetest.Address("ada@example.com"))
	dead := w.Send(event.Replied, mine, storetest.Address("bob@example.com"))
	w.Spend()
	if err := w.DeleteSource(t.Context(), w.Tenant, src.ID, w.Clock.Now()); err != nil {
		t.Fatal(err)
	}
	w.IsApplied(waits.ID, w.Person("ada@example.com"))
	letter := w.LetterOf(dead.ID)
	storetest.Same(t, "source of the letter", letter.Event.SourceID, src.ID)
	if _, err := w.ReplayLetters(t.Context(), w.Tenant, []uuid.UUID{letter.ID}); err != nil {
		t.Fatal(err)
	}
	w.IsApplied(dead.ID, w.Person("bob@example.com"))
	storetest.Same(t, "a late resend", w.Send(event.Replied, mine, storetest.ID("1"), storetest.Address("ada@example.com")).Outcome, event.OutcomeDuplicate)
	storetest.Same(t, "is found by its source", w.Record(waits.ID).SourceID, src.ID)
}

// TestTrapResendAcrossMidnight: a vendor tries again the next day, with and
// without a time of its own, after a restart.
func TestTrapResendAcrossMidnight(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open, generations(2))
	w.Clock.Advance(8*time.Hour + 59*time.Minute + 50*time.Second)
	at := w.Clock.Now()
	estimated := func(e *event.Event) { e.ProviderEventID, e.OccurredAt, e.OccurredAtEstimated = "", e.ReceivedAt, true }
	told := func() event.Event {
		return w.Event(event.Opened, storetest.ID(""), storetest.Address("ada@example.com"), storetest.At(at))
	}
	guessed := func() event.Event { return w.Event(event.Clicked, storetest.Address("ada@example.com"), estimated) }
	first := w.Put(told(), guessed())
	w.Index()
	w.Clock.Advance(20 * time.Second)
	w.Reopen()
	if w.Clock.Now().Day() == at.Day() {
		t.Fatal("it is still the same day")
	}
	for i, r := range w.Put(told(), guessed()) {
		storetest.Same(t, "outcome", r.Outcome, event.OutcomeDuplicate)
		storetest.Same(t, "id", r.ID, first[i].ID)
	}
}
