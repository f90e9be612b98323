package redisq_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"tallyhook/internal/event"
	"tallyhook/internal/redisq"
	"tallyhook/internal/store"
	"tallyhook/internal/testenv"
)

const benchBatch = 50 // events of one claim

// fill parks n orphans that are due, over tenants and routes, and gives the
// bytes that each of them takes.
func fill(b *testing.B, r *testenv.Redis, q *redisq.Queue, n, tenants int) (bytes float64) {
	b.Helper()
	before := r.InfoInt("used_memory")
	routes := event.Routes()
	page := make([]store.Parked, 0, 1000)
	for i := range n {
		page = append(page, store.Parked{Seq: int64(i) + 1, Tenant: int64(rand.IntN(tenants)) + 1, Route: routes[i%len(routes)]})
		if len(page) == cap(page) || i == n-1 {
			if err := q.Park(b.Context(), page); err != nil {
				b.Fatal(err)
			}
			page = page[:0]
		}
	}
	return float64(r.InfoInt("used_memory")-before) / float64(n)
}

func BenchmarkPark(b *testing.B) {
	r := testenv.StartRedis(b, testenv.RedisOptions{})
	q := open(b, redisq.Options{URL: r.URL(), Timeout: upTimeout})
	page := make([]store.Parked, 500)
	seq := int64(0)
	for b.Loop() {
		for i := range page {
			seq++
			page[i] = store.Parked{Seq: seq, Tenant: seq%100 + 1, Route: event.RouteStandard, Delay: time.Hour}
		}
		if err := q.Park(b.Context(), page); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(page))/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkClaimSettle claims and settles batches of 50, which wait again and
// are due again at once, so that the depth stays what it is. Next to each is
// the bare structure: two sorted set commands to claim and one to settle, without turns,
// routes, tokens or shards.
func BenchmarkClaimSettle(b *testing.B) {
	for _, of := range []struct{ depth, tenants int }{{10_000, 1}, {10_000, 100}, {1_000_000, 1}, {1_000_000, 100}} {
		depth := of.depth
		b.Run(fmt.Sprintf("%dParkedOf%d", depth, of.tenants), func(b *testing.B) {
			r := testenv.StartRedis(b, testenv.RedisOptions{})
			q := open(b, redisq.Options{URL: r.URL(), Timeout: upTimeout})
			bytes := fill(b, r, q, depth, of.tenants)
			for _, workers := range []int{1, 2} {
				b.Run(fmt.Sprintf("%dWorkers", workers), func(b *testing.B) {
					measure(b, workers, func() (time.Duration, error) { return claimSettle(b, q) })
					b.ReportMetric(bytes, "B/orphan")
				})
			}
			r.Do("FLUSHALL")
			bare := bareQueue(b, r, depth)
			for _, workers := range []int{1, 2} {
				b.Run(fmt.Sprintf("%dWorkersBare", workers), func(b *testing.B) {
					measure(b, workers, bare)
				})
			}
		})
	}
}

// measure runs turns of one batch on so many workers.
func measure(b *testing.B, workers int, turn func() (claim time.Duration, err error)) {
	var mu sync.Mutex
	var took []time.Duration
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				d, err := turn()
				if err != nil {
					b.Error(err)
					return
				}
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(b.N*benchBatch)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "claim-p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "claim-p99-µs")
}

func claimSettle(b *testing.B, q *redisq.Queue) (time.Duration, error) {
	start := time.Now()
	c, _, err := q.Claim(b.Context(), benchBatch, time.Minute)
	took := time.Since(start)
	if err != nil || len(c.Events) != benchBatch {
		return took, fmt.Errorf("claimed %d: %w", len(c.Events), err)
	}
	return took, q.Release(b.Context(), c)
}

// bareQueue is one sorted set, worked by single pipelined commands.
func bareQueue(b *testing.B, r *testenv.Redis, depth int) func() (time.Duration, error) {
	b.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{r.Addr}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	add := func(members []string, at time.Time) rueidis.Completed {
		z := c.B().Zadd().Key("bare").ScoreMember()
		for _, m := range members {
			z = z.ScoreMember(float64(at.UnixMilli()), m)
		}
		return z.Build()
	}
	for i := 0; i < depth; i += 1000 {
		var members []string
		for n := range 1000 {
			members = append(members, strconv.Itoa(i+n))
		}
		if err := c.Do(b.Context(), add(members, time.Now())).Error(); err != nil {
			b.Fatal(err)
		}
	}
	return func() (time.Duration, error) {
		start := time.Now()
		members, err := c.Do(b.Context(), c.B().Zrangebyscore().Key("bare").Min("-inf").Max(strconv.FormatInt(start.UnixMilli(), 10)).
			Limit(0, benchBatch).Build()).AsStrSlice()
		if err != nil || len(members) == 0 {
			return 0, fmt.Errorf("claimed %d: %w", len(members), err)
		}
		if err := c.Do(b.Context(), add(members, start.Add(time.Minute))).Error(); err != nil {
			return 0, err
		}
		took := time.Since(start)
		return took, c.Do(b.Context(), add(members, time.Now())).Error()
	}
}
