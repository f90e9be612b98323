// Package queuetest is the suite that every orphan queue must pass, in SQL or
// in Redis. It is for tests only.
//
// Guarantees: every scenario has a queue of its own; time is moved, never
// waited for, so no scenario depends on how fast a machine is.
package queuetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

// Bed is a queue as the scenarios see it. Methods fail the test where the
// queue fails.
type Bed interface {
	// Tenants gives the numbers of n tenants.
	Tenants(n int) []int64
	// Park has n new events of a tenant wait, and gives their numbers.
	Park(tenant int64, route event.Route, delay time.Duration, n int) []int64
	// ParkAgain parks once more, under the same numbers, what the last Park did.
	ParkAgain()
	Claim(n int, lease time.Duration) store.Claim
	// Finish settles a claim: its events wait no longer.
	Finish(claim store.Claim)
	// Again settles a claim: its events wait for another attempt.
	Again(claim store.Claim, delay time.Duration)
	Release(claim store.Claim)
	Stats() map[event.Route]store.RouteStats
	// Advance moves the queue's time.
	Advance(d time.Duration)
	// Cost counts the commands or statements that were run so far.
	Cost() int64
}

// Opener opens an empty queue; it fails the test when it cannot.
type Opener func(t testing.TB) Bed

type world struct {
	Bed
	t      testing.TB
	tenant int64
}

// Run puts a queue through every scenario. many is how many events it is filled
// with where that must not matter, 100,000 unless filling it takes too long.
func Run(t *testing.T, many int, open Opener) {
	t.Helper()
	for name, scenario := range map[string]func(*world){
		"NothingBeforeItIsDue":        notBefore,
		"LongestDueFirst":             dueOrder,
		"EachIsClaimedOnce":           once,
		"LeaseRunsOut":                leaseRunsOut,
		"CrashedClaimerLosesItsClaim": crash,
		"WrongTokenSettlesNothing":    wrongToken,
		"ReleaseSpendsNothing":        release,
		"SettledWaitsAgainOrIsGone":   settled,
		"FloodDoesNotHoldUpOthers":    flood,
		"RoutesAreWeighted":           weights,
		"UnusedShareGoesToOthers":     unusedShare,
		"ParkingAgainChangesNothing":  parkAgain,
		"ClaimsStayCheap":             func(w *world) { cheap(w, many) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			scenario(&world{Bed: b, t: t, tenant: b.Tenants(1)[0]})
		})
	}
}

func same[V any](w *world, what string, got, want V) {
	w.t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func seqs(c store.Claim) []int64 {
	all := make([]int64, len(c.Events))
	for i, e := range c.Events {
		all[i] = e.Seq
	}
	slices.Sort(all)
	return all
}

func (w *world) sum() store.RouteStats {
	var sum store.RouteStats
	for _, s := range w.Stats() {
		sum.Depth, sum.Due, sum.Leased = sum.Depth+s.Depth, sum.Due+s.Due, sum.Leased+s.Leased
	}
	return sum
}

func notBefore(w *world) {
	same(w, "claimed of nothing", len(w.Claim(50, time.Hour).Events), 0)
	parked := w.Park(w.tenant, event.RouteUrgent, time.Hour, 2)
	same(w, "claimed too early", len(w.Claim(50, time.Hour).Events), 0)
	same(w, "depths", w.sum(), store.RouteStats{Depth: 2})
	w.Advance(59 * time.Minute)
	same(w, "claimed a minute too early", len(w.Claim(50, time.Hour).Events), 0)
	w.Advance(2 * time.Minute)
	same(w, "depths", w.sum(), store.RouteStats{Depth: 2, Due: 2})
	c := w.Claim(50, time.Hour)
	same(w, "claimed", seqs(c), parked)
	for _, e := range c.Events {
		same(w, "tenant", e.Tenant, w.tenant)
		same(w, "route", e.Route, event.RouteUrgent)
	}
	same(w, "depths", w.sum(), store.RouteStats{Depth: 2, Leased: 2})
}

func dueOrder(w *world) {
	third := w.Park(w.tenant, event.RouteBulk, 3*time.Hour, 1)
	first := w.Park(w.tenant, event.RouteBulk, time.Hour, 1)
	second := w.Park(w.tenant, event.RouteBulk, 2*time.Hour, 1)
	w.Advance(4 * time.Hour)
	for _, want := range [][]int64{first, second, third, {}} {
		same(w, "claimed", seqs(w.Claim(1, time.Hour)), want)
	}
}

func once(w *world) {
	parked := w.Park(w.tenant, event.RouteStandard, time.Minute, 120)
	w.Advance(time.Hour)
	var all []int64
	for _, want := range []int{50, 50, 20, 0} {
		c := w.Claim(50, time.Hour)
		same(w, "claimed", len(c.Events), want)
		all = append(all, seqs(c)...)
	}
	slices.Sort(all)
	same(w, "claimed, each once", all, parked)
}

func leaseRunsOut(w *world) {
	parked := w.Park(w.tenant, event.RouteStandard, time.Minute, 3)
	w.Advance(time.Hour)
	first := w.Claim(50, 2*time.Hour)
	same(w, "claimed", seqs(first), parked)
	w.Advance(time.Hour)
	same(w, "claimed under the lease", len(w.Claim(50, time.Hour).Events), 0)
	w.Advance(61 * time.Minute)
	second := w.Claim(50, 2*time.Hour)
	same(w, "claimed again", seqs(second), parked)
	same(w, "a lost lease is not an attempt", second.Events[0].Attempts, first.Events[0].Attempts)
}

func crash(w *world) {
	parked := w.Park(w.tenant, event.RouteUrgent, time.Minute, 10)
	w.Advance(time.Hour)
	crashed := w.Claim(50, time.Hour)
	w.Advance(2 * time.Hour)
	taken := w.Claim(4, time.Hour)
	same(w, "taken over", len(taken.Events), 4)
	// The first is not dead after all. It settles what nobody took since.
	w.Finish(crashed)
	same(w, "depths", w.sum(), store.RouteStats{Depth: 4, Leased: 4})
	w.Finish(taken)
	same(w, "depths", w.sum(), store.RouteStats{})
	same(w, "parked", len(parked), 10)
}

func wrongToken(w *world) {
	w.Park(w.tenant, event.RouteUrgent, time.Minute, 5)
	w.Advance(time.Hour)
	c := w.Claim(50, 3*time.Hour)
	wrong := c
	wrong.Token += 1000
	w.Finish(wrong)
	w.Again(wrong, 24*time.Hour)
	w.Release(wrong)
	same(w, "depths", w.sum(), store.RouteStats{Depth: 5, Leased: 5})
	same(w, "claimable", len(w.Claim(50, time.Hour).Events), 0)
	w.Finish(c)
	same(w, "depths", w.sum(), store.RouteStats{})
	w.Finish(c)
	w.Release(c)
	same(w, "depths, settled twice", w.sum(), store.RouteStats{})
}

func release(w *world) {
	parked := w.Park(w.tenant, event.RouteStandard, time.Minute, 5)
	w.Advance(time.Hour)
	c := w.Claim(50, 3*time.Hour)
	w.Release(c)
	same(w, "depths", w.sum(), store.RouteStats{Depth: 5, Due: 5})
	again := w.Claim(50, time.Hour)
	same(w, "claimed again", seqs(again), parked)
	same(w, "attempts", again.Events[0].Attempts, c.Events[0].Attempts)
	w.Release(c)
	same(w, "claimable by the former token", len(w.Claim(50, time.Hour).Events), 0)
}

func settled(w *world) {
	parked := w.Park(w.tenant, event.RouteStandard, time.Minute, 6)
	w.Advance(time.Hour)
	first, second := w.Claim(3, time.Hour), w.Claim(3, time.Hour)
	w.Finish(first)
	w.Again(second, 10*time.Hour)
	same(w, "depths", w.sum(), store.RouteStats{Depth: 3})
	w.Advance(9 * time.Hour)
	same(w, "claimed too early", len(w.Claim(50, time.Hour).Events), 0)
	w.Advance(61 * time.Minute)
	left := w.Claim(50, time.Hour)
	same(w, "claimed", seqs(left), seqs(second))
	w.Finish(left)
	same(w, "depths", w.sum(), store.RouteStats{})
	w.Advance(100 * time.Hour)
	same(w, "claimed when all is done", len(w.Claim(50, time.Hour).Events), 0)
	same(w, "parked", len(parked), 6)
}

func flood(w *world) {
	few := w.Tenants(4)[1:]
	w.Park(w.tenant, event.RouteStandard, time.Minute, 2000)
	w.Advance(time.Hour)
	for _, t := range few {
		w.Park(t, event.RouteStandard, time.Minute, 5)
	}
	w.Advance(time.Hour)
	c := w.Claim(50, time.Hour)
	n := map[int64]int{}
	for _, e := range c.Events {
		n[e.Tenant]++
	}
	for _, t := range few {
		same(w, "of a small tenant", n[t], 5)
	}
	same(w, "of the flood", n[w.tenant], 35)
}

func (w *world) routes(c store.Claim) map[event.Route]int {
	n := map[event.Route]int{}
	for _, e := range c.Events {
		n[e.Route]++
	}
	return n
}

func weights(w *world) {
	for _, r := range slices.Backward(event.Routes()) {
		w.Park(w.tenant, r, time.Minute, 100)
	}
	w.Advance(time.Hour)
	c := w.Claim(50, time.Hour)
	same(w, "claimed", len(c.Events), 50)
	n := w.routes(c)
	if n[event.RouteUrgent] <= n[event.RouteStandard] || n[event.RouteStandard] <= n[event.RouteBulk] || n[event.RouteBulk] == 0 {
		w.t.Errorf("shares are %v, want urgent > standard > bulk > 0", n)
	}
}

func unusedShare(w *world) {
	w.Park(w.tenant, event.RouteBulk, time.Minute, 100)
	w.Park(w.tenant, event.RouteUrgent, time.Minute, 3)
	w.Advance(time.Hour)
	same(w, "claimed", w.routes(w.Claim(50, time.Hour)), map[event.Route]int{event.RouteUrgent: 3, event.RouteBulk: 47})
}

func parkAgain(w *world) {
	w.Park(w.tenant, event.RouteUrgent, time.Minute, 5)
	w.ParkAgain()
	same(w, "depths", w.sum(), store.RouteStats{Depth: 5})
	w.Advance(time.Hour)
	c := w.Claim(3, time.Hour)
	w.ParkAgain() // must not take anything from under its lease
	same(w, "depths", w.sum(), store.RouteStats{Depth: 5, Due: 2, Leased: 3})
	w.Finish(c)
	same(w, "claimed", len(w.Claim(50, time.Hour).Events), 2)
}

// cheap holds the number of commands of a claim with its settling at many
// events against that at 1,000.
func cheap(w *world, many int) {
	cost := func() int64 {
		before := w.Cost()
		c := w.Claim(50, time.Hour)
		same(w, "claimed", len(c.Events), 50)
		w.Finish(c)
		return w.Cost() - before
	}
	w.Park(w.tenant, event.RouteStandard, time.Minute, 1000)
	w.Advance(time.Hour)
	cost() // what is done once is done
	few := cost()
	w.Park(w.tenant, event.RouteStandard, time.Minute, many-1000)
	w.Advance(time.Hour)
	if more := cost(); more > few+2 {
		w.t.Errorf("a claim of 50 with its settling took %d commands at 1,000 events and %d at %d", few, more, many)
	}
}

// Context is the context of a bed's calls: it outlives the test's own, so that
// cleanups can use it.
func Context(t testing.TB) context.Context { return context.WithoutCancel(t.Context()) }
