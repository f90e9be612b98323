package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func retries() group {
	return group{"Retry", map[string]func(*World){
		"ClaimTakesWhatIsDue":            claimDue,
		"ClaimIsAFewAtATime":             claimBatch,
		"RoutesAreWeighted":              claimWeights,
		"TenantsTakeTurns":               claimTurns,
		"LeaseRunsOut":                   leaseRunsOut,
		"ReleaseSpendsNothing":           release,
		"TwoClaimsSpendOneAttempt":       twoClaims,
		"LastAttemptBuries":              lastAttempt,
		"DelayHasJitterAndIsKept":        jitter,
		"InfrastructureSpendsNothing":    outage,
		"ThreeFailuresAloneArePoison":    poison,
		"AdoptedMeanwhileIsLeftAlone":    adoptedMeanwhile,
		"DepthsByRoute":                  depths,
		"ReleasedAndForeignClaimsAreOff": staleClaims,
		"ManyMayAskAtOnce":               manyAsk,
	}}
}

func claimDue(w *World) {
	_, ok, err := w.NextDue(w.Ctx())
	w.must(err)
	Same(w.T, "something waits", ok, false)
	res := w.Send(event.Opened, Address("ada@example.com"))
	due, ok, err := w.NextDue(w.Ctx())
	w.must(err)
	Same(w.T, "something waits", ok, true)
	Same(w.T, "due", due, w.Record(res.ID).NextAttemptAt)
	Same(w.T, "retried too early", len(w.Due()), 0)
	w.Clock.Advance(time.Second)
	got := w.Due()
	Same(w.T, "retried", len(got), 1)
	Same(w.T, "outcome", got[0].Outcome, event.OutcomeOrphaned)
	r := w.Record(res.ID)
	Same(w.T, "attempts", r.Attempts, 1)
	if d := r.NextAttemptAt.Sub(w.Clock.Now()); d > 2*time.Second || d < time.Second {
		w.T.Errorf("the second attempt is due in %v, want about 2 s", d)
	}
}

func typed(t event.Type) Option { return func(e *event.Event) { e.Type = t } }

func claimBatch(w *World) {
	w.Flood(120, Address("ada@example.com"))
	w.Clock.Advance(time3)
	seen := map[int64]bool{}
	for _, want := range []int{50, 50, 20, 0} {
		c, err := w.Claim(w.Ctx(), 50, time.Minute, 0)
		w.must(err)
		Same(w.T, "claimed", len(c.Events), want)
		for _, e := range c.Events {
			if seen[e.Seq] {
				w.T.Errorf("orphan %d was claimed twice", e.Seq)
			}
			seen[e.Seq] = true
			Same(w.T, "attempts seen", e.Attempts, 0)
		}
	}
}

func count(c store.Claim, key func(store.Claimed) string) map[string]int {
	n := map[string]int{}
	for _, e := range c.Events {
		n[key(e)]++
	}
	return n
}

func claimWeights(w *World) {
	w.Flood(100, Lead("l"), typed(event.Opened))
	w.Flood(100, Lead("l"), typed(event.Delivered))
	w.Flood(100, Lead("l"), typed(event.Replied))
	w.Clock.Advance(time3)
	route := func(c store.Claimed) string { return string(c.Route) }
	c, err := w.Claim(w.Ctx(), 50, time.Minute, 0)
	w.must(err)
	n := count(c, route)
	Same(w.T, "claimed", len(c.Events), 50)
	if n["urgent"] <= n["standard"] || n["standard"] <= n["bulk"] || n["bulk"] == 0 {
		w.T.Errorf("shares are %v, want urgent > standard > bulk > 0", n)
	}
	w.must(w.Release(w.Ctx(), c))
	// A route that has nothing leaves its share to the others.
	for range 6 {
		c, err = w.Claim(w.Ctx(), 50, time.Hour, 0)
		w.must(err)
		Same(w.T, "claimed", len(c.Events), 50)
	}
	c, err = w.Claim(w.Ctx(), 50, time.Hour, 0)
	w.must(err)
	Same(w.T, "left", len(c.Events), 0)
}

func claimTurns(w *World) {
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	w.Flood(500, Lead("l"))
	w.Clock.Advance(time.Second)
	w.Flood(10, Lead("l"), For(other.ID))
	w.Clock.Advance(time3)
	c, err := w.Claim(w.Ctx(), 50, time.Minute, 0)
	w.must(err)
	n := count(c, func(c store.Claimed) string { return fmt.Sprint(c.Tenant) })
	Same(w.T, "a flood does not hold up another tenant", n[fmt.Sprint(other.ID)], 10)
	Same(w.T, "and takes what is left", n[fmt.Sprint(w.Tenant)], 40)
}

func leaseRunsOut(w *World) {
	res := w.Send(event.Opened, Lead("l"))
	w.Clock.Advance(time3)
	first, err := w.Claim(w.Ctx(), 50, 15*time.Second, 0)
	w.must(err)
	Same(w.T, "claimed", len(first.Events), 1)
	Same(w.T, "claimed twice", len(w.Due()), 0)
	due, _, err := w.NextDue(w.Ctx())
	w.must(err)
	if d := due.Sub(w.Clock.Now()); d < 14*time.Second || d > 15*time.Second {
		w.T.Errorf("claimable again in %v, want 15 s", d)
	}
	w.Clock.Advance(16 * time.Second)
	second, err := w.Claim(w.Ctx(), 50, 15*time.Second, 0)
	w.must(err)
	Same(w.T, "claimed again", len(second.Events), 1)
	Same(w.T, "a lost lease is not an attempt", second.Events[0].Attempts, 0)
	late, err := w.Retry(w.Ctx(), first)
	w.must(err)
	Same(w.T, "the late claimer retries nothing", len(late), 0)
	got, err := w.Retry(w.Ctx(), second)
	w.must(err)
	Same(w.T, "retried", len(got), 1)
	Same(w.T, "attempts", w.Record(res.ID).Attempts, 1)
}

func release(w *World) {
	res := w.Send(event.Opened, Lead("l"))
	before := w.Record(res.ID).NextAttemptAt
	w.Clock.Advance(time3)
	c, err := w.Claim(w.Ctx(), 50, time.Hour, 0)
	w.must(err)
	w.must(w.Release(w.Ctx(), c))
	r := w.Record(res.ID)
	Same(w.T, "attempts", r.Attempts, 0)
	Same(w.T, "due", r.NextAttemptAt, before)
	Same(w.T, "claimable at once", len(w.Due()), 1)
	w.must(w.Release(w.Ctx(), store.Claim{}))
}

func twoClaims(w *World) {
	res := w.Send(event.Opened, Lead("l"))
	w.Clock.Advance(time3)
	first, err := w.Claim(w.Ctx(), 50, time.Second, 0)
	w.must(err)
	w.Clock.Advance(2 * time.Second)
	second, err := w.Claim(w.Ctx(), 50, time.Second, 0)
	w.must(err)
	var spent int
	for _, c := range []store.Claim{second, first, second, first} {
		got, err := w.Retry(w.Ctx(), c)
		w.must(err)
		spent += len(got)
	}
	Same(w.T, "retried", spent, 1)
	Same(w.T, "attempts", w.Record(res.ID).Attempts, 1)
	Same(w.T, "timeline", w.Moments(res.ID), []string{"received", "parked", "attempt"})
}

func lastAttempt(w *World) {
	res := w.Send(event.Replied, Lead("l"), Address("ada@example.com"))
	for n := 1; n <= Attempts; n++ {
		w.Clock.Advance(10 * time.Second)
		got := w.Due()
		Same(w.T, "retried", len(got), 1)
		if n < Attempts {
			Same(w.T, "outcome", got[0].Outcome, event.OutcomeOrphaned)
			Same(w.T, "attempts", w.Record(res.ID).Attempts, n)
			continue
		}
		Same(w.T, "outcome", got[0].Outcome, event.OutcomeDead)
		Same(w.T, "reason", got[0].Reason, store.ReasonNoEnrollment)
	}
	_, waiting, err := w.NextDue(w.Ctx())
	w.must(err)
	Same(w.T, "still waits", waiting, false)
	l := w.LetterOf(res.ID)
	Same(w.T, "reason", l.Reason, store.ReasonNoEnrollment)
	Same(w.T, "attempts", l.Attempts, Attempts)
	Same(w.T, "attempts of the event", w.Record(res.ID).Attempts, Attempts)
	Same(w.T, "first received", l.FirstReceivedAt, w.Record(res.ID).ReceivedAt)
	if !l.LastAttemptAt.After(l.FirstReceivedAt) {
		w.T.Errorf("the last attempt is at %v", l.LastAttemptAt)
	}
	Same(w.T, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Received: 1, Dead: 1})
}

func jitter(w *World) {
	w.Reopen(func(o *Options) {
		o.Delay = func(n int) (time.Duration, bool) {
			return time.Minute + rand.N(6*time.Second), n < 5 //nolint:gosec // a test needs no secrecy
		}
	})
	ids := w.Flood(100, Lead("l"))
	seen := map[time.Time]bool{}
	check := func() {
		first := time.Time{}
		for _, id := range ids {
			r := w.Record(id)
			from := r.ParkedAt
			if r.Attempts > 0 {
				from = w.Clock.Now().Add(-time.Second)
			}
			if d := r.NextAttemptAt.Sub(from); d < time.Minute-time.Second || d > 66*time.Second {
				w.T.Fatalf("due after %v, want 60 to 66 s", d)
			}
			seen[r.NextAttemptAt] = true
			if first.IsZero() || r.NextAttemptAt.Before(first) {
				first = r.NextAttemptAt
			}
		}
		due, _, err := w.NextDue(w.Ctx())
		w.must(err)
		Same(w.T, "claimable when due, not before", due, first)
	}
	check()
	if len(seen) < 50 {
		w.T.Errorf("100 orphans are due at %d moments: a burst comes back as one", len(seen))
	}
	// None is claimed before it is due, so each claim can be retried in full.
	for range 14 {
		w.Clock.Advance(5 * time.Second)
		c, err := w.Claim(w.Ctx(), 1000, time.Hour, 0)
		w.must(err)
		got, err := w.Retry(w.Ctx(), c)
		w.must(err)
		Same(w.T, "retried of those claimed", len(got), len(c.Events))
	}
	for _, id := range ids {
		Same(w.T, "attempts", w.Record(id).Attempts, 1)
	}
}

func outage(w *World) {
	res := w.Send(event.Opened, Address("ada@example.com"))
	w.Clock.Advance(time3)
	c, err := w.Claim(w.Ctx(), 50, time.Minute, 0)
	w.must(err)
	gone, cancel := context.WithDeadline(w.Ctx(), time.Now().Add(-time.Second))
	defer cancel()
	_, err = w.Retry(gone, c)
	Kind(w.T, err, fault.Unavailable)
	_, err = w.Commit(gone, []event.Event{w.Event(event.Opened)})
	Kind(w.T, err, fault.Unavailable)
	_, err = w.Failed(gone, c, "x")
	Kind(w.T, err, fault.Unavailable)
	Same(w.T, "attempts", w.Record(res.ID).Attempts, 0)
	got, err := w.Retry(w.Ctx(), c)
	w.must(err)
	Same(w.T, "retried when it is back", len(got), 1)
	Same(w.T, "received", w.Account(w.Tenant).Received, 1)
}

func poison(w *World) {
	res := w.Send(event.Opened, Address("ada@example.com"))
	for n := range 3 {
		w.Clock.Advance(2 * time.Minute)
		c, err := w.Claim(w.Ctx(), 50, time.Minute, 0)
		w.must(err)
		Same(w.T, "claimed", len(c.Events), 1)
		got, err := w.Failed(w.Ctx(), c, "the database refuses it")
		w.must(err)
		if n < 2 {
			Same(w.T, "settled", len(got), 0)
			Same(w.T, "attempts", w.Record(res.ID).Attempts, 0)
			continue
		}
		Same(w.T, "settled", len(got), 1)
		Same(w.T, "reason", got[0].Reason, store.ReasonPoison)
	}
	Same(w.T, "letter", w.LetterOf(res.ID).Reason, store.ReasonPoison)
	Same(w.T, "timeline", w.Moments(res.ID), []string{"received", "parked", "buried"})
	// Only what lacks its enrollment waits in the dead letters.
	d := w.Join(w.Instance, campaign.Enrollment{Email: "ada@example.com"})
	Same(w.T, "adopted", d.Adopted, 0)
	Same(w.T, "state", w.Record(res.ID).State, event.Dead)
	// A person may still replay it.
	id := w.LetterOf(res.ID).ID
	again, err := w.ReplayLetters(w.Ctx(), w.Tenant, []uuid.UUID{id})
	w.must(err)
	Same(w.T, "replayed", again[id].Outcome, event.OutcomeApplied)
}

func adoptedMeanwhile(w *World) {
	a, b := w.Send(event.Opened, Address("ada@example.com")), w.Send(event.Opened, Lead("l"))
	w.Clock.Advance(time3)
	c, err := w.Claim(w.Ctx(), 50, time.Minute, 0)
	w.must(err)
	Same(w.T, "claimed", len(c.Events), 2)
	ada := w.Person("ada@example.com")
	got, err := w.Retry(w.Ctx(), c)
	w.must(err)
	Same(w.T, "retried", len(got), 1)
	Same(w.T, "retried", got[0].ID, b.ID)
	w.IsApplied(a.ID, ada)
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: 1})
	Same(w.T, "timeline", w.Moments(a.ID), []string{"received", "parked", "adopted"})
}

func depths(w *World) {
	w.Flood(3, Lead("l"), typed(event.Replied))
	w.Flood(2, Lead("l"), typed(event.Opened))
	oldest := w.Record(w.oldest()).ReceivedAt
	check := func(route event.Route, want store.RouteStats) {
		w.T.Helper()
		all, err := w.QueueStats(w.Ctx())
		w.must(err)
		Same(w.T, string(route), all[route], want)
	}
	check(event.RouteUrgent, store.RouteStats{Depth: 3, OldestAt: oldest})
	check(event.RouteStandard, store.RouteStats{})
	w.Clock.Advance(time3)
	c, err := w.Claim(w.Ctx(), 2, time.Minute, 0)
	w.must(err)
	Same(w.T, "claimed", len(c.Events), 2)
	all, err := w.QueueStats(w.Ctx())
	w.must(err)
	sum := store.RouteStats{}
	for _, s := range all {
		sum.Depth, sum.Due, sum.Leased = sum.Depth+s.Depth, sum.Due+s.Due, sum.Leased+s.Leased
	}
	Same(w.T, "sum", sum, store.RouteStats{Depth: 5, Due: 3, Leased: 2})
	depth, at, err := w.QueueDepth(w.Ctx())
	w.must(err)
	Same(w.T, "depth", depth, 5)
	Same(w.T, "oldest", at, oldest)
}

// oldest is the id of the event that was stored first.
func (w *World) oldest() uuid.UUID {
	rows, _, err := w.Events(w.Ctx(), w.Tenant, store.EventFilter{}, store.Page{Limit: 1000})
	w.must(err)
	return rows[len(rows)-1].ID
}

func manyAsk(w *World) {
	for _, typ := range []event.Type{event.Replied, event.Opened, event.Delivered} {
		w.Send(typ, Lead("l"))
	}
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			all, err := w.QueueStats(w.Ctx())
			if err != nil || all[event.RouteUrgent].Depth != 1 {
				w.T.Errorf("depths are %+v, %v", all, err)
			}
		})
	}
	group.Wait() // had they waited for each other, the deadline would have ended them
}

func staleClaims(w *World) {
	res := w.Send(event.Opened, Lead("l"))
	w.Clock.Advance(time3)
	c, err := w.Claim(w.Ctx(), 50, time.Minute, 0)
	w.must(err)
	w.must(w.Release(w.Ctx(), c))
	for name, claim := range map[string]store.Claim{
		"Released": c,
		"Foreign":  {Token: c.Token + 1000, Events: c.Events},
	} {
		got, err := w.Retry(w.Ctx(), claim)
		w.must(err)
		Same(w.T, name, len(got), 0)
		got, err = w.Failed(w.Ctx(), claim, "x")
		w.must(err)
		Same(w.T, name, len(got), 0)
	}
	Same(w.T, "attempts", w.Record(res.ID).Attempts, 0)
	Same(w.T, "still due", len(w.Due()), 1)
}
