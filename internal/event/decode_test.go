package event_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
)

const someEnrollment = "0198f2b0-1111-7222-8333-444455556666"

func TestDecodeGood(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 10, 0, 0, 123456000, time.UTC)
	for name, tc := range map[string]struct {
		in   string
		want event.Event // without Payload
	}{
		"Everything": {
			`{"event_type":"clicked","channel":"email","timestamp":"2026-11-24T12:00:00.123456789+02:00","provider":"Postmark",
			  "provider_event_id":"e1","provider_message_id":"<m1@x>","enrollment_id":"` + strings.ToUpper(someEnrollment) + `",
			  "email":"Ada <Ada@Example.com>","campaign":"cam_1","step_number":2,"url":"https://a.example/?q=1","machine":true,
			  "metadata":{"n":12345678901234567890}}`,
			event.Event{
				Type: event.Clicked, Channel: event.Email, OccurredAt: at, Provider: "postmark", ProviderEventID: "e1",
				ProviderMessageID: "<m1@x>", EnrollmentID: someEnrollment, Email: "Ada <Ada@Example.com>", Campaign: "cam_1",
				StepNumber: 2, URL: "https://a.example/?q=1", Machine: event.MachineYes, Metadata: []byte(`{"n":12345678901234567890}`),
			},
		},
		"NullIsAbsent": {
			`{"event_type":"opened","channel":"email","email":"a@b.c","url":null,"machine":null,"timestamp":null}`,
			event.Event{Type: event.Opened, Channel: event.Email, Email: "a@b.c", OccurredAtEstimated: true},
		},
		"NotAMachine": {
			`{"event_type":"opened","channel":"email","email":"a@b.c","machine":false,"occurred_at":"2026-11-24T10:00:00.123456Z"}`,
			event.Event{Type: event.Opened, Channel: event.Email, Email: "a@b.c", Machine: event.MachineNo, OccurredAt: at},
		},
		"BounceIsSoftUnlessSaid": {
			`{"event_type":"bounced","channel":"email","email":"a@b.c"}`,
			event.Event{Type: event.Bounced, Channel: event.Email, Email: "a@b.c", Bounce: event.Soft, OccurredAtEstimated: true},
		},
		"BothTimesTheSame": {
			`{"event_type":"sent","channel":"email","email":"a@b.c","timestamp":"2026-11-24T10:00:00.123456789Z",
			  "occurred_at":"2026-11-24T11:00:00.123456789+01:00"}`,
			event.Event{Type: event.Sent, Channel: event.Email, Email: "a@b.c", OccurredAt: at},
		},
		"PassedBackEnrollment": {
			`{"event_type":"sent","channel":"email","metadata":{"enrollment_id":"` + someEnrollment + `"}}`,
			event.Event{
				Type: event.Sent, Channel: event.Email, EnrollmentID: someEnrollment, OccurredAtEstimated: true,
				Metadata: []byte(`{"enrollment_id":"` + someEnrollment + `"}`),
			},
		},
		"OursWinsOverTheCustomersOwn": {
			`{"event_type":"sent","channel":"email","metadata":{"enrollment_id":"0198f2b0-0000-7000-8000-000000000000","tallyhook_enrollment_id":"` + someEnrollment + `"}}`,
			event.Event{
				Type: event.Sent, Channel: event.Email, EnrollmentID: someEnrollment, OccurredAtEstimated: true,
				Metadata: []byte(`{"enrollment_id":"0198f2b0-0000-7000-8000-000000000000","tallyhook_enrollment_id":"` + someEnrollment + `"}`),
			},
		},
		"EscapedBackslashIsNoNUL": {
			`{"event_type":"sent","channel":"email","email":"a@b.c","metadata":{"path":"C:\\u0000"}}`,
			event.Event{
				Type: event.Sent, Channel: event.Email, Email: "a@b.c", OccurredAtEstimated: true,
				Metadata: []byte(`{"path":"C:\\u0000"}`),
			},
		},
		"InternationalAddress": {
			`{"event_type":"sent","channel":"email","email":"ädä@exämple.com"}`,
			event.Event{Type: event.Sent, Channel: event.Email, Email: "ädä@exämple.com", OccurredAtEstimated: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := event.Decode([]byte("\n "+tc.in+" \n"), "body", event.Strict)
			if err != nil {
				t.Fatal(err)
			}
			tc.want.Payload = []byte(tc.in)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err := got.Check(); err != nil {
				t.Errorf("Check: %v", err)
			}
		})
	}
}

func TestEveryTypeAndChannel(t *testing.T) {
	t.Parallel()
	for _, typ := range event.Types() {
		for _, channel := range append(event.Channels(), event.DefaultChannel(typ)) {
			raw := fmt.Sprintf(`{"event_type":%q,"channel":%q,"email":"a@b.c"}`, typ, channel)
			if e, err := event.Decode([]byte(raw), "body", event.Strict); err != nil || e.Type != typ || e.Channel != channel {
				t.Errorf("%s: got %s on %s, %v", raw, e.Type, e.Channel, err)
			}
		}
	}
}

func TestDecodeBad(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", event.MaxID+1)
	with := func(field string) string {
		return `{"event_type":"opened","channel":"email","email":"a@b.c",` + field + `}`
	}
	for name, tc := range map[string]struct {
		in   string
		want []string // "location: part of the message"
	}{
		"Nothing":      {``, []string{"body: ends too early"}},
		"NotJSON":      {`{"event_type":opened}`, []string{"body: not valid JSON at byte"}},
		"CutOff":       {`{"event_type":"opened"`, []string{"body: ends too early"}},
		"TwoObjects":   {with(`"step_number":1`) + `{}`, []string{"body: data after the object"}},
		"Number":       {`7`, []string{"body: must be a JSON object"}},
		"Array":        {`[]`, []string{"body: must be a JSON object"}},
		"Empty":        {`{}`, []string{"body.event_type: is required", "body.channel: is required"}},
		"NullRequired": {`{"event_type":null,"channel":null}`, []string{"body.event_type: is required", "body.channel: is required"}},
		"DuplicateKey": {with(`"email":"b@b.c"`), []string{"body: same key twice"}},
		"DuplicateKeyInside": {
			with(`"metadata":{"a":1,"a":2}`),
			[]string{"body: same key twice"},
		},
		"NotUTF8":       {with(`"campaign":"` + "\xff" + `"`), []string{"body: not valid JSON"}},
		"LoneSurrogate": {with(`"campaign":"\ud800"`), []string{"body: not valid JSON"}},
		"TooDeep":       {with(`"metadata":` + strings.Repeat(`{"a":`, 20000) + `1` + strings.Repeat(`}`, 20000)), []string{"body: not valid JSON"}},
		"EveryFieldIsNamed": {
			`{"event_type":"exploded","channel":"pigeon","timestamp":"yesterday","provider":1,"provider_event_id":2,
			  "provider_message_id":[],"enrollment_id":"x","email":"nobody","campaign":{},"step_number":"2","url":"/relative",
			  "machine":"yes","metadata":[],"bounce":"medium","colour":"red"}`,
			[]string{
				"body.event_type: is not one of the event types: queued, sent", "body.channel: is not one of: email, linkedin",
				"body.timestamp: RFC 3339", "body.provider: must be a string", "body.provider_event_id: must be a string",
				"body.provider_message_id: must be a string", "body.enrollment_id: is not a UUID", "body.email: is not an email address",
				"body.campaign: must be a string", "body.step_number: whole number from 1 to 1000", "body.url: is not an absolute URL",
				"body.machine: must be true or false", "body.metadata: must be a JSON object", "body.bounce: must be hard or soft",
				"body.colour: is not a field",
			},
		},
		"NoWayToFind":       {`{"event_type":"opened","channel":"email","campaign":"cam_1"}`, []string{"body: names no enrollment"}},
		"BlankMessageID":    {`{"event_type":"opened","channel":"email","provider_message_id":" < > "}`, []string{"body: names no enrollment"}},
		"TimesContradict":   {with(`"timestamp":"2026-11-24T10:00:00Z","occurred_at":"2026-11-24T10:00:01Z"`), []string{"body.occurred_at: contradicts"}},
		"TimeWithoutZone":   {with(`"timestamp":"2026-11-24T10:00:00"`), []string{"body.timestamp: RFC 3339"}},
		"TimeAsNumber":      {with(`"timestamp":1764000000`), []string{"body.timestamp: must be a string"}},
		"TimeTooEarly":      {with(`"timestamp":"1970-12-31T23:59:59Z"`), []string{"body.timestamp: 1971 and 2200"}},
		"TimeTooEarlyInUTC": {with(`"timestamp":"1971-01-01T00:00:00+14:00"`), []string{"body.timestamp: 1971 and 2200"}},
		"TimeTooLate":       {with(`"timestamp":"2200-01-01T00:00:00Z"`), []string{"body.timestamp: 1971 and 2200"}},
		"StepZero":          {with(`"step_number":0`), []string{"body.step_number: 1 to 1000"}},
		"StepFraction":      {with(`"step_number":1.5`), []string{"body.step_number: 1 to 1000"}},
		"StepBeyondInt64":   {with(`"step_number":9223372036854775808`), []string{"body.step_number: 1 to 1000"}},
		"StepWrapsAround":   {with(`"step_number":18446744073709551617`), []string{"body.step_number: 1 to 1000"}},
		"LongEventID":       {with(`"provider_event_id":"` + long + `"`), []string{"body.provider_event_id: longer than 1024"}},
		"LongMessageID":     {with(`"provider_message_id":"` + long + `"`), []string{"body.provider_message_id: longer than 1024"}},
		"LongCampaign":      {with(`"campaign":"` + long + `"`), []string{"body.campaign: longer than 1024"}},
		"LongEmail": {
			`{"event_type":"opened","channel":"email","email":"` + strings.Repeat("x", 320) + `@b.c"}`,
			[]string{"body.email: longer than 320"},
		},
		"LongURL":      {with(`"url":"https://a.example/` + strings.Repeat("x", event.MaxURL) + `"`), []string{"body.url: longer than 8192"}},
		"LongMetadata": {with(`"metadata":{"a":"` + strings.Repeat("x", event.MaxMetadata) + `"}`), []string{"body.metadata: larger than 65536"}},
		"NULInID":      {with(`"provider_event_id":"a\u0000b"`), []string{"body.provider_event_id: U+0000"}},
		"NULInMetadata": {
			with(`"metadata":{"a":{"b":"\u0000"}}`),
			[]string{"body.metadata: U+0000"},
		},
		"NULInMetadataKey":     {with(`"metadata":{"\\\u0000":1}`), []string{"body.metadata: U+0000"}},
		"BounceOfSomethingSet": {with(`"bounce":"hard"`), []string{"body.bounce: only goes with"}},
		"SpaceInEmail": {
			`{"event_type":"opened","channel":"email","email":"a b@c.d"}`,
			[]string{"body.email: is not an email address"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := event.Decode([]byte(tc.in), "body", event.Strict)
			if err == nil {
				t.Fatal("got no error")
			}
			if err.Kind != fault.Invalid {
				t.Errorf("got kind %v, want %v", err.Kind, fault.Invalid)
			}
			checkFields(t, err, tc.want)
			for _, f := range err.Fields {
				if len(fmt.Sprint(f.Value)) > 1000 {
					t.Errorf("%s echoes %d bytes", f.Location, len(fmt.Sprint(f.Value)))
				}
			}
		})
	}
}

func TestStrictAndLenient(t *testing.T) {
	t.Parallel()
	raw := []byte(`{"event_type":"opened","channel":"email","email":"a@b.c","emial":"typo"}`)
	_, err := event.Decode(raw, "body", event.Strict)
	checkFields(t, err, []string{"body.emial: is not a field"})
	if _, err := event.Decode(raw, "body", event.Lenient); err != nil {
		t.Errorf("lenient: got %v, want no error", err)
	}
	_, err = event.Decode([]byte(`{"event_type":"exploded","channel":"email","email":"a@b.c"}`), "body", event.Lenient)
	checkFields(t, err, []string{"body.event_type: is not one of"}) // lenient about more, never about less
}

func TestDecodeArray(t *testing.T) {
	t.Parallel()
	const good = `{"event_type":"opened","channel":"email","email":"a@b.c"}`
	for name, tc := range map[string]struct {
		in   string
		want []string // for each item: empty, or its error's only field
		err  string
	}{
		"One":          {in: "[" + good + "]", want: []string{""}},
		"Most":         {in: "[" + strings.Repeat(good+",", event.MaxArray-1) + good + "]", want: make([]string, event.MaxArray)},
		"OneTooMany":   {in: "[" + strings.Repeat(good+",", event.MaxArray) + good + "]", err: "body: more than 1000"},
		"None":         {in: "[]", err: "body: empty array"},
		"CutOff":       {in: "[" + good, err: "body: not valid JSON"},
		"TwoArrays":    {in: "[" + good + "][]", err: "body: not valid JSON"},
		"Object":       {in: good, err: "body: not valid JSON"},
		"Nothing":      {in: "", err: "body: ends too early"},
		"BadAmongGood": {in: "[" + good + `,7,` + good + "]", want: []string{"", "body[1]: must be a JSON object", ""}},
		"DuplicateKeyAmongGood": {
			in:   "[" + good + `,{"email":"a@b.c","email":"a@b.c"},` + good + "]",
			want: []string{"", "body[1]: same key twice", ""},
		},
		"NotUTF8AmongGood": {
			in:   "[" + good + `,{"email":"` + "\xff" + `"},` + good + "]",
			want: []string{"", "body[1]: not valid JSON", ""},
		},
		"FieldOfAnItem": {
			in:   "[" + good + `,{"event_type":"opened","channel":"email","email":"a"}]`,
			want: []string{"", "body[1].email: is not an email address"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			items, err := event.DecodeArray([]byte(tc.in), "body", event.Strict)
			if tc.err != "" {
				checkFields(t, err, []string{tc.err})
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, want := len(items), len(tc.want); got != want {
				t.Fatalf("got %d items, want %d", got, want)
			}
			for i, want := range tc.want {
				if want != "" {
					checkFields(t, items[i].Err, []string{want})
				} else if items[i].Err != nil || string(items[i].Event.Payload) != good {
					t.Errorf("item %d: got %s, %v", i, items[i].Event.Payload, items[i].Err)
				}
			}
		})
	}
}

func TestIsArray(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{" \r\n\t[": true, "{": false, "": false, " ": false, "null": false} {
		if got := event.IsArray([]byte(in)); got != want {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	good := func() event.Event {
		return event.Event{Type: event.Opened, Channel: event.Email, OccurredAtEstimated: true}
	}
	for name, tc := range map[string]struct {
		change func(*event.Event)
		want   string // part of the error; empty: none
	}{
		"Good":             {func(*event.Event) {}, ""},
		"Control":          {func(e *event.Event) { *e = event.Event{Control: true, Kind: "ping", OccurredAtEstimated: true} }, ""},
		"ControlNoName":    {func(e *event.Event) { e.Control = true }, "name is missing"},
		"NoType":           {func(e *event.Event) { e.Type = "" }, "not canonical"},
		"NoChannel":        {func(e *event.Event) { e.Channel = "" }, "not canonical"},
		"LongLead":         {func(e *event.Event) { e.LeadID = strings.Repeat("x", event.MaxID+1) }, "lead id is longer"},
		"NUL":              {func(e *event.Event) { e.ActionID = "a\x00" }, "action id holds"},
		"NotUTF8":          {func(e *event.Event) { e.Campaign = "\xff" }, "campaign is not UTF-8"},
		"TimeNotTold":      {func(e *event.Event) { e.OccurredAtEstimated = false }, "time is out of range"},
		"LargeMetadata":    {func(e *event.Event) { e.Metadata = make([]byte, event.MaxMetadata+1) }, "metadata is larger"},
		"LongAddress":      {func(e *event.Event) { e.Email = strings.Repeat("x", event.MaxEmail+1) }, "address is longer"},
		"LongMessageID":    {func(e *event.Event) { e.ProviderMessageID = strings.Repeat("x", event.MaxID+1) }, "message id is longer"},
		"LongURL":          {func(e *event.Event) { e.URL = strings.Repeat("x", event.MaxURL+1) }, "url is longer"},
		"LongKind":         {func(e *event.Event) { e.Kind = strings.Repeat("x", event.MaxID+1) }, "event name is longer"},
		"LongControlsName": {func(e *event.Event) { e.Control, e.Kind = true, strings.Repeat("x", event.MaxID+1) }, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := good()
			tc.change(&e)
			err := e.Check()
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// checkFields compares an error's fields with "location: part of message".
func checkFields(tb testing.TB, err *fault.Error, want []string) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("got no error, want %q", want)
	}
	if len(err.Fields) != len(want) {
		tb.Fatalf("got %v, want %d fields", err, len(want))
	}
	for i, w := range want {
		location, part, _ := strings.Cut(w, ": ")
		if f := err.Fields[i]; f.Location != location || !strings.Contains(f.Message, part) {
			tb.Errorf("got %q: %q, want %q", f.Location, f.Message, w)
		}
	}
}
