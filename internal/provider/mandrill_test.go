package provider_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeMandrill(f *testing.F) {
	for _, path := range jsonFiles(f, filepath.Join("testdata", "payloads", "mandrill")) {
		f.Add(read(f, path))
	}
	p := provider.ByName("mandrill")
	f.Fuzz(func(t *testing.T, events []byte) {
		for _, body := range [][]byte{events, []byte(url.Values{"mandrill_events": {string(events)}}.Encode())} {
			got, err := p.Decode(request(body, nil))
			if err != nil && got != nil {
				t.Fatal("events beside an error")
			}
			for i := range got {
				sound(t, &got[i], body)
			}
		}
	})
}

// mandrillSign signs an address and fields given in the order of their names.
func mandrillSign(secret, address string, fields ...string) string {
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(address + strings.Join(fields, "")))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func mandrillForm(event string) []byte {
	return []byte(url.Values{"mandrill_events": {`[` + event + `]`}}.Encode())
}

func TestDecodeMandrill(t *testing.T) {
	t.Parallel()
	mapsTypes(t, "mandrill", map[string]mapped{
		"send": {want: event.Sent}, "delivered": {want: event.Delivered}, "deferral": {want: event.Deferred},
		"hard_bounce": {want: event.Bounced, bounce: event.Hard}, "soft_bounce": {want: event.Bounced, bounce: event.Soft},
		"open": {want: event.Opened}, "click": {want: event.Clicked}, "spam": {want: event.Complained}, "unsub": {want: event.Unsubscribed},
		"reject": {want: event.Dropped}, "inbound": {}, "something_new": {},
	}, func(kind string) []byte {
		return mandrillForm(`{"event":"` + kind + `","_id":"m","ts":1770000000,"msg":{"_id":"m","email":"a+b@x.example"}}`)
	})
	got, err := provider.ByName("mandrill").Decode(request(asPosted("mandrill", read(t, "testdata/payloads/mandrill/batch.json")), nil))
	if err != nil || len(got) != 3 {
		t.Fatalf("got %d events, %v", len(got), err)
	}
	for _, e := range got {
		if e.EnrollmentID != "0198c0de-0000-7000-8000-00000000cafe" || !bytes.HasPrefix(e.Payload, []byte("{")) {
			t.Errorf("%s: enrollment %q, payload %.20q", e.Kind, e.EnrollmentID, e.Payload)
		}
	}
	// A plus and a percent in the form are those of the event.
	e := decodeOne(t, "mandrill", mandrillForm(`{"event":"open","msg":{"email":"a+b@x.example","_id":"50%25"}}`), nil)
	if e.Email != "a+b@x.example" || e.ProviderMessageID != "50%25" {
		t.Errorf("got %q, %q", e.Email, e.ProviderMessageID)
	}
	for name, bad := range map[string]string{
		"JSON": `[{"event":"open"}]`, "OtherField": "events=[]", "Escape": "mandrill_events=%zz", "Words": "mandrill_events=hello",
		"NoName": string(mandrillForm(`{"ts":1}`)), "Nul": string(mandrillForm(`{"event":"open","msg":{"metadata":{"a":"\u0000"}}}`)),
	} {
		if got, err := provider.ByName("mandrill").Decode(request([]byte(bad), nil)); err == nil || got != nil {
			t.Errorf("%s: got %v, %v, want an error", name, got, err)
		}
	}
}

func TestIdentityMandrill(t *testing.T) {
	t.Parallel()
	identity := func(from, to string) event.Hash {
		body := `{"event":"open","_id":"m","ts":1770000000,"ip":"203.0.113.7","url":"u","msg":{"_id":"m","email":"a@x.example","opens":[{"ts":1}]}}`
		return decodeOne(t, "mandrill", mandrillForm(strings.Replace(body, from, to, 1)), nil).Identity()
	}
	first := identity("", "")
	for _, same := range [][2]string{{"a@x", "A@x"}, {`[{"ts":1}]`, `[{"ts":1},{"ts":2}]`}} {
		if identity(same[0], same[1]) != first {
			t.Errorf("%v: another event", same)
		}
	}
	for _, other := range [][2]string{{"open", "spam"}, {"1770000000", "1770000001"}, {"a@x", "b@x"}, {`"_id":"m","email"`, `"_id":"n","email"`}, {"203.0.113.7", "203.0.113.8"}} {
		if identity(other[0], other[1]) == first {
			t.Errorf("%v: the same event", other)
		}
	}
}

func TestVerifyMandrill(t *testing.T) {
	t.Parallel()
	const address, bare = "https://hooks.example/webhooks/x", "hooks.example/webhooks/x"
	const events = `[{"event":"open"}]`
	form := url.Values{"mandrill_events": {events}}.Encode()
	good := mandrillSign("own", address, "mandrill_events", events)
	for name, tt := range map[string]struct {
		secrets []string
		body    string
		header  string
		auth    string
		want    error
	}{
		"Right":          {[]string{"own"}, form, good, "", nil},
		"InGrace":        {[]string{"new", "own"}, form, good, "", nil},
		"MoreFields":     {[]string{"own"}, "z=2&" + form + "&a=1", mandrillSign("own", address, "a", "1", "mandrill_events", events, "z", "2"), "", nil},
		"Credentials":    {[]string{"own"}, form, mandrillSign("own", "https://u:p@"+bare, "mandrill_events", events), basic("u:p"), nil},
		"Escaped":        {[]string{"own"}, form, mandrillSign("own", "https://u:p%40@"+bare, "mandrill_events", events), basic("u:p@"), nil},
		"NotRegistered":  {[]string{"own"}, form, good, basic("u:p"), nil},
		"CredentialsNot": {[]string{"own"}, form, mandrillSign("own", "https://u:p@"+bare, "mandrill_events", events), "", provider.ErrMismatch},
		"OtherHost":      {[]string{"own"}, form, mandrillSign("own", "https://evil.example/webhooks/x", "mandrill_events", events), "", provider.ErrMismatch},
		"Changed":        {[]string{"own"}, strings.Replace(form, "open", "spam", 1), good, "", provider.ErrMismatch},
		"FieldAdded":     {[]string{"own"}, form + "&a=1", good, "", provider.ErrMismatch},
		"FieldTwice":     {[]string{"own"}, form + "&mandrill_events=[]", good, "", provider.ErrMalformed},
		"NoEvents":       {[]string{"own"}, "", mandrillSign("own", address), "", provider.ErrMissing},
		"JSONBody":       {[]string{"own"}, events, mandrillSign("own", address), "", provider.ErrMissing},
		"TestKey":        {[]string{"own"}, "mandrill_events=[]", mandrillSign("test-webhook", address, "mandrill_events", "[]"), "", provider.ErrMismatch},
		"OtherSecret":    {[]string{"x"}, form, good, "", provider.ErrMismatch},
		"Mangled":        {[]string{"own"}, form, "!", "", provider.ErrMalformed},
		"Short":          {[]string{"own"}, form, "AAAA", "", provider.ErrMalformed},
		"NotAForm":       {[]string{"own"}, "%zz", good, "", provider.ErrMalformed},
		"Missing":        {[]string{"own"}, form, "", "", provider.ErrMissing},
		"NoSecret":       {nil, form, mandrillSign("", address, "mandrill_events", events), "", provider.ErrNoSecret},
	} {
		req := request([]byte(tt.body), map[string]string{"X-Mandrill-Signature": tt.header, "Authorization": tt.auth})
		if got := provider.ByName("mandrill").Verify(time.Unix(0, 0), provider.Config{Secrets: tt.secrets}, req); !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
	if provider.ByName("mandrill").CheckSecret("test-webhook") == nil || provider.ByName("mandrill").CheckSecret("own") != nil {
		t.Error("the key of the URL check is taken, or another is not")
	}
}
