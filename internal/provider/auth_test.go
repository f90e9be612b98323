package provider_test

import (
	"encoding/base64"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/provider"
)

func basic(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }

// TestSettings runs against every provider: the settings are required in
// addition to the scheme, whatever that is.
func TestSettings(t *testing.T) {
	t.Parallel()
	body := []byte(`{"event_type":"opened","channel":"email","email":"a@example.com"}`)
	tests := map[string]struct {
		settings provider.Settings
		headers  map[string]string
		remote   string
		want     error
	}{
		"None":              {},
		"BasicRight":        {settings: provider.Settings{BasicAuth: "u:p:q"}, headers: map[string]string{"Authorization": basic("u:p:q")}},
		"BasicAnyCase":      {settings: provider.Settings{BasicAuth: "u:p"}, headers: map[string]string{"Authorization": "bAsIc dTpw"}},
		"BasicMissing":      {settings: provider.Settings{BasicAuth: "u:p"}, want: provider.ErrMissing},
		"BasicOtherScheme":  {settings: provider.Settings{BasicAuth: "u:p"}, headers: map[string]string{"Authorization": "Bearer dTpw"}, want: provider.ErrMissing},
		"BasicMalformed":    {settings: provider.Settings{BasicAuth: "u:p"}, headers: map[string]string{"Authorization": "Basic !"}, want: provider.ErrMalformed},
		"BasicWrong":        {settings: provider.Settings{BasicAuth: "u:p"}, headers: map[string]string{"Authorization": basic("u:P")}, want: provider.ErrMismatch},
		"BasicPrefix":       {settings: provider.Settings{BasicAuth: "u:pass"}, headers: map[string]string{"Authorization": basic("u:pas")}, want: provider.ErrMismatch},
		"HeadersRight":      {settings: provider.Settings{Headers: map[string]string{"X-A": "1", "x-b": "2"}}, headers: map[string]string{"x-a": "1", "X-B": "2"}},
		"HeaderMissing":     {settings: provider.Settings{Headers: map[string]string{"X-A": "1", "X-B": "2"}}, headers: map[string]string{"X-A": "1"}, want: provider.ErrMissing},
		"HeaderWrong":       {settings: provider.Settings{Headers: map[string]string{"X-A": "1"}}, headers: map[string]string{"X-A": "12"}, want: provider.ErrMismatch},
		"HeaderNeverEmpty":  {settings: provider.Settings{Headers: map[string]string{"X-A": ""}}, want: provider.ErrMissing},
		"AddressInRange":    {settings: provider.Settings{AllowedCIDRs: []string{"198.51.100.0/24", "203.0.113.0/28"}}},
		"AddressAlone":      {settings: provider.Settings{AllowedCIDRs: []string{"203.0.113.9"}}},
		"AddressOutside":    {settings: provider.Settings{AllowedCIDRs: []string{"203.0.113.0/29"}}, want: provider.ErrAddress},
		"AddressMapped":     {settings: provider.Settings{AllowedCIDRs: []string{"203.0.113.0/24"}}, remote: "::ffff:203.0.113.9"},
		"RangeMapped":       {settings: provider.Settings{AllowedCIDRs: []string{"::ffff:203.0.113.0/120"}}},
		"AddressV6":         {settings: provider.Settings{AllowedCIDRs: []string{"2001:db8::/32"}}, remote: "2001:db8::1%eth0"},
		"AddressUnknown":    {settings: provider.Settings{AllowedCIDRs: []string{"0.0.0.0/0"}}, remote: "unix", want: provider.ErrAddress},
		"RangeNotReadable":  {settings: provider.Settings{AllowedCIDRs: []string{"203.0.113.0/99"}}, want: provider.ErrAddress},
		"AllThreeOneFails":  {settings: provider.Settings{AllowedCIDRs: []string{"203.0.113.9"}, BasicAuth: "u:p", Headers: map[string]string{"X-A": "1"}}, headers: map[string]string{"Authorization": basic("u:p")}, want: provider.ErrMissing},
		"AllThreeFulfilled": {settings: provider.Settings{AllowedCIDRs: []string{"203.0.113.9"}, BasicAuth: "u:p", Headers: map[string]string{"X-A": "1"}}, headers: map[string]string{"Authorization": basic("u:p"), "X-A": "1"}},
	}
	for _, p := range provider.All() {
		for name, tt := range tests {
			t.Run(p.Name+name, func(t *testing.T) {
				t.Parallel()
				now := time.Unix(1_770_000_000, 0)
				cfg, headers, sent := signedFor(t, p.Name, now, body)
				cfg.Settings = tt.settings
				maps.Copy(headers, tt.headers)
				req := request(sent, headers)
				if tt.remote != "" {
					req.RemoteAddr = tt.remote
				}
				if got := p.Verify(now, cfg, req); !errors.Is(got, tt.want) {
					t.Errorf("got %v, want %v", got, tt.want)
				}
			})
		}
	}
}

func TestSettingsCheck(t *testing.T) {
	t.Parallel()
	good := provider.Settings{
		BasicAuth: "u:p", Headers: map[string]string{"X-Token": "a b"}, AllowedCIDRs: []string{"203.0.113.0/24", "::1"},
	}
	if err := good.Check(); err != nil {
		t.Errorf("good settings: %v", err)
	}
	if err := (provider.Settings{}).Check(); err != nil {
		t.Errorf("no settings: %v", err)
	}
	for name, bad := range map[string]provider.Settings{
		"NoColon":     {BasicAuth: "s3cr3t"},
		"NoUser":      {BasicAuth: ":s3cr3t"},
		"NoPassword":  {BasicAuth: "s3cr3t:"},
		"Newline":     {BasicAuth: "s3cr3t:s3cr3t\n"},
		"HeaderName":  {Headers: map[string]string{"X A": "1"}},
		"HeaderEmpty": {Headers: map[string]string{"X-A": ""}},
		"HeaderSpace": {Headers: map[string]string{"X-A": " 1"}},
		"HeaderBreak": {Headers: map[string]string{"X-A": "1\r2"}},
		"CIDR":        {AllowedCIDRs: []string{"203.0.113.0/33"}},
		"Host":        {AllowedCIDRs: []string{"example.com"}},
	} {
		if err := bad.Check(); err == nil {
			t.Errorf("%s: got no error", name)
		} else if strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: the error shows the credentials: %v", name, err)
		}
	}
}

// TestDialect keeps each vendor's fatal answers out of every refusal.
func TestDialect(t *testing.T) {
	t.Parallel()
	never := map[string][]int{
		"generic": {410}, "resend": {410}, "lemlist": {404, 410}, "postmark": {403}, "mailgun": {406},
		"brevo": {500, 502, 503, 504}, // and any 4xx but 429, which is the point of a refusal
	}
	for _, p := range provider.All() {
		for _, r := range []provider.Refusal{
			provider.RefuseAuth, provider.RefuseUnknown, provider.RefuseTooLarge, provider.RefuseThrottled,
			provider.RefuseUnavailable, "new",
		} {
			got := p.Status(r)
			if got < 400 {
				t.Errorf("%s %s: %d is no refusal", p.Name, r, got)
			}
			if p.Name == "brevo" && (r == provider.RefuseThrottled || r == provider.RefuseUnavailable) && got != 429 {
				t.Errorf("brevo %s: got %d, after which the event is lost", r, got)
			}
			for _, status := range never[p.Name] {
				if got == status {
					t.Errorf("%s %s: got %d, which it takes as the end", p.Name, r, got)
				}
			}
		}
	}
}

// TestRegistry checks that each provider says what an operator needs.
func TestRegistry(t *testing.T) {
	t.Parallel()
	for _, p := range provider.All() {
		if len(p.Events) == 0 && p.Name != "hubspot" { // whose events are about its CRM
			t.Errorf("%s: no event is understood", p.Name)
		}
		if p.Name != strings.ToLower(p.Name) || p.Title == "" || p.Scheme == "" || p.Setup == "" || p.Events == nil ||
			p.Verify == nil || p.Decode == nil || p.CheckSecret == nil {
			t.Errorf("%s: incomplete", p.Name)
		}
		if provider.ByName(p.Name) == nil {
			t.Errorf("%s: not found by name", p.Name)
		}
		for _, body := range []string{"", " ", "null", "1", `"x"`, "{", "[{]", `{"a":1,"a":2}`, "{} {}", "\xff", `{"type":"x","type":"x"}`} {
			if got, err := p.Decode(provider.Request{Body: []byte(body)}); err == nil {
				t.Errorf("%s: body %q: got %d events and no error", p.Name, body, len(got))
			}
		}
	}
}
