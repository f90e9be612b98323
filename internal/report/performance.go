package report

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

// The values of Query.GroupBy.
const (
	groupStep     = "step"
	groupVariant  = "variant"
	groupProvider = "provider"
)

// The halves of "bounced", which stand beside it in totals and uniques. Their
// sum is bounced: what is not told to be hard is soft.
const (
	bouncedHard = "bounced_hard"
	bouncedSoft = "bounced_soft"
)

// core are the keys that totals and uniques always have.
func core() []string {
	return []string{
		string(event.Sent), string(event.Delivered), string(event.Opened), string(event.Clicked), string(event.Replied),
		string(event.Bounced), bouncedHard, bouncedSoft, string(event.Unsubscribed), string(event.Complained),
	}
}

// Build makes a report out of numbers. It is pure, and the order of the rows
// does not matter.
//
// Totals count events, machines' among them. Human and Machine split the
// opens and clicks: a machine's are those that the provider calls so; where it
// does not say, the reader counts as human, unless the query has the programs
// inferred. Uniques count enrollments by type,
// whoever the reader was. Groups with the key "" hold what named no step, no
// variant or no provider; Steps leaves that out.
func Build(in campaign.Instance, steps []campaign.Step, n store.Numbers, q Query) (Performance, error) {
	if err := q.check(); err != nil {
		return Performance{}, err
	}
	if q.InferMachine {
		n = infer(n)
	}
	tallies := slices.DeleteFunc(slices.Clone(n.Tallies), func(t store.Tally) bool { return t.Count == 0 || t.Type == "" })
	uniques := slices.DeleteFunc(slices.Clone(n.Uniques), func(u store.UniqueRow) bool { return u.Type == "" })

	all := newCount()
	p := Performance{Instance: in, EnrollmentStatus: map[string]int64{}}
	for _, t := range tallies {
		all.event(t)
		reader := &p.Human
		if t.Machine == event.MachineYes {
			reader = &p.Machine
		}
		switch t.Type {
		case event.Opened:
			reader.Opened += t.Count
		case event.Clicked:
			reader.Clicked += t.Count
		default: // has no reader
		}
	}
	for _, u := range uniques {
		all.enrollment(u)
	}
	p.Totals, p.Uniques = all.totals, all.uniques()

	people := peopleOf(uniques)
	p.Funnel, p.Rates = funnel(people), rates(people)

	var err error
	if p.TimeSeries, err = series(tallies, q, slices.Sorted(maps.Keys(p.Totals))); err != nil {
		return Performance{}, err
	}

	byStep := group(tallies, uniques, stepKeys(steps), compareNumbers,
		func(t store.Tally) string { return stepKey(t.Step) }, func(u store.UniqueRow) string { return stepKey(u.Step) })
	p.Steps = slices.DeleteFunc(slices.Clone(byStep), func(g Group) bool { return g.Key == "" })
	switch q.GroupBy {
	case groupStep:
		p.Groups = byStep
	case groupVariant:
		p.Groups = group(tallies, uniques, variants(steps), cmp.Compare[string],
			func(t store.Tally) string { return t.Variant }, func(u store.UniqueRow) string { return u.Variant })
	case groupProvider:
		p.Groups = group(tallies, uniques, nil, cmp.Compare[string],
			func(t store.Tally) string { return t.Provider }, func(u store.UniqueRow) string { return u.Provider })
	}

	for _, status := range campaign.Statuses() {
		p.EnrollmentStatus[string(status)] = 0
	}
	maps.Copy(p.EnrollmentStatus, n.Status)
	return p, nil
}

// count gathers totals and uniques of a set of rows.
type count struct {
	totals map[string]int64
	who    map[string]map[uuid.UUID]struct{} // distinct enrollments by key
}

func newCount() *count {
	c := &count{totals: map[string]int64{}, who: map[string]map[uuid.UUID]struct{}{}}
	for _, k := range core() {
		c.totals[k], c.who[k] = 0, map[uuid.UUID]struct{}{}
	}
	return c
}

func (c *count) event(t store.Tally) {
	for _, k := range keysOf(t.Type, t.Qualifier) {
		c.totals[k] += t.Count
	}
}

func (c *count) enrollment(u store.UniqueRow) {
	for _, k := range keysOf(u.Type, u.Qualifier) {
		if c.who[k] == nil {
			c.who[k] = map[uuid.UUID]struct{}{}
		}
		c.who[k][u.Enrollment] = struct{}{}
	}
}

func (c *count) uniques() map[string]int64 {
	out := make(map[string]int64, len(c.who))
	for k, who := range c.who {
		out[k] = int64(len(who))
	}
	return out
}

// keysOf are the keys that a row counts under.
func keysOf(t event.Type, qualifier string) []string {
	switch {
	case t != event.Bounced:
		return []string{string(t)}
	case qualifier == string(event.Hard):
		return []string{string(t), bouncedHard}
	}
	return []string{string(t), bouncedSoft}
}

// group counts rows by a key, and the given keys even without rows.
func group(tallies []store.Tally, uniques []store.UniqueRow, keys []string, order func(a, b string) int,
	ofTally func(store.Tally) string, ofUnique func(store.UniqueRow) string,
) []Group {
	counts := map[string]*count{}
	at := func(k string) *count {
		if counts[k] == nil {
			counts[k] = newCount()
		}
		return counts[k]
	}
	for _, k := range keys {
		at(k)
	}
	for _, t := range tallies {
		at(ofTally(t)).event(t)
	}
	for _, u := range uniques {
		at(ofUnique(u)).enrollment(u)
	}
	groups := make([]Group, 0, len(counts))
	for _, k := range slices.SortedFunc(maps.Keys(counts), order) {
		groups = append(groups, Group{Key: k, Totals: counts[k].totals, Uniques: counts[k].uniques()})
	}
	return groups
}

func stepKey(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func stepKeys(steps []campaign.Step) []string {
	keys := make([]string, 0, len(steps))
	for _, s := range steps {
		keys = append(keys, stepKey(s.Number))
	}
	return keys
}

func variants(steps []campaign.Step) []string {
	var keys []string
	for _, s := range steps {
		if s.Variant != "" {
			keys = append(keys, s.Variant)
		}
	}
	return keys
}

// compareNumbers orders "" < "2" < "10".
func compareNumbers(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}
