package deadletter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"tallyhook/internal/campaign"
	"tallyhook/internal/deadletter"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/sqlite"
	"tallyhook/internal/store/storetest"
	"tallyhook/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, o storetest.Options) storetest.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: o.Path, TxTimeout: o.TxTimeout, Now: o.Now, Delay: o.Delay, Adopted: o.Adopted, Parked: o.Parked})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type fixture struct {
	*storetest.World

	svc     *deadletter.Service
	metrics *telemetry.Metrics
	decode  func(store.Letter) ([]event.Event, error)
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{World: storetest.New(t, open), metrics: telemetry.NewMetrics(prometheus.NewRegistry(), "test")}
	f.svc = deadletter.New(f.World, deadletter.Options{
		Decode: func(_ context.Context, l store.Letter) ([]event.Event, error) { return f.decode(l) },
		Accept: f.Commit, Now: f.Clock.Now, Logger: slog.New(slog.DiscardHandler), Metrics: f.metrics,
	})
	return f
}

// bury makes dead letters of events, each of an address of its own.
func (f *fixture) bury(n int) []uuid.UUID {
	f.T.Helper()
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = f.Send(event.Opened, storetest.Address(fmt.Sprintf("p%d@example.com", i))).ID
	}
	f.Spend()
	for i := range ids {
		ids[i] = f.LetterOf(ids[i]).ID
	}
	return ids
}

// body keeps a body that cannot be read.
func (f *fixture) body(reason string) uuid.UUID {
	f.T.Helper()
	id := uuid.Must(uuid.NewV7())
	_, err := f.CommitBody(f.Ctx(), store.Letter{
		ID: id, Tenant: f.Tenant, SourceID: uuid.Must(uuid.NewV7()), Provider: "lemlist", Reason: reason, Error: "x", Body: []byte(id.String()),
	})
	if err != nil {
		f.T.Fatal(err)
	}
	return id
}

func (f *fixture) letter(id uuid.UUID) store.Letter {
	f.T.Helper()
	l, err := f.Letter(f.Ctx(), f.Tenant, id)
	if err != nil {
		f.T.Fatal(err)
	}
	return l
}

func (f *fixture) finished(id uuid.UUID) store.Replay {
	f.T.Helper()
	ctx, cancel := context.WithTimeout(f.Ctx(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := f.svc.ReplayProgress(ctx, f.Tenant, id)
		if err != nil {
			f.T.Fatal(err)
		}
		if r.Status != "running" {
			storetest.Same(f.T, "sum of the outcomes", r.Applied+r.Orphaned+r.Duplicate+r.Dead+r.Skipped, r.Matched)
			r.CreatedAt, r.UpdatedAt = time.Time{}, time.Time{}
			return r
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.T.Fatal("the replay does not end")
		}
	}
}

func TestReplayOne(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.bury(1)[0]
	res, err := f.svc.Replay(t.Context(), f.Tenant, id, "me")
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "outcome", res.Outcome, event.OutcomeOrphaned)
	f.Spend()
	ada := f.Join(f.Instance, enrollmentOf("p0@example.com")).ID
	res, err = f.svc.Replay(t.Context(), f.Tenant, id, "me")
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "adopted meanwhile", res.Outcome, event.OutcomeDuplicate)
	f.IsApplied(res.ID, ada)
	_, err = f.svc.Replay(t.Context(), f.Tenant, uuid.Must(uuid.NewV7()), "me")
	storetest.Kind(t, err, fault.NotFound)
	storetest.Same(t, "metric", testutil.ToFloat64(f.metrics.Replays.WithLabelValues("duplicate")), 1)
}

func TestIgnoredIsNotReplayed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.bury(1)[0]
	l, err := f.svc.Ignore(t.Context(), f.Tenant, id, "me")
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "status", l.Status, store.LetterIgnored)
	_, err = f.svc.Replay(t.Context(), f.Tenant, id, "me")
	storetest.Kind(t, err, fault.Conflict)
	_, err = f.svc.Ignore(t.Context(), f.Tenant, id, "me")
	storetest.Kind(t, err, fault.Conflict)
	if l, err = f.svc.Restore(t.Context(), f.Tenant, id, "me"); err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "status", l.Status, store.LetterDead)
	_, err = f.svc.Restore(t.Context(), f.Tenant, id, "me")
	storetest.Kind(t, err, fault.Conflict)
}

func TestReplayOfABody(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Join(f.Instance, enrollmentOf("ada@example.com"))
	ada, early := storetest.Address("ada@example.com"), storetest.Address("early@example.com")
	known := f.Send(event.Opened, storetest.ID("known"), ada)
	control := f.Event("", ada)
	control.Control, control.Kind, control.Channel = true, "note", ""
	for name, c := range map[string]struct {
		events []event.Event
		err    error
		reason string
		want   event.Outcome
		status store.LetterStatus
		say    string
	}{
		"StillUnreadable":    {nil, fault.New(fault.Invalid, "it ends too early"), store.ReasonUndecodable, event.OutcomeDead, store.LetterDead, "it ends too early"},
		"StillUnreadableTo":  {nil, errors.New("nonsense"), store.ReasonUndecodable, event.OutcomeDead, store.LetterDead, "nonsense"},
		"ForbiddenIsNotRead": {nil, nil, store.ReasonForbiddenInput, event.OutcomeDead, store.LetterDead, "x"},
		"Applied":            {[]event.Event{control, f.Event(event.Opened, early), f.Event(event.Clicked, ada)}, nil, store.ReasonUndecodable, event.OutcomeApplied, store.LetterReplayed, "x"},
		"Orphaned":           {[]event.Event{f.Event(event.Opened, early)}, nil, store.ReasonUndecodable, event.OutcomeOrphaned, store.LetterReplayed, "x"},
		"KnownAlready":       {[]event.Event{f.Event(event.Opened, storetest.ID("known"), ada)}, nil, store.ReasonUndecodable, event.OutcomeDuplicate, store.LetterReplayed, "x"},
		"NothingIn":          {nil, nil, store.ReasonUndecodable, event.OutcomeDuplicate, store.LetterReplayed, "x"},
	} {
		id := f.body(c.reason)
		f.decode = func(store.Letter) ([]event.Event, error) { return c.events, c.err }
		res, err := f.svc.Replay(t.Context(), f.Tenant, id, "me")
		if err != nil {
			t.Fatal(name, err)
		}
		l := f.letter(id)
		storetest.Same(t, name, []any{res.Outcome, l.Status, l.Error, l.Attempts}, []any{c.want, c.status, c.say, 1})
		if c.status != store.LetterReplayed {
			continue
		}
		before := f.Account(f.Tenant)
		res, err = f.svc.Replay(t.Context(), f.Tenant, id, "me")
		if err != nil {
			t.Fatal(name, err)
		}
		storetest.Same(t, name+" again", res.Outcome, event.OutcomeDuplicate)
		storetest.Same(t, name+" again", f.Account(f.Tenant), before)
	}
	storetest.Same(t, "duplicates", f.Record(known.ID).Duplicates, 1)
}

func TestReplayFailsWhenNothingCanBeStored(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.body(store.ReasonUndecodable)
	down := fault.New(fault.Unavailable, "down")
	svc := deadletter.New(f.World, deadletter.Options{
		Decode: func(context.Context, store.Letter) ([]event.Event, error) {
			return []event.Event{f.Event(event.Opened)}, nil
		},
		Accept: func(context.Context, []event.Event) ([]store.Result, error) { return nil, down },
		Now:    f.Clock.Now, Logger: slog.New(slog.DiscardHandler), Metrics: f.metrics,
	})
	_, err := svc.Replay(t.Context(), f.Tenant, id, "me")
	storetest.Kind(t, err, fault.Unavailable)
	l := f.letter(id)
	storetest.Same(t, "as it was", []any{l.Status, l.Attempts}, []any{store.LetterDead, 0})
}

func TestBulkReplayOfEventsAndBodies(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	letters := f.bury(60)
	readable, broken := f.body(store.ReasonUndecodable), f.body(store.ReasonUndecodable)
	f.decode = func(l store.Letter) ([]event.Event, error) {
		if l.ID == broken {
			return nil, errors.New("nonsense")
		}
		return []event.Event{f.Event(event.Opened, storetest.Lead("nobody"))}, nil
	}
	if _, err := f.svc.Ignore(t.Context(), f.Tenant, letters[3], "me"); err != nil {
		t.Fatal(err)
	}
	f.svc.Start()
	defer f.svc.Stop()
	dry, err := f.svc.StartReplay(t.Context(), f.Tenant, nil, store.LetterFilter{}, true, "me")
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "matched by a dry run", dry.Matched, 61)
	r, err := f.svc.StartReplay(t.Context(), f.Tenant, nil, store.LetterFilter{}, false, "me")
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "replay", f.finished(r.ID), store.Replay{ID: r.ID, Status: "done", Matched: 61, Orphaned: 60, Dead: 1})
	storetest.Same(t, "readable", f.letter(readable).Status, store.LetterReplayed)
	storetest.Same(t, "broken", f.letter(broken).Status, store.LetterDead)
	storetest.Same(t, "ignored", f.letter(letters[3]).Status, store.LetterIgnored)

	// A part that was taken and not booked, as after a crash, is taken again.
	next, err := f.svc.StartReplay(t.Context(), f.Tenant, []uuid.UUID{broken}, store.LetterFilter{}, false, "me")
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "by ids", f.finished(next.ID), store.Replay{ID: next.ID, Status: "done", Matched: 1, Dead: 1})
}

func TestBulkReplayGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.bury(70)
	r, err := f.svc.StartReplay(t.Context(), f.Tenant, nil, store.LetterFilter{}, false, "me") // nobody works yet
	if err != nil {
		t.Fatal(err)
	}
	f.Reopen()
	f.svc.Start()
	defer f.svc.Stop()
	storetest.Same(t, "replay", f.finished(r.ID), store.Replay{ID: r.ID, Status: "done", Matched: 70, Orphaned: 70})
}

func enrollmentOf(email string) campaign.Enrollment { return campaign.Enrollment{Email: email} }
