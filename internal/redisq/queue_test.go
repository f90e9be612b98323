package redisq_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/orphan/queuetest"
	"tallyhook/internal/redisq"
	"tallyhook/internal/store"
	"tallyhook/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func same[V comparable](t testing.TB, what string, got, want V) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

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

func newBed(t testing.TB) *bed {
	t.Helper()
	r := testenv.StartRedis(t, testenv.RedisOptions{NoAppendOnly: true})
	// The suite is about what happens, not about how soon.
	return &bed{Queue: open(t, redisq.Options{URL: r.URL(), Timeout: upTimeout}), t: t, redis: r}
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
	queuetest.Run(t, 100_000, func(t testing.TB) queuetest.Bed { return newBed(t) })
}

// TestManyTenantsAllGetTheirTurn: with more tenants than a claim has room for,
// who was served longest ago is next, however much the others have.
func TestManyTenantsAllGetTheirTurn(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	tenants := b.Tenants(60)
	for _, tenant := range tenants {
		b.Park(tenant, event.RouteBulk, 0, 20)
	}
	b.Advance(time.Hour)
	served := map[int64]int{}
	for range 30 {
		c := b.Claim(10, time.Hour)
		same(t, "claimed", len(c.Events), 10)
		for _, e := range c.Events {
			served[e.Tenant]++
		}
		b.Advance(time.Second)
	}
	for _, tenant := range tenants {
		same(t, fmt.Sprintf("claimed of tenant %d", tenant), served[tenant], 5)
	}
}

// TestLargeArguments: more numbers than Lua can unpack, in one settle.
func TestLargeArguments(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const n = 30_000
	b.Park(1, event.RouteUrgent, 0, n)
	b.Advance(time.Hour)
	c := b.Claim(n, time.Hour)
	same(t, "claimed", len(c.Events), n)
	b.Again(c, time.Hour)
	same(t, "depths", b.Stats()[event.RouteUrgent], store.RouteStats{Depth: n})
	b.must(b.Remove(t.Context(), c.Events))
	same(t, "depths", b.Stats()[event.RouteUrgent], store.RouteStats{})
	same(t, "keys left", b.redis.Do("KEYS", "*:{0}:[qtl]*"), "")
}

// TestScriptsForgotten: a Redis that has lost the scripts is given them again.
func TestScriptsForgotten(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Park(1, event.RouteUrgent, 0, 1)
	b.redis.Do("SCRIPT", "FLUSH")
	b.Advance(time.Hour)
	c := b.Claim(1, time.Hour)
	b.redis.Do("SCRIPT", "FLUSH")
	b.Finish(c)
	same(t, "depths", b.Stats()[event.RouteUrgent], store.RouteStats{})
}

// TestNothingHasATimeToLive: a key that ends by itself would be lost work.
func TestNothingHasATimeToLive(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Park(1, event.RouteUrgent, 0, 10)
	b.Advance(time.Hour)
	b.Claim(5, time.Hour)
	b.must(b.BeginRebuild(t.Context(), "a"))
	if _, err := b.FinishRebuild(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	for key := range strings.Lines(b.redis.Do("KEYS", "*")) {
		same(t, "ttl of "+key, b.redis.Do("TTL", strings.TrimSpace(key)), "-1")
	}
}

// TestFullRedisDrains: parking is refused and changes nothing, while all that
// makes room goes on.
func TestFullRedisDrains(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Park(1, event.RouteUrgent, 0, 100)
	b.Advance(time.Hour)
	b.redis.Do("CONFIG", "SET", "maxmemory", "1")
	err := b.Queue.Park(t.Context(), []store.Parked{{Seq: 1000, Tenant: 1, Route: event.RouteUrgent}})
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("parking in a full Redis gives %v", err)
	}
	for n := int64(100); n > 0; n -= 50 {
		same(t, "depth", b.Stats()[event.RouteUrgent].Depth, n)
		b.Finish(b.Claim(50, time.Hour))
	}
	same(t, "depth", b.Stats()[event.RouteUrgent].Depth, 0)
	same(t, "up", b.State().Up, true)
}

// TestRebuildThatLostSomethingIsNotWhole: what happens during a rebuild counts.
func TestRebuildThatLostSomethingIsNotWhole(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	finish := func(generation string) bool {
		ok, err := b.FinishRebuild(t.Context(), generation)
		b.must(err)
		return ok
	}
	same(t, "whole at first", b.State().Whole, false)
	b.must(b.BeginRebuild(t.Context(), "a"))
	same(t, "finished", finish("a"), true)
	same(t, "whole", b.State().Whole, true)
	same(t, "finished twice", finish("a"), false)
	b.must(b.BeginRebuild(t.Context(), "b"))
	b.redis.Do("FLUSHALL")
	same(t, "finished after a flush", finish("b"), false)
	same(t, "whole", b.State().Whole, false)
	b.must(b.BeginRebuild(t.Context(), "c"))
	same(t, "finished", finish("c"), true)
	b.redis.Do("FLUSHALL")
	testenv.Eventually(t, upTimeout, "the loss is noticed", func() bool { return !b.State().Whole })
}

// TestShardsAndCluster: whatever the number of parts, on a cluster too, every
// number is claimed once and found again to be settled.
func TestShardsAndCluster(t *testing.T) {
	t.Parallel()
	for name, cluster := range map[string]bool{"OneServer": false, "Cluster": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testenv.StartRedis(t, testenv.RedisOptions{NoAppendOnly: true, Cluster: cluster})
			b := &bed{Queue: open(t, redisq.Options{URL: r.URL(), Shards: 7, Timeout: upTimeout}), t: t, redis: r}
			for _, tenant := range b.Tenants(5) {
				b.Park(tenant, event.RouteUrgent, 0, 100)
				b.Park(tenant, event.RouteBulk, 0, 100)
			}
			b.Advance(time.Hour)
			seen := map[int64]bool{}
			for range 20 {
				c := b.Claim(50, time.Hour)
				same(t, "claimed", len(c.Events), 50)
				for _, e := range c.Events {
					if seen[e.Seq] {
						t.Fatalf("%d was claimed twice", e.Seq)
					}
					seen[e.Seq] = true
				}
				b.Release(store.Claim{Token: c.Token + 1, Events: c.Events})
				b.Finish(c)
			}
			same(t, "left", len(b.Claim(50, time.Hour).Events), 0)
			same(t, "depths", b.Stats()[event.RouteUrgent], store.RouteStats{})
			b.must(b.BeginRebuild(t.Context(), "a"))
			ok, err := b.FinishRebuild(t.Context(), "a")
			same(t, "finished", ok, true)
			b.must(err)
			_, err = b.Safety(t.Context())
			b.must(err)
		})
	}
}
