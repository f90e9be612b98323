package provider_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func visits() provider.Settings {
	return provider.Settings{Agents: map[string]provider.Agent{"8800": {EventType: event.ProfileVisited}}}
}

// runPhantom decodes a run with the settings of a source whose agent 8800
// visits profiles.
func runPhantom(t testing.TB, body []byte, s provider.Settings) []event.Event {
	t.Helper()
	req := request(body, nil)
	req.Settings = s
	got, err := provider.ByName("phantombuster").Decode(req)
	if err != nil {
		t.Fatalf("decode %s: %v", body, err)
	}
	for i := range got {
		sound(t, &got[i], slices.Concat(got[i].Payload, body)) // rows are a text inside the body
	}
	return got
}

func FuzzDecodePhantombuster(f *testing.F) {
	for _, path := range jsonFiles(f, filepath.Join("testdata", "payloads", "phantombuster")) {
		f.Add(read(f, path))
	}
	f.Add([]byte(`{"data":{"agentId":8800,"resultObject":[{"linkedinUrl":"x","timestamp":1e11},{}]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		req := request(body, nil)
		req.Settings = visits()
		got, err := provider.ByName("phantombuster").Decode(req)
		if err != nil {
			if got != nil {
				t.Fatal("events beside an error")
			}
			return
		}
		for i := range got {
			sound(t, &got[i], slices.Concat(got[i].Payload, body))
		}
	})
}

func TestDecodePhantombusterRows(t *testing.T) {
	t.Parallel()
	body := read(t, "testdata/payloads/phantombuster/finished.json")
	got := runPhantom(t, body, visits())
	if len(got) != 3 {
		t.Fatalf("got %d events, want a row each: 3", len(got))
	}
	type row struct {
		Type              event.Type
		Kind, Lead, Email string
		Told              bool
	}
	want := []row{
		{event.ProfileVisited, "profile_visited", "https://www.linkedin.com/in/ada-own/", "", false},
		{"", "row_error", "https://www.linkedin.com/in/bob-own", "", false},
		{event.ProfileVisited, "profile_visited", "https://www.linkedin.com/in/cleo-own", "cleo@client.example", true},
	}
	seen := map[event.Hash]bool{}
	for i, e := range got {
		if r := (row{e.Type, e.Kind, e.LeadID, e.Email, !e.OccurredAtEstimated}); r != want[i] {
			t.Errorf("row %d: got %+v, want %+v", i, r, want[i])
		}
		if e.Channel != event.LinkedIn || e.Campaign != "8800" || e.ActionID != "" || e.ProviderEventID != "" {
			t.Errorf("row %d: channel %q, campaign %q, action %q, id %q", i, e.Channel, e.Campaign, e.ActionID, e.ProviderEventID)
		}
		seen[e.Identity()] = true
	}
	if len(seen) != 3 {
		t.Error("two rows are one event")
	}
	// The run told again, with one row more: one event more.
	more := strings.Replace(string(body), `"resultObject": "[{`, `"resultObject": "[{\"profileUrl\":\"https://www.linkedin.com/in/dora-own\"},{`, 1)
	fresh := 0
	for _, e := range runPhantom(t, []byte(more), visits()) {
		if !seen[e.Identity()] {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("the run with one row more has %d new events, want 1", fresh)
	}
}

func TestDecodePhantombusterShapes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		result string // resultObject as JSON
		kinds  string
	}{
		"Text":        {`"[{\"profileUrl\":\"u\",\"action\":\"visited\"},{\"linkedinUrl\":\"v\"}]"`, "visited profile_visited"},
		"Array":       {`[{"profileUrl":"u"}]`, "profile_visited"},
		"OneRow":      {`{"profileUrl":"u"}`, "profile_visited"},
		"Null":        {`null`, "run_finished"},
		"EmptyText":   {`""`, "run_finished"},
		"EmptyList":   {`"[]"`, "run_finished"},
		"Elsewhere":   {`"{\"csvURL\":\"https://x.example/r.csv\"}"`, "run_finished"},
		"Message":     {`"Nothing to do"`, "run_finished"},
		"Number":      {`7`, "run_finished"},
		"BadTime":     {`[{"profileUrl":"u","timestamp":"soon"}]`, "profile_visited"},
		"CutShort":    {`"[{\"profileUrl\":\"u\""`, "error"},
		"NotRows":     {`[1]`, "error"},
		"LongProfile": {`[{"profileUrl":"` + strings.Repeat("x", 2000) + `"}]`, "error"},
		"TooMany":     {`[` + strings.Repeat(`{},`, 5000) + `{}]`, "error"},
	} {
		for _, body := range []string{
			`{"agentId":"8800","containerId":"c1","exitMessage":"finished","resultObject":` + tt.result + `}`,
			`{"event":"agent.finished","data":{"agentId":8800,"containerId":"c1","exitMessage":"finished","resultObject":` + tt.result + `}}`,
		} {
			req := request([]byte(body), nil)
			req.Settings = visits()
			got, err := provider.ByName("phantombuster").Decode(req)
			var kinds []string
			for _, e := range got {
				kinds = append(kinds, e.Kind)
			}
			if err != nil {
				kinds = []string{"error"}
			}
			if s := strings.Join(kinds, " "); s != tt.kinds {
				t.Errorf("%s: got %s, %v, want %s", name, s, err, tt.kinds)
			}
			if len(got) == 1 && got[0].ActionID != "c1" {
				t.Errorf("%s: the run's id is not the action: %q", name, got[0].ActionID)
			}
			// Of an agent that nobody described, nothing but the run is read.
			if got, err := provider.ByName("phantombuster").Decode(request([]byte(body), nil)); err != nil || len(got) != 1 || !got[0].Control || got[0].ProviderEventID != "c1" {
				t.Errorf("%s: without settings: got %v, %v", name, got, err)
			}
		}
	}
	for _, bad := range []string{`{}`, `{"status":"done","output":[]}`, `7`} {
		if _, err := provider.ByName("phantombuster").Decode(request([]byte(bad), nil)); err == nil {
			t.Errorf("%s: got no error", bad)
		}
	}
}

func TestPhantombusterAgents(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		id   string
		kind event.Type
		ok   bool
	}{
		"Good": {"1", event.ConnectionSent, true}, "Empty": {"1", "", false}, "Unknown": {"1", "visited", false}, "NoID": {" ", event.Sent, false},
	} {
		s := provider.Settings{Agents: map[string]provider.Agent{tt.id: {EventType: tt.kind}}}
		if err := s.CheckAgents(); (err == nil) != tt.ok {
			t.Errorf("%s: got %v", name, err)
		}
	}
	body := read(t, "testdata/payloads/phantombuster/finished.json")
	s := provider.Settings{Agents: map[string]provider.Agent{"8800": {EventType: "visited"}, "9": {EventType: event.Sent}}}
	if got := runPhantom(t, body, s); len(got) != 1 || !got[0].Control {
		t.Errorf("an agent without a known type: got %d events", len(got))
	}
	for kind, channel := range map[event.Type]event.Channel{event.Bounced: event.Email, event.MessageReplied: event.LinkedIn} {
		s := provider.Settings{Agents: map[string]provider.Agent{"8800": {EventType: kind}}}
		if got := runPhantom(t, body, s); got[0].Type != kind || got[0].Channel != channel {
			t.Errorf("%s: got %q on %q", kind, got[0].Type, got[0].Channel)
		}
	}
}

func TestIdentityPhantombuster(t *testing.T) {
	t.Parallel()
	identity := func(change, to string) event.Hash {
		row := `{"agentId":"8800","containerId":"c1","resultObject":[{"profileUrl":"u","action":"a","note":"n"}]}`
		return runPhantom(t, []byte(strings.Replace(row, change, to, 1)), visits())[0].Identity()
	}
	first := identity("", "")
	for _, same := range [][2]string{{`"n"`, `"m"`}, {`"u"`, `"u/"`}} {
		if identity(same[0], same[1]) != first {
			t.Errorf("%v: another event", same)
		}
	}
	for _, other := range [][2]string{{`"c1"`, `"c2"`}, {`"u"`, `"v"`}, {`"a"`, `"b"`}} {
		if identity(other[0], other[1]) == first {
			t.Errorf("%v: the same event", other)
		}
	}
	bare := func(note string) event.Hash {
		return runPhantom(t, []byte(`{"agentId":"8800","containerId":"c1","resultObject":[{"name":"`+note+`"}]}`), visits())[0].Identity()
	}
	if bare("Ada") == bare("Bob") {
		t.Error("two rows without a profile are one event")
	}
}

func TestVerifyPhantombuster(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		secrets []string
		url     string
		want    error
	}{
		"NoSecret":     {nil, "https://hooks.example/webhooks/x", nil},
		"Token":        {[]string{"s 3"}, "https://hooks.example/webhooks/x?token=s%203", nil},
		"Secret":       {[]string{"new", "s3"}, "https://hooks.example/webhooks/x?a=1&secret=s3", nil},
		"Wrong":        {[]string{"s3"}, "https://hooks.example/webhooks/x?token=s33", provider.ErrMismatch},
		"Missing":      {[]string{"s3"}, "https://hooks.example/webhooks/s3", provider.ErrMissing},
		"OtherName":    {[]string{"s3"}, "https://hooks.example/webhooks/x?key=s3", provider.ErrMissing},
		"NotAURL":      {[]string{"s3"}, "://", provider.ErrMalformed},
		"EmptySecrets": {[]string{""}, "https://hooks.example/webhooks/x?token=", provider.ErrNoSecret},
	} {
		req := request([]byte(`{}`), nil)
		req.URL = tt.url
		if got := provider.ByName("phantombuster").Verify(time.Unix(0, 0), provider.Config{Secrets: tt.secrets}, req); !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
