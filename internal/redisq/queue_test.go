package redisq_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tallyhook/internal/event"
	"tallyhook/internal/orphan/queuetest"
	"tallyhook/internal/redisq"
	"tallyhook/internal/store"
	"tallyhook/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// upTimeout is how long Redis may take to be found on a busy machine.
const upTimeout = time.Minute

// open makes a queue and waits until it is connected.
func open(t testing.TB, o redisq.Options) *redisq.Queue {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	q, err := redisq.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	if !testenv.Poll(upTimeout, func() bool { return q.State().Up }) {
		t.Fatalf("the queue does not come up: %s", q.State().Reason)
	}
	return q
}

// bed puts a queue in Redis under the suite of queues.
type bed struct {
	*redisq.Queue
	t     testing.TB
	redis *testenv.Redis
	seq   int64
	last  []store.Parked
}

func newBed(t testing.TB, o redisq.Options) *bed {
	t.Helper()
	r := testenv.StartRedis(t, testenv.RedisOptions{NoAppendOnly: true})
	o.URL = r.URL()
	o.Timeout = upTimeout // the suite is about what happens, not about how soon
	return &bed{Queue: open(t, o), t: t, redis: r}
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) Tenants(n int) []int64 {
	all := make([]int64, n)
	for i := range all {
		all[i] = int64(i) + 1
	}
	return all
}

func (b *bed) Park(tenant int64, route event.Route, delay time.Duration, n int) []int64 {
	b.t.Helper()
	b.last = b.last[:0]
	var seqs []int64
	for range n {
		b.seq++
		seqs = append(seqs, b.seq)
		b.last = append(b.last, store.Parked{Seq: b.seq, Tenant: tenant, Route: route, Delay: delay})
	}
	b.ParkAgain()
	return seqs
}

func (b *bed) ParkAgain() { b.t.Helper(); b.must(b.Queue.Park(queuetest.Context(b.t), b.last)) }

func (b *bed) Claim(n int, lease time.Duration) store.Claim {
	b.t.Helper()
	c, _, err := b.Queue.Claim(queuetest.Context(b.t), n, lease)
	b.must(err)
	return c
}

func (b *bed) Finish(c store.Claim) {
	b.t.Helper()
	b.must(b.Settle(queuetest.Context(b.t), c, c.Events, nil))
}

func (b *bed) Again(c store.Claim, delay time.Duration) {
	b.t.Helper()
	again := make([]store.Parked, len(c.Events))
	for i, e := range c.Events {
		again[i] = store.Parked{Seq: e.Seq, Tenant: e.Tenant, Route: e.Route, Delay: delay}
	}
	b.must(b.Settle(queuetest.Context(b.t), c, nil, again))
}

func (b *bed) Release(c store.Claim) {
	b.t.Helper()
	b.must(b.Queue.Release(queuetest.Context(b.t), c))
}

func (b *bed) Stats() map[event.Route]store.RouteStats {
	b.t.Helper()
	all, err := b.Queue.Stats(queuetest.Context(b.t))
	b.must(err)
	return all
}

// Advance moves every moment that the queue holds into the past, which is the
// same as moving the clock of Redis on.
func (b *bed) Advance(d time.Duration) {
	b.t.Helper()
	b.redis.Do("EVAL", `for _, key in ipairs(redis.call('KEYS', '*')) do
		if redis.call('TYPE', key).ok == 'zset' then
			for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -ARGV[1], member) end
		end
	end`, "0", fmt.Sprint(d.Milliseconds()))
}

// Cost counts commands, those of scripts included, but not the looks that the
// queue takes beside.
func (b *bed) Cost() int64 {
	b.t.Helper()
	var n int64
	for _, command := range []string{"zadd", "zrange", "zrem", "zscore", "zcount", "hset", "hdel", "hmget", "hincrby", "hlen"} {
		n += b.redis.Calls(command)
	}
	return n
}

func TestQueue(t *testing.T) {
	t.Parallel()
	for name, shards := range map[string]int{"OneShard": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			queuetest.Run(t, func(t testing.TB) queuetest.Bed { return newBed(t, redisq.Options{Shards: shards}) })
		})
	}
}

var _ = strings.Contains
