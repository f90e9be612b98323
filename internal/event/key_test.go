package event_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyhook/internal/event"
)

func TestKeysMostSpecificFirst(t *testing.T) {
	t.Parallel()
	id := uuid.MustParse(someEnrollment)
	e := event.Event{
		Provider: "lemlist", EnrollmentID: someEnrollment, ProviderMessageID: "<m1@x>", ActionID: "act", LeadID: "lead",
		Campaign: "cam_1", Email: " Ada <ADA@Example.com> ",
	}
	want := []event.Key{
		{Rank: event.RankEnrollment, Hash: event.EnrollmentKey(id)},
		event.Ref{Provider: "lemlist", Kind: event.RefMessage, Value: "m1@x"}.Key(),
		event.Ref{Provider: "lemlist", Kind: event.RefAction, Value: "act"}.Key(),
		event.Ref{Provider: "lemlist", Kind: event.RefLead, Value: "lead"}.Key(),
		{Rank: event.RankCampaign, Hash: event.CampaignKey("lemlist", "cam_1")},
		{Rank: event.RankAddress, Hash: event.AddressKey("ada@example.com")},
	}
	got := e.Keys()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wantRanks := []event.Rank{
		event.RankEnrollment, event.RankMessage, event.RankMessage, event.RankLead, event.RankCampaign, event.RankAddress,
	}
	for i, k := range got {
		if k.Rank != wantRanks[i] {
			t.Errorf("key %d: got rank %d, want %d", i, k.Rank, wantRanks[i])
		}
	}
}

func TestKeysOfLittle(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		e    event.Event
		want []event.Rank
	}{
		"Nothing":             {event.Event{}, nil},
		"CampaignAlone":       {event.Event{Campaign: "cam_1"}, nil}, // a campaign is no contact
		"AddressAlone":        {event.Event{Email: "a@b.c"}, []event.Rank{event.RankAddress}},
		"CampaignAndAddress":  {event.Event{Email: "a@b.c", Campaign: "c"}, []event.Rank{event.RankCampaign, event.RankAddress}},
		"EnrollmentNotOurs":   {event.Event{EnrollmentID: "42"}, nil},
		"BlankIDs":            {event.Event{ProviderMessageID: " <> ", ActionID: " ", LeadID: "\t", Email: "<>"}, nil},
		"BlankCampaign":       {event.Event{Email: "a@b.c", Campaign: " "}, []event.Rank{event.RankAddress}},
		"MessageAndLeadAlone": {event.Event{ProviderMessageID: "m", LeadID: "l"}, []event.Rank{event.RankMessage, event.RankLead}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []event.Rank
			for _, k := range tc.e.Keys() {
				got = append(got, k.Rank)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestKeysAreDistinct(t *testing.T) {
	t.Parallel()
	keys := map[string]event.Hash{
		"Message":       event.Ref{Provider: "p", Kind: event.RefMessage, Value: "1"}.Key().Hash,
		"Action":        event.Ref{Provider: "p", Kind: event.RefAction, Value: "1"}.Key().Hash,
		"Lead":          event.Ref{Provider: "p", Kind: event.RefLead, Value: "1"}.Key().Hash,
		"OtherProvider": event.Ref{Provider: "q", Kind: event.RefLead, Value: "1"}.Key().Hash,
		"Flow":          event.Ref{Provider: "p1", Kind: event.RefLead, Value: ""}.Key().Hash,
		"CaseOfAnID":    event.Ref{Provider: "p", Kind: event.RefLead, Value: "A"}.Key().Hash,
		"CaseOfAnID2":   event.Ref{Provider: "p", Kind: event.RefLead, Value: "a"}.Key().Hash,
		"Campaign":      event.CampaignKey("p", "1"),
		"Address":       event.AddressKey("1"),
		"PartsA":        event.HashOf("ab", "c"),
		"PartsB":        event.HashOf("a", "bc"),
		"PartsC":        event.HashOf("abc"),
		"PartsD":        event.HashOf("abc", ""),
	}
	seen := map[event.Hash]string{}
	for name, h := range keys {
		if other, twice := seen[h]; twice {
			t.Errorf("%s and %s have one hash", name, other)
		}
		seen[h] = name
	}
}

func TestNormalisation(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		" Ada@Example.COM ": "ada@example.com", "Ada <ada@x.y>": "ada@x.y", "<ada@x.y>": "ada@x.y", "ÄDA@X.Y": "äda@x.y",
		"": "", " ": "", "<>": "", "a<b": "a<b", "a.b+tag@x.y": "a.b+tag@x.y",
	} {
		if got := event.NormalAddress(in); got != want {
			t.Errorf("NormalAddress(%q): got %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"<m@x>": "m@x", " <m@x> ": "m@x", "< m@x >": "m@x", "<<m@x>>": "m@x", "m@x": "m@x", "<m@x": "<m@x", "<": "<", "<>": "", "Ab": "Ab",
	} {
		if got := event.NormalID(in); got != want {
			t.Errorf("NormalID(%q): got %q, want %q", in, got, want)
		}
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	want := map[event.Type]event.Route{
		event.Replied: event.RouteUrgent, event.MessageReplied: event.RouteUrgent, event.Unsubscribed: event.RouteUrgent,
		event.Complained: event.RouteUrgent, event.Bounced: event.RouteUrgent, event.Opened: event.RouteBulk, event.Sent: event.RouteBulk,
	}
	for _, typ := range event.Types() {
		w, ok := want[typ]
		if !ok {
			w = event.RouteStandard
		}
		if got := (&event.Event{Type: typ}).Route(); got != w {
			t.Errorf("%s: got %s, want %s", typ, got, w)
		}
	}
}
