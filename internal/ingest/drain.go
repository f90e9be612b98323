package ingest

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// closeDrain is how long Close goes on with taking events out of the spool.
const closeDrain = 2 * time.Second

// drain takes the spool's events to the store, the oldest first, in batches of
// half a live one. It reads and removes; the committer's writers commit.
type drain struct {
	wake   chan struct{}
	ending context.Context //nolint:containedctx // ends with the committer, which has no other
	stop   context.CancelFunc
	finish sync.WaitGroup
}

func newDrain() drain {
	ctx, cancel := context.WithCancel(context.Background())
	return drain{wake: make(chan struct{}, 1), ending: ctx, stop: cancel}
}

// poke tells the drain that there is something in the spool.
func (d *drain) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// replay is a part of the spool on its way through the committer.
type replay struct {
	entries []store.Spooled
	err     error // why not all of it is done with
	done    chan struct{}
}

func (c *Committer) runDrain() {
	for c.drain.ending.Err() == nil {
		more, err := c.drainNext(context.Background())
		switch {
		case err != nil:
			c.drainFailed(err)
			c.pause(c.drain.ending)
		case !more:
			select {
			case <-c.drain.wake:
			case <-c.drain.ending.Done():
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeDrain)
	defer cancel()
	for more := true; more && !c.Away() && ctx.Err() == nil; {
		var err error
		if more, err = c.drainNext(ctx); err != nil {
			c.drainFailed(err)
			return
		}
	}
}

func (c *Committer) drainFailed(err error) {
	c.opt.Logger.Warn("spool not emptied, it will be tried again", slog.Any("error", err), slog.Int64("events", c.opt.Spool.Stats().Events))
}

// pause waits until the store is to be tried again.
func (c *Committer) pause(ctx context.Context) {
	timer := time.NewTimer(c.opt.Probe)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// drainNext takes one batch out of the spool; more is false when there is
// nothing in it.
func (c *Committer) drainNext(ctx context.Context) (more bool, err error) {
	entries, unread, err := c.opt.Spool.Next(ctx, max(c.opt.MaxBatch/2, 1), int64(c.opt.MaxBytes))
	if len(unread) > 0 {
		c.opt.Logger.ErrorContext(ctx, "entries of the spool cannot be read by this release; they are kept until the next start", slog.Any("entries", unread))
	}
	if err != nil || len(entries) == 0 {
		// Nothing to try the store with: the next request does that.
		c.breaker.close()
		return len(unread) > 0, err
	}
	b := &replay{entries: entries, done: make(chan struct{})}
	c.mu.Lock()
	c.bulk = b
	c.mu.Unlock()
	c.work.Signal()
	<-b.done
	return true, b.err
}

// replay commits a part of the spool and removes what is in the store then. A
// crash between the two makes the next replay meet its own ids.
func (c *Committer) replay(b *replay) {
	ctx := context.Background()
	done, odd, err := c.replayEvents(b.entries)
	if err == nil {
		bodies, bodiesOdd, berr := c.replayBodies(ctx, b.entries)
		done, odd, err = append(done, bodies...), append(odd, bodiesOdd...), berr
	}
	if fault.Is(err, fault.Unavailable) {
		c.breaker.open()
	}
	switch {
	case len(odd) == 0:
	case len(done) > 0: // so it is they, and not the store
		c.opt.Logger.ErrorContext(ctx, "the store fails at entries of the spool; they are kept until the next start", slog.Any("entries", odd))
		err = errors.Join(err, c.opt.Spool.Aside(ctx, odd))
	case err == nil:
		err = fault.New(fault.Internal, "the store fails at what the spool holds")
	}
	if len(done) > 0 {
		err = errors.Join(err, c.opt.Spool.Done(ctx, done))
	}
	b.err = err
}

// replayEvents tells which entries are done with, and which the store fails at
// for no reason that it knows. An error means that others are left.
func (c *Committer) replayEvents(entries []store.Spooled) (done, odd []int64, err error) {
	var events []event.Event
	var seqs []int64
	for _, e := range entries {
		if e.Body == nil {
			events, seqs = append(events, e.Event), append(seqs, e.Seq)
		}
	}
	if len(events) == 0 {
		return nil, nil, nil
	}
	st := newSettlement(events)
	st.replay = true
	c.settleAll(st)
	for _, at := range st.odd {
		odd = append(odd, seqs[at])
	}
	for i := range events {
		switch {
		case st.errs[i] == nil:
			done = append(done, seqs[i])
			c.outcome(c.label(events[i].Provider), &events[i], st.results[i])
		case err == nil && !slices.Contains(st.odd, i):
			err = st.errs[i]
		}
	}
	return done, odd, err
}

func (c *Committer) replayBodies(ctx context.Context, entries []store.Spooled) (done, odd []int64, err error) {
	for _, e := range entries {
		if e.Body == nil {
			continue
		}
		res, err := c.store.CommitBody(ctx, *e.Body)
		switch {
		case err == nil:
			done = append(done, e.Seq)
			c.breaker.close()
			if res.Outcome == event.OutcomeDead || res.ID == e.Body.ID { // its own id is that of a commit of unknown outcome
				c.opt.Metrics.DeadLetters.WithLabelValues(e.Body.Reason).Inc()
			}
		case fault.Is(err, fault.Unavailable):
			return done, odd, err
		default:
			c.opt.Logger.ErrorContext(ctx, "body not kept in the database", slog.Any("error", err))
			odd = append(odd, e.Seq)
		}
	}
	return done, odd, nil
}
