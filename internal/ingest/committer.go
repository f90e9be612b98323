package ingest

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
	"tallyhook/internal/telemetry"
)

// Store is what the committer needs of the store.
type Store interface {
	Commit(ctx context.Context, events []event.Event) ([]store.Result, error)
	CommitDead(ctx context.Context, events []event.Event, reason, detail string) ([]store.Result, error)
}

// Options of the committer; zero fields take the defaults.
type Options struct {
	MaxBatch  int           // events in one transaction, 500; a larger request goes alone
	MaxWait   time.Duration // how long Accept waits for its commit, 2 s
	MaxBytes  int           // of payloads in one transaction, 8 MiB; a larger request goes alone
	MaxHeld   int           // bytes of payloads that one tenant may have waiting, 128 MiB
	MaxQueued int           // events that one tenant may have waiting, 30,000
	Now       func() time.Time
	Logger    *slog.Logger
	Metrics   *telemetry.Metrics
}

// Committer makes events durable by group commit: what comes in while one
// transaction runs is the next one's batch. There is no delay when idle, and
// under load hundreds of requests share one fsync.
//
// Requests are taken first come first served within a tenant and in turn over
// the tenants, so a tenant's flood fills its own bound and nobody else's.
type Committer struct {
	store Store
	opt   Options

	mu      sync.Mutex
	tenants map[int64]*lane
	turn    []int64 // tenants with something waiting, in the order they are served
	closed  bool
	known   map[string]bool // provider names that may be a label
	wake    chan struct{}
	done    chan struct{}
}

type lane struct {
	requests []*request
	events   int
	bytes    int
}

type request struct {
	bytes   int // of the payloads
	events  []event.Event
	results []store.Result
	err     error
	done    chan struct{}
}

// NewCommitter starts a committer; Close ends it.
func NewCommitter(st Store, o Options) *Committer {
	if o.MaxBatch == 0 {
		o.MaxBatch = 500
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 8 << 20
	}
	if o.MaxHeld == 0 {
		o.MaxHeld = 128 << 20
	}
	if o.MaxWait == 0 {
		o.MaxWait = 2 * time.Second
	}
	if o.MaxQueued == 0 {
		o.MaxQueued = 30_000
	}
	c := &Committer{store: st, opt: o, tenants: map[int64]*lane{}, known: map[string]bool{"api": true, "manual": true}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	for _, p := range provider.All() {
		c.known[p.Name] = true
	}
	go c.run()
	return c
}

// Accept makes one tenant's events durable and answers what became of each,
// in their order. It gives an event its id and receipt time where they are
// missing. An error of kind Unavailable means that nothing is known to be
// stored: the sender must try again, and what was stored all the same will
// then be met as a duplicate.
func (c *Committer) Accept(ctx context.Context, events []event.Event) ([]store.Result, error) {
	if len(events) == 0 {
		return nil, nil
	}
	if err := c.complete(events); err != nil {
		return nil, err
	}
	r := &request{events: events, done: make(chan struct{})}
	for i := range events {
		r.bytes += len(events[i].Payload)
	}
	if err := c.enqueue(r); err != nil {
		return nil, err
	}
	timer := time.NewTimer(c.opt.MaxWait)
	defer timer.Stop()
	select {
	case <-r.done:
		return r.results, r.err
	case <-timer.C:
		return nil, &fault.Error{Kind: fault.Unavailable, Op: "accept", Msg: "the store is too slow to answer", RetryAfter: 5 * time.Second}
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Unavailable, "accept", ctx.Err())
	}
}

func (c *Committer) complete(events []event.Event) error {
	now := c.opt.Now().UTC().Truncate(time.Microsecond)
	for i := range events {
		e := &events[i]
		if e.ID == uuid.Nil {
			id, err := uuid.NewV7()
			if err != nil {
				return fault.Wrap(fault.Unavailable, "make event id", err)
			}
			e.ID = id
		}
		if e.ReceivedAt.IsZero() {
			e.ReceivedAt = now
		}
		if e.OccurredAt.IsZero() {
			e.OccurredAt, e.OccurredAtEstimated = e.ReceivedAt, true
		}
		if e.Payload == nil {
			e.Payload = []byte{}
		}
		if e.Tenant == 0 || e.Scope == "" || e.Provider == "" {
			return fault.New(fault.Internal, "an event was accepted without tenant, scope or provider")
		}
		if err := e.Check(); err != nil {
			return fault.BadInput(fault.Field{Location: "body", Message: err.Error()})
		}
	}
	return nil
}

func (c *Committer) enqueue(r *request) error {
	tenant := r.events[0].Tenant
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fault.New(fault.Unavailable, "the server is shutting down")
	}
	l := c.tenants[tenant]
	if l == nil {
		l = &lane{}
		c.tenants[tenant] = l
	}
	if l.events > 0 && (l.events+len(r.events) > c.opt.MaxQueued || l.bytes+r.bytes > c.opt.MaxHeld) {
		return &fault.Error{Kind: fault.Unavailable, Op: "accept", Msg: "too many events are waiting", RetryAfter: time.Second}
	}
	if len(l.requests) == 0 {
		c.turn = append(c.turn, tenant)
	}
	l.requests = append(l.requests, r)
	l.events += len(r.events)
	l.bytes += r.bytes
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// Close commits what is waiting and ends the committer; later calls of Accept
// are refused.
func (c *Committer) Close() {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	c.mu.Unlock()
	if !closed {
		close(c.wake)
	}
	<-c.done
}

func (c *Committer) run() {
	defer close(c.done)
	for range c.wake {
		c.drain()
	}
	c.drain()
}

func (c *Committer) drain() {
	for {
		batch := c.gather()
		if len(batch) == 0 {
			return
		}
		c.commit(batch)
	}
}

// gather takes the next batch: one request of each waiting tenant in turn.
func (c *Committer) gather() []*request {
	c.mu.Lock()
	defer c.mu.Unlock()
	var batch []*request
	n, bytes := 0, 0
	for len(c.turn) > 0 {
		tenant := c.turn[0]
		l := c.tenants[tenant]
		r := l.requests[0]
		if n > 0 && (n+len(r.events) > c.opt.MaxBatch || bytes+r.bytes > c.opt.MaxBytes) {
			return batch
		}
		batch = append(batch, r)
		n += len(r.events)
		bytes += r.bytes
		l.requests[0] = nil
		l.requests = l.requests[1:]
		l.events -= len(r.events)
		l.bytes -= r.bytes
		c.turn = c.turn[1:]
		if len(l.requests) > 0 {
			c.turn = append(c.turn, tenant)
		} else {
			delete(c.tenants, tenant)
		}
	}
	return batch
}

func (c *Committer) commit(batch []*request) {
	events := make([]event.Event, 0, len(batch))
	for _, r := range batch {
		events = append(events, r.events...)
	}
	start := c.opt.Now()
	results, errs := c.settle(events)
	c.opt.Metrics.CommitDuration.Observe(c.opt.Now().Sub(start).Seconds())
	c.opt.Metrics.CommitBatch.Observe(float64(len(events)))
	at := 0
	for _, r := range batch {
		r.results = results[at : at+len(r.events)]
		for i := range r.events {
			if err := errs[at+i]; err != nil && r.err == nil {
				r.err = err
			}
		}
		if r.err == nil {
			c.count(r)
		}
		at += len(r.events)
		close(r.done)
	}
}

// label keeps the metric's label bounded: events by key name any provider.
func (c *Committer) label(p string) string {
	if c.known[p] {
		return p
	}
	return "other"
}

func (c *Committer) count(r *request) {
	for i, res := range r.results {
		p := c.label(r.events[i].Provider)
		c.opt.Metrics.EventsReceived.WithLabelValues(p).Inc()
		c.opt.Metrics.Events.WithLabelValues(p, string(res.Outcome)).Inc()
		if res.Outcome == event.OutcomeDead {
			c.opt.Metrics.DeadLetters.WithLabelValues(res.Reason).Inc()
		}
	}
}

// settle commits events, all or, when the store refuses the data of one, the
// others without it. Errors of the infrastructure fail the whole.
func (c *Committer) settle(events []event.Event) ([]store.Result, []error) {
	results := make([]store.Result, len(events))
	errs := make([]error, len(events))
	all := make([]int, len(events))
	for i := range all {
		all[i] = i
	}
	c.settlePart(events, all, results, errs)
	return results, errs
}

func (c *Committer) settlePart(events []event.Event, part []int, results []store.Result, errs []error) {
	ctx := context.Background() // a commit outlives the request that asked for it
	got, err := c.tryCommit(ctx, pick(events, part))
	switch {
	case err == nil:
		for i, at := range part {
			results[at] = got[i]
		}
	case !fault.Is(err, fault.Data):
		c.opt.Logger.ErrorContext(ctx, "commit failed", slog.Any("error", err), slog.Int("events", len(part)))
		for _, at := range part {
			errs[at] = fault.Wrap(fault.Unavailable, "commit", err)
		}
	case len(part) == 1:
		results[part[0]], errs[part[0]] = c.bury(ctx, events[part[0]], err)
	default:
		for _, half := range split(events, part) {
			c.settlePart(events, half, results, errs)
		}
	}
}

// tryCommit tries again, with the same ids, when the store was only busy: a
// commit of unknown outcome is then met and not counted twice.
func (c *Committer) tryCommit(ctx context.Context, events []event.Event) ([]store.Result, error) {
	results, err := c.store.Commit(ctx, events)
	if err != nil && fault.Is(err, fault.Unavailable) {
		results, err = c.store.Commit(ctx, events)
	}
	return results, err
}

// bury keeps an event that the store refuses alone as a dead letter: with its
// fields if these can be stored, else with its payload only.
func (c *Committer) bury(ctx context.Context, e event.Event, cause error) (store.Result, error) {
	detail := "the database refuses this event"
	c.opt.Logger.ErrorContext(ctx, "event refused by the store", slog.String("event_id", e.ID.String()), slog.Any("error", cause))
	res, err := c.store.CommitDead(ctx, []event.Event{e}, store.ReasonPoison, detail)
	if err != nil && fault.Is(err, fault.Data) {
		id := e.Identity()
		bare := event.Event{
			ID: e.ID, Tenant: e.Tenant, SourceID: e.SourceID, Scope: e.Scope, Provider: e.Provider,
			ReceivedAt: e.ReceivedAt, OccurredAt: e.ReceivedAt, OccurredAtEstimated: true,
			IdentityParts: []string{"poison", string(id[:])}, Payload: e.Payload,
		}
		res, err = c.store.CommitDead(ctx, []event.Event{bare}, store.ReasonPoison, detail)
	}
	if err != nil {
		return store.Result{}, fault.Wrap(fault.Unavailable, "bury event", err)
	}
	return res[0], nil
}

func pick(events []event.Event, part []int) []event.Event {
	if len(part) == len(events) {
		return events
	}
	some := make([]event.Event, len(part))
	for i, at := range part {
		some[i] = events[at]
	}
	return some
}

// split parts a batch by tenant, so that one tenant's bad event costs the
// others one more transaction at most; a single tenant's batch is halved.
func split(events []event.Event, part []int) [][]int {
	byTenant := map[int64]int{}
	var parts [][]int
	for _, at := range part {
		t := events[at].Tenant
		i, ok := byTenant[t]
		if !ok {
			i = len(parts)
			byTenant[t] = i
			parts = append(parts, nil)
		}
		parts[i] = append(parts[i], at)
	}
	if len(parts) > 1 {
		return parts
	}
	return [][]int{part[:len(part)/2], part[len(part)/2:]}
}
