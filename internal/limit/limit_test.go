package limit_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tallyhook/internal/fault"
	"tallyhook/internal/limit"
)

// clock is a time that a test moves.
type clock struct{ at time.Time }

func newClock() *clock               { return &clock{time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)} }
func (c *clock) now() time.Time      { return c.at }
func (c *clock) add(d time.Duration) { c.at = c.at.Add(d) }

func key(n uint64) limit.Key {
	var k limit.Key
	binary.LittleEndian.PutUint64(k[:], n)
	return k
}

func TestWindow(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := limit.NewWindow(limit.Rate{Count: 100, Period: 15 * time.Minute}, 10, c.now)
	for i := range 100 { // spread over most of the period: the budget does not grow back meanwhile
		d := w.Take(key(1))
		if !d.Allowed || d.Remaining != 99-i {
			t.Fatalf("request %d: got %+v", i+1, d)
		}
		c.add(8 * time.Second)
	}
	d := w.Take(key(1))
	if d.Allowed || d.Remaining != 0 || d.Reset != 15*time.Minute-800*time.Second {
		t.Errorf("the 101st: got %+v, want it refused until the period is over", d)
	}
	if !w.Take(key(2)).Allowed {
		t.Error("another key is refused for this one's budget")
	}
	c.add(d.Reset - 1)
	if w.Take(key(1)).Allowed {
		t.Error("let through before the period was over")
	}
	c.add(1)
	if d := w.Take(key(1)); !d.Allowed || d.Remaining != 99 {
		t.Errorf("after the period: got %+v", d)
	}
}

func TestGive(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := limit.NewWindow(limit.Rate{Count: 1, Period: time.Second}, 10, c.now)
	w.Give(key(1)) // nothing was taken: nothing to give
	for range 3 {
		if !w.Take(key(1)).Allowed {
			t.Fatal("refused although it was given back")
		}
		w.Give(key(1))
	}
	w.Take(key(1))
	if w.Take(key(1)).Allowed {
		t.Error("more than was given back")
	}
}

func TestNoLimit(t *testing.T) {
	t.Parallel()
	w := limit.NewWindow(limit.Rate{}, 10, nil)
	for range 1000 {
		if d := w.Take(key(1)); !d.Allowed || d.Limited() {
			t.Fatalf("got %+v", d)
		}
	}
	w.Give(key(1))
	if w.Len() != 0 {
		t.Errorf("kept %d budgets, want none", w.Len())
	}
}

func TestClockSetBack(t *testing.T) {
	t.Parallel()
	c := newClock()
	w := limit.NewWindow(limit.Rate{Count: 1, Period: time.Minute}, 10, c.now)
	c.add(time.Hour)
	w.Take(key(1))
	c.add(-2 * time.Hour)
	if d := w.Take(key(1)); !d.Allowed || d.Reset > time.Minute {
		t.Errorf("got %+v, want a new period and not one that never ends", d)
	}
}

// TestNeverMoreThanTheRate asks from many goroutines at once.
func TestNeverMoreThanTheRate(t *testing.T) {
	t.Parallel()
	w := limit.NewWindow(limit.Rate{Count: 500, Period: time.Hour}, 10, nil)
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				if w.Take(key(1)).Allowed {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got := passed.Load(); got != 500 {
		t.Errorf("%d passed, want 500", got)
	}
}

// TestModel compares with the plainest account of the rule.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := newClock()
		rate := limit.Rate{Count: rapid.IntRange(1, 5).Draw(t, "count"), Period: time.Second}
		w := limit.NewWindow(rate, 100, c.now)
		type account struct {
			since time.Time
			n     int
		}
		all := map[uint64]*account{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			c.add(time.Duration(rapid.IntRange(0, 400).Draw(t, "ms")) * time.Millisecond)
			k := rapid.Uint64Range(0, 3).Draw(t, "key")
			a := all[k]
			if a == nil || c.at.Sub(a.since) >= rate.Period {
				a = &account{since: c.at}
				all[k] = a
			}
			if a.n < rate.Count {
				a.n++
				if d := w.Take(key(k)); !d.Allowed || d.Remaining != rate.Count-a.n {
					t.Fatalf("got %+v, want %d left", d, rate.Count-a.n)
				}
			} else if d := w.Take(key(k)); d.Allowed || d.Reset != rate.Period-c.at.Sub(a.since) {
				t.Fatalf("got %+v, want it refused until the period is over", d)
			}
		}
	})
}

// TestMillionAddresses: memory stays bounded, and who keeps knocking through
// the flood stays refused.
func TestMillionAddresses(t *testing.T) {
	t.Parallel()
	c := newClock()
	b := limit.NewBudgets(limit.Rates{Anonymous: limit.Rate{Count: 100, Period: 15 * time.Minute}}, c.now)
	bad := limit.Address(netip.MustParseAddr("198.51.100.7"))
	for range 100 {
		b.Take(limit.Anonymous, bad)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var raw [16]byte
	raw[0] = 0x20
	for i := range uint32(1_000_000) {
		binary.BigEndian.PutUint32(raw[2:], i)
		if !b.Take(limit.Anonymous, limit.Address(netip.AddrFrom16(raw))).Allowed {
			t.Fatal("a new address is refused")
		}
		if i%1000 == 0 && b.Take(limit.Anonymous, bad).Allowed {
			t.Fatalf("after %d addresses the one that keeps knocking is let through", i)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	w, ok := b.Anonymous.(*limit.Window)
	if !ok || w.Len() > 2<<16 {
		t.Errorf("%d budgets are kept, want at most %d", w.Len(), 2<<16)
	}
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("heap grown by %d KiB for 1,000,000 addresses, %d kept", grown>>10, w.Len())
	if grown > 64<<20 {
		t.Errorf("the heap has grown by %d MiB, want less than 64", grown>>20)
	}
	runtime.KeepAlive(b)
}

func TestKeys(t *testing.T) {
	t.Parallel()
	a := netip.MustParseAddr
	same := func(x, y string) bool { return limit.Address(a(x)) == limit.Address(a(y)) }
	for _, tc := range []struct {
		x, y string
		want bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8::1", "2001:db8::ffff:2", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
		{"::1", "0.0.0.1", false},
	} {
		if got := same(tc.x, tc.y); got != tc.want {
			t.Errorf("%s and %s the same: got %t, want %t", tc.x, tc.y, got, tc.want)
		}
	}
	source, other := [16]byte{1}, [16]byte{2}
	all := []limit.Key{
		limit.Address(netip.Addr{}), limit.Address(a("192.0.2.1")), limit.Address(a("2001:db8::1")), limit.Of(source), limit.Of(other),
		limit.Pair(a("192.0.2.1"), source), limit.Pair(a("192.0.2.2"), source), limit.Pair(a("192.0.2.1"), other),
		limit.Pair(a("2001:db8::1"), source), limit.Pair(a("2001:db8:0:1::1"), source), limit.Pair(netip.Addr{}, source),
	}
	seen := map[limit.Key]int{}
	for i, k := range all {
		if j, twice := seen[k]; twice {
			t.Errorf("keys %d and %d are the same", i, j)
		}
		seen[k] = i
	}
	if limit.Pair(a("::ffff:192.0.2.1"), source) != limit.Pair(a("192.0.2.1"), source) {
		t.Error("a mapped address has a budget of its own")
	}
}

func TestBudgetsRefuse(t *testing.T) {
	t.Parallel()
	c := newClock()
	b := limit.NewBudgets(limit.Rates{Anonymous: limit.Rate{Count: 1, Period: time.Minute}, Webhook: limit.Rate{Count: 1, Period: time.Second}}, c.now)
	var refused []limit.Kind
	b.Refused = func(k limit.Kind) { refused = append(refused, k) }
	source, from := [16]byte{1}, netip.MustParseAddr("192.0.2.1")
	if err := errors.Join(b.Verified(source), b.Failed(from, source)); err != nil {
		t.Fatal(err)
	}
	for kind, err := range map[limit.Kind]error{limit.Webhook: b.Verified(source), limit.Signature: b.Failed(from, source)} {
		e, ok := errors.AsType[*fault.Error](err)
		if !ok || e.Kind != fault.Throttled || e.RetryAfter <= 0 {
			t.Fatalf("%s: got %v, want a fault of kind Throttled with its delay", kind, err)
		}
		if x, ok := errors.AsType[*limit.Exceeded](err); !ok || x.Kind != kind || !x.Decision.Limited() {
			t.Errorf("%s: got %v, want it to say which budget", kind, err)
		}
	}
	if err := b.Failed(from, [16]byte{2}); err != nil {
		t.Errorf("another source from the same address: %v", err)
	}
	if len(refused) != 2 {
		t.Errorf("noted %v, want two refusals", refused)
	}
}
