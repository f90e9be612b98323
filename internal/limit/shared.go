package limit

import (
	"strconv"
	"time"
)

const (
	// mostShared is how many budgets of a kind a replica shares at once; the
	// others are its own. It bounds what a flood of addresses costs here, and
	// what it leaves in the ledger.
	mostShared = 1 << 12
	// refresh is how often a budget that is asked for is booked although nothing
	// has changed: it brings back what the ledger has lost.
	refresh = time.Second
)

// Shared is the budgets of one rate, shared by replicas. Each lets through
// what its own window allows, books that in a ledger behind the requests' backs, and
// allows no more once the sum of all is known to have reached the rate. No request
// waits for the ledger. It is safe for concurrent use.
//
// Bound: within one period N replicas let through less than the rate and N
// times the lead. The lead is what a replica may let through that the ledger
// has not confirmed yet; when it is used up before the answer comes, requests are
// refused meanwhile, for Patience at most. One replica alone never lets more
// through than the rate. Nothing is refused for good before the sum reaches the rate,
// since nobody holds a part that he does not use.
//
// The lead is a tenth of the rate for strangers, and half of it for keys and
// sources, whose bursts are honest; at least 10, and no more than the rate. With 100 in 15
// minutes, 3 replicas let through 129 at the very worst: when all
// of them are asked within the same round trip. Asked one after the other it is
// the rate, give or take what is not booked yet: half a lead for each other replica.
//
// While the ledger is away or slower than Patience each replica has the rate for
// itself, less what the others were known to have used in the period that runs.
//
// A budget is booked once half of the lead is used, so that most never are. Its
// period is then that of the replica that booked it first.
type Shared struct {
	*Window
	kind    Kind
	lead    int
	portion int
	most    int
	x       *Exchange

	accounts map[Key]*account // guarded by Window.mu
	swept    int64            // when those that were over were taken out last
}

// account is the shared side of a budget.
type account struct {
	since   int64  // of the period, as in the window
	stretch string // its name in the ledger
	booked  int32  // of the window's count, confirmed
	others  int32  // let through by the others, as far as known
	told    int64  // when the ledger has answered last
	ends    int64  // when the period ends by the ledger's clock; 0: not told yet
	asked   int64  // since when an answer is waited for
	waiting bool   // for an answer
	queued  bool   // to be booked
}

func share(w *Window, kind Kind, x *Exchange) *Shared {
	part := 10
	if kind == API || kind == Webhook {
		part = 2
	}
	lead := min(max(w.rate.Count/part, 10), max(w.rate.Count, 1))
	return &Shared{
		Window: w, kind: kind, x: x, lead: lead, portion: max(lead/2, 1), most: mostShared, accounts: map[Key]*account{},
	}
}

// Take spends one of a key's budget, if there is one left as far as this
// replica knows. Remaining counts what the others have used up to their last
// booking.
func (s *Shared) Take(k Key) Decision {
	if s.rate.Count == 0 {
		return Decision{Allowed: true}
	}
	now := int64(s.now().Sub(s.begin))
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.find(k, now)
	a := s.account(k, sp)
	d := s.decide(sp, now)
	if a != nil {
		d.Remaining = max(d.Remaining-int(a.others), 0)
		d.Allowed = d.Remaining > 0
		if d.Allowed && s.ahead(a, sp, now) {
			d.Allowed, d.Remaining, d.Reset = false, 0, min(d.Reset, s.x.opt.Patience)
		}
	}
	if d.Allowed {
		sp.count++
		d.Remaining--
	}
	s.put(k, sp)
	s.note(k, a, sp, now)
	return d
}

// account finds the shared side of a budget; nil when there is none in the
// period that runs.
func (s *Shared) account(k Key, sp spent) *account {
	a := s.accounts[k]
	if a != nil && a.since != sp.since {
		delete(s.accounts, k)
		return nil
	}
	return a
}

// ahead tells whether the lead is used up while an answer is to be expected.
func (s *Shared) ahead(a *account, sp spent, now int64) bool {
	return int(sp.count-a.booked) >= s.lead && a.waiting && now-a.asked < int64(s.x.opt.Patience) && s.x.ledger.Up()
}

// note has a budget booked when that is due: when a portion is used, or
// anything from half of the rate on, and now and then while it is asked for.
func (s *Shared) note(k Key, a *account, sp spent, now int64) {
	if a == nil {
		if int(sp.count) < s.portion || !s.room(now) {
			return
		}
		a = &account{since: sp.since, stretch: s.x.opt.Replica + ":" + strconv.FormatInt(sp.since, 36), told: now}
		s.accounts[k] = a
	}
	unbooked := int(sp.count - a.booked)
	late := 2*int(sp.count+a.others) >= s.rate.Count && unbooked != 0
	if a.queued || unbooked < s.portion && !late && now-a.told < int64(refresh) {
		return
	}
	if s.x.queue(s, k) {
		a.queued = true
		if !a.waiting {
			a.waiting, a.asked = true, now
		}
	}
}

// room makes room for another account among those whose period is over.
func (s *Shared) room(now int64) bool {
	if len(s.accounts) < s.most {
		return true
	}
	if now-s.swept < int64(refresh) {
		return false
	}
	s.swept = now
	for k, a := range s.accounts {
		if now-a.since >= int64(s.rate.Period) {
			delete(s.accounts, k)
		}
	}
	return len(s.accounts) < s.most
}

// entry is what is to be booked of a budget; ok is false when its period is
// over.
func (s *Shared) entry(k Key) (e Entry, ok bool) {
	now := int64(s.now().Sub(s.begin))
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.find(k, now)
	a := s.account(k, sp)
	if a == nil {
		return e, false
	}
	a.queued = false
	return Entry{
		Budget: s.x.name(s.kind, k), Stretch: a.stretch, Count: int(sp.count), Left: s.rate.Period - time.Duration(now-sp.since), Ends: a.ends,
	}, true
}

// answer takes in what the ledger has said to an entry.
func (s *Shared) answer(k Key, e Entry, t Total) {
	now := int64(s.now().Sub(s.begin))
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.find(k, now)
	a := s.account(k, sp)
	if a == nil || a.stretch != e.Stretch || t.Left <= 0 {
		return
	}
	a.booked, a.told, a.ends = int32(e.Count), now, t.Ends //nolint:gosec // it was an int32
	// A ledger that was emptied knows less than we do until the others book again.
	a.others = max(a.others, int32(min(t.Sum-e.Count, s.rate.Count))) //nolint:gosec // a rate is not that large
	if a.waiting = a.queued; a.waiting {
		a.asked = now
	}
	// From now on the period ends when that of the others does.
	sp.since = now - int64(s.rate.Period-min(t.Left, s.rate.Period))
	a.since = sp.since
	s.put(k, sp)
}
