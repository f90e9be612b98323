package provider_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeSmartlead(f *testing.F) { fuzzDecode(f, "smartlead") }

// mapped is what one of a vendor's events must become; the zero value is a
// control event.
type mapped struct {
	want    event.Type
	bounce  event.Bounce
	machine event.Machine
}

// mapsTypes holds a vendor's whole mapping against body, which makes an event
// of a kind. Every event that the provider lists must be in the table.
func mapsTypes(t *testing.T, vendor string, table map[string]mapped, body func(kind string) []byte) {
	t.Helper()
	for _, name := range provider.ByName(vendor).Events {
		if table[name].want == "" {
			t.Errorf("%s is listed and not tested", name)
		}
	}
	for kind, tt := range table {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			e := decodeOne(t, vendor, body(kind), nil)
			if e.Type != tt.want || e.Control != (tt.want == "") || e.Kind != kind || e.Provider != vendor {
				t.Errorf("got type %q, control %v, kind %q, want %q", e.Type, e.Control, e.Kind, tt.want)
			}
			if e.Bounce != tt.bounce || e.Machine != tt.machine {
				t.Errorf("got bounce %q, machine %v, want %q, %v", e.Bounce, e.Machine, tt.bounce, tt.machine)
			}
		})
	}
}

// identifies changes parts of the text of a body that is one event: what is in
// same leaves it the same event, what is in other makes it another.
func identifies(t *testing.T, vendor, body string, same, other [][2]string) {
	t.Helper()
	first := decodeOne(t, vendor, []byte(body), nil).Identity()
	change := func(p [2]string) event.Hash {
		if !strings.Contains(body, p[0]) {
			t.Fatalf("the body has no %q", p[0])
		}
		return decodeOne(t, vendor, []byte(strings.ReplaceAll(body, p[0], p[1])), nil).Identity()
	}
	if decodeOne(t, vendor, []byte(body), nil).Identity() != first {
		t.Error("sent again: another event")
	}
	for _, p := range same {
		if change(p) != first {
			t.Errorf("%s -> %s: another event", p[0], p[1])
		}
	}
	for _, p := range other {
		if change(p) == first {
			t.Errorf("%s -> %s: the same event", p[0], p[1])
		}
	}
}

// setting makes a JSON body with one member changed.
func setting(t *testing.T, path, member string) func(kind string) []byte {
	body := read(t, path)
	return func(kind string) []byte { return with(t, body, map[string]any{member: kind}) }
}

func TestDecodeSmartleadTypes(t *testing.T) {
	t.Parallel()
	mapsTypes(t, "smartlead", map[string]mapped{
		"EMAIL_SENT": {want: event.Sent}, "FIRST_EMAIL_SENT": {want: event.Sent},
		"EMAIL_OPEN": {want: event.Opened}, "EMAIL_OPENED": {want: event.Opened},
		"EMAIL_LINK_CLICK": {want: event.Clicked}, "EMAIL_CLICKED": {want: event.Clicked},
		"EMAIL_REPLY": {want: event.Replied}, "EMAIL_REPLIED": {want: event.Replied},
		"EMAIL_BOUNCE": {want: event.Bounced, bounce: event.Soft}, "EMAIL_BOUNCED": {want: event.Bounced, bounce: event.Soft},
		"LEAD_UNSUBSCRIBED": {want: event.Unsubscribed}, "EMAIL_UNSUBSCRIBED": {want: event.Unsubscribed},
		"LEAD_CATEGORY_UPDATED": {}, "CAMPAIGN_STATUS_CHANGED": {}, "UNTRACKED_REPLIES": {}, "MANUAL_STEP_REACHED": {},
		"SOMETHING_NEW": {}, "email_open": {},
	}, setting(t, "testdata/payloads/smartlead/email-open.json", "event_type"))
}

func TestDecodeSmartleadFields(t *testing.T) {
	t.Parallel()
	body := read(t, "testdata/payloads/smartlead/email-open.json")
	const enrollment = "0198c0de-0000-7000-8000-00000000cafe"
	reply := func(m map[string]any) map[string]any {
		m["event_type"], m["sl_lead_email"] = "EMAIL_REPLY", nil
		return m
	}
	bounce := func(m map[string]any) map[string]any { m["event_type"] = "EMAIL_BOUNCE"; return m }
	click := func(m map[string]any) map[string]any { m["event_type"] = "EMAIL_LINK_CLICK"; return m }
	email := func(e *event.Event) any { return e.Email }
	message := func(e *event.Event) any { return e.ProviderMessageID }
	link := func(e *event.Event) any { return e.URL }
	hardness := func(e *event.Event) any { return e.Bounce }
	for name, tt := range map[string]struct {
		change map[string]any
		got    func(e *event.Event) any
		want   any
	}{
		"LeadAsNumber":         {map[string]any{"sl_email_lead_id": rawNumber("9007199254740993")}, func(e *event.Event) any { return e.LeadID }, "9007199254740993"},
		"NoLead":               {map[string]any{"sl_email_lead_id": nil}, func(e *event.Event) any { return e.LeadID }, ""},
		"CampaignAsText":       {map[string]any{"campaign_id": "77"}, func(e *event.Event) any { return e.Campaign }, "77"},
		"LeadBeforeTo":         {map[string]any{"to_email": "alias@client.example"}, email, "Ada.L@client.example"},
		"OldNameOfLead":        {map[string]any{"sl_lead_email": nil, "lead_email": "x@client.example"}, email, "x@client.example"},
		"ReplyFromLead":        {reply(map[string]any{}), email, "Ada.L@client.example"},
		"ReplyToOurMailbox":    {reply(map[string]any{"to_email": "SELLER@acme.example"}), email, ""},
		"MessageOfMail":        {reply(map[string]any{"message_id": "<answer@client.example>"}), message, "own-1@acme.example"},
		"MessageNeverAnswer":   {reply(map[string]any{"message_id": "<answer@client.example>", "sent_message": nil}), message, ""},
		"MessageOldName":       {map[string]any{"sent_message": nil, "message_id": "<m@x>"}, message, "m@x"},
		"BounceHard":           {bounce(map[string]any{"bounce_type": "Hard"}), hardness, event.Hard},
		"BounceSoft":           {bounce(map[string]any{"bounce_type": "soft"}), hardness, event.Soft},
		"BounceOfSender":       {bounce(map[string]any{"bounce_type": "hard", "is_sender_originated_bounce": true}), hardness, event.Soft},
		"BounceCodeNotGuessed": {bounce(map[string]any{"smtp_code": "550"}), hardness, event.Soft},
		"NotDescribed": {
			bounce(map[string]any{"sl_lead_email": nil, "to_email": nil, "description": "Email 1 sent to nobody got bounced"}),
			email, "",
		},
		"LinkText":       {click(map[string]any{"clicked_url": "https://a.example"}), link, "https://a.example"},
		"LinkList":       {click(map[string]any{"link_clicked": []string{"https://a.example", "https://b.example"}}), link, "https://a.example"},
		"LinkObject":     {click(map[string]any{"link": map[string]any{"url": "https://a.example"}}), link, "https://a.example"},
		"LinkEmptyList":  {click(map[string]any{"link_clicked": []string{}, "link_details": []any{map[string]any{"url": "https://a.example"}}}), link, "https://a.example"},
		"LinkNumber":     {click(map[string]any{"link_details": true}), link, ""},
		"LinkNotOnOpens": {map[string]any{"clicked_url": "https://a.example"}, link, ""},
		"TimeOfReply": {
			reply(map[string]any{"event_timestamp": "", "reply_message": map[string]any{"time": "2026-04-05T00:00:01Z"}}),
			func(e *event.Event) any { return e.OccurredAt }, time.Date(2026, 4, 5, 0, 0, 1, 0, time.UTC),
		},
		"TimeNeverTheMails": {map[string]any{"event_timestamp": nil}, func(e *event.Event) any { return e.OccurredAtEstimated }, true},
		"EnrollmentInCustomFields": {
			map[string]any{"lead": map[string]any{"custom_fields": map[string]any{"enrollment_id": enrollment}}},
			func(e *event.Event) any { return e.EnrollmentID }, enrollment,
		},
		"EnrollmentInBody": {map[string]any{"tallyhook_enrollment_id": enrollment}, func(e *event.Event) any { return e.EnrollmentID }, enrollment},
	} {
		e := decodeOne(t, "smartlead", with(t, body, tt.change), nil)
		if got := tt.got(e); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
	for name, bad := range map[string]string{
		"NoName": `{"sl_email_lead_id":1}`, "Words": `{"event_type":"EMAIL_OPEN","event_timestamp":"soon"}`, "NotAnObject": `[1]`,
		"SecondBad": `[` + string(body) + `,{}]`,
	} {
		if got, err := provider.ByName("smartlead").Decode(request([]byte(bad), nil)); err == nil || got != nil {
			t.Errorf("%s: got %v, %v, want an error", name, got, err)
		}
	}
}

func TestIdentitySmartlead(t *testing.T) {
	t.Parallel()
	body := string(read(t, "testdata/payloads/smartlead/email-open.json"))
	identifies(t, "smartlead", body, [][2]string{
		{"own-secret-key", "rotated"},
		{"Ada.L@client", "ADA.L@Client"},
		{`"EMAIL_OPEN"`, `"EMAIL_OPENED"`},
		{`"Spring"`, `"Summer"`},
		{`"70011"`, `70011`},
	}, [][2]string{ // one stats_id, many events
		{`"EMAIL_OPEN"`, `"EMAIL_REPLY"`},
		{"06:07:08.910+", "06:07:08.9100001+"},
		{`"open_count": 1`, `"open_count": 2`},
		{"stats-own-1", "stats-own-2"},
		{`"70011"`, `"70012"`},
		{"5150", "5151"},
		{"Ada.L@", "Bob@"},
	})
	with := func(extra string) string { return strings.Replace(body, "{", `{"event_id":"ev-1",`+extra, 1) }
	identifies(t, "smartlead", with(""), [][2]string{{"06:07:08.910+", "06:07:09+"}}, [][2]string{{"ev-1", "ev-2"}})
}

func TestVerifySmartlead(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		secrets []string
		body    string
		want    error
	}{
		"NoSecret":     {nil, `not even JSON`, nil},
		"Right":        {[]string{"s3"}, `{"secret_key":"s3"}`, nil},
		"Number":       {[]string{"42"}, `{"secret_key":42}`, nil},
		"InGrace":      {[]string{"new", "s3"}, `{"secret_key":"s3"}`, nil},
		"TestButton":   {[]string{"s3"}, `{"secret_key":"secretkey"}`, provider.ErrMismatch},
		"Missing":      {[]string{"s3"}, `{"event_type":"EMAIL_OPEN"}`, provider.ErrMissing},
		"Deeper":       {[]string{"s3"}, `{"lead":{"secret_key":"s3"}}`, provider.ErrMissing},
		"Twice":        {[]string{"s3"}, `{"secret_key":"s3","secret_key":"s4"}`, provider.ErrMalformed},
		"SecondBare":   {[]string{"s3"}, `[{"secret_key":"s3"},{}]`, provider.ErrMissing},
		"EmptyArray":   {[]string{"s3"}, `[]`, provider.ErrMissing},
		"NotJSON":      {[]string{"s3"}, `secret_key=s3`, provider.ErrMalformed},
		"EmptySecrets": {[]string{""}, `{"secret_key":""}`, provider.ErrNoSecret},
	} {
		got := provider.ByName("smartlead").Verify(time.Unix(0, 0), provider.Config{Secrets: tt.secrets}, request([]byte(tt.body), nil))
		if !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}

// TestMasks: no stored byte shows a secret of the body, the token in the
// webhook's own address among them, and what is masked still decodes.
func TestMasks(t *testing.T) {
	t.Parallel()
	for file, secrets := range map[string][]string{
		"smartlead/email-open.json": {"own-secret-key", "tok_own"},
		"mailersend/clicked.json":   {"tok_own"},
	} {
		body := read(t, "testdata/payloads/"+file)
		vendor, _, _ := strings.Cut(file, "/")
		p := provider.ByName(vendor)
		masked := p.Mask(body)
		e, again := decodeOne(t, vendor, body, nil), decodeOne(t, vendor, masked, nil)
		for _, secret := range secrets {
			if !strings.Contains(string(body), secret) || strings.Contains(string(masked)+string(e.Payload), secret) {
				t.Errorf("%s: %s is not masked", file, secret)
			}
		}
		if e.Identity() != again.Identity() || string(p.Mask(masked)) != string(masked) {
			t.Errorf("%s: masking changes the event", file)
		}
		if strings.Contains(string(e.Payload), "acme.example/a") != strings.Contains(string(body), "acme.example/a") {
			t.Errorf("%s: masking took what is no secret", file)
		}
		for _, other := range []string{``, `[`, `{"secret_key":`, `{"secret_key"`, `null`, `{"a":{"secret_key":"x","url":"y"}}`} {
			if got := string(p.Mask([]byte(other))); got != other {
				t.Errorf("%s: %q became %q", file, other, got)
			}
		}
	}
}
