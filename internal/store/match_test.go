package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	a, b, ins := uuid.MustParse("00000000-0000-7000-8000-00000000000a"), uuid.MustParse("00000000-0000-7000-8000-00000000000b"), uuid.New()
	one := func(id uuid.UUID) store.Found { return store.Found{Min: id, Max: id} }
	none, two := store.Found{}, store.Found{Min: a, Max: b}
	type probe struct {
		rank  event.Rank
		found store.Found
	}
	for name, c := range map[string]struct {
		probes []probe
		want   uuid.UUID
		reason string
		detail string
	}{
		"NoKeys":                   {nil, uuid.Nil, store.ReasonNoEnrollment, "names neither"},
		"EnrollmentWins":           {[]probe{{event.RankEnrollment, one(a)}, {event.RankMessage, one(b)}}, a, "", ""},
		"UnknownEnrollmentStops":   {[]probe{{event.RankEnrollment, none}, {event.RankAddress, one(b)}}, uuid.Nil, store.ReasonNoEnrollment, "does not exist"},
		"UnknownMessageGoesOn":     {[]probe{{event.RankMessage, none}, {event.RankLead, none}, {event.RankAddress, one(b)}}, b, "", ""},
		"MessageAndActionAgree":    {[]probe{{event.RankMessage, one(a)}, {event.RankMessage, one(a)}}, a, "", ""},
		"OneOfTwoMessagesKnown":    {[]probe{{event.RankMessage, none}, {event.RankMessage, one(a)}}, a, "", ""},
		"MessageAndActionDisagree": {[]probe{{event.RankMessage, one(a)}, {event.RankMessage, one(b)}}, uuid.Nil, store.ReasonAmbiguous, "message"},
		"AmbiguousLeadStops":       {[]probe{{event.RankLead, two}, {event.RankAddress, one(b)}}, uuid.Nil, store.ReasonAmbiguous, "lead"},
		"AmbiguousAddress":         {[]probe{{event.RankAddress, two}}, uuid.Nil, store.ReasonAmbiguous, "address"},
		"CampaignWins":             {[]probe{{event.RankCampaign, store.Found{Min: a, Max: a, Instance: ins}}, {event.RankAddress, two}}, a, "", ""},
		"MappedElsewhereStops":     {[]probe{{event.RankCampaign, store.Found{Instance: ins}}, {event.RankAddress, one(b)}}, uuid.Nil, store.ReasonNoEnrollment, "not enrolled"},
		"UnmappedGoesOn":           {[]probe{{event.RankCampaign, none}, {event.RankAddress, one(b)}}, b, "", ""},
		"NothingKnown":             {[]probe{{event.RankMessage, none}, {event.RankMessage, none}, {event.RankLead, none}, {event.RankCampaign, none}, {event.RankAddress, none}}, uuid.Nil, store.ReasonNoEnrollment, "the message or action id, the lead id, the address in the mapped campaign, the address"},
	} {
		var keys []event.Key
		var found []store.Found
		for _, p := range c.probes {
			keys, found = append(keys, event.Key{Rank: p.rank}), append(found, p.found)
		}
		got := store.Match(keys, found)
		if got.Enrollment != c.want || got.Reason != c.reason || !strings.Contains(got.Detail, c.detail) {
			t.Errorf("%s: got %+v, want %s %q %q", name, got, c.want, c.reason, c.detail)
		}
	}
}

func TestEffectsSumUp(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 10, 14, 59, 0, time.UTC)
	ins, enr := uuid.New(), uuid.New()
	x := store.NewEffects()
	for _, d := range []time.Duration{0, time.Second, -time.Hour} {
		x.Apply(&event.Event{Tenant: 1, Type: event.Opened, OccurredAt: at.Add(d)}, ins, enr)
	}
	row := store.FactRow{Tenant: 1, Instance: ins, Enrollment: enr, Key: campaign.FactKey{Type: event.Opened}}
	if got, want := x.Facts[row], (store.FactSum{Count: 3, First: at.Add(-time.Hour), Last: at.Add(time.Second)}); got != want {
		t.Errorf("fact is %+v, want %+v", got, want)
	}
	if len(x.Counters) != 3 {
		t.Errorf("three quarters of an hour were counted as %d", len(x.Counters))
	}
	for _, s := range []event.State{event.Applied, event.Orphaned, event.Dead, event.Ignored} {
		x.Ledger(1).Received++
		x.Book(1, s, 1)
	}
	if got, want := *x.Ledger(1), (store.Ledger{Tenant: 1, Received: 4, Applied: 1, Orphaned: 1, Dead: 1, Ignored: 1}); got != want || got.Difference() != 0 {
		t.Errorf("ledger is %+v, want %+v", got, want)
	}
}

func TestSuppressKeepsTheLatest(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	x := store.NewEffects()
	for _, e := range []event.Event{
		{Type: event.Unsubscribed, Email: "Ada@example.com", OccurredAt: at},
		{Type: event.Unsubscribed, Email: "<ada@example.com>", OccurredAt: at.Add(-time.Hour)},
		{Type: event.Resubscribed, Email: "ada@example.com", OccurredAt: at.Add(time.Hour), ReceivedAt: at.Add(time.Hour)},
		{Type: event.Resubscribed, Email: "ada@example.com", OccurredAt: at.Add(2 * time.Hour), ReceivedAt: at}, // to come: void
		{Type: event.Complained, Email: "ada@example.com", OccurredAt: at},
		{Type: event.Bounced, Bounce: event.Hard, Email: "ada@example.com", OccurredAt: at},
		{Type: event.Bounced, Bounce: event.Soft, Email: "bob@example.com", OccurredAt: at},
		{Type: event.Unsubscribed, OccurredAt: at},
		{Type: event.Opened, Email: "eve@example.com", OccurredAt: at},
	} {
		x.Suppress(&e)
	}
	want := campaign.Suppression{Email: "ada@example.com", UnsubscribedAt: at, ResubscribedAt: at.Add(time.Hour), ComplainedAt: at, BouncedAt: at}
	if got := x.Suppressions[store.SuppressionRow{Key: event.AddressKey("ada@example.com")}]; got == nil || *got != want || len(x.Suppressions) != 1 {
		t.Errorf("suppressions are %+v", x.Suppressions)
	}
}
