package redisq_test

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyhook/internal/limit"
	"tallyhook/internal/redisq"
	"tallyhook/internal/testenv"
)

// sharers are replicas' budgets on one Redis.
type sharers struct {
	t     *testing.T
	rates limit.Rates
	all   []*limit.Budgets
	n     int
}

// patient is how long an answer of Redis is counted on where a test is about
// what happens, not about how soon.
const patient = upTimeout

func (s *sharers) add(url string, o redisq.Options, patience time.Duration, now func() time.Time) *limit.Budgets {
	s.t.Helper()
	o.URL = url
	q := open(s.t, o)
	b := limit.NewBudgets(s.rates, now)
	s.n++
	x := b.Share(q.Ledger(), limit.ExchangeOptions{Replica: strconv.Itoa(s.n), Secret: [32]byte{1}, Patience: patience})
	s.t.Cleanup(x.Close)
	s.all = append(s.all, b)
	return b
}

// exhaust asks for a budget until it is refused for good, and gives how often
// it was let through.
func exhaust(t *testing.T, b *limit.Budgets, kind limit.Kind, k limit.Key, patience time.Duration) (passed int) {
	t.Helper()
	if !testenv.Poll(upTimeout, func() bool {
		for range 20 {
			d := b.Take(kind, k)
			if d.Allowed {
				passed++
			} else if d.Reset > patience {
				return true
			}
		}
		return false
	}) {
		t.Errorf("%s: still let through after %d", kind, passed)
	}
	return passed
}

func address(n int) limit.Key {
	return limit.Address(netip.AddrFrom4([4]byte{198, byte(n >> 16), byte(n >> 8), byte(n)}))
}

// booked is the sum that Redis has of the only budget.
func booked(r *testenv.Redis) (sum int) {
	for name := range strings.Lines(r.Do("KEYS", "*:limit:*")) {
		for n := range strings.Lines(r.Do("HVALS", strings.TrimSpace(name))) {
			v, _ := strconv.Atoi(strings.TrimSpace(n))
			sum += v
		}
	}
	return sum
}

// TestReplicasShareLimits has several replicas asked for the same budget at
// once: together they let through the rate at least, and less than the rate and
// a lead for each.
func TestReplicasShareLimits(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		kind            limit.Kind
		rate, n, lead   int
		redis           testenv.RedisOptions
		shards, callers int
	}{
		"StrangersAtTwo":    {limit.Anonymous, 100, 2, 10, testenv.RedisOptions{}, 1, 4},
		"StrangersAtThree":  {limit.Signature, 100, 3, 10, testenv.RedisOptions{}, 1, 4},
		"ASmallRate":        {limit.Anonymous, 3, 3, 3, testenv.RedisOptions{}, 1, 2},
		"One":               {limit.Anonymous, 1, 3, 1, testenv.RedisOptions{}, 1, 2},
		"AKey":              {limit.API, 100, 3, 50, testenv.RedisOptions{}, 1, 4},
		"ASource":           {limit.Webhook, 2000, 2, 1000, testenv.RedisOptions{}, 1, 8},
		"ACluster":          {limit.Webhook, 100, 3, 50, testenv.RedisOptions{Cluster: true}, 4, 2},
		"OneReplicaIsExact": {limit.Anonymous, 100, 1, 10, testenv.RedisOptions{}, 1, 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testenv.StartRedis(t, tc.redis)
			rate := limit.Rate{Count: tc.rate, Period: 2 * time.Hour}
			s := &sharers{t: t, rates: limit.Rates{Anonymous: rate, API: rate, Webhook: rate}}
			for range tc.n {
				s.add(r.URL(), redisq.Options{Timeout: upTimeout, Shards: tc.shards}, patient, nil)
			}
			var passed atomic.Int64
			var asking sync.WaitGroup
			for _, b := range s.all {
				for range tc.callers {
					asking.Go(func() { passed.Add(int64(exhaust(t, b, tc.kind, address(1), patient))) })
				}
			}
			asking.Wait()
			most := tc.rate + tc.n*tc.lead - 1
			if tc.n == 1 {
				most = tc.rate
			}
			t.Logf("%d passed of %d at %d replicas, at most %d", passed.Load(), tc.rate, tc.n, most)
			if got := int(passed.Load()); got < tc.rate || got > most {
				t.Errorf("%d passed, want %d to %d", got, tc.rate, most)
			}
			// Another budget is not touched by it.
			if d := s.all[0].Take(tc.kind, address(2)); !d.Allowed {
				t.Errorf("another address is refused: %+v", d)
			}
			if tc.redis.Cluster {
				return
			}
			for name := range strings.Lines(r.Do("KEYS", "*:limit:*")) {
				name = strings.TrimSpace(name)
				if ttl, err := strconv.ParseInt(r.Do("PTTL", name), 10, 64); err != nil || ttl <= 0 || ttl > rate.Period.Milliseconds() {
					t.Errorf("%s ends in %s ms, want within its period", name, r.Do("PTTL", name))
				}
				at := strings.LastIndex(name, ":") + 1
				if raw, err := hex.DecodeString(name[at:]); err != nil || len(raw) != 16 || !strings.HasPrefix(name, "tallyhook:{0}:limit:") {
					t.Errorf("a budget is called %s, want a name under the prefix that tells nothing", name)
				}
			}
		})
	}
}

// TestOneAfterTheOther: who goes from one replica to the other meets the rate
// once. What is known is told: nothing is left at either.
func TestOneAfterTheOther(t *testing.T) {
	t.Parallel()
	r := testenv.StartRedis(t, testenv.RedisOptions{})
	s := &sharers{t: t, rates: limit.Rates{Anonymous: limit.Rate{Count: 100, Period: time.Hour}}}
	a, b := s.add(r.URL(), redisq.Options{Timeout: upTimeout}, patient, nil), s.add(r.URL(), redisq.Options{Timeout: upTimeout}, patient, nil)
	for range 60 {
		taken(t, a, address(1))
	}
	testenv.Eventually(t, upTimeout, "what a portion has left is booked", func() bool { return booked(r) >= 60 })
	passed := exhaust(t, b, limit.Anonymous, address(1), patient)
	if passed < 40 || passed > 50 { // at most what it may be ahead
		t.Errorf("the other replica let %d through, want 40, and no more than the lead above", passed)
	}
	if passed = exhaust(t, a, limit.Anonymous, address(1), patient); passed > 10 {
		t.Errorf("the first one let another %d through", passed)
	}
	for i, x := range s.all {
		if d := x.Take(limit.Anonymous, address(1)); d.Allowed || d.Remaining != 0 || d.Reset <= patient {
			t.Errorf("replica %d: %+v, want nothing left until the period is over", i, d)
		}
	}
}

// taken takes one that is to be had as soon as what was taken before is booked.
func taken(t *testing.T, b *limit.Budgets, k limit.Key) {
	t.Helper()
	testenv.Eventually(t, upTimeout, "there is one left", func() bool { return b.Take(limit.Anonymous, k).Allowed })
}

// TestOnePeriod: a budget ends everywhere with the period of who booked it first.
func TestOnePeriod(t *testing.T) {
	t.Parallel()
	r := testenv.StartRedis(t, testenv.RedisOptions{})
	s := &sharers{t: t, rates: limit.Rates{Anonymous: limit.Rate{Count: 100, Period: time.Hour}}}
	var moved atomic.Int64
	begin := time.Now()
	a := s.add(r.URL(), redisq.Options{Timeout: upTimeout}, patient, func() time.Time { return begin.Add(time.Duration(moved.Load())) })
	b := s.add(r.URL(), redisq.Options{Timeout: upTimeout}, patient, nil)
	taken(t, a, address(1))
	moved.Store(int64(40 * time.Minute))
	for range 9 {
		taken(t, a, address(1))
	}
	testenv.Eventually(t, upTimeout, "it is booked", func() bool { return booked(r) >= 5 })
	for range 5 {
		taken(t, b, address(1))
	}
	testenv.Eventually(t, upTimeout, "the other one goes by the same period", func() bool {
		d := b.Take(limit.Anonymous, address(1))
		return d.Reset <= 20*time.Minute && d.Reset > 10*time.Minute
	})
}

// TestLimitsWithoutRedis: while Redis is away each replica has the rate for
// itself and nobody waits; when it is back they know of each other again.
func TestLimitsWithoutRedis(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]struct {
		fault, mend func(*testenv.Redis, *testenv.Proxy)
	}{
		"Killed":  {func(r *testenv.Redis, _ *testenv.Proxy) { r.Kill() }, func(r *testenv.Redis, _ *testenv.Proxy) { r.Restart() }},
		"Paused":  {func(r *testenv.Redis, _ *testenv.Proxy) { r.Pause() }, func(r *testenv.Redis, _ *testenv.Proxy) { r.Continue() }},
		"Stalled": {func(_ *testenv.Redis, p *testenv.Proxy) { p.Stall(true) }, func(_ *testenv.Redis, p *testenv.Proxy) { p.Stall(false) }},
		"Full": {
			func(r *testenv.Redis, _ *testenv.Proxy) { r.Do("CONFIG", "SET", "maxmemory", "1") },
			func(r *testenv.Redis, _ *testenv.Proxy) { r.Do("CONFIG", "SET", "maxmemory", "0") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testenv.StartRedis(t, testenv.RedisOptions{})
			p := testenv.StartProxy(t, r.Addr)
			const impatient = 50 * time.Millisecond
			s := &sharers{t: t, rates: limit.Rates{Anonymous: limit.Rate{Count: 100, Period: time.Hour}}}
			a, b := s.add("redis://"+p.Addr, redisq.Options{}, impatient, nil), s.add("redis://"+p.Addr, redisq.Options{}, impatient, nil)
			f.fault(r, p)
			for i, x := range []*limit.Budgets{a, b} {
				if got := exhaust(t, x, limit.Anonymous, address(1), impatient); got != 100 {
					t.Errorf("replica %d let %d through by itself, want 100", i, got)
				}
			}
			f.mend(r, p)
			testenv.Eventually(t, upTimeout, "both are booked", func() bool {
				for i, x := range []*limit.Budgets{a, b} {
					if x.Take(limit.Anonymous, address(1)).Allowed {
						t.Fatalf("replica %d lets more through now that Redis is back", i)
					}
				}
				return booked(r) == 200
			})
			c := s.add(r.URL(), redisq.Options{Timeout: upTimeout}, patient, nil)
			if got := exhaust(t, c, limit.Anonymous, address(1), patient); got > 10 {
				t.Errorf("a third replica lets %d through, want no more than its lead of 10", got)
			}
		})
	}
}

// TestNobodyWaits: requests are decided while Redis owes an answer.
func TestNobodyWaits(t *testing.T) {
	t.Parallel()
	r := testenv.StartRedis(t, testenv.RedisOptions{})
	p := testenv.StartProxy(t, r.Addr)
	s := &sharers{t: t, rates: limit.Rates{API: limit.Rate{Count: 100, Period: time.Hour}}}
	// An answer may take as long as a test, and is not counted on.
	b := s.add("redis://"+p.Addr, redisq.Options{Timeout: 10 * upTimeout, Probe: 10 * upTimeout}, time.Nanosecond, nil)
	p.Stall(true)
	for range 100 {
		if d := b.Take(limit.API, address(1)); !d.Allowed {
			t.Fatalf("refused: %+v", d)
		}
	}
	if d := b.Take(limit.API, address(1)); d.Allowed {
		t.Error("the 101st is let through")
	}
	same(t, "booked meanwhile", booked(r), 0)
	p.Stall(false)
	testenv.Eventually(t, upTimeout, "it is booked", func() bool {
		b.Take(limit.API, address(1))
		return booked(r) == 100
	})
}

// TestFlushedLimits: a Redis that forgets brings nothing back: replicas keep
// what they know, and tell it again.
func TestFlushedLimits(t *testing.T) {
	t.Parallel()
	r := testenv.StartRedis(t, testenv.RedisOptions{})
	s := &sharers{t: t, rates: limit.Rates{Anonymous: limit.Rate{Count: 100, Period: time.Hour}}}
	for range 3 {
		s.add(r.URL(), redisq.Options{Timeout: upTimeout}, patient, nil)
	}
	a, b, c := s.all[0], s.all[1], s.all[2]
	for range 60 {
		taken(t, a, address(1))
	}
	testenv.Eventually(t, upTimeout, "it is booked", func() bool { return booked(r) >= 60 })
	sum := 60 + exhaust(t, b, limit.Anonymous, address(1), patient) + exhaust(t, a, limit.Anonymous, address(1), patient)
	r.Do("FLUSHALL")
	testenv.Eventually(t, upTimeout, "all is booked again", func() bool {
		for i, x := range []*limit.Budgets{a, b} {
			if x.Take(limit.Anonymous, address(1)).Allowed {
				t.Fatalf("replica %d lets more through after the flush", i)
			}
		}
		return booked(r) == sum
	})
	if got := exhaust(t, c, limit.Anonymous, address(1), patient); got > 10 {
		t.Errorf("a third replica lets %d through, want no more than its lead of 10", got)
	}
}

// TestFloodOfAddresses: what a flood of addresses leaves in Redis is bounded,
// and most budgets never get there.
func TestFloodOfAddresses(t *testing.T) {
	t.Parallel()
	r := testenv.StartRedis(t, testenv.RedisOptions{NoAppendOnly: true})
	s := &sharers{t: t, rates: limit.Rates{Anonymous: limit.Rate{Count: 100, Period: time.Hour}}}
	b := s.add(r.URL(), redisq.Options{Timeout: upTimeout}, time.Nanosecond, nil)
	for n := range 50_000 {
		for range 4 { // less than a portion
			b.Take(limit.Anonymous, address(n))
		}
	}
	same(t, "budgets of those who ask seldom", r.Do("KEYS", "*:limit:*"), "")
	for n := range 20_000 {
		for range 6 {
			b.Take(limit.Anonymous, address(100_000+n))
		}
	}
	size := func() int { return len(strings.Fields(r.Do("KEYS", "*:limit:*"))) }
	testenv.Eventually(t, upTimeout, "the first ones are booked", func() bool { return size() >= 4096 })
	t.Logf("%d budgets in Redis for 70,000 addresses", size())
	same(t, "budgets in Redis", size(), 4096)
}

// TestLateBookings: what was let through in a period that is over by Redis'
// clock does not count in the next one, however late it comes.
func TestLateBookings(t *testing.T) {
	t.Parallel()
	r := testenv.StartRedis(t, testenv.RedisOptions{})
	l := open(t, redisq.Options{URL: r.URL(), Timeout: upTimeout}).Ledger()
	book := func(e limit.Entry) limit.Total {
		t.Helper()
		e.Budget = "b"
		return l.Book(t.Context(), []limit.Entry{e})[0]
	}
	first := book(limit.Entry{Stretch: "a", Count: 100, Left: time.Millisecond})
	same(t, "sum of the first period", first.Sum, 100)
	testenv.Eventually(t, upTimeout, "the first period is over", func() bool { return r.Do("EXISTS", "tallyhook:{0}:limit:b") == "0" })
	second := book(limit.Entry{Stretch: "b", Count: 5, Left: time.Hour})
	same(t, "sum of the second period", second.Sum, 5)
	late := book(limit.Entry{Stretch: "a", Count: 100, Left: time.Millisecond, Ends: first.Ends})
	same(t, "what is left of the first period", late.Left, 0)
	again := book(limit.Entry{Stretch: "b", Count: 6, Left: time.Hour, Ends: second.Ends})
	same(t, "sum of the second period", again.Sum, 6)
	// After a flush the period goes on as it was told.
	r.Do("FLUSHALL")
	again = book(limit.Entry{Stretch: "b", Count: 6, Left: time.Minute, Ends: second.Ends})
	same(t, "sum after a flush", again.Sum, 6)
	if d := again.Ends - second.Ends; d < -1 || d > 1 {
		t.Errorf("after a flush the period ends %d ms from where it did", d)
	}
}
