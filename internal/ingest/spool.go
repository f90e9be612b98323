package ingest

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// Spool keeps what was accepted while the store is away: on disk when Append
// returns, until Done. See store/spool, whose errors are all of kind Unavailable.
//
// Events go to it when their commit has failed, when the wait for it runs
// over, and at once while the store is known to be away. They come out of it
// through the same commit, behind live requests, and are removed after it. The
// ids they were given at first are kept, so whatever became of a commit of
// unknown outcome, the replay meets it and nothing counts twice.
type Spool interface {
	Append(ctx context.Context, events []event.Event) error
	AppendBody(ctx context.Context, l store.Letter) error
	Next(ctx context.Context, n int, maxBytes int64) (entries []store.Spooled, unread []int64, err error)
	Aside(ctx context.Context, seqs []int64) error
	Done(ctx context.Context, seqs []int64) error
	Stats() store.SpoolStats
}

// breaker remembers that the store is away. It opens when a commit has failed
// and its events are safe in the spool, and closes when the store answers: to
// the oldest events of the spool, which are tried once in a while.
type breaker struct{ away atomic.Bool }

func (b *breaker) open()  { b.away.Store(true) }
func (b *breaker) close() { b.away.Store(false) }

// Away tells whether events go straight to the spool because the store is
// known to be away.
func (c *Committer) Away() bool { return c.breaker.away.Load() }

// acceptAway puts a request into the spool without asking the store.
func (c *Committer) acceptAway(ctx context.Context, r *request) ([]store.Result, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return nil, fault.New(fault.Unavailable, "the server is shutting down")
	}
	if err := c.opt.Spool.Append(ctx, r.events); err != nil {
		return nil, err
	}
	return c.answerSpooled(r), nil
}

// overdue ends the wait for a commit. With a spool the events go there, also
// while their commit is still running: its outcome may take many times as long
// as the sender waits, and if it comes to be stored after all, the replay
// meets its own ids. So the answer comes in time, at the cost of a replay that
// finds nothing to do.
func (c *Committer) overdue(ctx context.Context, r *request) ([]store.Result, error) {
	slow := &fault.Error{Kind: fault.Unavailable, Op: "accept", Msg: "the store is too slow to answer", RetryAfter: 5 * time.Second}
	if c.opt.Spool == nil {
		return nil, slow
	}
	c.mu.Lock()
	if r.settling {
		c.mu.Unlock()
		<-r.done // only the spool is between it and its end
		return r.results, r.err
	}
	c.withdraw(r)
	r.spooled = true
	c.mu.Unlock()
	err := c.opt.Spool.Append(ctx, r.events)
	if err == nil {
		c.drain.poke()
		return c.answerSpooled(r), nil
	}
	// Only the commit is left, if it is over by now.
	c.mu.Lock()
	r.spooled = false
	over := false
	select {
	case <-r.done:
		over = true
	default:
	}
	c.mu.Unlock()
	if over && r.err == nil {
		c.count(r)
		return r.results, nil
	}
	return nil, err
}

// withdraw takes a request that no commit has begun with out of its line. The
// caller has the lock.
func (c *Committer) withdraw(r *request) {
	tenant := r.events[0].Tenant
	l := c.tenants[tenant]
	if l == nil {
		return
	}
	for i, waiting := range l.requests {
		if waiting != r {
			continue
		}
		l.requests = append(l.requests[:i], l.requests[i+1:]...)
		l.events -= len(r.events)
		l.bytes -= r.bytes
		if len(l.requests) == 0 {
			delete(c.tenants, tenant)
			for j, t := range c.turn {
				if t == tenant {
					c.turn = append(c.turn[:j], c.turn[j+1:]...)
					break
				}
			}
		}
		return
	}
}

// spoolFailed keeps what a commit could not store, but for the requests whose
// callers have done so themselves, or are gone with nothing promised.
func (c *Committer) spoolFailed(batch []*request, st *settlement) {
	nobody := make([]bool, len(st.events))
	at := 0
	c.mu.Lock()
	for _, r := range batch {
		for range r.events {
			nobody[at] = r.spooled || r.left
			at++
		}
	}
	c.mu.Unlock()
	var part []int
	for _, at := range st.away {
		if !nobody[at] {
			part = append(part, at)
		}
	}
	if len(part) == 0 {
		c.breaker.open()
		c.drain.poke()
		return
	}
	err := c.opt.Spool.Append(context.Background(), pick(st.events, part))
	if err != nil {
		c.opt.Logger.Error("events can be kept neither in the database nor in the spool", slog.Any("error", err), slog.Int("events", len(part)))
	} else {
		c.breaker.open()
		c.drain.poke()
	}
	for _, at := range part {
		st.errs[at] = err
		if err == nil {
			st.results[at] = spooled(&st.events[at])
		}
	}
}

func spooled(e *event.Event) store.Result {
	return store.Result{ID: e.ID, Outcome: event.OutcomeSpooled, State: event.Spooled}
}

// answerSpooled counts a request that is safe in the spool. Its results are
// not put into it: its commit may be running.
func (c *Committer) answerSpooled(r *request) []store.Result {
	answer := &request{events: r.events, results: make([]store.Result, len(r.events))}
	for i := range r.events {
		answer.results[i] = spooled(&r.events[i])
	}
	c.count(answer)
	return answer.results
}

// CommitBody keeps an authentic body that cannot be read, in the store or,
// while that is away, in the spool.
func (c *Committer) CommitBody(ctx context.Context, l store.Letter) (store.Result, error) {
	if l.FirstReceivedAt.IsZero() {
		l.FirstReceivedAt = c.opt.Now().UTC().Truncate(time.Microsecond)
	}
	if c.opt.Spool == nil {
		return c.store.CommitBody(ctx, l)
	}
	if !c.Away() {
		res, err := c.tryBody(ctx, l)
		if !fault.Is(err, fault.Unavailable) {
			return res, err
		}
		c.opt.Logger.ErrorContext(ctx, "body not kept in the database", slog.Any("error", err))
	}
	// The same body of a source is the same letter: one that was stored after
	// all is met by the replay.
	if err := c.opt.Spool.AppendBody(ctx, l); err != nil {
		return store.Result{}, err
	}
	c.drain.poke()
	return store.Result{ID: l.ID, Outcome: event.OutcomeSpooled, State: event.Spooled, Reason: l.Reason, Detail: l.Error}, nil
}

func (c *Committer) tryBody(ctx context.Context, l store.Letter) (store.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.MaxWait)
	defer cancel()
	return c.store.CommitBody(ctx, l)
}
