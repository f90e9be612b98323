package provider_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func TestDecodePostmarkBounces(t *testing.T) {
	t.Parallel()
	body := read(t, "testdata/payloads/postmark/hard-bounce.json")
	for kind, want := range map[string]struct {
		typ    event.Type
		bounce event.Bounce
	}{
		"HardBounce":              {event.Bounced, event.Hard},
		"SoftBounce":              {event.Bounced, event.Soft},
		"Unknown":                 {event.Bounced, event.Soft},
		"VirusNotification":       {event.Bounced, event.Soft},
		"Transient":               {event.Deferred, ""},
		"DnsError":                {event.Deferred, ""},
		"OpenRelayTest":           {event.Deferred, ""},
		"SpamNotification":        {event.Complained, ""},
		"SpamComplaint":           {event.Complained, ""},
		"Unsubscribe":             {event.Unsubscribed, ""},
		"Subscribe":               {event.Resubscribed, ""},
		"AutoResponder":           {event.Autoresponded, ""},
		"AddressChange":           {event.Autoresponded, ""},
		"ChallengeVerification":   {event.Autoresponded, ""},
		"BadEmailAddress":         {event.Dropped, ""},
		"ManuallyDeactivated":     {event.Dropped, ""},
		"Blocked":                 {event.Dropped, ""},
		"Unconfirmed":             {event.Dropped, ""},
		"DMARCPolicy":             {event.Dropped, ""},
		"SMTPApiError":            {event.Failed, ""},
		"TemplateRenderingFailed": {event.Failed, ""},
		"InboundError":            {"", ""},
		"SomethingNew":            {"", ""},
		"hardbounce":              {"", ""},
	} {
		e := decodeOne(t, "postmark", with(t, body, map[string]any{"Type": kind}), nil)
		if e.Type != want.typ || e.Bounce != want.bounce || e.Control != (want.typ == "") || e.Kind != "Bounce" || e.Channel != event.Email {
			t.Errorf("%s: got %q %q control %v, want %q %q", kind, e.Type, e.Bounce, e.Control, want.typ, want.bounce)
		}
	}
}

func TestDecodePostmarkSubscriptions(t *testing.T) {
	t.Parallel()
	body := read(t, "testdata/payloads/postmark/subscription-unsubscribe.json")
	for name, tt := range map[string]struct {
		suppress, reason any
		want             event.Type
		bounce           event.Bounce
	}{
		"Manual":      {true, "ManualSuppression", event.Unsubscribed, ""},
		"HardBounce":  {true, "HardBounce", event.Bounced, event.Hard},
		"Complaint":   {true, "SpamComplaint", event.Complained, ""},
		"Lifted":      {false, rawNumber("null"), event.Resubscribed, ""},
		"LiftedWhy":   {false, "HardBounce", event.Resubscribed, ""},
		"NewReason":   {true, "Other", "", ""},
		"NoReason":    {true, nil, "", ""},
		"NoDirection": {nil, "HardBounce", "", ""},
		"TextFalse":   {"false", "HardBounce", event.Resubscribed, ""},
		"TextOther":   {"off", "HardBounce", "", ""},
	} {
		e := decodeOne(t, "postmark", with(t, body, map[string]any{"SuppressSending": tt.suppress, "SuppressionReason": tt.reason}), nil)
		if e.Type != tt.want || e.Bounce != tt.bounce || e.Control != (tt.want == "") {
			t.Errorf("%s: got %q %q control %v, want %q %q", name, e.Type, e.Bounce, e.Control, tt.want, tt.bounce)
		}
	}
}

func TestDecodePostmarkMetadata(t *testing.T) {
	t.Parallel()
	const enrollment = "0198c0de-0000-7000-8000-00000000cafe"
	body := read(t, "testdata/payloads/postmark/open.json")
	e := decodeOne(t, "postmark", body, nil)
	if e.EnrollmentID != enrollment || !strings.Contains(string(e.Metadata), "cohort") {
		t.Errorf("got enrollment %q and metadata %s", e.EnrollmentID, e.Metadata)
	}
	if e.Machine != event.MachineUnknown {
		t.Error("Postmark does not say who opened")
	}
	for name, metadata := range map[string]any{
		"Absent": nil, "Null": rawNumber("null"), "Empty": rawNumber("{ }"), "Array": []string{enrollment}, "Text": enrollment,
	} {
		e := decodeOne(t, "postmark", with(t, body, map[string]any{"Metadata": metadata}), nil)
		if e.EnrollmentID != "" || e.Metadata != nil {
			t.Errorf("%s: got enrollment %q and metadata %s, want none", name, e.EnrollmentID, e.Metadata)
		}
	}
}

func TestIdentityPostmark(t *testing.T) {
	t.Parallel()
	click := read(t, "testdata/payloads/postmark/click.json")
	bounce := read(t, "testdata/payloads/postmark/hard-bounce.json")
	change := read(t, "testdata/payloads/postmark/subscription-unsubscribe.json")
	for name, tt := range map[string]struct {
		body   []byte
		change map[string]any
		same   bool
	}{
		"Resent":              {click, map[string]any{}, true},
		"AddressCase":         {click, map[string]any{"Recipient": "ADA@client.example"}, true},
		"OtherTag":            {click, map[string]any{"Tag": "x"}, true},
		"OtherMessage":        {click, map[string]any{"MessageID": "x"}, false},
		"OtherRecipient":      {click, map[string]any{"Recipient": "bob@client.example"}, false},
		"OtherLink":           {click, map[string]any{"OriginalLink": "https://acme.example/other"}, false},
		"TenthOfMicrosecond":  {click, map[string]any{"ReceivedAt": "2026-05-06T07:08:09.1234568+02:00"}, false},
		"OtherRecord":         {click, map[string]any{"RecordType": "Open"}, false},
		"BounceResent":        {bounce, map[string]any{}, true},
		"BounceOtherID":       {bounce, map[string]any{"ID": 692560174}, false},
		"BounceAsComplaint":   {bounce, map[string]any{"RecordType": "SpamComplaint"}, false},
		"BounceNoIDNoTime":    {bounce, map[string]any{"ID": nil, "BouncedAt": nil}, false},
		"SuppressionReversed": {change, map[string]any{"SuppressSending": false}, false},
		"SuppressionReason":   {change, map[string]any{"SuppressionReason": "HardBounce"}, false},
		"SuppressionStream":   {change, map[string]any{"MessageStream": "other"}, false},
	} {
		first := decodeOne(t, "postmark", tt.body, nil).Identity()
		second := decodeOne(t, "postmark", with(t, tt.body, tt.change), nil).Identity()
		if (first == second) != tt.same {
			t.Errorf("%s: same is %v, want %v", name, first == second, tt.same)
		}
	}
}

// TestDecodePostmarkRecords reads bodies without a RecordType, as older ones
// are and those of mail to us.
func TestDecodePostmarkRecords(t *testing.T) {
	t.Parallel()
	for members, want := range map[string]event.Type{
		`"FirstOpen":true,"ReceivedAt":"2026-05-06T07:08:09Z"`:                             event.Opened,
		`"OriginalLink":"https://e.example","ReceivedAt":"2026-05-06T07:08:09Z"`:           event.Clicked,
		`"DeliveredAt":"2026-05-06T07:08:09Z"`:                                             event.Delivered,
		`"Type":"HardBounce","ID":1,"BouncedAt":"2026-05-06T07:08:09Z"`:                    event.Bounced,
		`"SuppressSending":false,"ChangedAt":"2026-05-06T07:08:09Z"`:                       event.Resubscribed,
		`"From":"a@x.example","FromFull":{"Email":"a@x.example"},"MailboxHash":"","To":""`: "",
	} {
		e := decodeOne(t, "postmark", []byte(`{"MessageID":"m1",`+members+`}`), nil)
		if e.Type != want || e.OccurredAtEstimated != (want == "") || e.ProviderMessageID != "m1" {
			t.Errorf("%s: got %q at %v", members, e.Type, e.OccurredAt)
		}
	}
	const id = "0198c0de-0000-7000-8000-00000000cafe"
	for _, members := range []string{`"Tag":"enrollment_id:` + id + `"`, `"Metadata":{"custom":"{\"enrollment_id\":\"` + id + `\"}"}`} {
		if e := decodeOne(t, "postmark", []byte(`{"RecordType":"Open",`+members+`}`), nil); e.EnrollmentID != id {
			t.Errorf("%s: got enrollment %q", members, e.EnrollmentID)
		}
	}
}

func TestDecodePostmarkUndecodable(t *testing.T) {
	t.Parallel()
	body := read(t, "testdata/payloads/postmark/click.json")
	for name, tt := range map[string]struct {
		body []byte
		want string
	}{
		"NoRecordType": {with(t, body, map[string]any{"RecordType": nil, "OriginalLink": nil}), "RecordType"},
		"Array":        {[]byte(`[` + string(body) + `]`), "object"},
		"BadTime":      {with(t, body, map[string]any{"ReceivedAt": "12 o'clock"}), "time"},
		"LongLink":     {with(t, body, map[string]any{"OriginalLink": "https://e.example/" + strings.Repeat("x", 9000)}), "url"},
		"HugeMetadata": {with(t, body, map[string]any{"Metadata": map[string]any{"a": strings.Repeat("x", 70000)}}), "metadata"},
		"NullMetadata": {with(t, body, map[string]any{"Metadata": rawNumber(`{"a":"\u0000"}`)}), "metadata"},
	} {
		got, err := provider.ByName("postmark").Decode(request(tt.body, nil))
		if err == nil || !strings.Contains(err.Error(), tt.want) || got != nil {
			t.Errorf("%s: got %d events, error %v, want one naming %q", name, len(got), err, tt.want)
		}
	}
}

func TestVerifyPostmark(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		secrets []string
		auth    string
		want    error
	}{
		"NoSecret":    {nil, "", nil},
		"Right":       {[]string{"u:p"}, basic("u:p"), nil},
		"InGrace":     {[]string{"u:new", "u:p"}, basic("u:p"), nil},
		"Colons":      {[]string{"u:p:q"}, basic("u:p:q"), nil},
		"Wrong":       {[]string{"u:p"}, basic("u:q"), provider.ErrMismatch},
		"Missing":     {[]string{"u:p"}, "", provider.ErrMissing},
		"Malformed":   {[]string{"u:p"}, "Basic ???", provider.ErrMalformed},
		"NotAPair":    {[]string{"password"}, basic("password"), provider.ErrNoSecret},
		"EmptySecret": {[]string{""}, basic(""), provider.ErrNoSecret},
	} {
		req := request([]byte(`{}`), map[string]string{"Authorization": tt.auth})
		got := provider.ByName("postmark").Verify(time.Unix(0, 0), provider.Config{Secrets: tt.secrets}, req)
		if !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
	check := provider.ByName("postmark").CheckSecret
	for secret, ok := range map[string]bool{"u:p": true, "u:p:q": true, "": false, "u": false, ":p": false, "u:": false, "u:\x00": false} {
		if err := check(secret); (err == nil) != ok {
			t.Errorf("%q: got %v, want ok %v", secret, err, ok)
		}
	}
}

func TestPostmarkStepFromMetadata(t *testing.T) {
	t.Parallel()
	for metadata, want := range map[string]int{
		`{"step":"3"}`: 3, `{"step_number":"2","step":"9"}`: 2, `{"step":7}`: 7, `{"step":"0"}`: 0, `{"step":"x"}`: 0, `{}`: 0, `null`: 0,
	} {
		body := `{"RecordType":"Open","MessageID":"m","Recipient":"a@b.c","ReceivedAt":"2026-01-01T00:00:00Z","Metadata":` + metadata + `}`
		events, err := provider.ByName("postmark").Decode(provider.Request{Method: "POST", Body: []byte(body)})
		if err != nil || len(events) != 1 {
			t.Fatalf("Decode(%s) = %v, %v", metadata, events, err)
		}
		if got := events[0].StepNumber; got != want {
			t.Errorf("step of %s = %d, want %d", metadata, got, want)
		}
	}
}
