package provider_test

import (
	"errors"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeMailersend(f *testing.F) { fuzzDecode(f, "mailersend") }

func TestDecodeMailersend(t *testing.T) {
	t.Parallel()
	mapsTypes(t, "mailersend", map[string]mapped{
		"activity.sent": {want: event.Sent}, "activity.delivered": {want: event.Delivered}, "activity.deferred": {want: event.Deferred},
		"activity.soft_bounced": {want: event.Bounced, bounce: event.Soft}, "activity.hard_bounced": {want: event.Bounced, bounce: event.Hard},
		"activity.opened": {want: event.Opened}, "activity.opened_unique": {want: event.Opened},
		"activity.clicked": {want: event.Clicked}, "activity.clicked_unique": {want: event.Clicked},
		"activity.unsubscribed": {want: event.Unsubscribed}, "activity.spam_complaint": {want: event.Complained},
		"activity.survey_opened": {}, "activity.survey_submitted": {}, "sender_identity.verified": {}, "maintenance.start": {}, "inbound.message": {},
	}, setting(t, "testdata/payloads/mailersend/clicked.json", "type"))
}

// A mail's tags are all that MailerSend passes back.
func TestEnrollmentInTags(t *testing.T) {
	t.Parallel()
	const id = "0198c0de-0000-7000-8000-00000000cafe"
	for tags, want := range map[string]string{
		`["a","enrollment_id:` + id + `"]`:       id,
		`["tallyhook_enrollment_id=` + id + `"]`: id,
		`"enrollment_id: ` + id + `"`:            id,
		`["enrollment_id:42","enrollment_id"]`:   "",
		`["` + id + `"]`:                         "",
		`null`:                                   "",
		`{"enrollment_id":"` + id + `"}`:         "",
		`[null,1,["enrollment_id:` + id + `"]]`:  "",
	} {
		body := `{"type":"activity.opened","data":{"id":"a","email":{"tags":` + tags + `}}}`
		if e := decodeOne(t, "mailersend", []byte(body), nil); e.EnrollmentID != want {
			t.Errorf("%s: got %q, want %q", tags, e.EnrollmentID, want)
		}
	}
}

func TestIdentityMailersend(t *testing.T) {
	t.Parallel()
	identifies(t, "mailersend", string(read(t, "testdata/payloads/mailersend/clicked.json")),
		[][2]string{{"tok_own", "tok_rotated"}, {"clicked", "clicked_unique"}},
		[][2]string{{"act_own", "act_2"}, {"activity.clicked", "activity.opened"}})
	identifies(t, "mailersend", `{"type":"activity.opened","data":{"created_at":"2026-04-05T06:07:08Z","email":{"message":{"id":"m"},"recipient":{"email":"a@x.example"}}}}`,
		[][2]string{{"a@x", "A@x"}}, [][2]string{{":08Z", ":08.0000001Z"}, {`"m"`, `"n"`}, {"a@x", "b@x"}})
}

func TestVerifyMailersend(t *testing.T) {
	t.Parallel()
	body := []byte("{\"type\":\"activity.sent\"}\r\n")
	for name, tt := range map[string]struct {
		secrets []string
		header  string
		want    error
	}{
		"Right":    {[]string{"own"}, hexHMAC("own", body), nil},
		"InGrace":  {[]string{"new", "own"}, hexHMAC("own", body), nil},
		"RawBytes": {[]string{"own"}, hexHMAC("own", body[:len(body)-2]), provider.ErrMismatch},
		"Mangled":  {[]string{"own"}, "zz", provider.ErrMalformed},
		"Missing":  {[]string{"own"}, "", provider.ErrMissing},
		"NoSecret": {nil, hexHMAC("", body), provider.ErrNoSecret},
	} {
		got := provider.ByName("mailersend").Verify(time.Unix(0, 0), provider.Config{Secrets: tt.secrets}, request(body, map[string]string{"Signature": tt.header}))
		if !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
