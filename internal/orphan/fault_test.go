package orphan_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyhook/internal/orphan"
	"tallyhook/internal/redisq"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
	"tallyhook/internal/testenv"
)

// TestFaults puts a fault on a Redis at work, has events come meanwhile, and
// takes the fault away again. Whatever happens to Redis, each event spends each
// attempt of its schedule once, in time, without a restart.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]struct {
		fault, mend func(*rig)
	}{
		"KilledAndRestarted":  {func(r *rig) { r.redis.Kill() }, func(r *rig) { r.redis.Restart() }},
		"StoppedAndRestarted": {func(r *rig) { r.redis.Stop() }, func(r *rig) { r.redis.Restart() }},
		"Paused":              {func(r *rig) { r.redis.Pause() }, func(r *rig) { r.redis.Continue() }},
		"CutOff":              {func(r *rig) { r.proxy.Refuse(true) }, func(r *rig) { r.proxy.Refuse(false) }},
		"Stalled":             {func(r *rig) { r.proxy.Stall(true) }, func(r *rig) { r.proxy.Stall(false) }},
		"Slow":                {func(r *rig) { r.proxy.Latency(3 * time.Second) }, func(r *rig) { r.proxy.Latency(0) }},
		"OutOfMemory": {
			func(r *rig) { r.redis.Do("CONFIG", "SET", "maxmemory", "1") },
			func(r *rig) { r.redis.Do("CONFIG", "SET", "maxmemory", "0") },
		},
		"ReadOnly": {
			func(r *rig) { r.redis.Do("REPLICAOF", "127.0.0.1", "1") },
			func(r *rig) { r.redis.Do("REPLICAOF", "NO", "ONE") },
		},
		"TooFewReplicas": {
			func(r *rig) { r.redis.Do("CONFIG", "SET", "min-replicas-to-write", "1") },
			func(r *rig) { r.redis.Do("CONFIG", "SET", "min-replicas-to-write", "0") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newHastyRig(t, testenv.RedisOptions{})
			k := r.start(nil, nil)
			r.backend(orphan.BackendRedis)
			r.send(40)
			f.fault(r)
			meanwhile := r.send(40)
			r.backend(orphan.BackendFallback)
			r.tried(meanwhile)
			meanwhile = r.send(40)
			r.tried(meanwhile)
			if name != "OutOfMemory" { // a full Redis holds all of nothing, once nothing waits
				storetest.Same(t, "backend while the fault lasts", k.Backend(), orphan.BackendFallback)
			}
			f.mend(r)
			r.backend(orphan.BackendRedis)
			r.send(40)
			r.spent()
			r.drained()
			r.backend(orphan.BackendRedis) // a busy machine may have been too slow for a call since
		})
	}
}

// TestNeverStarted: without Redis everything goes on in SQL, and when Redis is
// there at last, it is used.
func TestNeverStarted(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.RedisOptions{})
	r.redis.Kill()
	r.start(nil, nil)
	r.send(50)
	r.tried(r.ids)
	r.backend(orphan.BackendFallback)
	r.redis.Restart()
	r.backend(orphan.BackendRedis)
	r.send(50)
	r.spent()
	r.drained()
}

// counted is a real index that counts what is claimed from it.
type counted struct {
	*redisq.Queue
	claims atomic.Int64
}

func (c *counted) Claim(ctx context.Context, n int, lease time.Duration) (store.Claim, time.Duration, error) {
	claim, next, err := c.Queue.Claim(ctx, n, lease)
	if len(claim.Events) > 0 {
		c.claims.Add(1)
	}
	return claim, next, err
}

// TestFlushedUnderAWorker: a Redis that forgets everything while it goes on
// answering is noticed and filled anew, also when it forgets during the rebuild.
func TestFlushedUnderAWorker(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.RedisOptions{})
	k := r.start(nil, nil)
	r.backend(orphan.BackendRedis)
	for range 5 {
		before := k.Status().RebuiltAt
		r.send(40)
		r.redis.Do("FLUSHALL")
		r.send(40)
		until(t, "a rebuild", func() bool { return k.Status().RebuiltAt.After(before) })
		r.backend(orphan.BackendRedis)
	}
	r.spent()
	r.drained()
}

// TestRestartedWithAnOlderFile: a Redis that comes back with less than it had
// acknowledged, under the same marker, is filled anew.
func TestRestartedWithAnOlderFile(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.RedisOptions{})
	k := r.start(nil, nil)
	r.backend(orphan.BackendRedis)
	before := k.Status().RebuiltAt
	marker := r.redis.Do("HGETALL", "tallyhook:{0}:marker")
	r.redis.Do("CONFIG", "SET", "appendonly", "no") // nothing more gets to the file
	r.send(40)
	r.redis.Restart() // with appendonly, and the file of the beginning
	until(t, "a rebuild", func() bool { return k.Status().RebuiltAt.After(before) })
	r.backend(orphan.BackendRedis)
	if got := r.redis.Do("HGETALL", "tallyhook:{0}:marker"); got == marker {
		t.Errorf("the marker is still %q", got)
	}
	r.spent()
	r.drained()
}

// TestLostWithoutATrace: what the index lost and nobody noticed is swept from
// the database, and parked for its next attempt.
func TestLostWithoutATrace(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.RedisOptions{})
	k := r.start(nil, nil)
	r.backend(orphan.BackendRedis)
	r.worker.Store(nil) // as a crash between the commit and the parking would
	r.send(60)
	r.worker.Store(k)
	rebuilt := k.Status().RebuiltAt
	r.spent()
	storetest.Same(t, "rebuilt", k.Status().RebuiltAt, rebuilt)
	storetest.Same(t, "backend", k.Backend(), orphan.BackendRedis)
	r.drained()
}

// TestEvictingRedisIsReported: the worker's status says what is unsafe.
func TestEvictingRedisIsReported(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.RedisOptions{Policy: "allkeys-lru", NoAppendOnly: true})
	k := r.start(nil, nil)
	until(t, "the findings", func() bool { return len(k.Status().Findings) == 2 })
	for i, want := range []string{"appendonly", "maxmemory-policy"} {
		storetest.Same(t, "finding", k.Status().Findings[i].What, want)
	}
	r.send(30)
	r.spent()
}

// TestReplicaIsReported: a replica is no place for the queue, until it is
// made the master.
func TestReplicaIsReported(t *testing.T) {
	t.Parallel()
	master := testenv.StartRedis(t, testenv.RedisOptions{})
	r := newRig(t, testenv.RedisOptions{ReplicaOf: master})
	k := r.start(nil, nil)
	r.send(30)
	r.tried(r.ids)
	until(t, "the reason", func() bool { return strings.Contains(k.Status().Index.Reason, "read-only replica") })
	storetest.Same(t, "backend", k.Backend(), orphan.BackendFallback)
	findings, err := r.index.Safety(t.Context())
	if err != nil || len(findings) == 0 || findings[0].What != "role" {
		t.Errorf("findings are %+v, %v", findings, err)
	}
	r.redis.Do("REPLICAOF", "NO", "ONE")
	r.backend(orphan.BackendRedis)
	r.send(30)
	r.spent()
}

// TestLeasesThatRanOutDuringAnOutage: what a claimer held when it and Redis went
// away is retried meanwhile, and is not retried again when Redis brings it back.
func TestLeasesThatRanOutDuringAnOutage(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.RedisOptions{Args: []string{"--appendfsync", "always"}})
	k := r.start(nil, nil)
	r.backend(orphan.BackendRedis)
	k.Stop()
	var lost store.Claim
	r.send(60)
	until(t, "a claim", func() bool {
		if err := r.index.Park(t.Context(), r.orphans()); err != nil {
			t.Fatal(err)
		}
		var err error
		lost, _, err = r.index.Claim(t.Context(), 50, time.Second)
		return err == nil && len(lost.Events) == 50
	})
	r.redis.Kill()
	until(t, "the outage noticed", func() bool { return !r.index.State().Up })
	r.start(nil, nil)
	r.tried(r.ids)
	r.redis.Restart()
	r.backend(orphan.BackendRedis)
	// The lost claimer comes back, and tells Redis and the store what it did.
	late, err := r.Retry(t.Context(), lost)
	if err != nil {
		t.Fatal(err)
	}
	r.uncounted += len(late)
	if err := r.index.Settle(t.Context(), lost, lost.Events, nil); err != nil {
		t.Fatal(err)
	}
	r.spent()
	r.drained()
}

// TestLastAttemptClaimedByRedisAndTheSweepAtOnce: of two claimers of one event
// one spends the attempt.
func TestLastAttemptClaimedByRedisAndTheSweepAtOnce(t *testing.T) {
	t.Parallel()
	// On a clock that stands still the next attempt is never due before the
	// second claimer has come.
	r := newStillRig(t, testenv.RedisOptions{})
	until(t, "Redis", func() bool { return r.index.State().Up })
	for range 10 {
		r.send(1)
		var both [2]store.Claim
		for range rigAttempts {
			r.Clock.Advance(time.Second)
			until(t, "the sweep's claim", func() bool {
				c, err := r.Claim(t.Context(), 50, time.Minute, time.Millisecond)
				both[0] = c
				return err == nil && len(c.Events) == 1
			})
			if err := r.index.Park(t.Context(), r.orphans()); err != nil {
				t.Fatal(err)
			}
			until(t, "the claim from Redis", func() bool {
				c, _, err := r.index.Claim(t.Context(), 50, time.Minute)
				both[1] = c
				return err == nil && len(c.Events) == 1
			})
			var spent atomic.Int64
			var group sync.WaitGroup
			for _, c := range both {
				group.Go(func() {
					got, err := r.Retry(t.Context(), c)
					if err != nil {
						t.Error(err)
					}
					spent.Add(int64(len(got)))
				})
			}
			group.Wait()
			storetest.Same(t, "spent", spent.Load(), 1)
			if err := r.index.Settle(t.Context(), both[1], both[1].Events, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, id := range r.ids {
		storetest.Same(t, "attempts", r.LetterOf(id).Attempts, rigAttempts)
		storetest.Same(t, "timeline", r.Moments(id), []string{"received", "parked", "attempt", "attempt", "attempt", "buried"})
	}
}

// TestNothingIsClaimedWhileTheStoreIsDown: an outage of the database spends no
// attempt, and while it is known nothing is claimed from Redis either.
func TestNothingIsClaimedWhileTheStoreIsDown(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.RedisOptions{})
	x := &counted{Queue: r.index}
	b := &broken{World: r.World}
	r.start(b, x)
	r.backend(orphan.BackendRedis)
	b.gone.Store(true)
	r.send(30)
	until(t, "the outage noticed", func() bool { return b.looks.Load() >= 2 })
	claims, looks := x.claims.Load(), b.looks.Load()
	until(t, "more looks at the store", func() bool { return b.looks.Load() >= looks+3 })
	storetest.Same(t, "claims while the store is down", x.claims.Load(), claims)
	for _, id := range r.ids {
		storetest.Same(t, "attempts", r.Record(id).Attempts, 0)
	}
	b.gone.Store(false)
	r.spent()
	r.drained()
}

// TestOnlyTheRefusedOneFailsFromRedis: what the store refuses for its data is
// found alone, waits in Redis as long as the store hides it, and spends nothing.
func TestOnlyTheRefusedOneFailsFromRedis(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.RedisOptions{})
	ids := r.send(50)
	record := r.Record(ids[17])
	bad := record.Seq
	b := &broken{World: r.World, refuses: func(c store.Claim) bool {
		return slices.ContainsFunc(c.Events, func(e store.Claimed) bool { return e.Seq == bad })
	}}
	k := r.start(b, nil)
	until(t, "the others dead", func() bool { return r.Account(r.Tenant).Dead == 49 })
	r.backend(orphan.BackendRedis)
	until(t, "the one alone waits in Redis", func() bool {
		all, err := r.index.Stats(t.Context())
		s := all[record.Route()]
		return err == nil && s.Depth == 1 && s.Due == 0 && s.Leased == 0
	})
	storetest.Same(t, "attempts", r.Record(ids[17]).Attempts, 0)
	if n := b.failed.Load(); n < 1 || n > 2 {
		t.Errorf("it failed %d times, want one, or two where both claimers had it at the start", n)
	}
	k.Stop()
}

// TestStopHoldsNothing: after Stop no event is under a lease, and every one
// that was committed is parked.
func TestStopHoldsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.RedisOptions{})
	x := &counted{Queue: r.index}
	k := r.start(nil, x)
	r.backend(orphan.BackendRedis)
	r.send(400)
	until(t, "a claim", func() bool { return x.claims.Load() > 0 })
	last := r.send(10)
	k.Stop()
	all, err := r.index.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var depth, leased int64
	for _, s := range all {
		depth, leased = depth+s.Depth, leased+s.Leased
	}
	storetest.Same(t, "leased", leased, 0)
	storetest.Same(t, "held by Redis", depth, r.Account(r.Tenant).Orphaned)
	r.start(nil, nil)
	r.spent()
	storetest.Same(t, "the last ones", len(last), 10)
}

// TestAdoptedEventsLeaveTheIndex: told of at once, untold at their next turn.
func TestAdoptedEventsLeaveTheIndex(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.RedisOptions{})
	k := r.start(nil, nil)
	r.backend(orphan.BackendRedis)
	ids := r.Flood(30, storetest.Address("ada@example.com"), r.received)
	var gone []store.Claimed
	for _, p := range r.orphans()[:10] {
		gone = append(gone, store.Claimed{Seq: p.Seq, Tenant: p.Tenant, Route: p.Route})
	}
	ada := r.Person("ada@example.com")
	k.Gone(gone)
	r.drained()
	for _, id := range ids {
		r.IsApplied(id, ada)
	}
}

// TestTwoWorkersShareOneRedis: replicas claim apart, rebuild at once, and spend
// nothing twice.
func TestTwoWorkersShareOneRedis(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.RedisOptions{})
	other, err := redisq.New(redisq.Options{URL: r.redis.URL(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	r.start(nil, other)
	r.start(nil, nil)
	for range 3 {
		r.send(200)
		r.redis.Do("FLUSHALL")
	}
	r.spent()
	r.drained()
}
