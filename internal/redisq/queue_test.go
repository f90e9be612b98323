package redisq_test

import (
	"testing"
	"time"

	"log/slog"

	"tallyhook/internal/redisq"
	"tallyhook/internal/store"
	"tallyhook/internal/testenv"
)

func TestSmoke(t *testing.T) {
	r := testenv.StartRedis(t, testenv.RedisOptions{})
	q, err := redisq.New(redisq.Options{URL: r.URL(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	testenv.Eventually(t, time.Minute, "up", func() bool { return q.State().Up })
	t.Log(q.State())
	if err := q.Park(t.Context(), []store.Parked{{Seq: 1, Tenant: 1, Route: "urgent"}, {Seq: 2, Tenant: 2, Route: "bulk"}, {Seq: 3, Tenant: 2, Route: "bulk", Delay: time.Hour}}); err != nil {
		t.Fatal(err)
	}
	c, next, err := q.Claim(t.Context(), 50, time.Minute)
	t.Log(c, next, err)
	st, err := q.Stats(t.Context())
	t.Log(st, err)
	t.Log(q.Settle(t.Context(), c, c.Events[:1], []store.Parked{{Seq: 2, Tenant: 2, Route: "bulk", Delay: 2 * time.Hour}}))
	st, err = q.Stats(t.Context())
	t.Log(st, err)
	t.Log(q.BeginRebuild(t.Context(), "a"))
	t.Log(q.FinishRebuild(t.Context(), "a"))
	t.Log(q.State())
	t.Log(q.Safety(t.Context()))
	t.Log(r.Do("KEYS", "*"))
	t.Log(r.Do("HGETALL", "tallyhook:{0}:marker"))
	t.Log(r.Do("ZRANGE", "tallyhook:{0}:turn:bulk", "0", "-1", "WITHSCORES"))
	t.Log(r.Info("maxmemory_policy"))
	r.Pause()
	s := time.Now()
	testenv.Eventually(t, time.Minute, "down", func() bool { return !q.State().Up })
	t.Log(time.Since(s), q.State())
	r.Continue()
	testenv.Eventually(t, time.Minute, "up", func() bool { return q.State().Up })
	r.Kill()
	s = time.Now()
	testenv.Eventually(t, time.Minute, "down", func() bool { return !q.State().Up })
	t.Log(time.Since(s), q.State())
	r.Restart()
	s = time.Now()
	testenv.Eventually(t, time.Minute, "up", func() bool { return q.State().Up })
	t.Log(time.Since(s), q.State())
}
