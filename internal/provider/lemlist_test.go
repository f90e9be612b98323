package provider_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func TestDecodeLemlistTypes(t *testing.T) {
	t.Parallel()
	body := read(t, "testdata/payloads/lemlist/emails-sent.json")
	tests := map[string]struct {
		want    event.Type
		channel event.Channel
	}{
		"emailsSent":              {event.Sent, event.Email},
		"emailsOpened":            {event.Opened, event.Email},
		"emailsClicked":           {event.Clicked, event.Email},
		"emailsReplied":           {event.Replied, event.Email},
		"emailsBounced":           {event.Bounced, event.Email},
		"emailsFailed":            {event.Failed, event.Email},
		"emailsSendFailed":        {event.Failed, event.Email},
		"emailsUnsubscribed":      {event.Unsubscribed, event.Email},
		"linkedinVisitDone":       {event.ProfileVisited, event.LinkedIn},
		"linkedinInviteDone":      {event.ConnectionSent, event.LinkedIn},
		"linkedinInviteAccepted":  {event.ConnectionAccepted, event.LinkedIn},
		"linkedinSent":            {event.MessageSent, event.LinkedIn},
		"linkedinOpened":          {event.MessageRead, event.LinkedIn},
		"linkedinReplied":         {event.MessageReplied, event.LinkedIn},
		"linkedinVoiceNoteDone":   {event.VoiceMessageSent, event.LinkedIn},
		"linkedinVisitFailed":     {event.Failed, event.LinkedIn},
		"linkedinInviteFailed":    {event.Failed, event.LinkedIn},
		"linkedinSendFailed":      {event.Failed, event.LinkedIn},
		"linkedinVoiceNoteFailed": {event.Failed, event.LinkedIn},
	}
	for _, name := range provider.ByName("lemlist").Events {
		if _, ok := tests[name]; !ok {
			t.Errorf("%s is listed and not tested", name)
		}
	}
	for _, control := range []string{
		"contacted", "hooked", "attracted", "warmed", "interested", "notInterested", "emailsInterested",
		"emailsNotInterested", "linkedinInterested", "linkedinNotInterested", "apiDone", "apiFailed", "manualInterested",
		"aircallEnded", "whatsappSent", "smsSent", "paused", "resumed", "skipped", "stopped", "campaignComplete",
		"sendLimitReached", "connectionIssue", "enrichmentDone", "somethingNew", "EmailsSent",
	} {
		tests[control] = struct {
			want    event.Type
			channel event.Channel
		}{"", ""}
	}
	for kind, tt := range tests {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			e := decodeOne(t, "lemlist", with(t, body, map[string]any{"type": kind}), nil)
			if e.Type != tt.want || e.Control != (tt.want == "") || e.Kind != kind || e.Provider != "lemlist" {
				t.Errorf("got type %q, control %v, kind %q, want %q", e.Type, e.Control, e.Kind, tt.want)
			}
			if tt.channel != "" && e.Channel != tt.channel {
				t.Errorf("channel: got %q, want %q", e.Channel, tt.channel)
			}
		})
	}
}

func TestDecodeLemlistMachine(t *testing.T) {
	t.Parallel()
	body := read(t, "testdata/payloads/lemlist/emails-sent.json")
	for name, tt := range map[string]struct {
		kind string
		bot  any
		want event.Machine
	}{
		"OpenedBot":     {"emailsOpened", true, event.MachineYes},
		"OpenedPerson":  {"emailsOpened", false, event.MachineNo},
		"OpenedUntold":  {"emailsOpened", nil, event.MachineUnknown},
		"OpenedStrange": {"emailsOpened", "yes", event.MachineUnknown},
		"ClickedBot":    {"emailsClicked", true, event.MachineYes},
		"ClickedPerson": {"emailsClicked", false, event.MachineNo},
		"RepliedFalse":  {"emailsReplied", false, event.MachineUnknown},
		"SentTrue":      {"emailsSent", true, event.MachineUnknown},
	} {
		e := decodeOne(t, "lemlist", with(t, body, map[string]any{"type": tt.kind, "bot": tt.bot}), nil)
		if e.Machine != tt.want {
			t.Errorf("%s: got %v, want %v", name, e.Machine, tt.want)
		}
	}
}

func TestDecodeLemlistFields(t *testing.T) {
	t.Parallel()
	body := read(t, "testdata/payloads/lemlist/emails-sent.json")
	const enrollment = "0198c0de-0000-7000-8000-00000000cafe"
	for name, tt := range map[string]struct {
		change map[string]any
		got    func(e *event.Event) any
		want   any
	}{
		"EmailAfterLeadEmail": {map[string]any{"email": "other@example.com"}, func(e *event.Event) any { return e.Email }, "Ada.L@client.example"},
		"EmailAlone":          {map[string]any{"leadEmail": nil, "email": "x@example.com"}, func(e *event.Event) any { return e.Email }, "x@example.com"},
		"RecipientAlone":      {map[string]any{"leadEmail": "", "recipient": "x@example.com"}, func(e *event.Event) any { return e.Email }, "x@example.com"},
		"NeverTheSender":      {map[string]any{"leadEmail": nil}, func(e *event.Event) any { return e.Email }, ""},
		"StepAsText":          {map[string]any{"sequenceStep": "4"}, func(e *event.Event) any { return e.StepNumber }, 4},
		"StepZero":            {map[string]any{"sequenceStep": 0}, func(e *event.Event) any { return e.StepNumber }, 0},
		"StepFraction":        {map[string]any{"sequenceStep": 1.5}, func(e *event.Event) any { return e.StepNumber }, 0},
		"StepHuge":            {map[string]any{"sequenceStep": 100000}, func(e *event.Event) any { return e.StepNumber }, 0},
		"LeadAsNumber":        {map[string]any{"leadId": 9007199254740993}, func(e *event.Event) any { return e.LeadID }, "9007199254740993"},
		"LeadAsObject":        {map[string]any{"leadId": map[string]any{}}, func(e *event.Event) any { return e.LeadID }, ""},
		"URLOnClicksOnly":     {map[string]any{"url": "https://example.com"}, func(e *event.Event) any { return e.URL }, ""},
		"EnrollmentAsMember":  {map[string]any{"enrollment_id": enrollment}, func(e *event.Event) any { return e.EnrollmentID }, enrollment},
		"EnrollmentAsVariable": {
			map[string]any{"variables": map[string]any{"tallyhook_enrollment_id": enrollment}},
			func(e *event.Event) any { return e.EnrollmentID }, enrollment,
		},
		"EnrollmentNotOurs": {map[string]any{"enrollment_id": "42"}, func(e *event.Event) any { return e.EnrollmentID }, ""},
	} {
		e := decodeOne(t, "lemlist", with(t, body, tt.change), nil)
		if got := tt.got(e); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}

func TestDecodeTimes(t *testing.T) {
	t.Parallel()
	body := read(t, "testdata/payloads/lemlist/emails-sent.json")
	for name, tt := range map[string]struct {
		at   any
		want string // "" = estimated; "error"
	}{
		"Seconds":          {1770000000, "2026-02-02T02:40:00Z"},
		"Milliseconds":     {1770000000123, "2026-02-02T02:40:00.123Z"},
		"SecondsFraction":  {rawNumber("1770000000.1234567"), "2026-02-02T02:40:00.123456Z"},
		"MillisFraction":   {rawNumber("1770000000123.4567"), "2026-02-02T02:40:00.123456Z"},
		"Exponent":         {rawNumber("1.77e9"), "2026-02-02T02:40:00Z"},
		"SecondsQuoted":    {"1770000000", "2026-02-02T02:40:00Z"},
		"SevenDigits":      {"2026-02-02T02:40:00.1234567Z", "2026-02-02T02:40:00.123456Z"},
		"TwelveDigits":     {"2026-02-02T02:40:00.123456789012Z", "2026-02-02T02:40:00.123456Z"},
		"Offset":           {"2026-02-02T04:40:00+02:00", "2026-02-02T02:40:00Z"},
		"OffsetNoColon":    {"2026-02-02T04:40:00+0200", "2026-02-02T02:40:00Z"},
		"NoZone":           {"2026-02-02T02:40:00", "2026-02-02T02:40:00Z"},
		"NoZoneSpace":      {"2026-02-02 02:40:00", "2026-02-02T02:40:00Z"},
		"NoZoneFraction":   {"2026-02-02 02:40:00.5", "2026-02-02T02:40:00.5Z"},
		"Empty":            {"", ""},
		"Absent":           {nil, ""},
		"Null":             {rawNumber("null"), ""},
		"DotNetUnset":      {"0001-01-01T00:00:00Z", ""},
		"Words":            {"yesterday", "error"},
		"Boolean":          {true, "error"},
		"Zero":             {0, "error"},
		"Negative":         {-1770000000, "error"},
		"FarFuture":        {"2999-01-01T00:00:00Z", "error"},
		"HugeExponent":     {rawNumber("1e400"), "error"},
		"HugeNumber":       {rawNumber("99999999999999999999999"), "error"},
		"FractionOfWords":  {"1770000000.x", "error"},
		"SecondPartSigned": {"1770000000.-5", "error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := provider.ByName("lemlist").Decode(request(with(t, body, map[string]any{"createdAt": tt.at}), nil))
			switch {
			case tt.want == "error":
				if err == nil {
					t.Errorf("got %v, want an error", got[0].OccurredAt)
				}
			case err != nil:
				t.Errorf("got %v, want %s", err, tt.want)
			case tt.want == "":
				if !got[0].OccurredAtEstimated || !got[0].OccurredAt.IsZero() {
					t.Errorf("got %v, want none", got[0].OccurredAt)
				}
			case got[0].OccurredAt.Format(time.RFC3339Nano) != tt.want || got[0].OccurredAtEstimated:
				t.Errorf("got %s, want %s", got[0].OccurredAt.Format(time.RFC3339Nano), tt.want)
			}
		})
	}
}

// rawNumber is a JSON value given by its digits.
type rawNumber string

// MarshalJSON implements json.Marshaler.
func (n rawNumber) MarshalJSON() ([]byte, error) { return []byte(n), nil }

func TestIdentityLemlist(t *testing.T) {
	t.Parallel()
	body := read(t, "testdata/payloads/lemlist/emails-sent.json")
	once, again := decodeOne(t, "lemlist", body, nil), decodeOne(t, "lemlist", body, nil)
	if once.Identity() != again.Identity() {
		t.Error("a resent activity is another event")
	}
	other := decodeOne(t, "lemlist", with(t, body, map[string]any{"_id": "act_other"}), nil)
	if other.Identity() == decodeOne(t, "lemlist", body, nil).Identity() {
		t.Error("another _id is the same event")
	}

	bare := with(t, body, map[string]any{"_id": nil})
	first := decodeOne(t, "lemlist", bare, nil).Identity()
	for name, change := range map[string]map[string]any{
		"Same":          {},
		"AddressCase":   {"leadEmail": "ADA.L@CLIENT.EXAMPLE"},
		"RotatedSecret": {"secret": "another"},
	} {
		if decodeOne(t, "lemlist", with(t, bare, change), nil).Identity() != first {
			t.Errorf("%s: another event", name)
		}
	}
	for field, value := range map[string]any{
		"type": "emailsOpened", "campaignId": "cam_2", "leadId": "lea_2", "leadEmail": "bob@client.example",
		"createdAt": "2026-04-05T06:07:08.9100001Z", "sequenceStep": 4, "sequenceId": "seq_2", "emailId": "eml_2",
		"url": "https://example.com/2", "contactId": "ctc_2", "sendUserId": "usr_2",
	} {
		if decodeOne(t, "lemlist", with(t, bare, map[string]any{field: value}), nil).Identity() == first {
			t.Errorf("%s: changed, and the same event", field)
		}
	}
	enriched := []byte(`{"type":"enrichmentDone","data":[{"id":"enr_1"}]}`)
	if decodeOne(t, "lemlist", enriched, nil).Identity() ==
		decodeOne(t, "lemlist", []byte(strings.Replace(string(enriched), "enr_1", "enr_2", 1)), nil).Identity() {
		t.Error("two enrichments are one event")
	}
}

func TestDecodeLemlistUndecodable(t *testing.T) {
	t.Parallel()
	body := read(t, "testdata/payloads/lemlist/emails-sent.json")
	for name, tt := range map[string]struct {
		body []byte
		want string
	}{
		"NoType":      {with(t, body, map[string]any{"type": nil}), "type"},
		"TypeObject":  {with(t, body, map[string]any{"type": []int{}}), "type"},
		"LongLead":    {with(t, body, map[string]any{"leadId": strings.Repeat("x", 2000)}), "lead id"},
		"LongAddress": {with(t, body, map[string]any{"leadEmail": strings.Repeat("x", 400)}), "address"},
		"NullChar":    {with(t, body, map[string]any{"campaignId": "a\x00"}), "campaign"},
		"SecondBad":   {[]byte(`[` + string(body) + `,{"_id":"act_1"}]`), "activity 1"},
		"NotAnObject": {[]byte(`[1]`), "object"},
		"Twice":       {[]byte(`{"type":"a","leadEmail":"x@y.z","leadEmail":"x@y.z"}`), "same key twice"},
		"Deep":        {[]byte(`{"type":` + strings.Repeat("[", 20000)), "at byte"},
		"CutShort":    {[]byte(`[{"type":"a"`), "not valid JSON"},
		"HugeArray":   {[]byte(`[` + strings.Repeat(`{"type":"x"},`, 5000) + `{"type":"x"}]`), "5000"},
	} {
		got, err := provider.ByName("lemlist").Decode(request(tt.body, nil))
		if err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 200 || got != nil {
			t.Errorf("%s: got %d events, error %v, want a short one naming %q", name, len(got), err, tt.want)
		}
	}
}

func TestVerifyLemlist(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		secrets []string
		body    string
		want    error
	}{
		"NoSecret":        {nil, `not even JSON`, nil},
		"Right":           {[]string{"s3"}, `{"type":"x","secret":"s3"}`, nil},
		"Escaped":         {[]string{"s3"}, `{"secret":"\u00733"}`, nil},
		"InGrace":         {[]string{"new", "s3"}, `{"secret":"s3"}`, nil},
		"Array":           {[]string{"s3"}, `[{"secret":"s3"},{"secret":"s3"}]`, nil},
		"Wrong":           {[]string{"s3"}, `{"secret":"s4"}`, provider.ErrMismatch},
		"Longer":          {[]string{"s3"}, `{"secret":"s33"}`, provider.ErrMismatch},
		"Missing":         {[]string{"s3"}, `{"type":"x"}`, provider.ErrMissing},
		"Empty":           {[]string{"s3"}, `{"secret":""}`, provider.ErrMissing},
		"Null":            {[]string{"s3"}, `{"secret":null}`, provider.ErrMissing},
		"OtherCase":       {[]string{"s3"}, `{"Secret":"s3"}`, provider.ErrMissing},
		"Deeper":          {[]string{"s3"}, `{"data":{"secret":"s3"}}`, provider.ErrMissing},
		"Twice":           {[]string{"s3"}, `{"secret":"s3","secret":"s3"}`, provider.ErrMalformed},
		"ArraySecondBare": {[]string{"s3"}, `[{"secret":"s3"},{"type":"x"}]`, provider.ErrMissing},
		"ArrayEmpty":      {[]string{"s3"}, `[]`, provider.ErrMissing},
		"NotJSON":         {[]string{"s3"}, `secret=s3`, provider.ErrMalformed},
		"EmptySecrets":    {[]string{"", ""}, `{"secret":""}`, provider.ErrNoSecret},
	} {
		got := provider.ByName("lemlist").Verify(time.Unix(0, 0), provider.Config{Secrets: tt.secrets}, request([]byte(tt.body), nil))
		if !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
	check := provider.ByName("lemlist").CheckSecret
	for secret, ok := range map[string]bool{"s3cret": true, "": false, "  ": false, "a\nb": false, strings.Repeat("x", 5000): false} {
		if err := check(secret); (err == nil) != ok {
			t.Errorf("secret of %d bytes: got %v, want ok %v", len(secret), err, ok)
		}
	}
}

func TestLemlistMasksSecretInPayload(t *testing.T) {
	t.Parallel()
	body := `{"type":"emailsSent", "secret" : "hunter2hunter2","_id":"act_1","campaignId":"cam_1","leadId":"lea_1"}`
	events, err := provider.ByName("lemlist").Decode(provider.Request{Method: "POST", Body: []byte(body)})
	if err != nil || len(events) != 1 {
		t.Fatalf("Decode = %v, %v", events, err)
	}
	got, want := string(events[0].Payload), strings.Replace(body, `"hunter2hunter2"`, `"********"`, 1)
	if got != want {
		t.Errorf("payload = %s, want %s", got, want)
	}
}
