package redisq

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

const (
	chunk       = 1000 // numbers in one call of a script
	mostTenants = 1000 // that Stats looks at for what is due
)

// group are numbers with one sorted set.
type group struct {
	done  []int64
	again []store.Parked
}

// place is a sorted set within a shard.
type place struct {
	tenant int64
	route  event.Route
}

// sorted keeps what belongs together, by shard and place, in the order it came.
type sorted struct {
	queue  *Queue
	shards []shardGroups
}

type shardGroups struct {
	places []place
	groups map[place]*group
}

func (q *Queue) sorted() *sorted { return &sorted{q, make([]shardGroups, len(q.shards))} }

func (s *sorted) at(seq, tenant int64, route event.Route) *group {
	of := &s.shards[s.queue.shardOf(seq)]
	p := place{tenant, route}
	if of.groups == nil {
		of.groups = map[place]*group{}
	}
	g := of.groups[p]
	if g == nil {
		g = &group{}
		of.groups[p] = g
		of.places = append(of.places, p)
	}
	return g
}

// Park has events wait until their delay is over. One that is there already
// stays as it is. An error may leave a part of them parked, and parking again
// is harmless.
func (q *Queue) Park(ctx context.Context, parked []store.Parked) error {
	for len(parked) > 0 {
		n := min(chunk, len(parked))
		s := q.sorted()
		for _, p := range parked[:n] {
			g := s.at(p.Seq, p.Tenant, p.Route)
			g.again = append(g.again, p)
		}
		parked = parked[n:]
		for i, of := range s.shards {
			var args []string
			for _, p := range of.places {
				g := of.groups[p]
				args = append(args, string(p.route), decimal(p.tenant), decimal(len(g.again)))
				for _, e := range g.again {
					args = append(args, decimal(e.Seq), millis(e.Delay))
				}
			}
			if len(args) == 0 {
				continue
			}
			if _, err := q.run(ctx, q.script.park, q.shards[i], args); err != nil {
				return err
			}
		}
	}
	return nil
}

// Claim takes at most n due events under a lease: weighted over the routes, in
// turn over the tenants, the longest due first. next is how long it is until
// another may be claimed, negative when none waits. A lease that runs out makes
// its events claimable again.
func (q *Queue) Claim(ctx context.Context, n int, lease time.Duration) (claim store.Claim, next time.Duration, err error) {
	claim = store.Claim{Token: rand.Int64(), External: true} //nolint:gosec // a token tells claims apart, and guards nothing
	next = -1
	first := q.turn.Add(1)
	for i := range uint64(len(q.shards)) {
		want := n - len(claim.Events)
		if want <= 0 {
			return claim, 0, nil
		}
		args := []string{decimal(want), millis(lease), decimal(claim.Token)}
		for _, r := range event.Routes() {
			args = append(args, string(r), decimal(store.Share(r)))
		}
		res, err := q.run(ctx, q.script.claim, q.shards[(first+i)%uint64(len(q.shards))], args)
		if err == nil {
			var wait time.Duration
			wait, err = claimed(&claim, res)
			if wait >= 0 && (next < 0 || wait < next) {
				next = wait
			}
		}
		if err != nil && len(claim.Events) == 0 {
			return claim, 0, err
		}
	}
	return claim, next, nil
}

// claimed adds what a claim's script answered: the wait, then groups of route,
// tenant, n and n numbers.
func claimed(claim *store.Claim, res rueidis.RedisResult) (wait time.Duration, err error) {
	all, err := res.ToArray()
	if err != nil || len(all) == 0 {
		return -1, fault.Wrap(fault.Internal, "read a claim", cmp.Or(err, errors.New("it is empty")))
	}
	var bad error
	number := func(i int) int64 {
		n, err := all[i].AsInt64()
		if err != nil {
			bad = err
		}
		return n
	}
	wait = time.Duration(number(0)) * time.Millisecond
	for i := 1; i+2 < len(all) && bad == nil; {
		route, err := all[i].ToString()
		tenant, n := number(i+1), int(number(i+2))
		if err != nil || n < 0 || i+2+n >= len(all) {
			return -1, fault.Wrap(fault.Internal, "read a claim", cmp.Or(err, errors.New("it ends too early")))
		}
		for k := range n {
			claim.Events = append(claim.Events, store.Claimed{Seq: number(i + 3 + k), Tenant: tenant, Route: event.Route(route)})
		}
		i += 3 + n
	}
	return wait, fault.Wrap(fault.Internal, "read a claim", bad)
}

// Settle ends what a claim did: numbers that are done are taken out, others
// wait again. What the claim does not hold any more is left alone, and so is
// what is not mentioned.
func (q *Queue) Settle(ctx context.Context, claim store.Claim, done []store.Claimed, again []store.Parked) error {
	s := q.sorted()
	for _, e := range done {
		g := s.at(e.Seq, e.Tenant, e.Route)
		g.done = append(g.done, e.Seq)
	}
	for _, p := range again {
		g := s.at(p.Seq, p.Tenant, p.Route)
		g.again = append(g.again, p)
	}
	for i, of := range s.shards {
		if len(of.places) == 0 {
			continue
		}
		args := []string{decimal(claim.Token)}
		for _, p := range of.places {
			g := of.groups[p]
			args = append(args, string(p.route), decimal(p.tenant), decimal(len(g.done)), decimal(len(g.again)))
			for _, seq := range g.done {
				args = append(args, decimal(seq))
			}
			for _, e := range g.again {
				args = append(args, decimal(e.Seq), millis(e.Delay))
			}
		}
		if _, err := q.run(ctx, q.script.settle, q.shards[i], args); err != nil {
			return err
		}
	}
	return nil
}

// Release gives a claim back: what it still holds is due now.
func (q *Queue) Release(ctx context.Context, claim store.Claim) error {
	again := make([]store.Parked, len(claim.Events))
	for i, e := range claim.Events {
		again[i] = store.Parked{Seq: e.Seq, Tenant: e.Tenant, Route: e.Route}
	}
	return q.Settle(ctx, claim, nil, again)
}

// Remove takes out events that wait no longer, whoever holds them.
func (q *Queue) Remove(ctx context.Context, gone []store.Claimed) error {
	for len(gone) > 0 {
		n := min(chunk, len(gone))
		s := q.sorted()
		for _, e := range gone[:n] {
			g := s.at(e.Seq, e.Tenant, e.Route)
			g.done = append(g.done, e.Seq)
		}
		gone = gone[n:]
		for i, of := range s.shards {
			var args []string
			for _, p := range of.places {
				g := of.groups[p]
				args = append(args, string(p.route), decimal(p.tenant), decimal(len(g.done)))
				for _, seq := range g.done {
					args = append(args, decimal(seq))
				}
			}
			if len(args) == 0 {
				continue
			}
			if _, err := q.run(ctx, q.script.remove, q.shards[i], args); err != nil {
				return err
			}
		}
	}
	return nil
}

// Stats are the depths by route, at O(tenants that have due work): counted, not
// scanned. OldestAt is not known here. An event whose lease ran out counts as
// due, and as leased until it is claimed again.
func (q *Queue) Stats(ctx context.Context) (map[event.Route]store.RouteStats, error) {
	all := map[event.Route]store.RouteStats{}
	args := []string{decimal(mostTenants)}
	for _, r := range event.Routes() {
		args = append(args, string(r))
	}
	for _, shard := range q.shards {
		res, err := q.run(ctx, q.script.stats, shard, args)
		if err != nil {
			return nil, err
		}
		n, err := res.AsIntSlice()
		if err != nil || len(n) != 3*len(event.Routes()) {
			return nil, fault.Wrap(fault.Internal, "read the depths", cmp.Or(err, errors.New("it ends too early")))
		}
		for i, r := range event.Routes() {
			st := all[r]
			st.Depth, st.Due, st.Leased = st.Depth+n[3*i], st.Due+n[3*i+1], st.Leased+n[3*i+2]
			all[r] = st
		}
	}
	return all, nil
}

func decimal[N int | int64](n N) string { return strconv.FormatInt(int64(n), 10) }

// millis rounds up: what is claimed before it is due cannot be spent.
func millis(d time.Duration) string {
	return decimal((max(0, d) + time.Millisecond - 1).Milliseconds())
}
