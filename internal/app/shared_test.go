package app_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// heard waits until a replica has dropped from memory what another one has
// changed; from then on it must not go by what it knew.
func (r *replica) heard(t *testing.T, kind, id string, times int) {
	t.Helper()
	line := fmt.Sprintf(`"msg":"heard of a change","kind":%q,"id":%q`, kind, id)
	testenv.Eventually(t, time.Minute, "the replica hears of a "+kind, func() bool { return strings.Count(r.server.Log(), line) >= times })
}

// listening waits until a replica has begun to hear of changes so many times.
func (r *replica) listening(t *testing.T, times int) {
	t.Helper()
	testenv.Eventually(t, time.Minute, "the replica listens", func() bool {
		return strings.Count(r.server.Log(), `"msg":"changes of other replicas are heard"`) >= times
	})
}

// TestChangesReachEveryReplica: a key that was revoked and a source that was
// changed or deleted on one replica are so on the other one as soon as it has
// heard of it, with Redis and without.
func TestChangesReachEveryReplica(t *testing.T) {
	t.Parallel()
	for name, env := range map[string][]string{"WithRedis": nil, "WithoutRedis": {"REDIS_URL="}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 2, append(env, "LOG_LEVEL=debug")...)
			a, b := c.client(0), c.client(1)
			for _, r := range c.replicas {
				r.listening(t, 1)
			}
			id, key := a.NewKey("k", "events:read")
			with := testenv.NewClient(t, b.URL, key)
			defer with.Close()
			with.Get("/api/events")
			a.Do(204, "DELETE", "/api/keys/"+id, nil)
			c.replicas[1].heard(t, "key", id, 2) // made, revoked
			with.Do(401, "GET", "/api/events", nil)

			source := a.NewSource("generic", "")
			hook := testenv.NewClient(t, b.URL, "")
			defer hook.Close()
			send := func(want int, n int, secret string) {
				t.Helper()
				body := []byte(fmt.Sprintf(`{"event_type":"opened","channel":"email","email":"ada@example.com","provider_event_id":"e%d"}`, n))
				h, err := testenv.Sign(secret, fmt.Sprintf("msg_%d", n), time.Now(), body)
				if err != nil {
					t.Fatal(err)
				}
				hook.Do(want, "POST", source.Path, body, h...)
			}
			send(200, 1, source.Secret)
			const other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
			a.Do(200, "PATCH", "/api/sources/"+source.ID, map[string]any{"secret": other})
			c.replicas[1].heard(t, "source", source.ID, 2)
			send(401, 2, source.Secret)
			send(200, 2, other)
			a.Do(204, "DELETE", "/api/sources/"+source.ID, nil)
			c.replicas[1].heard(t, "source", source.ID, 3)
			send(404, 3, other)

			// The workers of both are told of a bulk replay.
			a.Post(202, "/api/admin/dlq/replay", map[string]any{"filter": map[string]any{}})
			for _, r := range c.replicas {
				r.heard(t, "work", "00000000-0000-0000-0000-000000000000", 1)
			}
		})
	}
}

// TestRevokedWhileNotHeard: a replica whose connections were cut, and that was
// told nothing meanwhile, refuses what was revoked once it hears again.
func TestRevokedWhileNotHeard(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, "LOG_LEVEL=debug")
	way := testenv.StartProxy(t, c.pg.Addr())
	port := testenv.FreePort(t)
	r := &replica{url: fmt.Sprintf("http://127.0.0.1:%d", port), opt: testenv.Options{Dir: t.TempDir(), Env: []string{
		fmt.Sprintf("PORT=%d", port), "DATABASE_URL=" + through(c.database, c.pg.Addr(), way.Addr),
		"REDIS_URL=redis://" + c.redis.Addr, "SECRETS_KEY=" + secretsKey, "LOG_LEVEL=debug",
	}}}
	c.start(r)
	r.listening(t, 1)
	a := c.client(0)
	id, key := a.NewKey("k", "events:read")
	with := testenv.NewClient(t, r.url, key)
	defer with.Close()
	with.Get("/api/events")
	way.Refuse(true)
	a.Do(204, "DELETE", "/api/keys/"+id, nil)
	testenv.Eventually(t, time.Minute, "it is noticed", func() bool {
		return strings.Contains(r.server.Log(), `"msg":"changes of other replicas are not heard`)
	})
	way.Refuse(false)
	r.listening(t, 2)
	with.Do(401, "GET", "/api/events", nil)
}

// booked is the sum of what replicas have booked in Redis, over all budgets.
func (c *cluster) booked() (sum int) {
	for name := range strings.FieldsSeq(c.redis.Do("KEYS", "*:limit:*")) {
		for n := range strings.FieldsSeq(c.redis.Do("HVALS", name)) {
			v, err := strconv.Atoi(n)
			if err != nil {
				c.t.Errorf("%s holds %q", name, n)
			}
			sum += v
		}
	}
	return sum
}

// stranger is who asks with wrong keys from an address of its own.
type stranger struct {
	c       *cluster
	address string
	passed  int // to a 401
	last    testenv.Answer
}

// ask guesses once at a replica and tells whether it was let through.
func (s *stranger) ask(at int) bool {
	s.c.t.Helper()
	client := testenv.NewClient(s.c.t, s.c.replicas[at].url, fmt.Sprintf("guess-%s-%032d", s.address, s.passed))
	defer client.Close()
	a, err := client.Try("GET", "/api/events", nil, testenv.Header{Name: "X-Forwarded-For", Value: s.address})
	if err != nil {
		s.c.t.Fatalf("a guess at replica %d: %v", at, err)
	}
	s.last = a
	switch a.Status {
	case 401:
		s.passed++
		return true
	case 429:
		return false
	}
	s.c.t.Fatalf("a guess at replica %d is answered %d: %s", at, a.Status, a.Body)
	return false
}

// exhaust guesses at a replica until it is refused until the end of the period.
func (s *stranger) exhaust(at int) {
	s.c.t.Helper()
	testenv.Eventually(s.c.t, time.Minute, "the guesses are refused", func() bool {
		return !s.ask(at) && s.last.Header.Get("Retry-After") != "1"
	})
}

func limitedCluster(t *testing.T) *cluster {
	t.Helper()
	return newCluster(t, 2, "RATE_LIMIT_ANONYMOUS=100/15m", "TRUSTED_PROXIES=127.0.0.1/32")
}

// TestWrongKeysOverReplicas: who guesses at both replicas in turn has 100
// guesses in all, give or take what is not booked yet; a good key from the same
// address goes on.
func TestWrongKeysOverReplicas(t *testing.T) {
	t.Parallel()
	c := limitedCluster(t)
	c.settled()
	s := &stranger{c: c, address: "198.51.100.7"}
	for refused := 0; refused < 4; {
		for at := range c.replicas {
			let := false
			for range 5 {
				let = s.ask(at) || let
			}
			if refused++; let {
				refused = 0
			}
			// Not sooner than the others can know.
			testenv.Poll(10*time.Second, func() bool { return c.booked() >= s.passed })
		}
	}
	t.Logf("%d guesses let through", s.passed)
	if s.passed < 100 || s.passed > 119 {
		t.Errorf("%d guesses let through at both replicas, want 100, and less than two leads of 10 more", s.passed)
	}
	for at := range c.replicas {
		s.ask(at)
		e := &edge{T: t}
		e.refused(fmt.Sprintf("replica %d", at), "anonymous", 100, 900, s.last)
		c.client(at).Do(200, "GET", "/api/events", nil, testenv.Header{Name: "X-Forwarded-For", Value: s.address})
		other := &stranger{c: c, address: fmt.Sprintf("198.51.100.%d", 10+at)}
		if !other.ask(at) {
			t.Errorf("replica %d: another address is refused for this one", at)
		}
	}
	// Redis forgets, and nothing comes back.
	c.redis.Do("FLUSHALL")
	testenv.Eventually(t, time.Minute, "it is booked again", func() bool {
		return !s.ask(0) && !s.ask(1) && c.booked() >= s.passed
	})
}

// TestLimitsWhileRedisIsAway: each replica has the rate for itself, nobody is
// answered an error, and afterwards they know of each other again.
func TestLimitsWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	c := limitedCluster(t)
	for name, f := range map[string]struct {
		address    string
		begin, end func()
	}{
		"Killed": {"198.51.100.7", c.redis.Kill, c.redis.Restart},
		"Paused": {"198.51.100.8", func() { c.redis.Pause() }, func() { c.redis.Continue() }},
	} {
		c.redis.Do("FLUSHALL") // the budgets of the case before
		c.settled()
		f.begin()
		s := &stranger{c: c, address: f.address}
		for at := range c.replicas {
			before := s.passed
			s.exhaust(at)
			if got := s.passed - before; got != 100 {
				t.Errorf("%s: replica %d let %d guesses through by itself, want 100", name, at, got)
			}
		}
		f.end()
		c.settled()
		testenv.Eventually(t, time.Minute, name+": both are booked", func() bool {
			return !s.ask(0) && !s.ask(1) && c.booked() >= s.passed
		})
	}
}
