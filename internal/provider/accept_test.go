package provider_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func TestAccept(t *testing.T) {
	t.Parallel()
	e := event.Event{Stream: "outreach", Tags: []string{"spring", "news"}, Campaign: "9007199254740993"}
	for name, tt := range map[string]struct {
		accept provider.Accept
		want   bool
	}{
		"Everything":     {provider.Accept{}, true},
		"Stream":         {provider.Accept{Streams: []string{"other", "outreach"}}, true},
		"OtherStream":    {provider.Accept{Streams: []string{"Outreach"}}, false},
		"OneTagOfTwo":    {provider.Accept{Tags: []string{"news"}}, true},
		"OtherTag":       {provider.Accept{Tags: []string{"new"}}, false},
		"Campaign":       {provider.Accept{Campaigns: []string{"9007199254740993"}}, true},
		"OtherCampaign":  {provider.Accept{Campaigns: []string{"9007199254740992"}}, false},
		"AllLists":       {provider.Accept{Streams: []string{"outreach"}, Tags: []string{"spring"}, Campaigns: []string{"9007199254740993"}}, true},
		"OneListOfThree": {provider.Accept{Streams: []string{"outreach"}, Tags: []string{"autumn"}, Campaigns: []string{"9007199254740993"}}, false},
	} {
		if got := tt.accept.Takes(&e); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
	if (provider.Accept{Tags: []string{""}}).Takes(&event.Event{}) {
		t.Error("an event that tells no tag is taken")
	}
}

func TestCheckAccept(t *testing.T) {
	t.Parallel()
	postmark := provider.ByName("postmark")
	if err := postmark.CheckAccept(provider.Accept{Streams: []string{"outbound"}, Tags: []string{"a b"}}); err != nil {
		t.Error(err)
	}
	for name, a := range map[string]provider.Accept{
		"NotTold": {Campaigns: []string{"c"}}, "Empty": {Tags: []string{""}}, "Space": {Tags: []string{"a "}},
		"Long": {Tags: []string{strings.Repeat("a", event.MaxID+1)}}, "Many": {Tags: slices.Repeat([]string{"a"}, 257)},
	} {
		if postmark.CheckAccept(a) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestTells: what a provider says that its events tell, they do, and nothing
// else: the fixtures have an example of each.
func TestTells(t *testing.T) {
	t.Parallel()
	for _, p := range provider.All() {
		told := map[string]bool{}
		for _, path := range jsonFiles(t, filepath.Join("testdata", "payloads", p.Name)) {
			events, err := p.Decode(request(asPosted(p.Name, read(t, path)), nil))
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			for _, e := range events {
				told["streams"] = told["streams"] || e.Stream != ""
				told["tags"] = told["tags"] || len(e.Tags) > 0
				told["campaigns"] = told["campaigns"] || e.Campaign != ""
			}
		}
		for list, got := range told {
			if want := slices.Contains(p.Tells, list); got != want {
				t.Errorf("%s: %s told in its fixtures: %v, said: %v", p.Name, list, got, want)
			}
		}
	}
}
