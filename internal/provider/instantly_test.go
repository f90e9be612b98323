package provider_test

import (
	"errors"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeInstantly(f *testing.F) { fuzzDecode(f, "instantly") }

func TestDecodeInstantlyTypes(t *testing.T) {
	t.Parallel()
	mapsTypes(t, "instantly", map[string]mapped{
		"email_sent": {want: event.Sent}, "email_opened": {want: event.Opened},
		"email_link_clicked": {want: event.Clicked}, "link_clicked": {want: event.Clicked},
		"reply_received": {want: event.Replied}, "auto_reply_received": {want: event.Autoresponded},
		"email_bounced": {want: event.Bounced, bounce: event.Soft}, "lead_unsubscribed": {want: event.Unsubscribed},
		"campaign_completed": {}, "account_error": {}, "lead_neutral": {}, "lead_interested": {}, "lead_not_interested": {},
		"lead_meeting_booked": {}, "lead_meeting_completed": {}, "lead_closed": {}, "lead_out_of_office": {}, "lead_wrong_person": {},
		"lead_no_show": {}, "supersearch_enrichment_completed": {}, "Anything a person typed": {}, "email.sent": {},
	}, setting(t, "testdata/payloads/instantly/sent.json", "event_type"))
}

func TestDecodeInstantlyFields(t *testing.T) {
	t.Parallel()
	body := read(t, "testdata/payloads/instantly/sent.json")
	const enrollment = "0198c0de-0000-7000-8000-00000000cafe"
	if e := decodeOne(t, "instantly", with(t, body, map[string]any{"enrollment_id": enrollment}), nil); e.EnrollmentID != enrollment {
		t.Errorf("enrollment: got %q", e.EnrollmentID)
	}
	if e := decodeOne(t, "instantly", with(t, body, map[string]any{"lead_email": nil}), nil); e.Email != "" {
		t.Errorf("our own mailbox became the recipient: %q", e.Email)
	}
	hard := with(t, body, map[string]any{"event_type": "email_bounced", "bounce_type": "hard"})
	if e := decodeOne(t, "instantly", hard, nil); e.Bounce != event.Hard {
		t.Errorf("bounce: got %q", e.Bounce)
	}
}

func TestIdentityInstantly(t *testing.T) {
	t.Parallel()
	identifies(t, "instantly", string(read(t, "testdata/payloads/instantly/clicked.json")), [][2]string{
		{"Ada.L@Client.Example", "ada.l@client.example"}, {`"link_clicked"`, `"email_link_clicked"`}, {`"Spring"`, `"Summer"`},
	}, [][2]string{
		{`"link_clicked"`, `"email_opened"`},
		{"06:07:08.910Z", "06:07:08.911Z"},
		{"Ada.L@", "Bob@"},
		{"cam-own", "cam-2"},
		{"ws-own", "ws-2"},
		{`"step": 2`, `"step": 3`},
		{`"variant": 1`, `"variant": 2`},
	})
}

func TestVerifyInstantly(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		secrets []string
		header  string
		want    error
	}{
		"NoSecret":     {nil, "", nil},
		"Bearer":       {[]string{"s3"}, "Bearer s3", nil},
		"BearerCase":   {[]string{"s3"}, "bearer  s3 ", nil},
		"Bare":         {[]string{"s3"}, "s3", nil},
		"InGrace":      {[]string{"new", "s3"}, "Bearer s3", nil},
		"Wrong":        {[]string{"s3"}, "Bearer s4", provider.ErrMismatch},
		"Basic":        {[]string{"s3"}, basic("u:s3"), provider.ErrMismatch},
		"Missing":      {[]string{"s3"}, "", provider.ErrMissing},
		"OnlyTheWord":  {[]string{"s3"}, "Bearer ", provider.ErrMismatch},
		"EmptySecrets": {[]string{""}, "", provider.ErrNoSecret},
	} {
		req := request([]byte(`{}`), map[string]string{"Authorization": tt.header})
		if got := provider.ByName("instantly").Verify(time.Unix(0, 0), provider.Config{Secrets: tt.secrets}, req); !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
	req := request([]byte(`{}`), map[string]string{"X-Hook": "s3"})
	for value, want := range map[string]error{"s3": nil, "s4": provider.ErrMismatch} {
		cfg := provider.Config{Settings: provider.Settings{Headers: map[string]string{"X-Hook": value}}}
		if got := provider.ByName("instantly").Verify(time.Unix(0, 0), cfg, req); !errors.Is(got, want) {
			t.Errorf("header %s: got %v, want %v", value, got, want)
		}
	}
}
