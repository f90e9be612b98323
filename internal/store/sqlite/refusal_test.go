package sqlite_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/deadletter"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/orphan"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
)

const bad = "the database refuses me"

// plant makes the database refuse what only it can: rows with a mark.
func plant(t testing.TB, w *storetest.World, name, when string) {
	t.Helper()
	exec(t, raw(t, w), "CREATE TRIGGER "+name+" BEFORE "+when+" BEGIN SELECT RAISE(ABORT, 'planted'); END")
}

func refuseEvents(t testing.TB, w *storetest.World) {
	t.Helper()
	plant(t, w, "no_event", `INSERT ON event WHEN NEW.campaign = '`+bad+`'`)
}

// refuseFacts lets an event be stored, and refuses to apply it.
func refuseFacts(t testing.TB, w *storetest.World) {
	t.Helper()
	plant(t, w, "no_fact", `INSERT ON fact WHEN NEW.provider = '`+bad+`'`)
}

func TestBadEventIsIsolatedAmongNeighbours(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		plant func(testing.TB, *storetest.World)
		mark  storetest.Option
		email string // what remains of the event
	}{
		"NoFieldOfItCanBeStored": {refuseEvents, storetest.InCampaign(bad), ""},
		"ItCannotBeApplied":      {refuseFacts, storetest.From(bad), "ada@example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := storetest.New(t, open)
			other, err := w.CreateTenant(t.Context(), "other")
			if err != nil {
				t.Fatal(err)
			}
			ada := w.Person("ada@example.com")
			c.plant(t, w)
			acc := committer(w)

			var group sync.WaitGroup
			outcomes := make([][]store.Result, 6)
			send := func(i int, events []event.Event) {
				group.Go(func() {
					res, err := acc.Accept(t.Context(), events)
					if err != nil {
						t.Errorf("request %d: %v", i, err)
					}
					outcomes[i] = res
				})
			}
			for i := range outcomes {
				var events []event.Event
				for k := range 20 {
					o := []storetest.Option{storetest.Address("ada@example.com")}
					if i == 2 && k == 7 {
						o = append(o, c.mark)
					}
					if i == 5 {
						o = append(o, storetest.For(other.ID))
					}
					events = append(events, w.Event(event.Opened, o...))
				}
				send(i, events)
			}
			group.Wait()
			for i, res := range outcomes {
				for k, r := range res {
					want := event.OutcomeApplied
					switch {
					case i == 2 && k == 7:
						want = event.OutcomeDead
						storetest.Same(t, "reason", r.Reason, store.ReasonPoison)
						l := w.LetterOf(r.ID)
						storetest.Same(t, "letter", []string{l.Reason, string(l.Status)}, []string{store.ReasonPoison, "dead"})
						storetest.Same(t, "what remains", l.Event.Email, c.email)
						if len(w.Record(r.ID).Payload) == 0 {
							t.Error("the payload is lost")
						}
					case i == 5:
						want = event.OutcomeOrphaned
					}
					storetest.Same(t, fmt.Sprintf("outcome of %d in %d", k, i), r.Outcome, want)
				}
			}
			storetest.Same(t, "applied", w.Totals(w.Instance), map[event.Type]int64{event.Opened: 99})
			storetest.Same(t, "status", w.Status(ada), campaign.StatusActive)

			// A resend of it is a duplicate, not a second letter.
			again := w.Event(event.Opened, storetest.ID("again"), storetest.Address("ada@example.com"), c.mark)
			var first store.Result
			for n := range 2 {
				again.ID = uuid.Nil
				res, err := acc.Accept(t.Context(), []event.Event{again})
				if err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					first = res[0]
					continue
				}
				storetest.Same(t, "resend", []any{res[0].Outcome, res[0].ID}, []any{event.OutcomeDuplicate, first.ID})
			}
		})
	}
}

func worker(w *storetest.World) *orphan.Worker {
	return orphan.Start(w, orphan.Options{Batch: 50, Lease: time.Minute, Now: w.Clock.Now, Logger: discard(), Metrics: metrics()})
}

// until polls, in real time, for what workers of their own clock bring about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s does not come about", what)
		}
	}
}

// TestBadRetryIsPoisonAfterThreeFailures plants an orphan that can be stored and
// not be applied: its claim is halved until it is alone, and it harms nobody.
func TestBadRetryIsPoisonAfterThreeFailures(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	_, mapped := w.Campaign(w.Tenant, map[string]string{bad: "cam", "lemlist": "cam"})
	ada := w.Person("ada@example.com")
	var good []uuid.UUID
	var poison uuid.UUID
	for i := range 30 {
		o := []storetest.Option{storetest.InCampaign("cam"), storetest.Address("ada@example.com")}
		if i == 11 {
			poison = w.Send(event.Opened, append(o, storetest.From(bad))...).ID
			continue
		}
		good = append(good, w.Send(event.Opened, o...).ID)
	}
	// Now they belong to ada, and no new key has said so.
	if _, _, err := w.PatchInstance(t.Context(), w.Tenant, mapped, store.InstancePatch{ProviderCampaigns: map[string]string{}}); err != nil {
		t.Fatal(err)
	}
	refuseFacts(t, w)
	w.Clock.Advance(3 * time.Second)
	wk := worker(w)
	defer wk.Stop()
	until(t, "the good ones applied", func() bool { return w.Totals(w.Instance)[event.Opened] == int64(len(good)) })
	for n := 1; n < 3; n++ {
		storetest.Same(t, "still waits", w.Record(poison).State, event.Orphaned)
		storetest.Same(t, "a failure of its own spends no attempt", w.Record(poison).Attempts, 0)
		until(t, "a failure noted", func() bool {
			// A claim under way hides the orphan too: it is noted only when, after
			// that, none is held.
			due, ok, err := w.NextDue(t.Context())
			if err != nil || !ok || !due.After(w.Clock.Now()) {
				return false
			}
			routes, err := w.QueueStats(t.Context())
			for _, r := range routes {
				if r.Leased > 0 {
					return false
				}
			}
			return err == nil
		})
		w.Clock.Advance(2 * time.Minute)
	}
	until(t, "the third failure", func() bool { return w.Record(poison).State == event.Dead })
	storetest.Same(t, "reason", w.LetterOf(poison).Reason, store.ReasonPoison)
	for _, id := range good {
		w.IsApplied(id, ada)
	}
}

// TestBadWaitingEventFailsNoEnrollment: who enrolls a contact must not suffer
// from what waits for it.
func TestBadWaitingEventFailsNoEnrollment(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	good := w.Flood(700, storetest.Address("ada@example.com"))
	w.Send(event.Delivered, storetest.From(bad), storetest.Address("ada@example.com"))
	good = append(good, w.Flood(500, storetest.Address("ada@example.com"))...)
	poison := w.Send(event.Delivered, storetest.From(bad), storetest.Address("ada@example.com")).ID
	good = append(good, w.Flood(200, storetest.Address("ada@example.com"))...)
	refuseFacts(t, w)
	d := w.Join(w.Instance, campaign.Enrollment{Email: "ada@example.com"})
	storetest.Same(t, "adopted", d.Adopted, 999)
	w.Drain()
	storetest.Same(t, "applied", w.Totals(w.Instance)[event.Delivered], int64(len(good)))
	storetest.Same(t, "the bad one waits for its retry", w.Record(poison).State, event.Orphaned)
}

func TestBadContactFailsAloneInBulk(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	plant(t, w, "no_contact", `INSERT ON enrollment WHEN NEW.contact_id = '`+bad+`'`)
	w.Send(event.Opened, storetest.Address("p3@example.com"))
	var in []campaign.Enrollment
	for i := range 250 {
		e := campaign.Enrollment{Email: fmt.Sprintf("p%d@example.com", i)}
		if i == 40 || i == 240 {
			e.ContactID = bad
		}
		in = append(in, e)
	}
	got, err := w.Enroll(t.Context(), w.Tenant, w.Instance, in, false, store.Idempotency{})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "results", len(got), len(in))
	for i, d := range got {
		if i == 40 || i == 240 {
			storetest.Kind(t, d.Err, fault.Data)
			continue
		}
		storetest.Same(t, fmt.Sprint("error of ", i), d.Err, nil)
	}
	storetest.Same(t, "adopted", got[3].Adopted, 1)
	rows, _, err := w.Enrollments(t.Context(), w.Tenant, w.Instance, store.EnrollmentFilter{}, store.Page{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "enrolled", len(rows), 248)
}

// TestBadLetterFailsAloneInReplay: one that cannot be applied keeps the others
// of its part not dead.
func TestBadLetterFailsAloneInReplay(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	_, mapped := w.Campaign(w.Tenant, map[string]string{bad: "cam", "lemlist": "cam"})
	w.Person("ada@example.com")
	for i := range 20 {
		from := storetest.From("lemlist")
		if i == 5 {
			from = storetest.From(bad)
		}
		w.Send(event.Opened, from, storetest.InCampaign("cam"), storetest.Address("ada@example.com"))
	}
	w.Spend()
	if _, _, err := w.PatchInstance(t.Context(), w.Tenant, mapped, store.InstancePatch{ProviderCampaigns: map[string]string{}}); err != nil {
		t.Fatal(err)
	}
	refuseFacts(t, w)
	svc := deadletter.New(w, deadletter.Options{Now: w.Clock.Now, Logger: discard(), Metrics: metrics()})
	svc.Start()
	defer svc.Stop()
	r, err := svc.StartReplay(t.Context(), w.Tenant, nil, store.LetterFilter{}, false, "me")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the replay done", func() bool {
		r, err = svc.ReplayProgress(t.Context(), w.Tenant, r.ID)
		return err == nil && r.Status == "done"
	})
	storetest.Same(t, "replay", []int64{r.Matched, r.Applied, r.Dead}, []int64{20, 19, 1})
	storetest.Same(t, "applied", w.Totals(w.Instance)[event.Opened], 19)
}

// TestFullDiskIsUnavailableAndPasses: a full disk is our fault and passing.
func TestFullDiskIsUnavailableAndPasses(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	res := w.Send(event.Opened, storetest.Address("ada@example.com"))
	full := func(pages string) {
		t.Helper()
		if err := pragma(t, w, "max_page_count", pages); err != nil {
			t.Fatal(err)
		}
	}
	full("1")
	var batch []event.Event
	for range 200 {
		e := w.Event(event.Opened, storetest.Address("ada@example.com"))
		e.Payload = make([]byte, 4096)
		batch = append(batch, e)
	}
	_, err := w.Commit(t.Context(), batch)
	storetest.Kind(t, err, fault.Unavailable)
	storetest.Same(t, "nothing of it is stored", w.Account(w.Tenant).Received, 1)
	s := embedded(t, w)
	if since, why, ok := s.Refusing(); ok || why == nil || since.IsZero() {
		t.Errorf("the store does not tell that it takes no writes: %v %v %v", since, why, ok)
	}
	full("1073741823")
	if err := s.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := s.Refusing(); !ok {
		t.Error("the store does not tell that it takes writes again")
	}
	for i, r := range w.Put(batch...) {
		storetest.Same(t, "outcome", r.Outcome, event.OutcomeOrphaned)
		storetest.Same(t, "id", r.ID, batch[i].ID)
	}
	storetest.Same(t, "attempts", w.Record(res.ID).Attempts, 0)
}

// TestLockedDatabaseRunsIntoTheDeadline: a transaction that cannot begin ends
// with TX_TIMEOUT, spends no attempt, and works when the lock is gone.
func TestLockedDatabaseRunsIntoTheDeadline(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	res := w.Send(event.Opened, storetest.Address("ada@example.com"))
	w.Clock.Advance(3 * time.Second)
	claim, err := w.Claim(t.Context(), 50, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Reopen(func(o *storetest.Options) { o.TxTimeout = 3 * time.Second })
	conn, err := raw(t, w).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	_, err = w.Retry(t.Context(), claim)
	storetest.Kind(t, err, fault.Unavailable)
	_, err = w.Enroll(t.Context(), w.Tenant, w.Instance, []campaign.Enrollment{{Email: "ada@example.com"}}, false, store.Idempotency{})
	storetest.Kind(t, err, fault.Unavailable)
	if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	w.Reopen(func(o *storetest.Options) { o.TxTimeout = 30 * time.Second })
	got, err := w.Retry(t.Context(), claim)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "retried", len(got), 1)
	storetest.Same(t, "attempts", w.Record(res.ID).Attempts, 1)
}
