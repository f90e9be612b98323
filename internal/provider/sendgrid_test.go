package provider_test

import (
	"encoding/base64"
	"errors"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeSendgrid(f *testing.F) { fuzzDecode(f, "sendgrid") }

func TestDecodeSendgridTypes(t *testing.T) {
	t.Parallel()
	mapsTypes(t, "sendgrid", map[string]mapped{
		"processed": {want: event.Queued}, "Processed": {want: event.Queued}, "delivered": {want: event.Delivered},
		"deferred": {want: event.Deferred}, "bounce": {want: event.Bounced, bounce: event.Hard}, "dropped": {want: event.Dropped},
		"open": {want: event.Opened}, "click": {want: event.Clicked}, "spamreport": {want: event.Complained},
		"unsubscribe": {want: event.Unsubscribed}, "group_unsubscribe": {want: event.Unsubscribed},
		"group_resubscribe": {want: event.Resubscribed}, "account_status_change": {}, "something_new": {},
	}, func(kind string) []byte {
		return []byte(`[{"event":"` + kind + `","email":"a@x.example","timestamp":1778052367,"sg_event_id":"e","sg_message_id":"m.filter1.2"}]`)
	})
}

// TestDecodeSendgridLargest reads a batch of the size at which SendGrid sends
// what it has, of events as short as they come.
func TestDecodeSendgridLargest(t *testing.T) {
	t.Parallel()
	item := `{"email":"a@x.example","timestamp":1778052367,"smtp-id":"<m@x.example>","event":"processed","category":["c"],"sg_event_id":"IDIDIDIDIDIDIDIDIDIDID","sg_message_id":"m.filter1.2"}`
	n := 768 << 10 / len(item)
	items := make([]string, n)
	for i := range items {
		items[i] = strings.Replace(item, "IDIDID", strconv.Itoa(100_000+i), 1)
	}
	got, err := provider.ByName("sendgrid").Decode(request([]byte("["+strings.Join(items, ",\r\n")+"]\r\n"), nil))
	if err != nil || len(identities(got)) != n {
		t.Errorf("got %d events of %d, %v", len(got), n, err)
	}
	if got, err := provider.ByName("sendgrid").Decode(request([]byte("["+strings.Repeat(item+",", 5000)+item+"]"), nil)); err == nil {
		t.Errorf("5001 items: got %d events and no error", len(got))
	}
}

func TestDecodeSendgridBounces(t *testing.T) {
	t.Parallel()
	for members, want := range map[string]event.Bounce{
		`"type":"bounce","status":"5.1.1"`:  event.Hard,
		`"type":"blocked","status":"5.7.1"`: event.Soft,
		`"type":"expired"`:                  event.Soft,
		`"type":"something_new"`:            event.Soft,
		`"status":"5.0.0"`:                  event.Hard, // before bounces had a type
		`"status":"4.2.2"`:                  event.Soft,
	} {
		e := decodeOne(t, "sendgrid", []byte(`[{"event":"bounce","email":"a@x.example",`+members+`}]`), nil)
		if e.Bounce != want || !e.OccurredAtEstimated {
			t.Errorf("%s: got %q, estimated %v, want %q", members, e.Bounce, e.OccurredAtEstimated, want)
		}
	}
}

func TestDecodeSendgridMessages(t *testing.T) {
	t.Parallel()
	for members, want := range map[string]string{
		`"sg_message_id":"abc.filter0077p1las1.21536.5717FC482.0"`:             "abc",
		`"sg_message_id":"abc.recvd-5d8f-xyz-1-2.0"`:                           "abc",
		`"sg_message_id":"14c.dfd.64b.filter0001.16648.0"`:                     "14c.dfd.64b",
		`"sg_message_id":"abc"`:                                                "abc",
		`"sg_message_id":"filter0199.4745.0","smtp-id":"<def@ismtpd.example>"`: "def",
		`"sg_message_id":"recvd-1.4745.0","smtp-id":"<def@ismtpd.example>"`:    "def",
		`"smtp-id":"<def@ismtpd.example>"`:                                     "def",
		`"smtp-id":"def"`:                                                      "def",
		`"anymail_id":"own","sg_message_id":"abc.filter1.2"`:                   "own",
		`"ip":"1"`: "",
	} {
		if e := decodeOne(t, "sendgrid", []byte(`[{"event":"open","email":"a@x.example",`+members+`}]`), nil); e.ProviderMessageID != want {
			t.Errorf("%s: got %q, want %q", members, e.ProviderMessageID, want)
		}
	}
}

func TestDecodeSendgridEnrollment(t *testing.T) {
	t.Parallel()
	const id = "0198c0de-0000-7000-8000-00000000cafe"
	for _, members := range []string{
		`"enrollment_id":"` + id + `"`, `"tallyhook_enrollment_id":"` + id + `","enrollment_id":"0198c0de-0000-7000-8000-000000000bad"`,
		`"category":"enrollment_id:` + id + `"`, `"category":["spring","tallyhook_enrollment_id=` + id + `"]`,
	} {
		if e := decodeOne(t, "sendgrid", []byte(`[{"event":"open",`+members+`}]`), nil); e.EnrollmentID != id {
			t.Errorf("%s: got %q", members, e.EnrollmentID)
		}
	}
}

func TestIdentitySendgrid(t *testing.T) {
	t.Parallel()
	identifies(t, "sendgrid", `[{"event":"open","email":"a@x.example","timestamp":1778052367,"sg_event_id":"e1","sg_message_id":"m.filter1.2"}]`,
		[][2]string{{"1778052367", "1778052368"}, {`[{`, "[\r\n{"}},
		[][2]string{{"e1", "e2"}, {`"open"`, `"click"`}}) // a recorded batch has one id on two kinds
	identifies(t, "sendgrid", `[{"event":"open","email":"a@x.example","timestamp":1778052367,"smtp-id":"<m@x>","ip":"1","useragent":"u"}]`,
		[][2]string{{"a@x", "A@x"}},
		[][2]string{{"a@x", "b@x"}, {"1778052367", "1778052368"}, {`"open"`, `"click"`}, {"<m@", "<n@"}, {`"ip":"1"`, `"ip":"2"`}})
	const one, other = `{"event":"open","sg_event_id":"e1"}`, `{"event":"open","sg_event_id":"e2"}`
	newIn(t, "sendgrid", "["+one+"]", "["+one+",\r\n"+other+"]", 1)
	newIn(t, "sendgrid", "["+one+"]", "["+one+","+one+"]", 0)
}

func TestVerifySendgrid(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_770_000_000, 0)
	body := "[{\"event\":\"open\"},\r\n{\"event\":\"click\"}]\r\n"
	key, public := sendgridPair(t)
	_, stranger := sendgridPair(t)
	good := sendgridSign(t, key, now, []byte(body))
	const signature, timestamp = "X-Twilio-Email-Event-Webhook-Signature", "X-Twilio-Email-Event-Webhook-Timestamp"
	but := func(name, value string) map[string]string {
		headers := maps.Clone(good)
		headers[name] = value
		return headers
	}
	for name, tt := range map[string]struct {
		secrets []string
		headers map[string]string
		body    string
		at      time.Duration
		want    error
	}{
		"Right":            {headers: good},
		"PEM":              {secrets: []string{"-----BEGIN PUBLIC KEY-----\n" + public[:64] + "\n" + public[64:] + "\n-----END PUBLIC KEY-----"}, headers: good},
		"InGrace":          {secrets: []string{stranger, public}, headers: good},
		"RetryAfterADay":   {headers: good, at: 24 * time.Hour},
		"Old":              {headers: good, at: 25*time.Hour + time.Second, want: provider.ErrExpired},
		"Ahead":            {headers: good, at: -5*time.Minute - time.Second, want: provider.ErrExpired},
		"OtherKey":         {secrets: []string{stranger}, headers: good, want: provider.ErrMismatch},
		"OtherBody":        {headers: good, body: "[]", want: provider.ErrMismatch},
		"TrailingLineCut":  {headers: good, body: body[:len(body)-2], want: provider.ErrMismatch},
		"OtherTime":        {headers: but(timestamp, "1770000001"), want: provider.ErrMismatch},
		"NoSignature":      {headers: but(signature, ""), want: provider.ErrMissing},
		"NoTime":           {headers: but(timestamp, ""), want: provider.ErrMissing},
		"TimeIsNoNumber":   {headers: but(timestamp, "now"), want: provider.ErrMalformed},
		"NotBase64":        {headers: but(signature, "!"), want: provider.ErrMalformed},
		"NotASN1":          {headers: but(signature, base64.StdEncoding.EncodeToString([]byte("no signature"))), want: provider.ErrMismatch},
		"NoSecret":         {secrets: []string{}, headers: good, want: provider.ErrNoSecret},
		"EmptySecret":      {secrets: []string{""}, headers: good, want: provider.ErrNoSecret},
		"SecretIsNoKey":    {secrets: []string{"own-secret"}, headers: good, want: provider.ErrNoSecret},
		"EmptyBesideRight": {secrets: []string{"", public}, headers: good},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			secrets, sent := tt.secrets, tt.body
			if secrets == nil {
				secrets = []string{public}
			}
			if sent == "" {
				sent = body
			}
			got := provider.ByName("sendgrid").Verify(now.Add(tt.at), provider.Config{Secrets: secrets}, request([]byte(sent), tt.headers))
			if !errors.Is(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if check := provider.ByName("sendgrid").CheckSecret; check(public) != nil || check("own-secret") == nil || check("") == nil {
		t.Error("a verification key is refused, or something else is taken")
	}
}
