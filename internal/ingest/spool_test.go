package ingest_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/ingest"
	"tallyhook/internal/store"
	"tallyhook/internal/store/spool"
	"tallyhook/internal/store/storetest"
	"tallyhook/internal/testenv"
)

// away is a store whose writes give up soon, so that a test need not wait
// long for one that is locked.
func away(t *testing.T) *door {
	t.Helper()
	return &door{World: storetest.New(t, open, func(o *storetest.Options) { o.TxTimeout = 3 * time.Second })}
}

// startSpooled is start with a spool; before may fill it.
func startSpooled(t *testing.T, d *door, o ingest.Options, so spool.Options, before ...event.Event) *fixture {
	t.Helper()
	if d.World == nil {
		d.World = storetest.New(t, open)
	}
	if so.Dir == "" {
		so.Dir = t.TempDir()
	}
	s, err := spool.Open(t.Context(), so)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if len(before) > 0 {
		if err := s.Append(t.Context(), before); err != nil {
			t.Fatal(err)
		}
	}
	if o.Probe == 0 {
		o.Probe = 10 * time.Millisecond
	}
	o.Spool = s
	f := start(t, d, o)
	f.spool = s
	return f
}

func (f *fixture) accept(t *testing.T, events ...event.Event) []store.Result {
	t.Helper()
	res, err := f.Accept(context.WithoutCancel(t.Context()), events)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func (f *fixture) awaitEmpty(t *testing.T) {
	t.Helper()
	testenv.Eventually(t, time.Minute, "the spool is empty", func() bool { return f.spool.Stats().Events == 0 })
}

func (f *fixture) outcomes(o event.Outcome) float64 {
	return testutil.ToFloat64(f.metrics.Events.WithLabelValues("lemlist", string(o)))
}

func (f *fixture) received() float64 {
	return testutil.ToFloat64(f.metrics.EventsReceived.WithLabelValues("lemlist"))
}

func allAre(t *testing.T, results []store.Result, want event.Outcome) {
	t.Helper()
	for _, r := range results {
		if r.Outcome != want || r.ID == uuid.Nil {
			t.Errorf("got %+v, want %s", r, want)
		}
	}
}

// TestEventsOutliveAnAbsentDatabase locks the database as another process
// would.
func TestEventsOutliveAnAbsentDatabase(t *testing.T) {
	t.Parallel()
	f := startSpooled(t, away(t), ingest.Options{}, spool.Options{})
	enrolled := f.Join(f.Instance, campaign.Enrollment{Email: "ada@example.com"})
	unlock := testenv.Lock(t, f.Path())
	first := f.some(2)
	results := f.accept(t, first...)
	allAre(t, results, event.OutcomeSpooled)
	storetest.Same(t, "states", []event.State{results[0].State, results[1].State}, []event.State{event.Spooled, event.Spooled})
	storetest.Same(t, "ids", []uuid.UUID{results[0].ID, results[1].ID}, []uuid.UUID{first[0].ID, first[1].ID})
	if !f.Away() {
		t.Error("the database is not known to be away")
	}
	// From now on nobody waits for it.
	late := f.Event(event.Opened, storetest.Address("ada@example.com"))
	results = append(results, f.accept(t, late)...)
	results = append(results, f.accept(t, f.some(3)...)...)
	again := f.Event(event.Opened, storetest.Address("ada@example.com"), storetest.ID(late.ProviderEventID)) // sent twice
	f.accept(t, again)
	allAre(t, results, event.OutcomeSpooled)
	body := store.Letter{ID: uuid.Must(uuid.NewV7()), Tenant: f.Tenant, SourceID: uuid.Must(uuid.NewV7()), Provider: "lemlist", Reason: store.ReasonUndecodable, Body: []byte("{")}
	res, err := f.CommitBody(t.Context(), body)
	storetest.Same(t, "body", []any{res.Outcome, res.ID, err}, []any{event.OutcomeSpooled, body.ID, nil})
	before := f.Clock.Now()
	storetest.Same(t, "received", f.received(), 7)
	storetest.Same(t, "spooled", f.outcomes(event.OutcomeSpooled), 7)
	if n := f.spool.Stats().Events; n != 8 {
		t.Errorf("the spool holds %d", n)
	}
	unlock()
	f.awaitEmpty(t)
	testenv.Eventually(t, time.Minute, "the database is known to be back", func() bool { return !f.Away() })
	for i, r := range results {
		want := event.Orphaned
		if i == 2 {
			want = event.Applied
		}
		storetest.Same(t, "state after the replay", f.Record(r.ID).State, want)
	}
	storetest.Same(t, "tied to", f.Record(late.ID).Enrollment, enrolled.ID)
	storetest.Same(t, "account", f.Account(f.Tenant), store.Ledger{Tenant: f.Tenant, Received: 7, Duplicates: 1, Applied: 1, Orphaned: 5, Undecodable: 1})
	storetest.Same(t, "received once in the metrics", f.received(), 7)
	storetest.Same(t, "what became of them", []float64{f.outcomes(event.OutcomeApplied), f.outcomes(event.OutcomeOrphaned), f.outcomes(event.OutcomeDuplicate)}, []float64{1, 5, 1})
	l, err := f.Letter(t.Context(), f.Tenant, body.ID)
	if err != nil || !l.FirstReceivedAt.Before(before) {
		t.Errorf("the body was received %v, %v", l.FirstReceivedAt, err)
	}
	allAre(t, f.accept(t, f.some(1)...), event.OutcomeOrphaned)
}

func TestFullSpoolIsUnavailable(t *testing.T) {
	t.Parallel()
	f := startSpooled(t, away(t), ingest.Options{}, spool.Options{MaxBytes: 4000})
	unlock := testenv.Lock(t, f.Path())
	var kept []uuid.UUID
	for {
		res, err := f.Accept(t.Context(), f.some(1))
		if err == nil {
			kept = append(kept, res[0].ID)
			continue
		}
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != fault.Unavailable || e.RetryAfter <= 0 {
			t.Errorf("got %v", err)
		}
		break
	}
	body := store.Letter{ID: uuid.Must(uuid.NewV7()), Tenant: f.Tenant, Provider: "lemlist", Reason: store.ReasonUndecodable, Body: make([]byte, 4000)}
	_, err := f.CommitBody(t.Context(), body)
	storetest.Kind(t, err, fault.Unavailable)
	if len(kept) < 3 {
		t.Errorf("only %d events were kept", len(kept))
	}
	unlock()
	f.awaitEmpty(t)
	for _, id := range kept {
		f.Record(id)
	}
	storetest.Same(t, "received", f.Account(f.Tenant).Received, int64(len(kept)))
	storetest.Same(t, "received", f.received(), float64(len(kept)))
}

// TestUnknownOutcomeThenRetriedThenSpooled: the commit went through, and only
// the answer is lost, twice.
func TestUnknownOutcomeThenRetriedThenSpooled(t *testing.T) {
	t.Parallel()
	var lost atomic.Bool
	lost.Store(true)
	d := &door{after: func([]event.Event) error {
		if lost.Load() {
			return fault.Wrap(fault.Unavailable, "commit", errors.New("connection reset"))
		}
		return nil
	}}
	f := startSpooled(t, d, ingest.Options{Probe: time.Millisecond}, spool.Options{})
	events := f.some(5)
	allAre(t, f.accept(t, events...), event.OutcomeSpooled)
	testenv.Eventually(t, time.Minute, "a replay of unknown outcome", func() bool { return len(f.sizes()) > 4 })
	lost.Store(false)
	f.awaitEmpty(t)
	storetest.Same(t, "account", f.Account(f.Tenant), store.Ledger{Tenant: f.Tenant, Received: 5, Orphaned: 5})
	storetest.Same(t, "not one is a duplicate", f.Record(events[0].ID).Duplicates, 0)
	storetest.Same(t, "metrics", []float64{f.received(), f.outcomes(event.OutcomeOrphaned), f.outcomes(event.OutcomeDuplicate)}, []float64{5, 5, 0})
}

// overdue is a wait that runs over while a commit does not end, and long
// enough for it to begin before.
const overdue = 2 * time.Second

// TestOverdueRequestIsSpooledWhileItsCommitRuns: both happen, and it counts once.
func TestOverdueRequestIsSpooledWhileItsCommitRuns(t *testing.T) {
	t.Parallel()
	f := startSpooled(t, shut(), ingest.Options{MaxWait: overdue}, spool.Options{})
	running := f.send(t, f.some(2)...)
	<-f.enter
	waiting := f.send(t, f.some(3)...)
	allAre(t, running.wait(t), event.OutcomeSpooled)
	allAre(t, waiting.wait(t), event.OutcomeSpooled)
	waitQueued(t, f, 0) // what had not begun is in the spool alone
	storetest.Same(t, "spooled", f.spool.Stats().Events, 5)
	close(f.leave)
	go func() {
		for range f.enter { // the door is open
		}
	}()
	f.awaitEmpty(t)
	f.Close()
	close(f.enter)
	storetest.Same(t, "account", f.Account(f.Tenant), store.Ledger{Tenant: f.Tenant, Received: 5, Orphaned: 5})
	storetest.Same(t, "metrics", []float64{f.received(), f.outcomes(event.OutcomeSpooled), f.outcomes(event.OutcomeOrphaned)}, []float64{5, 5, 5})
}

// TestOverdueAndFull: only the commit is left, and what it stores counts.
func TestOverdueAndFull(t *testing.T) {
	t.Parallel()
	f := startSpooled(t, shut(), ingest.Options{MaxWait: overdue}, spool.Options{MaxBytes: 1})
	running := f.send(t, f.some(2)...)
	<-f.enter
	waiting := f.send(t, f.some(3)...)
	<-running.done
	<-waiting.done
	storetest.Kind(t, running.err, fault.Unavailable)
	storetest.Kind(t, waiting.err, fault.Unavailable)
	f.leave <- struct{}{}
	f.Close()
	storetest.Same(t, "account", f.Account(f.Tenant), store.Ledger{Tenant: f.Tenant, Received: 2, Orphaned: 2})
	storetest.Same(t, "received", f.received(), 2)
}

// TestNobodyWaitsAnyMore: nothing was promised to a caller who is gone.
func TestNobodyWaitsAnyMore(t *testing.T) {
	t.Parallel()
	d := shut()
	d.wrong = func([]event.Event) error { return fault.New(fault.Unavailable, "away") }
	f := startSpooled(t, d, ingest.Options{}, spool.Options{})
	ctx, leave := context.WithCancel(t.Context())
	gone := &sent{done: make(chan struct{})}
	go func() {
		defer close(gone.done)
		gone.results, gone.err = f.Accept(ctx, f.some(1))
	}()
	<-f.enter
	leave()
	<-gone.done
	storetest.Kind(t, gone.err, fault.Unavailable)
	f.leave <- struct{}{}
	<-f.enter // the second try
	f.leave <- struct{}{}
	f.Close()
	storetest.Same(t, "spooled", f.spool.Stats().Events, 0)
}

// TestLiveRequestsGoFirstAndStarveNobody: eight live batches, one of the spool.
func TestLiveRequestsGoFirstAndStarveNobody(t *testing.T) {
	t.Parallel()
	d := shut()
	d.World = storetest.New(t, open)
	var old []event.Event
	for range 3 {
		old = append(old, d.Event(event.Opened, storetest.Lead("old")))
	}
	f := startSpooled(t, d, ingest.Options{MaxBatch: 1}, spool.Options{}, old...)
	<-f.enter // the first of the spool
	var all []*sent
	for i := range 30 {
		all = append(all, f.send(t, f.some(1, storetest.Lead("live"))...))
		waitQueued(t, f, i+1)
	}
	f.leave <- struct{}{}
	<-f.enter // one of them
	testenv.Eventually(t, time.Minute, "the second of the spool waits", f.BulkWaits)
	go func() {
		for range f.enter {
			f.leave <- struct{}{}
		}
	}()
	f.leave <- struct{}{}
	for _, s := range all {
		allAre(t, s.wait(t), event.OutcomeOrphaned)
	}
	f.awaitEmpty(t)
	f.Close()
	close(f.enter)
	var at []int
	for i, b := range f.batches {
		if b[0].LeadID == "old" {
			at = append(at, i)
		}
	}
	// Eight live ones while it waits, and one more when that was taken before it did.
	if len(at) != 3 || at[0] != 0 || at[1] < 9 || at[1] > 10 || at[2] < at[1]+9 || at[2] > at[1]+10 {
		t.Errorf("of %d batches those of the spool are %v", len(f.batches), at)
	}
}

// TestReplayBuriesRefusedData and sets aside what the store fails at while
// others go through; neither stops the rest.
func TestReplayGoesOnPastBadEvents(t *testing.T) {
	t.Parallel()
	d := &door{World: storetest.New(t, open)}
	d.wrong = func(events []event.Event) error {
		for _, e := range events {
			switch e.LeadID {
			case "bad":
				return fault.New(fault.Data, "refused")
			case "odd":
				return fault.New(fault.Internal, "a defect")
			}
		}
		return nil
	}
	var events []event.Event
	for i := range 40 {
		lead := "good"
		switch i {
		case 11, 12:
			lead = "bad"
		case 13, 30:
			lead = "odd"
		}
		events = append(events, d.Event(event.Opened, storetest.Lead(lead)))
	}
	f := startSpooled(t, d, ingest.Options{MaxBatch: 40}, spool.Options{}, events...)
	testenv.Eventually(t, time.Minute, "all but the odd ones are gone", func() bool { return f.spool.Stats().Events == 2 && f.spool.Stats().Aside == 2 })
	allAre(t, f.accept(t, f.some(1)...), event.OutcomeOrphaned)
	storetest.Same(t, "account", f.Account(f.Tenant), store.Ledger{Tenant: f.Tenant, Received: 39, Orphaned: 37, Dead: 2})
	storetest.Same(t, "dead letters", testutil.ToFloat64(f.metrics.DeadLetters.WithLabelValues(store.ReasonPoison)), 2)
}

// TestDefectOfTheStoreSetsNothingAside: it fails at everything.
func TestDefectOfTheStoreSetsNothingAside(t *testing.T) {
	t.Parallel()
	d := &door{World: storetest.New(t, open)}
	var broken atomic.Bool
	broken.Store(true)
	d.wrong = func([]event.Event) error {
		if broken.Load() {
			return fault.New(fault.Internal, "no such table")
		}
		return nil
	}
	var events []event.Event
	for range 40 {
		events = append(events, d.Event(event.Opened, storetest.Lead("l")))
	}
	f := startSpooled(t, d, ingest.Options{}, spool.Options{}, events...)
	testenv.Eventually(t, time.Minute, "three replays", func() bool { return len(f.sizes()) > 3*maxTries })
	storetest.Same(t, "set aside", f.spool.Stats().Aside, 0)
	broken.Store(false)
	f.awaitEmpty(t)
	storetest.Same(t, "received", f.Account(f.Tenant).Received, 40)
}

// maxTries is what one replay of a store that fails at everything may cost:
// eight events alone, the halves on the way to them, and the rest once.
const maxTries = 40

// TestStopWhileAway leaves everything for the next process.
func TestStopWhileAway(t *testing.T) {
	t.Parallel()
	d := away(t)
	dir := t.TempDir()
	f := startSpooled(t, d, ingest.Options{}, spool.Options{Dir: dir})
	unlock := testenv.Lock(t, f.Path())
	ids := f.accept(t, f.some(3)...)
	f.Close()
	_, err := f.Accept(t.Context(), f.some(1))
	storetest.Kind(t, err, fault.Unavailable)
	storetest.Same(t, "left in the spool", f.spool.Stats().Events, 3)
	if err := f.spool.Close(); err != nil {
		t.Fatal(err)
	}
	unlock()
	next := startSpooled(t, d, ingest.Options{}, spool.Options{Dir: dir})
	next.awaitEmpty(t)
	for _, r := range ids {
		storetest.Same(t, "state", next.Record(r.ID).State, event.Orphaned)
	}
	storetest.Same(t, "received", next.Account(f.Tenant).Received, 3)
}

// TestStopTakesOutWhatItCan: a stop does not leave behind what is quickly done.
func TestStopTakesOutWhatItCan(t *testing.T) {
	t.Parallel()
	d := &door{World: storetest.New(t, open)}
	var events []event.Event
	for range 30 {
		events = append(events, d.Event(event.Opened, storetest.Lead("l")))
	}
	f := startSpooled(t, d, ingest.Options{MaxBatch: 10}, spool.Options{}, events...)
	f.Close()
	left := f.spool.Stats().Events
	storetest.Same(t, "nothing is lost", f.Account(f.Tenant).Received+left, 30)
	if left == 30 {
		t.Error("nothing was taken out")
	}
}

func TestWritersCommitAtOnce(t *testing.T) {
	t.Parallel()
	const writers = 4
	f := start(t, shut(), ingest.Options{Writers: writers, MaxBatch: 2})
	var all []*sent
	for range writers {
		all = append(all, f.send(t, f.some(2)...))
		<-f.enter // and none has left
	}
	other, err := f.CreateTenant(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // a flood, and one of another tenant
		all = append(all, f.send(t, f.some(2)...))
	}
	waitQueued(t, f, 10)
	all = append(all, f.send(t, f.some(2, storetest.For(other.ID))...))
	waitQueued(t, f, 12)
	for range writers {
		f.leave <- struct{}{}
	}
	for range writers {
		<-f.enter
	}
	close(f.leave)
	go func() {
		for range f.enter { // the door is open
		}
	}()
	for _, s := range all {
		allAre(t, s.wait(t), event.OutcomeOrphaned)
	}
	f.Close()
	close(f.enter)
	storetest.Same(t, "received", f.Account(f.Tenant).Received, 18)
	storetest.Same(t, "of the other", f.Account(other.ID).Received, 2)
}

// TestNonceIsSpooledWithItsEvent: what was answered as spooled under a token
// that another replica took meanwhile, for another event, is kept as a dead letter.
func TestNonceIsSpooledWithItsEvent(t *testing.T) {
	t.Parallel()
	d := &door{World: storetest.New(t, open)}
	once := func(nonce string) event.Event { return storetest.Once(nonce, d.Event(event.Opened))[0] }
	d.Put(once("theirs"))
	mine, taken := once("mine"), once("theirs")
	f := startSpooled(t, d, ingest.Options{}, spool.Options{}, mine, d.Event(event.Clicked), taken)
	f.awaitEmpty(t)
	storetest.Same(t, "state", f.Record(mine.ID).State, event.Orphaned)
	storetest.Same(t, "the letter", f.LetterOf(taken.ID).Reason, store.ReasonNonceReused)
	storetest.Same(t, "account", f.Account(f.Tenant), store.Ledger{Tenant: f.Tenant, Received: 4, Orphaned: 3, Dead: 1})
	storetest.Same(t, "dead letters", testutil.ToFloat64(f.metrics.DeadLetters.WithLabelValues(store.ReasonNonceReused)), 1)
	// And the token of what was replayed is taken.
	if _, err := f.Accept(t.Context(), []event.Event{once("mine")}); err == nil {
		t.Error("another event under the token was taken")
	}
}

// TestSpooledEventsEnroll: that their source enrolls outlives the spool.
func TestSpooledEventsEnroll(t *testing.T) {
	t.Parallel()
	d := &door{World: storetest.New(t, open)}
	_, in := d.Campaign(d.Tenant, map[string]string{"lemlist": "cam"})
	first := d.Event(event.Sent, storetest.Lead("l"), storetest.Address("ada@example.com"), storetest.Enrolling("cam"))
	next := d.Event(event.ProfileVisited, storetest.Lead("l"), storetest.Enrolling("cam"))
	f := startSpooled(t, d, ingest.Options{}, spool.Options{}, first, next)
	f.awaitEmpty(t)
	rows, _, err := f.Enrollments(t.Context(), f.Tenant, in, store.EnrollmentFilter{}, store.Page{Limit: 10})
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d enrollments, %v; want one", len(rows), err)
	}
	f.IsApplied(first.ID, rows[0].ID)
	f.IsApplied(next.ID, rows[0].ID)
}
