package ingest

import (
	"context"
	"fmt"
	"log/slog"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// settlement is what became of a batch: a result or an error for each event.
type settlement struct {
	events  []event.Event
	results []store.Result
	errs    []error
	away    []int // events whose error is that the store is away
	odd     []int // of a replay: events that the store fails at, for no reason that it knows
	settled int   // events with a result
	replay  bool
}

// settle commits events, all or, when the store refuses the data of one, the
// others without it. Errors of the infrastructure fail the whole.
func (c *Committer) settle(events []event.Event) *settlement {
	st := newSettlement(events)
	c.settleAll(st)
	return st
}

func newSettlement(events []event.Event) *settlement {
	return &settlement{events: events, results: make([]store.Result, len(events)), errs: make([]error, len(events))}
}

func (c *Committer) settleAll(st *settlement) {
	all := make([]int, len(st.events))
	for i := range all {
		all[i] = i
	}
	if c.Away() && !st.replay { // a replay is how it is tried
		st.fail(all, fault.New(fault.Unavailable, "the database is away"))
		return
	}
	start := c.opt.Now()
	c.settlePart(st, all)
	c.opt.Metrics.CommitDuration.Observe(c.opt.Now().Sub(start).Seconds())
	c.opt.Metrics.CommitBatch.Observe(float64(len(st.events)))
}

// fail gives events of a batch the error of the infrastructure.
func (st *settlement) fail(part []int, err error) {
	for _, at := range part {
		st.errs[at] = err
	}
	st.away = append(st.away, part...)
}

func (c *Committer) settlePart(st *settlement, part []int) {
	ctx := context.Background() // a commit outlives the request that asked for it
	got, err := c.tryCommit(ctx, pick(st.events, part))
	switch {
	case err == nil:
		c.breaker.close()
		for i, at := range part {
			st.results[at] = got[i]
			switch {
			case !got[i].Refused:
				st.settled++
			case st.replay:
				c.buryRefused(ctx, st, at)
			default:
				st.errs[at] = errNonce
			}
		}
	case fault.Is(err, fault.Data) && len(part) == 1:
		c.buryPart(ctx, st, part[0], err)
	case fault.Is(err, fault.Data), c.odd(st, err) && len(part) > 1:
		for _, half := range split(st.events, part) {
			if len(st.away) > 0 && c.opt.Spool != nil {
				st.fail(half, st.errs[st.away[0]]) // one wait for a store that is away is enough
				continue
			}
			c.settlePart(st, half)
		}
	case c.odd(st, err):
		c.opt.Logger.ErrorContext(ctx, "the store fails at an event", slog.String("event_id", st.events[part[0]].ID.String()), slog.Any("error", err))
		st.errs[part[0]] = err
		st.odd = append(st.odd, part[0])
	default:
		c.opt.Logger.ErrorContext(ctx, "commit failed", slog.Any("error", err), slog.Int("events", len(part)))
		if fault.Is(err, fault.Unavailable) {
			st.fail(part, fault.Wrap(fault.Unavailable, "commit", err))
			return
		}
		for _, at := range part { // a defect: kept nowhere, the sender has it
			st.errs[at] = fault.Wrap(fault.Unavailable, "commit", err)
		}
	}
}

// buryRefused keeps an event of the spool whose nonce has come with another one
// meanwhile, on another replica, as a dead letter: it was answered as kept, and
// which of the two is the sender's nobody can tell.
func (c *Committer) buryRefused(ctx context.Context, st *settlement, at int) {
	res, err := c.store.CommitDead(ctx, st.events[at:at+1], store.ReasonNonceReused, errNonce.Error())
	st.buried(at, res, err)
}

func (c *Committer) buryPart(ctx context.Context, st *settlement, at int, cause error) {
	res, err := c.bury(ctx, st.events[at], cause)
	if st.buried(at, res, err) {
		c.breaker.close()
	}
}

// buried notes what became of an event that was to be buried alone, and tells
// whether it was.
func (st *settlement) buried(at int, res []store.Result, err error) bool {
	switch {
	case err == nil:
		st.results[at] = res[0]
		st.settled++
	case fault.Is(err, fault.Unavailable):
		st.fail([]int{at}, fault.Wrap(fault.Unavailable, "commit", err))
	default:
		st.errs[at] = fault.Wrap(fault.Unavailable, "commit", err)
		st.odd = append(st.odd, at)
	}
	return err == nil
}

// maxOdd is how many events are looked at alone while none has gone through:
// then it is the store, and not they.
const maxOdd = 8

// odd tells whether an error may come from one event of a replay. The store
// does not say so, hence it is only believed while others go through.
func (c *Committer) odd(st *settlement, err error) bool {
	return st.replay && !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Data) && (st.settled > 0 || len(st.odd) < maxOdd)
}

// tryCommit tries again, with the same ids, when the store was only busy: a
// commit of unknown outcome is then met and not counted twice.
func (c *Committer) tryCommit(ctx context.Context, events []event.Event) ([]store.Result, error) {
	results, err := c.store.Commit(ctx, events)
	if err != nil && fault.Is(err, fault.Unavailable) && !c.Away() {
		results, err = c.store.Commit(ctx, events)
	}
	return results, err
}

// bury keeps an event that the store refuses alone as a dead letter: with its
// fields if these can be stored, else with its payload only.
func (c *Committer) bury(ctx context.Context, e event.Event, cause error) ([]store.Result, error) {
	detail := "the database refuses this event"
	c.opt.Logger.ErrorContext(ctx, "event refused by the store", slog.String("event_id", e.ID.String()), slog.Any("error", cause))
	res, err := c.store.CommitDead(ctx, []event.Event{e}, store.ReasonPoison, detail)
	if err != nil && fault.Is(err, fault.Data) {
		id := e.Identity()
		bare := event.Event{
			ID: e.ID, Tenant: e.Tenant, SourceID: e.SourceID, Scope: e.Scope, Provider: e.Provider,
			ReceivedAt: e.ReceivedAt, OccurredAt: e.ReceivedAt, OccurredAtEstimated: true,
			IdentityParts: []string{"poison", string(id[:])}, Payload: e.Payload, Nonce: e.Nonce,
		}
		res, err = c.store.CommitDead(ctx, []event.Event{bare}, store.ReasonPoison, detail)
	}
	if err != nil {
		return nil, fmt.Errorf("bury event: %w", err)
	}
	return res, nil
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
