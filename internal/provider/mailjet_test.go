package provider_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeMailjet(f *testing.F) { fuzzDecode(f, "mailjet") }

func TestDecodeMailjet(t *testing.T) {
	t.Parallel()
	path := "testdata/payloads/mailjet/blocked.json"
	mapsTypes(t, "mailjet", map[string]mapped{
		"sent": {want: event.Delivered}, "open": {want: event.Opened}, "click": {want: event.Clicked},
		"bounce": {want: event.Bounced, bounce: event.Soft}, "blocked": {want: event.Dropped}, "spam": {want: event.Complained},
		"unsub": {want: event.Unsubscribed}, "typofix": {}, "Open": {},
	}, setting(t, path, "event"))
	body := with(t, read(t, path), map[string]any{"event": "bounce"})
	for name, tt := range map[string]struct {
		change map[string]any
		want   event.Type
		bounce event.Bounce
	}{
		"Hard":       {map[string]any{"hard_bounce": true, "error": "user unknown"}, event.Bounced, event.Hard},
		"HardGrey":   {map[string]any{"hard_bounce": true, "error": "greylisted"}, event.Bounced, event.Hard},
		"Greylisted": {map[string]any{"hard_bounce": false, "error": "greylisted"}, event.Deferred, ""},
		"Soft":       {map[string]any{"hard_bounce": false, "blocked": true, "error": "quota exceeded"}, event.Bounced, event.Soft},
		"Text":       {map[string]any{"hard_bounce": "true"}, event.Bounced, event.Hard},
		"Number":     {map[string]any{"hard_bounce": 1}, event.Bounced, event.Hard},
		"Untold":     {map[string]any{"hard_bounce": "maybe"}, event.Bounced, event.Soft},
	} {
		if e := decodeOne(t, "mailjet", with(t, body, tt.change), nil); e.Type != tt.want || e.Bounce != tt.bounce {
			t.Errorf("%s: got %q %q, want %q %q", name, e.Type, e.Bounce, tt.want, tt.bounce)
		}
	}
}

func TestDecodeMailjetFields(t *testing.T) {
	t.Parallel()
	body := read(t, "testdata/payloads/mailjet/blocked.json")
	const id = "0198c0de-0000-7000-8000-00000000cafe"
	for name, tt := range map[string]struct {
		change map[string]any
		got    func(e *event.Event) any
		want   any
	}{
		"BigID":          {map[string]any{"MessageID": rawNumber("104427216766056450")}, func(e *event.Event) any { return e.ProviderMessageID }, "104427216766056450"},
		"ZeroIsNone":     {map[string]any{"MessageID": 0, "mj_contact_id": "0", "mj_campaign_id": 0}, func(e *event.Event) any { return e.ProviderMessageID + e.LeadID + e.Campaign }, ""},
		"CustomCampaign": {map[string]any{"customcampaign": "spring"}, func(e *event.Event) any { return e.Campaign }, "spring"},
		"CustomID":       {map[string]any{"CustomID": id}, func(e *event.Event) any { return e.EnrollmentID }, id},
		"CustomIDOther":  {map[string]any{"CustomID": "42"}, func(e *event.Event) any { return e.EnrollmentID }, ""},
		"PayloadID":      {map[string]any{"Payload": id}, func(e *event.Event) any { return e.EnrollmentID }, id},
		"PayloadJSON":    {map[string]any{"Payload": `{"enrollment_id":"` + id + `","step":3}`, "CustomID": "42"}, func(e *event.Event) any { return e.EnrollmentID }, id},
		"PayloadStep":    {map[string]any{"Payload": `{"step":3}`}, func(e *event.Event) any { return e.StepNumber }, 3},
		"PayloadWords":   {map[string]any{"Payload": `{"step"`}, func(e *event.Event) any { return e.Metadata == nil }, true},
	} {
		if got := tt.got(decodeOne(t, "mailjet", with(t, body, tt.change), nil)); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
	nul := with(t, body, map[string]any{"Payload": `{"a":"\u0000"}`})
	if _, err := provider.ByName("mailjet").Decode(request(nul, nil)); err == nil {
		t.Error("metadata with U+0000 is taken")
	}
}

func TestIdentityMailjet(t *testing.T) {
	t.Parallel()
	body := string(read(t, "testdata/payloads/mailjet/blocked.json"))
	identifies(t, "mailjet", body, [][2]string{{"ada@", "ADA@"}, {"preblocked", "blocked before"}},
		[][2]string{{`"blocked"`, `"open"`}, {"1234567890123456789", "1234567890123456788"}, {"1770000000", "1770000001"}, {"ada@", "bob@"}})
	// A batch told again with one item more has one event more.
	batch := `[` + body + `]`
	more := `[` + strings.Replace(body, "1770000000", "1770000001", 1) + `,` + body + `]`
	seen := map[event.Hash]bool{}
	for _, b := range []string{batch, more, more} {
		got, err := provider.ByName("mailjet").Decode(request([]byte(b), nil))
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			seen[got[i].Identity()] = true
		}
	}
	if len(seen) != 2 {
		t.Errorf("got %d events, want 2", len(seen))
	}
}

// Mailjet and SparkPost take Basic credentials as their secret.
func TestVerifyBasicSecret(t *testing.T) {
	t.Parallel()
	for _, vendor := range []string{"mailjet", "sparkpost", "mailtrap"} {
		for name, tt := range map[string]struct {
			secrets []string
			header  string
			want    error
		}{
			"NoSecret":    {nil, "", nil},
			"Right":       {[]string{"u:p"}, basic("u:p"), nil},
			"InGrace":     {[]string{"u:new", "u:p"}, basic("u:p"), nil},
			"Wrong":       {[]string{"u:p"}, basic("u:q"), provider.ErrMismatch},
			"Missing":     {[]string{"u:p"}, "", provider.ErrMissing},
			"EmptySecret": {[]string{""}, basic(":"), provider.ErrNoSecret},
		} {
			req := request([]byte(`{}`), map[string]string{"Authorization": tt.header})
			if got := provider.ByName(vendor).Verify(time.Unix(0, 0), provider.Config{Secrets: tt.secrets}, req); !errors.Is(got, tt.want) {
				t.Errorf("%s %s: got %v, want %v", vendor, name, got, tt.want)
			}
		}
	}
}
