package provider_test

import (
	"errors"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/provider"
)

// timed are the schemes that sign a time: how old and how far ahead it may be,
// the unit it is told in, and where it stands: a header, or the body.
var timed = map[string]struct {
	old, ahead, unit time.Duration
	header           string
}{
	"generic":  {5 * time.Minute, 5 * time.Minute, time.Second, "webhook-timestamp"},
	"resend":   {5 * time.Minute, 5 * time.Minute, time.Second, "webhook-timestamp"},
	"hubspot":  {5 * time.Minute, 5 * time.Minute, time.Millisecond, "X-HubSpot-Request-Timestamp"},
	"sendgrid": {25 * time.Hour, 5 * time.Minute, time.Second, "X-Twilio-Email-Event-Webhook-Timestamp"},
	"mailgun":  {10 * time.Minute, 10 * time.Minute, time.Second, ""},
	"calendly": {3 * time.Minute, 3 * time.Minute, time.Second, "Calendly-Webhook-Signature"},
}

// TestWindows: the edges of each window are inside, the next moment is not, and
// a time that is no number never is.
func TestWindows(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_770_000_000, 0)
	body := []byte(`{"event":"opened"}`)
	for vendor, w := range timed {
		t.Run(vendor, func(t *testing.T) {
			t.Parallel()
			p := provider.ByName(vendor)
			cfg, headers, sent := signedFor(t, vendor, at, body)
			for now, want := range map[time.Duration]error{
				0: nil, w.old: nil, -w.ahead: nil, w.old - w.unit: nil, w.old + w.unit: provider.ErrExpired, -w.ahead - w.unit: provider.ErrExpired,
				100 * 365 * 24 * time.Hour: provider.ErrExpired, -50 * 365 * 24 * time.Hour: provider.ErrExpired,
			} {
				if err := p.Verify(at.Add(now), cfg, request(sent, headers)); !errors.Is(err, want) {
					t.Errorf("%v later: got %v, want %v", now, err, want)
				}
			}
			const digits = "1770000000"
			for _, bad := range []string{
				"", "now", "-1770000000", "+1770000000", "1770000000.0", "1.77e9", "0x69800000", "17700000001770000000", "18446744073709551616", " ", "１７７", digits + "\x00",
			} {
				but, altered := maps.Clone(headers), sent
				switch {
				case w.header == "":
					altered = []byte(strings.Replace(string(sent), digits, bad, 1))
				case vendor == "calendly":
					but[w.header] = strings.Replace(but[w.header], digits, bad, 1)
				default:
					but[w.header] = bad
				}
				if err := p.Verify(at, cfg, request(altered, but)); err == nil {
					t.Errorf("the time %q verifies", bad)
				}
			}
		})
	}
}

// signing are the schemes that verify nothing without a secret.
func signing(vendor string) bool {
	switch vendor {
	case "generic", "hubspot", "sendgrid", "mailgun", "ses", "resend", "heygen", "calendly", "mailersend", "mandrill":
		return true
	}
	return false
}

// TestSignedRequests alters one thing at a time of a request that verifies, for
// each scheme that signs.
func TestSignedRequests(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_770_000_000, 0)
	for _, p := range provider.All() {
		if !signing(p.Name) {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			cfg, headers, sent := signedFor(t, p.Name, at, []byte(`{"event":"opened","id":"1"}`))
			verify := func(cfg provider.Config, headers map[string]string, body []byte) error {
				return p.Verify(at, cfg, request(body, headers))
			}
			if err := verify(cfg, headers, sent); err != nil {
				t.Fatal(err)
			}
			if err := verify(provider.Config{}, headers, sent); err == nil {
				t.Error("no secret: verifies")
			}
			if p.Name != "ses" { // whose key is a certificate's
				for name, secrets := range map[string][]string{
					"an empty one": {""}, "a space": {" "}, "another": {stranger(p.Name)}, "its beginning": {cfg.Secrets[0][:len(cfg.Secrets[0])-4]},
				} {
					if err := verify(provider.Config{Secrets: secrets}, headers, sent); err == nil {
						t.Errorf("%s: verifies", name)
					}
				}
				grace := provider.Config{Secrets: []string{stranger(p.Name), "", cfg.Secrets[0]}}
				if err := verify(grace, headers, sent); err != nil {
					t.Errorf("a former secret in its grace time: %v", err)
				}
			}
			for name := range headers {
				but := maps.Clone(headers)
				delete(but, name)
				if err := verify(cfg, but, sent); err == nil {
					t.Errorf("without %s: verifies", name)
				}
				but[strings.ToLower(name)] = headers[name]
				if err := verify(cfg, but, sent); err != nil {
					t.Errorf("%s in lower case: %v", name, err)
				}
				but[name] = headers[name] + "x"
				if err := verify(cfg, map[string]string{name: but[name]}, sent); err == nil {
					t.Errorf("%s altered: verifies", name)
				}
				twice := request(sent, headers)
				twice.Header.(http.Header).Add(name, "x") //nolint:forcetypeassert // request makes one
				if err := p.Verify(at, cfg, twice); err != nil {
					t.Errorf("%s a second time: %v", name, err) // the first counts
				}
			}
			for name, body := range map[string][]byte{
				"one byte more": append([]byte(string(sent)), ' '), "one byte less": sent[:len(sent)-1], "empty": nil, "another": []byte(`{"event":"clicked","id":"1"}`),
			} {
				unsigned := p.Name == "mailgun" || p.Name == "ses" || p.Name == "mandrill" && name == "one byte more"
				if err := verify(cfg, headers, body); err == nil && (!unsigned || name != "one byte more") {
					t.Errorf("%s: verifies", name)
				}
			}
		})
	}
}
