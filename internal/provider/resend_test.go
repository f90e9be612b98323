package provider_test

import (
	"bytes"
	"errors"
	"maps"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeResend(f *testing.F) { fuzzDecode(f, "resend") }

func TestDecodeResendTypes(t *testing.T) {
	t.Parallel()
	mapsTypes(t, "resend", map[string]mapped{
		"email.scheduled": {want: event.Queued}, "email.sent": {want: event.Sent}, "email.delivered": {want: event.Delivered},
		"email.delivery_delayed": {want: event.Deferred}, "email.bounced": {want: event.Bounced, bounce: event.Hard},
		"email.complained": {want: event.Complained}, "email.opened": {want: event.Opened}, "email.clicked": {want: event.Clicked},
		"email.failed": {want: event.Failed}, "email.suppressed": {want: event.Dropped},
		"email.received": {}, "contact.created": {}, "domain.updated": {}, "something.new": {},
	}, func(kind string) []byte {
		return []byte(`{"type":"` + kind + `","created_at":"2026-05-06T07:26:07.891Z","data":{"email_id":"m","to":["a@x.example"]}}`)
	})
	for members, want := range map[string]event.Bounce{
		`"bounce":{"type":"Permanent"}`: event.Hard, `"bounce":{"type":"Transient"}`: event.Soft,
		`"bounce":{"type":"Undetermined"}`: event.Soft, `"bounce":{"message":"gone"}`: event.Hard, `"a":1`: event.Hard,
	} {
		if e := decodeOne(t, "resend", []byte(`{"type":"email.bounced","data":{`+members+`}}`), nil); e.Bounce != want {
			t.Errorf("%s: got %q, want %q", members, e.Bounce, want)
		}
	}
}

func TestDecodeResendRecipients(t *testing.T) {
	t.Parallel()
	for members, want := range map[string]string{
		`"to":["a@x.example"]`:                      "a@x.example",
		`"to":"A B <a@x.example>"`:                  "a@x.example",
		`"to":["a@x.example","b@x.example"]`:        "",
		`"to":["a@x.example"],"cc":["b@x.example"]`: "",
		`"to":["a@x.example"],"bcc":"b@x.example"`:  "",
		`"to":["a@x.example"],"cc":[],"bcc":null`:   "a@x.example",
		`"to":[]`:                  "",
		`"from":"us@acme.example"`: "",
		`"to":["not an address"],"email":"x@y.example"`: "",
	} {
		if e := decodeOne(t, "resend", []byte(`{"type":"email.sent","data":{`+members+`}}`), nil); e.Email != want {
			t.Errorf("%s: got %q, want %q", members, e.Email, want)
		}
	}
}

func TestIdentityResend(t *testing.T) {
	t.Parallel()
	body := []byte(`{"type":"email.opened","created_at":"2026-05-06T07:26:07.891Z","data":{"email_id":"m","to":["a@x.example","b@x.example"]}}`)
	from := func(id string, at int64) *event.Event {
		return decodeOne(t, "resend", body, signed(id, time.Unix(at, 0), body, ownSecret()))
	}
	first := from("msg_1", 1_770_000_000)
	if first.ProviderEventID != "msg_1" {
		t.Errorf("event id: got %q", first.ProviderEventID)
	}
	if from("msg_1", 1_770_000_300).Identity() != first.Identity() {
		t.Error("a retry, signed with a new time, is another event")
	}
	// Two recipients of one mail: the bodies do not differ.
	if from("msg_2", 1_770_000_000).Identity() == first.Identity() {
		t.Error("two webhooks of equal content are one event")
	}
	// An id that is not signed counts for nothing.
	forged := signed("msg_1", time.Unix(1_770_000_000, 0), body, ownSecret())
	forged["svix-id"] = "msg_9"
	if decodeOne(t, "resend", body, forged).ProviderEventID != "msg_1" {
		t.Error("an id beside the signed one was taken")
	}
	identifies(t, "resend", string(body), nil, [][2]string{{`"m"`, `"n"`}, {"891Z", "892Z"}, {"opened", "complained"}, {"b@x", "c@x"}})
}

func TestVerifyResend(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_770_000_000, 0)
	body := []byte("{\r\n  \"type\": \"email.sent\"\r\n}\r\n")
	good := map[string]string{}
	for name, v := range signed("msg_1", now, body, ownSecret()) {
		good["svix"+name[len("webhook"):]] = v
	}
	without := func(name string) map[string]string {
		headers := maps.Clone(good)
		delete(headers, name)
		return headers
	}
	for name, tt := range map[string]struct {
		secrets []string
		headers map[string]string
		body    []byte
		at      time.Duration
		want    error
	}{
		"Right":       {[]string{ownSecret()}, good, body, 0, nil},
		"InGrace":     {[]string{"whsec_QUJDQUJDQUJDQUJDQUJDQUJD", ownSecret()}, good, body, 0, nil},
		"Old":         {[]string{ownSecret()}, good, body, 5*time.Minute + time.Second, provider.ErrExpired},
		"Ahead":       {[]string{ownSecret()}, good, body, -5*time.Minute - time.Second, provider.ErrExpired},
		"LineFeeds":   {[]string{ownSecret()}, good, bytes.ReplaceAll(body, []byte("\r"), nil), 0, provider.ErrMismatch},
		"OtherSecret": {[]string{"whsec_QUJDQUJDQUJDQUJDQUJDQUJD"}, good, body, 0, provider.ErrMismatch},
		"NoID":        {[]string{ownSecret()}, without("svix-id"), body, 0, provider.ErrMissing},
		"NoTime":      {[]string{ownSecret()}, without("svix-timestamp"), body, 0, provider.ErrMissing},
		"NoSignature": {[]string{ownSecret()}, without("svix-signature"), body, 0, provider.ErrMissing},
		"NoSecret":    {nil, good, body, 0, provider.ErrNoSecret},
		"EmptySecret": {[]string{""}, good, body, 0, provider.ErrNoSecret},
	} {
		got := provider.ByName("resend").Verify(now.Add(tt.at), provider.Config{Secrets: tt.secrets}, request(tt.body, tt.headers))
		if !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
