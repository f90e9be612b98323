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
	CommitBody(ctx context.Context, l store.Letter) (store.Result, error)
}

// Options of the committer; zero fields take the defaults.
type Options struct {
	MaxBatch  int           // events in one transaction, 500; a larger request goes alone
	MaxWait   time.Duration // how long Accept waits for its commit, 2 s
	MaxBytes  int           // of payloads in one transaction, 8 MiB; a larger request goes alone
	MaxHeld   int           // bytes of payloads that one tenant may have waiting, 128 MiB
	MaxQueued int           // events that one tenant may have waiting, 30,000
	Writers   int           // transactions at once, 1; more only for a store that has several writers
	Spool     Spool         // nil: none; the committer does not close it
	Probe     time.Duration // how often a store that is away is tried, 1 s
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
//
// With a spool, events are kept there while the store is away, and go to the
// store when it is back: see Spool.
type Committer struct {
	store Store
	opt   Options
	known map[string]bool // provider names that may be a label

	mu      sync.Mutex // guards what follows
	work    *sync.Cond // there is something to commit, or the end
	tenants map[int64]*lane
	turn    []int64 // tenants with something waiting, in the order they are served
	bulk    *replay // waits to be committed behind live requests; nil: nothing
	row     int     // live batches taken since bulk waits
	closed  bool    // nothing more is accepted
	ended   bool    // nothing more will come

	writers sync.WaitGroup
	breaker breaker
	drain   drain
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

	// Under the committer's lock:
	settling bool // its commit is over; what becomes of it is being written
	spooled  bool // its caller has put it into the spool, and counts it
	left     bool // its caller is gone
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
	if o.Probe == 0 {
		o.Probe = time.Second
	}
	c := &Committer{store: st, opt: o, tenants: map[int64]*lane{}, known: map[string]bool{"api": true, "manual": true}, drain: newDrain()}
	c.work = sync.NewCond(&c.mu)
	for _, p := range provider.All() {
		c.known[p.Name] = true
	}
	for range max(o.Writers, 1) {
		c.writers.Go(c.run)
	}
	if o.Spool != nil {
		c.drain.finish.Go(c.runDrain)
	}
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
	if c.Away() {
		return c.acceptAway(ctx, r)
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
		return c.overdue(ctx, r)
	case <-ctx.Done():
		c.mu.Lock()
		r.left = true
		c.mu.Unlock()
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
	c.work.Signal()
	return nil
}

// Close commits what is waiting and ends the committer; later calls of Accept
// are refused. What the spool holds is taken out as far as that is quickly
// done; the rest stays in it.
func (c *Committer) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.drain.stop()
	c.drain.finish.Wait()
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.work.Broadcast()
	c.writers.Wait()
}

func (c *Committer) run() {
	for {
		switch batch, bulk := c.next(); {
		case bulk != nil:
			c.replay(bulk)
			close(bulk.done)
		case batch != nil:
			c.commit(batch)
		default:
			return
		}
	}
}

// liveInARow is how many live batches are taken while a replay waits: neither
// starves the other.
const liveInARow = 8

// next waits for something to commit, live requests before the spool's events.
// Both are nil at the end.
func (c *Committer) next() ([]*request, *replay) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		live := len(c.turn) > 0
		switch {
		case c.bulk != nil && (!live || c.row >= liveInARow):
			bulk := c.bulk
			c.bulk, c.row = nil, 0
			return nil, bulk
		case live:
			if c.bulk != nil {
				c.row++
			}
			return c.gather(), nil
		case c.ended:
			return nil, nil
		}
		c.work.Wait()
	}
}

// gather takes the next batch: one request of each waiting tenant in turn. The
// caller has the lock.
func (c *Committer) gather() []*request {
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
	st := c.settle(events)
	c.mu.Lock()
	for _, r := range batch {
		r.settling = true
	}
	c.mu.Unlock()
	if len(st.away) > 0 && c.opt.Spool != nil {
		c.spoolFailed(batch, st)
	}
	at := 0
	for _, r := range batch {
		r.results = st.results[at : at+len(r.events)]
		for i := range r.events {
			if err := st.errs[at+i]; err != nil && r.err == nil {
				r.err = err
			}
		}
		at += len(r.events)
		c.mu.Lock()
		counts := r.err == nil && !r.spooled
		close(r.done)
		c.mu.Unlock()
		if counts {
			c.count(r)
		}
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
		c.outcome(p, &r.events[i], res)
	}
}

func (c *Committer) outcome(label string, e *event.Event, res store.Result) {
	c.opt.Metrics.Events.WithLabelValues(label, string(res.Outcome)).Inc()
	switch {
	case res.Outcome == event.OutcomeDead:
		c.opt.Metrics.DeadLetters.WithLabelValues(res.Reason).Inc()
	case res.Outcome == event.OutcomeIgnored && e.Control: // not the source's on_unmatched, whose kind is known
		c.opt.Metrics.Ignored.Inc(label, e.Kind)
	}
}
