package provider_test

import (
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

// sampleSecret is one of the form that the provider has.
func sampleSecret(t *testing.T, name string) string {
	t.Helper()
	switch name {
	case "generic", "resend":
		return ownSecret()
	case "postmark", "mailjet", "sparkpost":
		return "user:pass$ID\"word"
	case "sendgrid":
		_, public := sendgridPair(t)
		return public
	case "ses":
		return ""
	}
	return `a "secret" with $ID in it`
}

// TestSamples: each provider's own sample verifies with the source's secret and
// with nothing else, is read as an event, and is another one each time.
func TestSamples(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	for _, p := range provider.All() {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			settings := provider.Settings{
				BasicAuth: "ada:secret", Headers: map[string]string{"X-Team": "blue"}, AllowedCIDRs: []string{"203.0.113.0/24"},
				TopicARNs: []string{"arn:aws:sns:eu-west-1:123456789012:mail"}, Agents: map[string]provider.Agent{"77": {EventType: "connection_sent"}},
			}
			secret := sampleSecret(t, p.Name)
			if strings.Contains(secret, ":") || p.Name == "instantly" || p.Name == "brevo" {
				settings.BasicAuth = "" // one Authorization header cannot be both
			}
			of := provider.Sampling{Now: now, ID: "0123456789abcdef", URL: "https://events.example.com/webhooks/sample", Config: provider.Config{Settings: settings}}
			if secret != "" {
				if err := p.CheckSecret(secret); err != nil {
					t.Fatal(err)
				}
				of.Config.Secrets = []string{secret}
			}
			req, unsigned := p.MakeSample(of)
			err := p.Verify(now, of.Config, req)
			switch {
			case unsigned == "" && err != nil:
				t.Errorf("the sample does not verify: %v", err)
			case unsigned != "" && !errors.Is(err, provider.ErrMissing) && !errors.Is(err, provider.ErrMalformed):
				t.Errorf("an unsigned sample: got %v", err)
			}
			if wantUnsigned := p.Name == "sendgrid" || p.Name == "ses"; (unsigned != "") != wantUnsigned {
				t.Errorf("unsigned %q", unsigned)
			}
			if secret != "" {
				other := of.Config
				if other.Secrets = []string{"whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32))}; p.Verify(now, other, req) == nil {
					t.Error("it verifies with another secret")
				}
			}
			for name, change := range map[string]func(*provider.Settings){
				"Headers": func(s *provider.Settings) { s.Headers = map[string]string{"X-Team": "red"} },
				"CIDRs":   func(s *provider.Settings) { s.AllowedCIDRs = []string{"198.51.100.0/24"} },
			} {
				other := of.Config
				if change(&other.Settings); p.Verify(now, other, req) == nil {
					t.Errorf("%s: it verifies with other settings", name)
				}
			}

			events, err := p.Decode(req)
			if err != nil || len(events) != 1 {
				t.Fatalf("got %d events, %v", len(events), err)
			}
			if e := events[0]; e.Check() != nil || (e.Type == "") != (len(p.Events) == 0) {
				t.Errorf("got %+v, %v", e, e.Check())
			}
			of.ID = "fedcba9876543210"
			again, _ := p.MakeSample(of)
			more, err := p.Decode(again)
			if err != nil || len(more) != 1 || identity(more[0]) == identity(events[0]) {
				t.Errorf("another sample is the same event, %v", err)
			}
		})
	}
}

func identity(e event.Event) event.Hash {
	e.Scope = "source"
	return e.Identity()
}

// TestProvidersAreDescribed: what GET /api/providers shows of each is there.
func TestProvidersAreDescribed(t *testing.T) {
	t.Parallel()
	numbers := []byte{}
	for _, p := range provider.All() {
		if p.Name == "" || p.Title == "" || p.Scheme == "" || p.Setup == "" || p.Events == nil || p.Sample == nil {
			t.Errorf("%s: something is missing", p.Name)
		}
		if len(p.Events) == 0 && p.Name != "hubspot" {
			t.Errorf("%s names no events", p.Name)
		}
		if p.Name != url.PathEscape(strings.ToLower(p.Name)) {
			t.Errorf("%s is no name for a URL", p.Name)
		}
		numbers = append(numbers, p.Number)
	}
	// They are in tokens that were given out: one more is added at the end.
	want := make([]byte, 19)
	for i := range want {
		want[i] = byte(i + 1)
	}
	if !slices.Equal(numbers, want) {
		t.Errorf("got numbers %v, want %v", numbers, want)
	}
}
