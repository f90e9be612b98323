package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/ingest"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
	"tallyhook/internal/store/spool"
	"tallyhook/internal/store/sqlite"
	"tallyhook/internal/store/storetest"
	"tallyhook/internal/telemetry"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir, os.Getenv(childTask))
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, o storetest.Options) storetest.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: o.Path, TxTimeout: o.TxTimeout, Now: o.Now, Delay: o.Delay, Adopted: o.Adopted, Parked: o.Parked})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// door stands before a real store: it can be shut, tells what came through,
// and can pretend that something is wrong behind it.
type door struct {
	*storetest.World
	enter chan struct{}                    // a commit has come to the door; nil: not told
	leave chan struct{}                    // lets one commit through; nil: open
	wrong func(events []event.Event) error // before the store is asked; nil: nothing is
	after func(events []event.Event) error // when the store has committed; nil: nothing is

	mu      sync.Mutex
	batches [][]event.Event
}

func (d *door) Commit(ctx context.Context, events []event.Event) ([]store.Result, error) {
	if d.leave != nil {
		d.enter <- struct{}{}
		<-d.leave
	}
	d.mu.Lock()
	d.batches = append(d.batches, slices.Clone(events))
	d.mu.Unlock()
	if d.wrong != nil {
		if err := d.wrong(events); err != nil {
			return nil, err
		}
	}
	res, err := d.World.Commit(ctx, events)
	if err == nil && d.after != nil {
		if err = d.after(events); err != nil {
			return nil, err
		}
	}
	return res, err
}

func (d *door) sizes() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	var n []int
	for _, b := range d.batches {
		n = append(n, len(b))
	}
	return n
}

type fixture struct {
	*door
	*ingest.Committer

	metrics *telemetry.Metrics
	spool   *spool.Spool // nil: none
}

func start(t *testing.T, d *door, o ingest.Options) *fixture {
	t.Helper()
	if d.World == nil {
		d.World = storetest.New(t, open)
	}
	m := telemetry.NewMetrics(prometheus.NewRegistry(), "test")
	o.Now, o.Logger, o.Metrics = d.Clock.Now, slog.New(slog.DiscardHandler), m
	if o.MaxWait == 0 {
		o.MaxWait = time.Minute
	}
	f := &fixture{d, ingest.NewCommitter(d, o), m, nil}
	t.Cleanup(f.Close)
	return f
}

func shut() *door { return &door{enter: make(chan struct{}), leave: make(chan struct{})} }

// sent is a request on its way.
type sent struct {
	done    chan struct{}
	results []store.Result
	err     error
}

// send begins a request.
func (f *fixture) send(t *testing.T, events ...event.Event) *sent {
	t.Helper()
	s := &sent{done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.results, s.err = f.Accept(context.WithoutCancel(t.Context()), events)
	}()
	return s
}

func (s *sent) wait(t *testing.T) []store.Result {
	t.Helper()
	<-s.done
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.results
}

func (f *fixture) some(n int, opts ...storetest.Option) []event.Event {
	events := make([]event.Event, n)
	for i := range events {
		events[i] = f.Event(event.Opened, append([]storetest.Option{storetest.Lead("l")}, opts...)...)
	}
	return events
}

func TestConcurrentRequestsShareATransaction(t *testing.T) {
	t.Parallel()
	f := start(t, shut(), ingest.Options{})
	const n = 200
	first := f.send(t, f.some(1)...)
	<-f.enter // the first transaction runs: now the others gather
	var all []*sent
	for range n {
		all = append(all, f.send(t, f.some(2)...))
	}
	waitQueued(t, f, 2*n)
	f.leave <- struct{}{}
	first.wait(t)
	<-f.enter
	f.leave <- struct{}{}
	for _, s := range all {
		if got := s.wait(t); len(got) != 2 || got[0].Outcome != event.OutcomeOrphaned {
			t.Fatalf("results are %+v", got)
		}
	}
	storetest.Same(t, "events in each transaction", f.sizes(), []int{1, 2 * n})
	storetest.Same(t, "received", f.Account(f.Tenant).Received, 2*n+1)
	storetest.Same(t, "metric", testutil.ToFloat64(f.metrics.Events.WithLabelValues("lemlist", "orphaned")), 2*n+1)
}

// waitQueued waits until so many events are in the committer's line.
func waitQueued(t *testing.T, f *fixture, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for f.Queued() != n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d events are queued, want %d", f.Queued(), n)
		}
	}
}

func TestTenantsAreServedInTurn(t *testing.T) {
	t.Parallel()
	f := start(t, shut(), ingest.Options{MaxBatch: 6})
	other, err := f.CreateTenant(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	all := []*sent{f.send(t, f.some(1)...)}
	<-f.enter
	for range 10 {
		all = append(all, f.send(t, f.some(2)...)) // a flood
	}
	waitQueued(t, f, 20)
	late := f.send(t, f.some(2, storetest.For(other.ID))...)
	waitQueued(t, f, 22)
	f.leave <- struct{}{}
	<-f.enter
	f.leave <- struct{}{}
	late.wait(t) // in the very next transaction
	for range 3 {
		<-f.enter
		f.leave <- struct{}{}
	}
	for _, s := range all {
		s.wait(t)
	}
	storetest.Same(t, "events in each transaction", f.sizes(), []int{1, 6, 6, 6, 4})
	n := 0
	for _, e := range f.batches[1] {
		if e.Tenant == other.ID {
			n++
		}
	}
	storetest.Same(t, "of the late tenant", n, 2)
}

// TestFloodIsTakenInTurns: while another tenant sends, a long request is
// committed in parts, and whoever comes is in the very next transaction.
func TestFloodIsTakenInTurns(t *testing.T) {
	t.Parallel()
	f := start(t, shut(), ingest.Options{MaxTurn: 10})
	other, err := f.CreateTenant(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	neighbour := func() *sent { return f.send(t, f.some(1, storetest.For(other.ID))...) }
	waiting := []*sent{f.send(t, f.some(1)...)}
	<-f.enter
	waiting = append(waiting, neighbour())
	waitQueued(t, f, 1)
	flood := f.send(t, f.some(35)...)
	waitQueued(t, f, 36)
	waiting = append(waiting, f.send(t, f.some(6)...))
	waitQueued(t, f, 42)
	f.leave <- struct{}{}
	<-f.enter
	waitQueued(t, f, 31) // what is more than the flood's share
	late := neighbour()
	waitQueued(t, f, 32)
	f.leave <- struct{}{}
	<-f.enter
	f.leave <- struct{}{}
	late.wait(t) // in the very next transaction
	for range 3 {
		<-f.enter
		f.leave <- struct{}{}
	}
	for _, s := range waiting {
		s.wait(t)
	}
	if got := flood.wait(t); len(got) != 35 {
		t.Errorf("%d results, want 35", len(got))
	}
	storetest.Same(t, "events in each transaction", f.sizes(), []int{1, 11, 11, 10, 5, 6})
}

// TestNonceOfARequestInTurns: all parts of a request come under its nonce, the
// first time and when it is sent again, and no part of another one does.
func TestNonceOfARequestInTurns(t *testing.T) {
	t.Parallel()
	f := start(t, &door{}, ingest.Options{MaxTurn: 10})
	other, err := f.CreateTenant(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	accept := func(events []event.Event) []store.Result {
		got, err := f.Accept(t.Context(), events)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	accept(f.some(1, storetest.For(other.ID)))
	accept(f.some(1)) // several tenants send now
	events := storetest.Once("t", f.some(35)...)
	accept(events)
	for i := range events {
		events[i].ID = uuid.Nil // sent again, it gets new ones
	}
	for i, r := range accept(events) {
		if r.Outcome != event.OutcomeDuplicate {
			t.Errorf("event %d, sent again, is %+v", i, r)
		}
	}
	if _, err := f.Accept(t.Context(), storetest.Once("t", f.some(35)...)); !errors.Is(err, provider.ErrMismatch) {
		t.Errorf("other events under the nonce: %v", err)
	}
	if n := slices.Max(f.sizes()); n > 10 {
		t.Errorf("a transaction has %d events, more than a turn", n)
	}
	f.Close()
	storetest.Same(t, "account", f.Account(f.Tenant), store.Ledger{Tenant: f.Tenant, Received: 71, Orphaned: 36, Duplicates: 35})
}

func TestFloodFillsItsOwnBound(t *testing.T) {
	t.Parallel()
	f := start(t, shut(), ingest.Options{MaxQueued: 10})
	other, err := f.CreateTenant(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	all := []*sent{f.send(t, f.some(1)...)}
	<-f.enter
	all = append(all, f.send(t, f.some(8)...))
	waitQueued(t, f, 8)
	_, err = f.Accept(t.Context(), f.some(3))
	storetest.Kind(t, err, fault.Unavailable)
	if e, ok := errors.AsType[*fault.Error](err); !ok || e.RetryAfter <= 0 {
		t.Errorf("the refusal does not say when to come back: %v", err)
	}
	all = append(all, f.send(t, f.some(2)...)) // just fits
	waitQueued(t, f, 10)
	all = append(all, f.send(t, f.some(25, storetest.For(other.ID))...)) // larger than the bound, and alone
	waitQueued(t, f, 35)
	f.leave <- struct{}{}
	<-f.enter
	f.leave <- struct{}{}
	for _, s := range all {
		s.wait(t)
	}
}

func TestCloseCommitsWhatWaits(t *testing.T) {
	t.Parallel()
	f := start(t, shut(), ingest.Options{})
	first := f.send(t, f.some(1)...)
	<-f.enter
	second := f.send(t, f.some(1)...)
	waitQueued(t, f, 1)
	closed := make(chan struct{})
	go func() { f.Close(); close(closed) }()
	f.leave <- struct{}{}
	<-f.enter
	f.leave <- struct{}{}
	<-closed
	first.wait(t)
	second.wait(t)
	_, err := f.Accept(t.Context(), f.some(1))
	storetest.Kind(t, err, fault.Unavailable)
	f.Close() // again
	storetest.Same(t, "received", f.Account(f.Tenant).Received, 2)
}

func TestSlowStoreIsUnavailableAndNothingIsLost(t *testing.T) {
	t.Parallel()
	f := start(t, shut(), ingest.Options{MaxWait: overdue})
	slow := f.send(t, f.some(1, storetest.ID("1"))...)
	<-f.enter
	<-slow.done
	storetest.Kind(t, slow.err, fault.Unavailable)
	if e, ok := errors.AsType[*fault.Error](slow.err); !ok || e.RetryAfter <= 0 {
		t.Errorf("the refusal does not say when to come back: %v", slow.err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.Accept(gone, f.some(1))
	storetest.Kind(t, err, fault.Unavailable)
	f.leave <- struct{}{}
	<-f.enter
	f.leave <- struct{}{}
	f.Close()
	// What was sent again after it was committed all the same is a duplicate.
	storetest.Same(t, "again", f.Put(f.some(1, storetest.ID("1"))...)[0].Outcome, event.OutcomeDuplicate)
}

func TestStoreDownIsUnavailableAndPasses(t *testing.T) {
	t.Parallel()
	down := fault.Wrap(fault.Unavailable, "commit", errors.New("disk full"))
	d := &door{wrong: func([]event.Event) error { return down }}
	f := start(t, d, ingest.Options{})
	_, err := f.Accept(t.Context(), f.some(3))
	storetest.Kind(t, err, fault.Unavailable)
	storetest.Same(t, "tries, each of the whole", f.sizes(), []int{3, 3})
	ids := map[uuid.UUID]bool{}
	for _, b := range f.batches {
		for _, e := range b {
			ids[e.ID] = true
		}
	}
	storetest.Same(t, "a second try has the same ids", len(ids), 3)
	d.wrong = nil
	if _, err := f.Accept(t.Context(), f.some(1)); err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "received", f.Account(f.Tenant).Received, 1)
}

// TestRefusedDataIsHalvedByTenantFirst counts what one bad event costs.
func TestRefusedDataIsHalvedByTenantFirst(t *testing.T) {
	t.Parallel()
	d := &door{wrong: func(events []event.Event) error {
		for _, e := range events {
			if e.LeadID == "bad" {
				return fault.New(fault.Data, "refused")
			}
		}
		return nil
	}}
	f := start(t, d, ingest.Options{})
	other, err := f.CreateTenant(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	// One array of one tenant: 64 events, one of them bad.
	events := f.some(64)
	events[21].LeadID = "bad"
	res, err := f.Accept(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range res {
		want := event.OutcomeOrphaned
		if i == 21 {
			want = event.OutcomeDead
		}
		storetest.Same(t, fmt.Sprint("outcome of ", i), r.Outcome, want)
	}
	if n := len(f.sizes()); n > 13 { // 1 + 2 for each of 6 halvings
		t.Errorf("one bad event cost %d transactions", n)
	}
	storetest.Same(t, "dead letters", testutil.ToFloat64(f.metrics.DeadLetters.WithLabelValues(store.ReasonPoison)), 1)

	// Mixed with another tenant's: that one is tried once more, and not halved.
	f.batches = nil
	d.enter, d.leave = make(chan struct{}), make(chan struct{})
	first := f.send(t, f.some(1)...)
	<-f.enter
	mine, theirs := f.send(t, append(f.some(3), f.some(1, storetest.Lead("bad"))...)...), f.send(t, f.some(4, storetest.For(other.ID))...)
	waitQueued(t, f, 8)
	go func() {
		for range f.enter {
			f.leave <- struct{}{}
		}
	}()
	f.leave <- struct{}{}
	first.wait(t)
	theirs.wait(t)
	storetest.Same(t, "the bad one", mine.wait(t)[3].Outcome, event.OutcomeDead)
	touched := 0
	for _, b := range f.batches[1:] {
		for _, e := range b {
			if e.Tenant == other.ID {
				touched++
				break
			}
		}
	}
	storetest.Same(t, "transactions that hold the other tenant's events", touched, 2)
	close(d.enter)
}

func TestAcceptCompletesEvents(t *testing.T) {
	t.Parallel()
	f := start(t, &door{}, ingest.Options{})
	e := event.Event{Tenant: f.Tenant, Scope: "api:custom", Provider: "custom", Type: event.Opened, Channel: event.Email, LeadID: "l", ProviderEventID: "1"}
	events := []event.Event{e}
	res, err := f.Accept(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	r := f.Record(res[0].ID)
	if r.ID.Version() != 7 || !r.OccurredAtEstimated || !r.OccurredAt.Equal(r.ReceivedAt) || r.ReceivedAt.IsZero() {
		t.Errorf("the event is %+v", r.Event)
	}
	storetest.Same(t, "metric of a provider that nobody knows", testutil.ToFloat64(f.metrics.EventsReceived.WithLabelValues("other")), 1)

	res, err = f.Accept(t.Context(), nil)
	storetest.Same(t, "nothing", []any{len(res), err}, []any{0, nil})
	for name, change := range map[string]func(*event.Event){
		"Tenant":   func(e *event.Event) { e.Tenant = 0 },
		"Scope":    func(e *event.Event) { e.Scope = "" },
		"Provider": func(e *event.Event) { e.Provider = "" },
	} {
		bad := e
		change(&bad)
		if _, err := f.Accept(t.Context(), []event.Event{bad}); !fault.Is(err, fault.Internal) {
			t.Errorf("%s: got %v, want a defect of ours", name, err)
		}
	}
	bad := e
	bad.Type = "guessed"
	_, err = f.Accept(t.Context(), []event.Event{e, bad})
	storetest.Kind(t, err, fault.Invalid)
}

// TestBatchesAreBoundedByBytes: large payloads make small transactions.
func TestBatchesAreBoundedByBytes(t *testing.T) {
	t.Parallel()
	f := start(t, shut(), ingest.Options{MaxBytes: 1000})
	big := func() []event.Event {
		events := f.some(1)
		events[0].Payload = make([]byte, 600)
		return events
	}
	const n = 10
	requests := []*sent{f.send(t, big()...)}
	<-f.enter // the first transaction runs: now the others gather
	for range n {
		requests = append(requests, f.send(t, big()...))
	}
	f.leave <- struct{}{}
	for range n {
		<-f.enter
		f.leave <- struct{}{}
	}
	for _, r := range requests {
		r.wait(t)
	}
	storetest.Same(t, "largest transaction", slices.Max(f.sizes()), 1)
}
