package orphan_test

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tallyhook/internal/event"
	"tallyhook/internal/orphan"
	"tallyhook/internal/redisq"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
	"tallyhook/internal/telemetry"
	"tallyhook/internal/testenv"
)

// rig is a store, a queue in a real Redis and a worker of both.
type rig struct {
	*storetest.World
	t       *testing.T
	now     func() time.Time // of the store; Redis goes by its own
	redis   *testenv.Redis
	proxy   *testenv.Proxy // between the queue and Redis
	index   *redisq.Queue
	worker  atomic.Pointer[orphan.Worker]
	metrics *telemetry.Metrics
	sent    int
	ids     []uuid.UUID

	uncounted int // attempts spent by a test itself, which no metric knows
}

// rigAttempts is the length of a rig's schedule: attempts are due after a
// tenth of a second each.
const rigAttempts = 3

// newRig has all the time it needs for a call to Redis; newHastyRig finds out
// soon that there is no answer; newStillRig is on the world's own clock, which
// moves only when it is told.
func newRig(t *testing.T, o testenv.RedisOptions) *rig {
	t.Helper()
	return makeRig(t, o, time.Minute, time.Now)
}

func newHastyRig(t *testing.T, o testenv.RedisOptions) *rig {
	t.Helper()
	return makeRig(t, o, 0, time.Now)
}

func newStillRig(t *testing.T, o testenv.RedisOptions) *rig {
	t.Helper()
	return makeRig(t, o, time.Minute, nil)
}

func makeRig(t *testing.T, o testenv.RedisOptions, timeout time.Duration, now func() time.Time) *rig {
	t.Helper()
	r := &rig{t: t, now: now, metrics: telemetry.NewMetrics(prometheus.NewRegistry(), "test")}
	r.World = storetest.New(t, open, func(o *storetest.Options) {
		if now != nil {
			o.Now = now
		}
		r.now = o.Now
		o.Delay = func(n int) (time.Duration, bool) { return 100 * time.Millisecond, n < rigAttempts }
		o.Parked = func(p []store.Parked) {
			if k := r.worker.Load(); k != nil {
				k.Park(p)
			}
		}
	})
	r.redis = testenv.StartRedis(t, o)
	r.proxy = testenv.StartProxy(t, r.redis.Addr)
	var err error
	r.index, err = redisq.New(redisq.Options{URL: "redis://" + r.proxy.Addr, Timeout: timeout, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.index.Close)
	return r
}

// start starts a worker of a queue and an index, the rig's own where they are nil.
func (r *rig) start(q orphan.Queue, x orphan.Index) *orphan.Worker {
	r.t.Helper()
	if q == nil {
		q = r.World
	}
	if x == nil {
		x = r.index
	}
	k := orphan.Start(q, orphan.Options{
		Batch: 20, Lease: 2 * time.Second, Now: time.Now, Logger: slog.New(slog.DiscardHandler), Metrics: r.metrics,
		Index: x, Sweep: 500 * time.Millisecond, Grace: 2 * time.Second,
	})
	r.worker.Store(k)
	r.t.Cleanup(k.Stop)
	return k
}

// send commits n events that no enrollment is there for.
func (r *rig) send(n int) []uuid.UUID {
	r.t.Helper()
	types := []event.Type{event.Opened, event.Delivered, event.Replied}
	batch := make([]event.Event, n)
	for i := range batch {
		batch[i] = r.Event(types[i%len(types)], storetest.Lead(fmt.Sprintf("lead %d", r.sent)), storetest.At(r.now()), r.received)
		r.sent++
	}
	var ids []uuid.UUID
	for _, res := range r.Put(batch...) {
		storetest.Same(r.t, "outcome", res.Outcome, event.OutcomeOrphaned)
		ids = append(ids, res.ID)
	}
	r.ids = append(r.ids, ids...)
	return ids
}

func (r *rig) received(e *event.Event) { e.ReceivedAt = r.now().UTC() }

func (r *rig) backend(want string) {
	r.t.Helper()
	until(r.t, "the backend "+want, func() bool { return r.worker.Load().Backend() == want })
}

// tried waits until each event has spent an attempt.
func (r *rig) tried(ids []uuid.UUID) {
	r.t.Helper()
	until(r.t, "an attempt of each", func() bool {
		for _, id := range ids {
			if r.Record(id).Attempts == 0 {
				return false
			}
		}
		return true
	})
}

// spent waits until every event that was sent is dead, and checks that each got
// there by its whole schedule, once.
func (r *rig) spent() {
	r.t.Helper()
	until(r.t, "the end of all", func() bool { return r.Account(r.Tenant).Dead == int64(len(r.ids)) })
	for _, id := range r.ids {
		storetest.Same(r.t, "attempts", r.Record(id).Attempts, rigAttempts)
		storetest.Same(r.t, "timeline", r.Moments(id), []string{"received", "parked", "attempt", "attempt", "attempt", "buried"})
		if r.t.Failed() {
			return
		}
	}
	got := testutil.ToFloat64(r.metrics.RetryAttempts.WithLabelValues("orphaned")) + testutil.ToFloat64(r.metrics.RetryAttempts.WithLabelValues("dead"))
	storetest.Same(r.t, "attempts by the metric", got, float64(rigAttempts*len(r.ids)-r.uncounted))
}

// orphans are those that the store has now.
func (r *rig) orphans() []store.Parked {
	r.t.Helper()
	all, err := r.Orphans(r.t.Context(), 0, 10_000)
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// drained waits until the index holds nothing any more.
func (r *rig) drained() {
	r.t.Helper()
	until(r.t, "the index empty", func() bool {
		all, err := r.index.Stats(r.t.Context())
		depth := int64(0)
		for _, s := range all {
			depth += s.Depth
		}
		return err == nil && depth == 0
	})
}
