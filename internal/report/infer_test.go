package report_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/report"
	"tallyhook/internal/store"
)

// TestInferMachine: an open within two seconds of its delivery is a program's
// when the query says so, unless the provider calls it a person's.
func TestInferMachine(t *testing.T) {
	t.Parallel()
	// The delivery is at 14:59:59, so that what follows may be in another counter.
	sent := moment("2026-11-24T14:59:59Z")
	delivered := fact{who: 1, typ: event.Delivered, provider: "resend", step: 1, at: sent}
	open := func(after time.Duration, change ...func(*fact)) fact {
		f := fact{who: 1, typ: event.Opened, provider: "resend", step: 1, at: sent.Add(after)}
		for _, c := range change {
			c(&f)
		}
		return f
	}
	for name, tt := range map[string]struct {
		facts          []fact
		human, machine report.Clicks
	}{
		"ASecondAfter":  {[]fact{delivered, open(time.Second)}, report.Clicks{}, report.Clicks{Opened: 1}},
		"AtOnce":        {[]fact{delivered, open(0)}, report.Clicks{}, report.Clicks{Opened: 1}},
		"TwoSeconds":    {[]fact{delivered, open(2 * time.Second)}, report.Clicks{}, report.Clicks{Opened: 1}},
		"JustLater":     {[]fact{delivered, open(2*time.Second + time.Microsecond)}, report.Clicks{Opened: 1}, report.Clicks{}},
		"Before":        {[]fact{delivered, open(-time.Second)}, report.Clicks{Opened: 1}, report.Clicks{}},
		"NotDelivered":  {[]fact{open(time.Second)}, report.Clicks{Opened: 1}, report.Clicks{}},
		"Click":         {[]fact{delivered, open(time.Second, func(f *fact) { f.typ = event.Clicked })}, report.Clicks{}, report.Clicks{Clicked: 1}},
		"ToldPerson":    {[]fact{delivered, open(time.Second, func(f *fact) { f.machine = event.MachineNo })}, report.Clicks{Opened: 1}, report.Clicks{}},
		"ToldMachine":   {[]fact{delivered, open(time.Hour, func(f *fact) { f.machine = event.MachineYes })}, report.Clicks{}, report.Clicks{Opened: 1}},
		"OtherStep":     {[]fact{delivered, open(time.Second, func(f *fact) { f.step = 2 })}, report.Clicks{Opened: 1}, report.Clicks{}},
		"OtherProvider": {[]fact{delivered, open(time.Second, func(f *fact) { f.provider = "ses" })}, report.Clicks{Opened: 1}, report.Clicks{}},
		"OtherPerson":   {[]fact{delivered, open(time.Second, func(f *fact) { f.who = 2 })}, report.Clicks{Opened: 1}, report.Clicks{}},
		"AnswerIsNone":  {[]fact{delivered, open(time.Second, func(f *fact) { f.typ = event.Replied })}, report.Clicks{}, report.Clicks{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := numbers(tt.facts...)
			for i := range n.Uniques {
				n.Uniques[i].LastAt = n.Uniques[i].FirstAt
			}
			p := checkInferred(t, n, tt.human, tt.machine)
			if opened := p.Funnel[2].Count; tt.machine != (report.Clicks{}) && opened != 0 {
				t.Errorf("got %d who opened, want none", opened)
			}
		})
	}
}

// TestInferMachineOfSeveral: of a fact with several events the first and the
// last are judged, all where both are within the two seconds.
func TestInferMachineOfSeveral(t *testing.T) {
	t.Parallel()
	sent := moment("2026-11-24T14:59:59Z")
	early, late := sent.Truncate(store.BucketSize), sent.Add(time.Hour).Truncate(store.BucketSize)
	numbers := func(count int64, last time.Time, tallies ...store.Tally) store.Numbers {
		n := store.Numbers{Tallies: tallies, Uniques: []store.UniqueRow{
			{Enrollment: id(1), Type: event.Delivered, Count: 1, FirstAt: sent, LastAt: sent},
			{Enrollment: id(1), Type: event.Opened, Count: count, FirstAt: sent.Add(500 * time.Millisecond), LastAt: last},
		}}
		return n
	}
	opens := func(bucket time.Time, count int64) store.Tally {
		return store.Tally{Bucket: bucket, Type: event.Opened, Count: count}
	}
	t.Run("LaterOnes", func(t *testing.T) {
		t.Parallel()
		checkInferred(t, numbers(3, sent.Add(time.Hour), opens(early, 1), opens(late, 2)), report.Clicks{Opened: 2}, report.Clicks{Opened: 1})
	})
	t.Run("AllAtOnce", func(t *testing.T) {
		t.Parallel()
		checkInferred(t, numbers(3, sent.Add(800*time.Millisecond), opens(early, 3)), report.Clicks{}, report.Clicks{Opened: 3})
	})
	t.Run("LastIsOfThePeriodAfter", func(t *testing.T) { // whose counters were not asked for
		t.Parallel()
		checkInferred(t, numbers(2, sent.Add(time.Hour), opens(early, 1)), report.Clicks{}, report.Clicks{Opened: 1})
	})
}

// checkInferred wants the given split with the rule, and totals, uniques and
// series as without it.
func checkInferred(t *testing.T, n store.Numbers, human, machine report.Clicks) report.Performance {
	t.Helper()
	before := cmp.Diff(nil, any(n))
	build := func(on bool) report.Performance {
		p, err := report.Build(campaign.Instance{}, nil, n, report.Query{InferMachine: on})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	plain, inferred := build(false), build(true)
	if inferred.Human != human || inferred.Machine != machine {
		t.Errorf("got people %+v, programs %+v, want %+v, %+v", inferred.Human, inferred.Machine, human, machine)
	}
	if plain.Human.Opened+plain.Machine.Opened != human.Opened+machine.Opened || plain.Human.Clicked+plain.Machine.Clicked != human.Clicked+machine.Clicked {
		t.Errorf("the rule changed how many there are: %+v, %+v", plain.Human, plain.Machine)
	}
	if d := cmp.Diff(plain.Totals, inferred.Totals); d != "" {
		t.Errorf("the rule changed the totals: %s", d)
	}
	if d := cmp.Diff(plain.Uniques, inferred.Uniques); d != "" {
		t.Errorf("the rule changed the uniques: %s", d)
	}
	if d := cmp.Diff(plain.TimeSeries, inferred.TimeSeries); d != "" {
		t.Errorf("the rule changed the series: %s", d)
	}
	if after := cmp.Diff(nil, any(n)); after != before {
		t.Error("the rule changed what it was given")
	}
	return inferred
}
