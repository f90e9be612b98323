package orphan_test

import (
	"testing"
	"time"

	"tallyhook/internal/orphan"
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
			r := newRig(t, testenv.RedisOptions{})
			k := r.start(nil, nil)
			r.backend(orphan.BackendRedis)
			r.send(40)
			f.fault(r)
			meanwhile := r.send(40)
			r.backend(orphan.BackendFallback)
			r.tried(meanwhile)
			meanwhile = r.send(40)
			r.tried(meanwhile)
			storetest.Same(t, "backend while the fault lasts", k.Backend(), orphan.BackendFallback)
			f.mend(r)
			r.backend(orphan.BackendRedis)
			r.send(40)
			r.spent()
			r.drained()
			storetest.Same(t, "backend in the end", k.Backend(), orphan.BackendRedis)
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
