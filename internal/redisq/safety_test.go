package redisq_test

import (
	"strings"
	"testing"

	"tallyhook/internal/redisq"
	"tallyhook/internal/testenv"
)

// TestSafety: each setting that endangers the queue is found, and none is in a
// server that is set up as it should be.
func TestSafety(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options testenv.RedisOptions
		change  []string // of CONFIG SET, once the queue is connected
		want    string   // what is found
	}{
		"Safe":           {options: testenv.RedisOptions{}},
		"Password":       {options: testenv.RedisOptions{Password: "a b/c@d"}},
		"Evicting":       {options: testenv.RedisOptions{Policy: "volatile-ttl"}, want: "maxmemory-policy"},
		"NotOnDisk":      {options: testenv.RedisOptions{NoAppendOnly: true}, want: "appendonly"},
		"AlmostFull":     {options: testenv.RedisOptions{}, change: []string{"maxmemory", "1mb"}, want: "used_memory"},
		"BothOfThose":    {options: testenv.RedisOptions{NoAppendOnly: true, Policy: "allkeys-lru"}, want: "appendonly maxmemory-policy"},
		"EnoughOfMemory": {options: testenv.RedisOptions{MaxMemory: "1gb"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testenv.StartRedis(t, c.options)
			q := open(t, redisq.Options{URL: strings.ReplaceAll(r.URL(), "a b/c@d", "a%20b%2Fc%40d"), Timeout: upTimeout})
			if c.change != nil {
				r.Do(append([]string{"CONFIG", "SET"}, c.change...)...)
			}
			same(t, "found", found(t, q), c.want)
		})
	}
}

func found(t *testing.T, q *redisq.Queue) string {
	t.Helper()
	all, err := q.Safety(t.Context())
	if err != nil {
		t.Error(err)
	}
	var names []string
	for _, f := range all {
		names = append(names, f.What)
		if f.Is == "" || f.Want == "" || f.Detail == "" {
			t.Errorf("a finding says too little: %+v", f)
		}
	}
	return strings.Join(names, " ")
}

// TestSafetyOfReplication: a master that takes writes whatever becomes of its
// replicas is found, and so is a replica.
func TestSafetyOfReplication(t *testing.T) {
	t.Parallel()
	master := testenv.StartRedis(t, testenv.RedisOptions{})
	replica := testenv.StartRedis(t, testenv.RedisOptions{ReplicaOf: master})
	testenv.Eventually(t, upTimeout, "the replica follows", func() bool { return replica.Info("master_link_status") == "up" })
	q := open(t, redisq.Options{URL: master.URL(), Timeout: upTimeout})
	same(t, "found", found(t, q), "min-replicas-to-write")
	master.Do("CONFIG", "SET", "min-replicas-to-write", "1")
	same(t, "found", found(t, q), "")
}

// TestSentinel: the master is found by its name, and the next one after a
// failover.
func TestSentinel(t *testing.T) {
	t.Parallel()
	master := testenv.StartRedis(t, testenv.RedisOptions{})
	replica := testenv.StartRedis(t, testenv.RedisOptions{ReplicaOf: master})
	host, port, _ := strings.Cut(master.Addr, ":")
	sentinel := testenv.StartRedis(t, testenv.RedisOptions{Sentinel: []string{
		"sentinel monitor orphans " + host + " " + port + " 1",
		"sentinel down-after-milliseconds orphans 5000",
		"sentinel failover-timeout orphans 5000",
	}})
	testenv.Eventually(t, upTimeout, "the sentinel knows the replica", func() bool {
		reply, err := sentinel.Try("SENTINEL", "REPLICAS", "orphans")
		return err == nil && strings.Contains(reply, replica.Addr)
	})
	q := open(t, redisq.Options{URL: "redis-sentinel://" + sentinel.Addr + "/orphans"})
	same(t, "written to the master", strings.Contains(master.Do("KEYS", "*"), "tallyhook:{0}:probe"), true)
	master.Kill()
	testenv.Eventually(t, upTimeout, "it is noticed", func() bool { return !q.State().Up })
	// A sentinel that was not run for two seconds trusts no clock for thirty more.
	testenv.Eventually(t, 3*upTimeout, "the new master is found", func() bool { return q.State().Up })
	same(t, "role", replica.Info("role"), "master")
}
