package report

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

// inferWithin is how soon after its delivery nobody has read a message: a
// second, and another one for times that are told in whole seconds.
const inferWithin = 2 * time.Second

// infer takes for a program's, beside what its provider calls so, the opens and
// clicks that came within two seconds of the delivery of the same step to the
// same enrollment, told by the same provider. What a provider calls a person's
// stays a person's. It is for reports alone: nothing that is stored changes.
//
// A fact has the times of its first and its last event and no others, so of
// several events those two are judged; all of them where both lie within the
// two seconds of one delivery. A report over a period sees the facts of that
// period: an open just after its beginning, of a message delivered before, is
// not judged.
func infer(n store.Numbers) store.Numbers {
	arrived := map[delivery][]time.Time{}
	for _, u := range n.Uniques {
		if u.Type == event.Delivered {
			k := deliveryOf(u)
			arrived[k] = append(arrived[k], u.FirstAt, u.LastAt)
		}
	}
	rows := make([]store.UniqueRow, 0, len(n.Uniques))
	moves := map[counterKey]int64{}
	for _, u := range n.Uniques {
		first, last := judge(u, arrived[deliveryOf(u)])
		soon := first + last
		if soon == 0 {
			rows = append(rows, u)
			continue
		}
		moves[counterOf(u, u.FirstAt)] += first
		moves[counterOf(u, u.LastAt)] += last
		program := u
		program.Machine, program.Count = event.MachineYes, soon
		rows = append(rows, program)
		if u.Count -= soon; u.Count > 0 {
			rows = append(rows, u)
		}
	}
	n.Uniques, n.Tallies = rows, moved(n.Tallies, moves)
	return n
}

// delivery is what an open has in common with the delivery before it.
type delivery struct {
	enrollment uuid.UUID
	provider   string
	step       int
}

func deliveryOf(u store.UniqueRow) delivery { return delivery{u.Enrollment, u.Provider, u.Step} }

// judge tells how many of a fact's events came too soon: those with its first
// time, and those with its last.
func judge(u store.UniqueRow, arrived []time.Time) (first, last int64) {
	if u.Type != event.Opened && u.Type != event.Clicked || u.Machine != event.MachineUnknown || u.Count < 1 {
		return 0, 0
	}
	soon := func(at time.Time) func(time.Time) bool {
		return func(d time.Time) bool { return !at.Before(d) && at.Sub(d) <= inferWithin }
	}
	switch {
	case u.Count > 1 && slices.ContainsFunc(arrived, func(d time.Time) bool { return soon(u.FirstAt)(d) && soon(u.LastAt)(d) }):
		return u.Count, 0 // those between them too
	case slices.ContainsFunc(arrived, soon(u.FirstAt)):
		first = 1
	}
	if u.Count > 1 && slices.ContainsFunc(arrived, soon(u.LastAt)) {
		last = 1
	}
	return first, last
}

// counterKey is a counter of what readers did who are not known.
type counterKey struct {
	bucket    int64 // seconds
	typ       event.Type
	qualifier string
	step      int
	provider  string
	variant   string
}

func counterOf(u store.UniqueRow, at time.Time) counterKey {
	return counterKey{at.Truncate(store.BucketSize).Unix(), u.Type, u.Qualifier, u.Step, u.Provider, u.Variant}
}

// moved counts events as a program's, as far as the counters have them.
func moved(tallies []store.Tally, moves map[counterKey]int64) []store.Tally {
	out := make([]store.Tally, 0, len(tallies))
	for _, t := range tallies {
		k := counterKey{t.Bucket.Unix(), t.Type, t.Qualifier, t.Step, t.Provider, t.Variant}
		if n := min(moves[k], t.Count); n > 0 && t.Machine == event.MachineUnknown {
			program := t
			program.Machine, program.Count = event.MachineYes, n
			out = append(out, program)
			moves[k] -= n
			t.Count -= n
		}
		if t.Count != 0 {
			out = append(out, t)
		}
	}
	return out
}
