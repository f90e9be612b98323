package campaign_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }
	type fact struct {
		key  campaign.FactKey
		last time.Time
	}
	of := func(typ event.Type, n int, qualifier ...string) fact {
		k := campaign.FactKey{Type: typ}
		if len(qualifier) > 0 {
			k.Qualifier = qualifier[0]
		}
		return fact{k, day(n)}
	}
	for name, c := range map[string]struct {
		facts []fact
		want  campaign.Status
	}{
		"Nothing":                   {nil, campaign.StatusActive},
		"OpenedAndClicked":          {[]fact{of(event.Opened, 1), of(event.Clicked, 2)}, campaign.StatusActive},
		"Replied":                   {[]fact{of(event.Replied, 1), of(event.Opened, 2)}, campaign.StatusCompleted},
		"MessageReplied":            {[]fact{of(event.MessageReplied, 1)}, campaign.StatusCompleted},
		"AutorespondedIsNoAnswer":   {[]fact{of(event.Autoresponded, 1)}, campaign.StatusActive},
		"SoftBounce":                {[]fact{of(event.Bounced, 1, "soft")}, campaign.StatusActive},
		"HardBounceAfterReply":      {[]fact{of(event.Replied, 2), of(event.Bounced, 1, "hard")}, campaign.StatusBounced},
		"UnsubscribedOverBounced":   {[]fact{of(event.Bounced, 2, "hard"), of(event.Unsubscribed, 1)}, campaign.StatusUnsubscribed},
		"ComplainedOverAll":         {[]fact{of(event.Complained, 1), of(event.Unsubscribed, 2), of(event.Resubscribed, 3)}, campaign.StatusComplained},
		"ResubscribedLater":         {[]fact{of(event.Unsubscribed, 1), of(event.Resubscribed, 2)}, campaign.StatusActive},
		"ResubscribedToCompleted":   {[]fact{of(event.Unsubscribed, 1), of(event.Resubscribed, 2), of(event.Replied, 1)}, campaign.StatusCompleted},
		"ResubscribedAtTheSameTime": {[]fact{of(event.Unsubscribed, 1), of(event.Resubscribed, 1)}, campaign.StatusUnsubscribed},
		"ResubscribedEarlier":       {[]fact{of(event.Unsubscribed, 2), of(event.Resubscribed, 1)}, campaign.StatusUnsubscribed},
		"ResubscribedVoid":          {[]fact{of(event.Unsubscribed, 1), of(event.Resubscribed, 2, "void")}, campaign.StatusUnsubscribed},
		"ResubscribedLiftsNoBounce": {[]fact{of(event.Bounced, 1, "hard"), of(event.Resubscribed, 2)}, campaign.StatusBounced},
		"LatestOfSeveral":           {[]fact{of(event.Unsubscribed, 3), of(event.Resubscribed, 2), of(event.Unsubscribed, 1)}, campaign.StatusUnsubscribed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 10 { // any order gives the same
				var f campaign.Facts
				for _, i := range rand.Perm(len(c.facts)) {
					f.Add(c.facts[i].key, c.facts[i].last)
				}
				if got := f.Status(); got != c.want {
					t.Errorf("status is %s, want %s", got, c.want)
				}
			}
		})
	}
}

func TestDecisive(t *testing.T) {
	t.Parallel()
	for _, typ := range event.Types() {
		for _, q := range []string{"", "hard", "soft", "void"} {
			k := campaign.FactKey{Type: typ, Qualifier: q}
			var f campaign.Facts
			f.Add(k, time.Now())
			if changes := f != (campaign.Facts{}); campaign.Decisive(k) != changes {
				t.Errorf("Decisive(%s %s) is %v", typ, q, !changes)
			}
		}
	}
}

func TestFactOf(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	base := event.Event{Provider: "lemlist", StepNumber: 2, Machine: event.MachineYes, OccurredAt: at, ReceivedAt: at, Metadata: []byte(`{"variant":"B"}`)}
	want := campaign.FactKey{Step: 2, Machine: event.MachineYes, Provider: "lemlist", Variant: "B"}
	for name, c := range map[string]struct {
		change    func(*event.Event)
		typ       event.Type
		qualifier string
	}{
		"Opened":              {func(*event.Event) {}, event.Opened, ""},
		"BouncedHard":         {func(e *event.Event) { e.Bounce = event.Hard }, event.Bounced, "hard"},
		"BouncedSoft":         {func(e *event.Event) { e.Bounce = event.Soft }, event.Bounced, "soft"},
		"Resubscribed":        {func(*event.Event) {}, event.Resubscribed, ""},
		"ResubscribedFuture":  {func(e *event.Event) { e.OccurredAt = at.Add(time.Microsecond) }, event.Resubscribed, "void"},
		"ResubscribedGuessed": {func(e *event.Event) { e.OccurredAtEstimated = true }, event.Resubscribed, "void"},
	} {
		e := base
		e.Type = c.typ
		c.change(&e)
		w := want
		w.Type, w.Qualifier = c.typ, c.qualifier
		if got := campaign.FactOf(&e); got != w {
			t.Errorf("%s: got %+v, want %+v", name, got, w)
		}
	}
}

func TestStatusesAreHighestFirst(t *testing.T) {
	t.Parallel()
	all := campaign.Statuses()
	if len(all) != 5 || all[0] != campaign.StatusComplained || all[4] != campaign.StatusActive {
		t.Errorf("statuses are %v", all)
	}
}
