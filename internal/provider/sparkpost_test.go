package provider_test

import (
	"testing"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeSparkpost(f *testing.F) { fuzzDecode(f, "sparkpost") }

func sparkpostBody(members string) []byte {
	return []byte(`[{"msys":{"message_event":{` + members + `,"transmission_id":"t","rcpt_to":"a@x.example","timestamp":"1770000000"}}}]`)
}

func TestDecodeSparkpost(t *testing.T) {
	t.Parallel()
	machine := mapped{want: event.Opened, machine: event.MachineYes}
	mapsTypes(t, "sparkpost", map[string]mapped{
		"injection": {want: event.Queued}, "delivery": {want: event.Delivered}, "delay": {want: event.Deferred},
		"bounce": {want: event.Bounced, bounce: event.Soft}, "out_of_band": {want: event.Bounced, bounce: event.Soft},
		"policy_rejection": {want: event.Dropped}, "generation_rejection": {want: event.Dropped}, "generation_failure": {want: event.Failed},
		"open": {want: event.Opened}, "amp_open": {want: event.Opened}, "initial_open": machine, "amp_initial_open": machine,
		"click": {want: event.Clicked}, "amp_click": {want: event.Clicked}, "spam_complaint": {want: event.Complained},
		"list_unsubscribe": {want: event.Unsubscribed}, "link_unsubscribe": {want: event.Unsubscribed},
		"relay_injection": {}, "sms_status": {}, "ab_test_completed": {}, "success": {},
	}, func(kind string) []byte { return sparkpostBody(`"type":"` + kind + `"`) })
}

func TestDecodeSparkpostBounces(t *testing.T) {
	t.Parallel()
	for class, want := range map[string]mapped{
		"10": {want: event.Bounced, bounce: event.Hard}, "30": {want: event.Bounced, bounce: event.Hard},
		"1": {want: event.Bounced, bounce: event.Soft}, "22": {want: event.Bounced, bounce: event.Soft}, "51": {want: event.Bounced, bounce: event.Soft},
		"70": {want: event.Bounced, bounce: event.Soft}, "999": {want: event.Bounced, bounce: event.Soft},
		"25": {want: event.Dropped}, "26": {want: event.Dropped}, "60": {want: event.Autoresponded}, "100": {want: event.Autoresponded},
		"80": {}, "90": {want: event.Unsubscribed},
	} {
		for _, form := range []string{`"` + class + `"`, class} {
			e := decodeOne(t, "sparkpost", sparkpostBody(`"type":"bounce","bounce_class":`+form), nil)
			if e.Type != want.want || e.Bounce != want.bounce {
				t.Errorf("class %s: got %q %q, want %q %q", class, e.Type, e.Bounce, want.want, want.bounce)
			}
		}
	}
}

func TestDecodeSparkpostShapes(t *testing.T) {
	t.Parallel()
	const id = "0198c0de-0000-7000-8000-00000000cafe"
	e := decodeOne(t, "sparkpost", sparkpostBody(`"type":"open","message_id":"m","raw_rcpt_to":"A@x.example","rcpt_tags":["enrollment_id:`+id+`"]`), nil)
	if e.EnrollmentID != id || e.ActionID != "m" || e.ProviderMessageID != "t" || e.Email != "a@x.example" {
		t.Errorf("got enrollment %q, action %q, message %q, address %q", e.EnrollmentID, e.ActionID, e.ProviderMessageID, e.Email)
	}
	two := `[{"msys":{"a_event":{"type":"open","event_id":"1"},"b_event":{"type":"click","event_id":"2"}}}]`
	got, err := provider.ByName("sparkpost").Decode(request([]byte(two), nil))
	if err != nil || len(got) != 2 || got[0].Type != event.Opened || got[1].Type != event.Clicked {
		t.Errorf("two in one: got %v, %v", got, err)
	}
	for name, tt := range map[string]struct {
		body string
		ok   bool
	}{
		"Empty": {`[]`, true}, "Ping": {`[{"msys":{}}]`, true}, "Alone": {`{"msys":{}}`, true}, "NoMsys": {`[{"type":"open"}]`, false},
		"NoType": {`[{"msys":{"a":{}}}]`, false}, "NotAnObject": {`[{"msys":{"a":1}}]`, false},
	} {
		got, err := provider.ByName("sparkpost").Decode(request([]byte(tt.body), nil))
		if (err == nil) != tt.ok || len(got) > 0 {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

func TestIdentitySparkpost(t *testing.T) {
	t.Parallel()
	identifies(t, "sparkpost", string(sparkpostBody(`"type":"open","event_id":"92356927693813856"`)),
		[][2]string{{`"t"`, `"u"`}}, [][2]string{{"813856", "813857"}, {`"open"`, `"click"`}})
	identifies(t, "sparkpost", string(sparkpostBody(`"type":"open"`)),
		[][2]string{{"a@x", "A@x"}}, [][2]string{{`"t"`, `"u"`}, {"1770000000", "1770000001"}, {"a@x", "b@x"}, {`"open"`, `"initial_open"`}})
}
