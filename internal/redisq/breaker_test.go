package redisq_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/redisq"
	"tallyhook/internal/store"
	"tallyhook/internal/testenv"
)

// TestNewNeverWaits: a Redis that is not there fails no start, and is found
// when it comes.
func TestNewNeverWaits(t *testing.T) {
	t.Parallel()
	r := testenv.StartRedis(t, testenv.RedisOptions{})
	r.Kill()
	q, err := redisq.New(redisq.Options{URL: r.URL(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	if _, _, err := q.Claim(t.Context(), 1, time.Minute); !fault.Is(err, fault.Unavailable) {
		t.Errorf("claiming from nowhere gives %v", err)
	}
	if _, err := q.Safety(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("asking nobody for settings gives %v", err)
	}
	r.Restart()
	testenv.Eventually(t, upTimeout, "Redis is found", func() bool { return q.State().Up })
}

// TestBreaker: whatever is wrong, calls end by their deadline, then are not
// tried at all, and work again without a restart.
func TestBreaker(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]struct {
		fault, mend func(*testenv.Redis, *testenv.Proxy)
		reason      string
	}{
		"Killed": {
			func(r *testenv.Redis, _ *testenv.Proxy) { r.Kill() },
			func(r *testenv.Redis, _ *testenv.Proxy) { r.Restart() }, "no connection",
		},
		"Paused": {
			func(r *testenv.Redis, _ *testenv.Proxy) { r.Pause() },
			func(r *testenv.Redis, _ *testenv.Proxy) { r.Continue() }, "no answer in time",
		},
		"Refused": {
			func(_ *testenv.Redis, p *testenv.Proxy) { p.Refuse(true) },
			func(_ *testenv.Redis, p *testenv.Proxy) { p.Refuse(false) }, "no connection",
		},
		"Stalled": {
			func(_ *testenv.Redis, p *testenv.Proxy) { p.Stall(true) },
			func(_ *testenv.Redis, p *testenv.Proxy) { p.Stall(false) }, "no answer in time",
		},
		"ReadOnly": {
			func(r *testenv.Redis, _ *testenv.Proxy) { r.Do("REPLICAOF", "127.0.0.1", "1") },
			func(r *testenv.Redis, _ *testenv.Proxy) { r.Do("REPLICAOF", "NO", "ONE") }, "read-only replica",
		},
		"PasswordChanged": {
			func(r *testenv.Redis, p *testenv.Proxy) { r.Do("CONFIG", "SET", "requirepass", "other"); p.Cut() },
			nil, "refuses the password",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testenv.StartRedis(t, testenv.RedisOptions{})
			p := testenv.StartProxy(t, r.Addr)
			q := open(t, redisq.Options{URL: "redis://" + p.Addr})
			f.fault(r, p)
			testenv.Eventually(t, upTimeout, "it is noticed", func() bool {
				_, _, err := q.Claim(t.Context(), 1, time.Minute)
				return err != nil && !q.State().Up
			})
			testenv.Eventually(t, upTimeout, "the reason "+f.reason, func() bool { return strings.Contains(q.State().Reason, f.reason) })
			// A call that is not tried needs no time at all.
			dead, cancel := context.WithCancel(t.Context())
			cancel()
			if err := q.Park(dead, []store.Parked{{Seq: 1, Tenant: 1, Route: event.RouteBulk}}); err == nil || strings.Contains(err.Error(), "canceled") {
				t.Errorf("a call to a Redis that is down gives %v", err)
			}
			if f.mend == nil {
				return
			}
			f.mend(r, p)
			testenv.Eventually(t, upTimeout, "it is up again", func() bool { return q.State().Up })
			// A connection that the fault broke may cost one call more.
			testenv.Eventually(t, upTimeout, "calls work again", func() bool {
				return q.Park(t.Context(), []store.Parked{{Seq: 1, Tenant: 1, Route: event.RouteBulk}}) == nil
			})
		})
	}
}
