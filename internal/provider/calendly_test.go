package provider_test

import (
	"errors"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeCalendly(f *testing.F) { fuzzDecode(f, "calendly") }

func TestDecodeCalendly(t *testing.T) {
	t.Parallel()
	mapsTypes(t, "calendly", map[string]mapped{
		"invitee.created":  {want: event.MeetingBooked},
		"invitee.canceled": {}, "invitee_no_show.created": {}, "routing_form_submission.created": {}, "something.new": {},
	}, setting(t, "testdata/payloads/calendly/created.json", "event"))
	e := decodeOne(t, "calendly", read(t, "testdata/payloads/calendly/created.json"), nil)
	if e.Channel != event.Meeting || e.EnrollmentID != "0198c0de-0000-7000-8000-00000000cafe" || e.ActionID != "https://api.calendly.com/scheduled_events/OWN" {
		t.Errorf("got channel %q, enrollment %q, action %q", e.Channel, e.EnrollmentID, e.ActionID)
	}
	bare := decodeOne(t, "calendly", []byte(`{"event":"invitee.created","payload":{"email":"a@x.example","created_at":"2026-04-05T06:07:08Z"}}`), nil)
	if bare.OccurredAtEstimated || bare.ProviderEventID != "" || bare.EnrollmentID != "" {
		t.Errorf("without an envelope's time: %+v", bare)
	}
}

func TestIdentityCalendly(t *testing.T) {
	t.Parallel()
	identifies(t, "calendly", string(read(t, "testdata/payloads/calendly/created.json")),
		[][2]string{{`"active"`, `"canceled"`}, {"06:07:08.000000Z", "06:07:09Z"}},
		[][2]string{{"invitees/ONE", "invitees/TWO"}, {"invitee.created", "invitee.canceled"}})
	identifies(t, "calendly", `{"event":"invitee.created","created_at":"2026-04-05T06:07:08Z","payload":{"email":"a@x.example"}}`,
		[][2]string{{"a@x", "A@X"}}, [][2]string{{"a@x", "b@x"}, {":08Z", ":09Z"}})
}

func TestVerifyCalendly(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_770_000_000, 0)
	body := []byte(`{"event":"invitee.created"}`)
	sign := func(secret, at string) string { return hexHMAC(secret, []byte(at+"."+string(body))) }
	good := sign("own", "1770000000")
	for name, tt := range map[string]struct {
		secrets []string
		header  string
		after   time.Duration
		want    error
	}{
		"Right":       {[]string{"own"}, "t=1770000000,v1=" + good, 0, nil},
		"OtherOrder":  {[]string{"own"}, "v1=" + good + ", t=1770000000", 0, nil},
		"OneOfTwo":    {[]string{"own"}, "t=1770000000,v1=" + sign("x", "1770000000") + ",v1=" + good, 0, nil},
		"OneMangled":  {[]string{"own"}, "t=1770000000,v1=zz,v1=" + good, 0, nil},
		"InGrace":     {[]string{"new", "own"}, "t=1770000000,v1=" + good, 0, nil},
		"AtTheEdge":   {[]string{"own"}, "t=1770000000,v1=" + good, 180 * time.Second, nil},
		"TooOld":      {[]string{"own"}, "t=1770000000,v1=" + good, 181 * time.Second, provider.ErrExpired},
		"TooNew":      {[]string{"own"}, "t=1770000000,v1=" + good, -181 * time.Second, provider.ErrExpired},
		"TimeChanged": {[]string{"own"}, "t=1770000001,v1=" + good, 0, provider.ErrMismatch},
		"OtherSecret": {[]string{"x"}, "t=1770000000,v1=" + good, 0, provider.ErrMismatch},
		"OnlyV0":      {[]string{"own"}, "t=1770000000,v0=" + good, 0, provider.ErrMalformed},
		"NoTime":      {[]string{"own"}, "v1=" + good, 0, provider.ErrMalformed},
		"SignedTime":  {[]string{"own"}, "t=+1770000000,v1=" + good, 0, provider.ErrMalformed},
		"Mangled":     {[]string{"own"}, "t=1770000000,v1=zz", 0, provider.ErrMalformed},
		"Missing":     {[]string{"own"}, "", 0, provider.ErrMissing},
		"NoSecret":    {nil, "t=1770000000,v1=" + sign("", "1770000000"), 0, provider.ErrNoSecret},
	} {
		req := request(body, map[string]string{"Calendly-Webhook-Signature": tt.header})
		got := provider.ByName("calendly").Verify(now.Add(tt.after), provider.Config{Secrets: tt.secrets}, req)
		if !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
	p := provider.ByName("calendly")
	a, err := p.MakeSecret()
	b, _ := p.MakeSecret()
	if err != nil || len(a) != 64 || a == b || p.CheckSecret(a) != nil {
		t.Errorf("made secrets of %d bytes, %v", len(a), err)
	}
}
