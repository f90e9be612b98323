package event_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
)

func TestIdentityOfDecoded(t *testing.T) {
	t.Parallel()
	with := func(fields string) string {
		return `{"event_type":"opened","channel":"email","email":"a@b.c"` + fields + `}`
	}
	for name, tc := range map[string]struct {
		a, b string
		same bool
	}{
		"FieldOrder":       {with(`,"step_number":1`), `{"step_number":1,"email":"a@b.c","channel":"email","event_type":"opened"}`, true},
		"Space":            {with(``), " {\"event_type\" : \"opened\",\n\"channel\":\"email\",\"email\":\"a@b.c\"}", true},
		"AddressCase":      {with(``), `{"event_type":"opened","channel":"email","email":"<A@B.C>"}`, true},
		"MessageBrackets":  {with(`,"provider_message_id":"<m@x>"`), with(`,"provider_message_id":"m@x"`), true},
		"TimeZone":         {with(`,"timestamp":"2026-11-24T10:00:00Z"`), with(`,"occurred_at":"2026-11-24T11:00:00+01:00"`), true},
		"MetadataOrder":    {with(`,"metadata":{"a":1,"b":{"c":2,"d":3}}`), with(`,"metadata":{ "b":{"d":3,"c":2}, "a":1 }`), true},
		"MetadataEscapes":  {with(`,"metadata":{"a":"A/é"}`), with(`,"metadata":{"\u0061":"\u0041\/\u00e9"}`), true},
		"MetadataTwoIDs":   {with(`,"metadata":{"enrollment_id":"` + someEnrollment + `","tallyhook_enrollment_id":"0198f2b0-0000-7000-8000-000000000000"}`), with(`,"metadata":{"tallyhook_enrollment_id":"0198f2b0-0000-7000-8000-000000000000","enrollment_id":"` + someEnrollment + `"}`), true},
		"MetadataArrays":   {with(`,"metadata":{"a":[1,2]}`), with(`,"metadata":{"a":[2,1]}`), false},
		"BeyondDoubles":    {with(`,"metadata":{"id":9007199254740992}`), with(`,"metadata":{"id":9007199254740993}`), false},
		"BeyondUint64":     {with(`,"metadata":{"id":123456789012345678901}`), with(`,"metadata":{"id":123456789012345678902}`), false},
		"NumberAndText":    {with(`,"metadata":{"id":1}`), with(`,"metadata":{"id":"1"}`), false},
		"Type":             {with(``), `{"event_type":"clicked","channel":"email","email":"a@b.c"}`, false},
		"Time":             {with(`,"timestamp":"2026-11-24T10:00:00Z"`), with(`,"timestamp":"2026-11-24T10:00:00.000001Z"`), false},
		"TimeOrNone":       {with(``), with(`,"timestamp":"2026-11-24T10:00:00Z"`), false},
		"Machine":          {with(`,"machine":false`), with(``), false},
		"Provider":         {with(`,"provider":"a"`), with(`,"provider":"b"`), false},
		"ProviderCase":     {with(`,"provider":"A"`), with(`,"provider":"a"`), true},
		"EventIDDecides":   {with(`,"provider_event_id":"1"`), with(`,"provider_event_id":"1","step_number":9`), true},
		"EventIDDiffers":   {with(`,"provider_event_id":"1"`), with(`,"provider_event_id":"2"`), false},
		"EventIDWithType":  {with(`,"provider_event_id":"1"`), `{"event_type":"clicked","channel":"email","email":"a@b.c","provider_event_id":"1"}`, false},
		"BounceIsSoft":     {`{"event_type":"bounced","channel":"email","email":"a@b.c"}`, `{"event_type":"bounced","bounce":"soft","channel":"email","email":"a@b.c"}`, true},
		"BounceIsHard":     {`{"event_type":"bounced","channel":"email","email":"a@b.c"}`, `{"event_type":"bounced","bounce":"hard","channel":"email","email":"a@b.c"}`, false},
		"FieldsDoNotFlow":  {with(`,"campaign":"ab","url":"https://c"`), with(`,"campaign":"a","url":"https://bc"`), false},
		"EnrollmentByCase": {with(`,"enrollment_id":"0198F2B0-1111-7222-8333-444455556666"`), with(`,"enrollment_id":"` + someEnrollment + `"`), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := decode(t, tc.a), decode(t, tc.b)
			if got := a.Identity() == b.Identity(); got != tc.same {
				t.Errorf("got the same identity: %v, want %v", got, tc.same)
			}
		})
	}
}

// TestIdentityIgnoresReceipt: a vendor's retry, hours later and under another
// id of ours, is the same event.
func TestIdentityIgnoresReceipt(t *testing.T) {
	t.Parallel()
	first := decode(t, `{"event_type":"opened","channel":"email","email":"a@b.c"}`)
	again := first
	first.ReceivedAt = time.Date(2026, 11, 24, 23, 59, 59, 0, time.UTC)
	first.OccurredAt = first.ReceivedAt // estimated: the payload had no time
	again.ID = uuid.MustParse(someEnrollment)
	again.ReceivedAt = first.ReceivedAt.Add(3 * time.Hour)
	again.OccurredAt = again.ReceivedAt
	if first.Identity() != again.Identity() {
		t.Error("got two identities, want one")
	}
}

func TestIdentityScopesAndParts(t *testing.T) {
	t.Parallel()
	base := event.Event{Scope: "s1", Type: event.Opened, Channel: event.Email, ProviderEventID: "1"}
	for name, change := range map[string]func(*event.Event){
		"Scope":      func(e *event.Event) { e.Scope = "s2" },
		"Parts":      func(e *event.Event) { e.IdentityParts = []string{"1", "opened"} },
		"Control":    func(e *event.Event) { e.Control, e.Kind = true, "ping" },
		"NoIDAtAll":  func(e *event.Event) { e.ProviderEventID = "" },
		"IDWithType": func(e *event.Event) { e.Type = event.Clicked },
	} {
		other := base
		change(&other)
		if base.Identity() == other.Identity() {
			t.Errorf("%s: got one identity, want two", name)
		}
	}
	a := event.Event{Scope: "s", IdentityParts: []string{"ab", "c"}, ProviderEventID: "1"}
	b := event.Event{Scope: "s", IdentityParts: []string{"a", "bc"}, ProviderEventID: "1"}
	c := event.Event{Scope: "s", IdentityParts: []string{"ab", "c"}, ProviderEventID: "2"}
	if a.Identity() == b.Identity() {
		t.Error("parts flow into each other")
	}
	if a.Identity() != c.Identity() {
		t.Error("parts do not decide alone")
	}
}

func decode(tb testing.TB, raw string) event.Event {
	tb.Helper()
	e, err := event.Decode([]byte(raw), "body", event.Strict)
	if err != nil {
		tb.Fatalf("%s: %v", raw, err)
	}
	return e
}
