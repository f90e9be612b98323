package storetest

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

// beside are the scenarios of a queue that stands beside the database: it is
// told what waits, gives leases of its own, and is rebuilt from the schedule.
func beside() group {
	return group{"Beside", map[string]func(*World){
		"ItIsToldWhatComesToWait":     besideTold,
		"ItIsToldWhatWaitsNoLonger":   besideGone,
		"ItsLeasesNeedNoToken":        besideLease,
		"ItsFailuresCountToo":         besideFailed,
		"TwoSpendOneAttempt":          besideTwo,
		"OnlyTheOverdueIsLeftToUs":    besideOverdue,
		"ItIsRebuiltFromTheSchedule":  besideRebuilt,
		"ReleasingItsClaimIsNoMatter": besideReleased,
	}}
}

// external is a claim that another queue has given.
func external(parked ...store.Parked) store.Claim {
	c := store.Claim{External: true}
	for _, p := range parked {
		c.Events = append(c.Events, store.Claimed{Seq: p.Seq, Tenant: p.Tenant, Route: p.Route})
	}
	return c
}

func (w *World) orphans() []store.Parked {
	w.T.Helper()
	all, err := w.Orphans(w.Ctx(), 0, 1000)
	w.must(err)
	return all
}

func besideTold(w *World) {
	var mu sync.Mutex
	var told []store.Parked
	w.Reopen(func(o *Options) {
		o.Parked = func(p []store.Parked) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, p...)
		}
	})
	since := func() []store.Parked {
		mu.Lock()
		defer mu.Unlock()
		all := told
		told = nil
		return all
	}
	w.Person("ada@example.com")
	res := w.Put(w.Event(event.Opened, Address("ada@example.com")), w.Event(event.Replied, Lead("l")), w.Event(event.Opened, Lead("l")))
	got := since()
	Same(w.T, "told of those that wait", len(got), 2)
	for i, p := range got {
		r := w.Record(res[i+1].ID)
		Same(w.T, "parked", p, store.Parked{Seq: r.Seq, Tenant: w.Tenant, Route: r.Route(), Delay: time.Second})
	}
	w.Clock.Advance(2 * time.Second)
	for _, r := range w.Due() {
		if r.Seq == 0 || r.NextAttemptAt.IsZero() {
			w.T.Errorf("a retry that waits on says neither which it is nor until when: %+v", r)
		}
	}
	Same(w.T, "a retry tells by its results", len(since()), 0)
	w.Spend()
	letter := w.LetterOf(res[1].ID)
	w.mustReplay(letter)
	got = since()
	Same(w.T, "told of the replayed", len(got), 1)
	Same(w.T, "which", got[0].Seq, w.Record(res[1].ID).Seq)
	Same(w.T, "delay", got[0].Delay, time.Second)
}

func besideGone(w *World) {
	var mu sync.Mutex
	var told []store.Claimed
	w.Reopen(func(o *Options) {
		o.Gone = func(c []store.Claimed) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, c...)
		}
	})
	since := func() []store.Claimed {
		mu.Lock()
		defer mu.Unlock()
		all := told
		told = nil
		slices.SortFunc(all, func(a, b store.Claimed) int { return cmp.Compare(a.Seq, b.Seq) })
		return all
	}
	waiting := func() []store.Claimed { return external(w.orphans()...).Events }
	w.Put(w.Event(event.Opened, Address("ada@example.com")), w.Event(event.Replied, Address("ada@example.com")), w.Event(event.Opened, Lead("l")))
	want := waiting()[:2]
	ada := w.Person("ada@example.com")
	Same(w.T, "adopted", since(), want)
	want = waiting()
	_, err := w.Assign(w.Ctx(), w.Tenant, w.Put(w.Event(event.Opened, Lead("m")))[0].ID, ada, "me")
	w.must(err)
	Same(w.T, "assigned by hand", len(since()), 1)
	Same(w.T, "the other one waits on", waiting(), want)
	w.Spend()
	Same(w.T, "a retry tells by its results", len(since()), 0)
	w.Put(w.Event(event.Opened, Address("eve@example.com"), InCampaign("x")))
	want = waiting()
	w.Erase(store.Contact{Email: "eve@example.com"}, 100)
	Same(w.T, "erased", since(), want)
	Same(w.T, "nothing waits", len(waiting()), 0)
}

func besideLease(w *World) {
	res := w.Send(event.Opened, Lead("l"))
	c := external(w.orphans()...)
	Same(w.T, "waits", len(c.Events), 1)
	got, err := w.Retry(w.Ctx(), c)
	w.must(err)
	Same(w.T, "retried before it is due", len(got), 0)
	for n := 1; n <= Attempts; n++ {
		w.Clock.Advance(10 * time.Second)
		if n == 2 { // our own lease does not keep it off either
			_, err := w.Claim(w.Ctx(), 10, time.Hour, 0)
			w.must(err)
		}
		got, err := w.Retry(w.Ctx(), c)
		w.must(err)
		Same(w.T, "retried", len(got), 1)
		Same(w.T, "which", got[0].Seq, c.Events[0].Seq)
		Same(w.T, "attempts", w.Record(res.ID).Attempts, n)
		again, err := w.Retry(w.Ctx(), c)
		w.must(err)
		Same(w.T, "retried at once", len(again), 0)
	}
	Same(w.T, "state", w.Record(res.ID).State, event.Dead)
}

func besideFailed(w *World) {
	res := w.Send(event.Opened, Lead("l"))
	c := external(w.orphans()...)
	w.Clock.Advance(time3)
	for n := range 3 {
		got, err := w.Failed(w.Ctx(), c, "x")
		w.must(err)
		if n < 2 {
			Same(w.T, "settled", len(got), 0)
			continue
		}
		Same(w.T, "settled", len(got), 1)
		Same(w.T, "which", got[0].Seq, c.Events[0].Seq)
		Same(w.T, "reason", got[0].Reason, store.ReasonPoison)
	}
	Same(w.T, "state", w.Record(res.ID).State, event.Dead)
}

// besideTwo: both queues at once spend one attempt between them.
func besideTwo(w *World) {
	const n = 40
	ids := w.Flood(n, Lead("l"))
	parked := w.orphans()
	w.Clock.Advance(time3)
	own, err := w.Claim(w.Ctx(), n, time.Minute, 0)
	w.must(err)
	Same(w.T, "claimed", len(own.Events), n)
	var mu sync.Mutex
	spent := 0
	var group sync.WaitGroup
	for _, c := range []store.Claim{own, external(parked...), external(parked...), own} {
		group.Go(func() {
			got, err := w.Retry(w.Ctx(), c)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				w.T.Error(err)
			}
			spent += len(got)
		})
	}
	group.Wait()
	Same(w.T, "attempts spent", spent, n)
	for _, id := range ids {
		Same(w.T, "attempts", w.Record(id).Attempts, 1)
	}
}

func besideOverdue(w *World) {
	w.Send(event.Opened, Lead("l"))
	claimed := func() int {
		c, err := w.Claim(w.Ctx(), 10, time.Second, time.Minute)
		w.must(err)
		return len(c.Events)
	}
	w.Clock.Advance(30 * time.Second)
	Same(w.T, "due for half a minute", claimed(), 0)
	w.Clock.Advance(32 * time.Second)
	Same(w.T, "due for a minute", claimed(), 1)
	w.Clock.Advance(30 * time.Second)
	Same(w.T, "its lease is over for half a minute", claimed(), 0)
}

func besideRebuilt(w *World) {
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	w.Person("ada@example.com")
	w.Flood(30, Lead("l"))
	w.Send(event.Opened, Address("ada@example.com"))
	w.Flood(10, Lead("l"), For(other.ID), typed(event.Replied))
	seen := map[int64]store.Parked{}
	var last int64
	for {
		page, err := w.Orphans(w.Ctx(), last, 7)
		w.must(err)
		if len(page) == 0 {
			break
		}
		for _, p := range page {
			if p.Seq <= last {
				w.T.Fatalf("orphan %d comes after %d", p.Seq, last)
			}
			if p.Delay <= 0 || p.Delay > time.Second {
				w.T.Errorf("orphan %d is due in %v, want within a second", p.Seq, p.Delay)
			}
			last, seen[p.Seq] = p.Seq, p
		}
	}
	Same(w.T, "orphans", len(seen), 40)
	Same(w.T, "of the other tenant", seen[last], store.Parked{Seq: last, Tenant: other.ID, Route: event.RouteUrgent, Delay: seen[last].Delay})
	w.Clock.Advance(time.Hour)
	for _, p := range w.orphans() {
		Same(w.T, "delay of what is overdue", p.Delay, 0)
	}
}

func besideReleased(w *World) {
	w.Send(event.Opened, Lead("l"))
	parked := w.orphans()
	w.Clock.Advance(time3)
	own, err := w.Claim(w.Ctx(), 10, time.Hour, 0)
	w.must(err)
	w.must(w.Release(w.Ctx(), external(parked...)))
	Same(w.T, "our lease holds", len(w.Due()), 0)
	got, err := w.Retry(w.Ctx(), own)
	w.must(err)
	Same(w.T, "retried", len(got), 1)
}

func (w *World) mustReplay(l store.Letter) {
	w.T.Helper()
	_, err := w.ReplayLetters(w.Ctx(), w.Tenant, []uuid.UUID{l.ID})
	w.must(err)
}
