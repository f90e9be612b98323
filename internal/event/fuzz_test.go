package event_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"tallyhook/internal/event"
)

// FuzzDecode: whatever comes in, an event that is decoded can be stored, and
// decoding what was kept of it, or the same object with its members in another
// order, gives the same event.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"event_type":"opened","channel":"email","email":"a@b.c"}`,
		`{"event_type":"bounced","bounce":"hard","channel":"email","timestamp":"2026-11-24T10:00:00.123456789+02:00","provider_message_id":"<m@x>"}`,
		`{"event_type":"clicked","channel":"email","url":"https://a.example","machine":false,"step_number":3,"provider":"Postmark","email":"a@b.c","metadata":{"id":9007199254740993,"enrollment_id":"0198f2b0-1111-7222-8333-444455556666"}}`,
		`{"event_type":"sent","channel":"sms","enrollment_id":"0198f2b0-1111-7222-8333-444455556666","campaign":"c","metadata":{"a":"\\u0000"}}`,
		`[{"event_type":"opened","channel":"email","email":"a@b.c"},7,{"a":1,"a":2}]`,
		`{"event_type":"opened","channel":"email","timestamp":"2000-01-01T00:00:00+14:00","email":"a\u0000@b.c"}`,
		`[`, `{`, ``, `null`, "\xff", `{"metadata":{"a":[[[[]]]]}}`,
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, raw []byte, strict bool) {
		mode := event.Mode(strict)
		if event.IsArray(raw) {
			items, err := event.DecodeArray(raw, "body", mode)
			if err != nil {
				return
			}
			if len(items) == 0 || len(items) > event.MaxArray {
				t.Fatalf("got %d items", len(items))
			}
			for _, it := range items {
				if it.Err == nil {
					checkDecoded(t, it.Event, mode)
				} else if len(it.Err.Fields) == 0 {
					t.Fatalf("an error that names nothing: %v", it.Err)
				}
			}
			return
		}
		e, err := event.Decode(raw, "body", mode)
		if err != nil {
			if len(err.Fields) == 0 {
				t.Fatalf("an error that names nothing: %v", err)
			}
			return
		}
		checkDecoded(t, e, mode)
	})
}

func checkDecoded(t *testing.T, e event.Event, mode event.Mode) {
	t.Helper()
	again, err := event.Decode(e.Payload, "body", mode)
	if err != nil {
		t.Fatalf("the payload decodes no more: %v: %q", err, e.Payload)
	}
	if diff := cmp.Diff(e, again); diff != "" {
		t.Fatalf("the payload decodes to another event:\n%s", diff)
	}
	if e.Provider == "" {
		e.Provider = "generic"
		again.Provider = "generic"
	}
	if err := e.Check(); err != nil {
		t.Fatalf("a decoded event cannot be stored: %v: %q", err, e.Payload)
	}
	if len(e.Keys()) == 0 {
		t.Fatalf("nothing to find the enrollment by: %q", e.Payload)
	}
	if e.Identity() != again.Identity() {
		t.Fatalf("two identities of %q", e.Payload)
	}
	sorted := jsontext.Value(bytes.Clone(e.Payload))
	if err := sorted.Format(jsontext.ReorderRawObjects(true), jsontext.PreserveRawStrings(true)); err != nil {
		t.Fatalf("decoded, but not JSON: %v", err)
	}
	other, err := event.Decode(sorted, "body", mode)
	if err != nil {
		t.Fatalf("in another order it decodes no more: %v: %q", err, sorted)
	}
	if other.Provider == "" {
		other.Provider = "generic"
	}
	if e.Identity() != other.Identity() {
		t.Fatalf("the order of members changes the identity: %q and %q", e.Payload, sorted)
	}
}

// FuzzKeys: keys come most specific first, normalisation is final, and what is
// normalised has the key of what was submitted.
func FuzzKeys(f *testing.F) {
	f.Add("postmark", "<m@x>", "act", "lead", "cam", "Ada <ada@x.y>", someEnrollment)
	f.Add("", "", "", "", "", "", "")
	f.Add("p", "<<m>>", " < > ", "<", ">", "<<a@b>>", "{"+someEnrollment+"}")
	f.Add("p", "\xff", "\x00", "\u00a0", "İ", "İ@ẞ.ſ", "urn:uuid:"+someEnrollment)
	f.Fuzz(func(t *testing.T, provider, message, action, lead, campaign, email, enrollment string) {
		e := event.Event{
			Provider: provider, ProviderMessageID: message, ActionID: action, LeadID: lead, Campaign: campaign, Email: email,
			EnrollmentID: enrollment,
		}
		keys := e.Keys()
		for i := 1; i < len(keys); i++ {
			if keys[i].Rank < keys[i-1].Rank {
				t.Fatalf("rank %d after %d", keys[i].Rank, keys[i-1].Rank)
			}
		}
		normal := e
		normal.ProviderMessageID, normal.ActionID, normal.LeadID = event.NormalID(message), event.NormalID(action), event.NormalID(lead)
		normal.Campaign, normal.Email = event.NormalID(campaign), event.NormalAddress(email)
		if diff := cmp.Diff(keys, normal.Keys()); diff != "" {
			t.Fatalf("normalised, the keys are others:\n%s", diff)
		}
		for _, id := range []string{message, action, lead, campaign} {
			if n := event.NormalID(id); event.NormalID(n) != n {
				t.Fatalf("NormalID is not final: %q, %q, %q", id, n, event.NormalID(n))
			}
		}
		if n := event.NormalAddress(email); event.NormalAddress(n) != n {
			t.Fatalf("NormalAddress is not final: %q, %q, %q", email, n, event.NormalAddress(n))
		}
		if event.ValidAddress(email) && (len(event.NormalAddress(email)) > event.MaxEmail || !strings.Contains(email, "@")) {
			t.Fatalf("%q is no address", email)
		}
	})
}
