package provider_test

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeHubspot(f *testing.F) { fuzzDecode(f, "hubspot") }

func TestIdentityHubspot(t *testing.T) {
	t.Parallel()
	identifies(t, "hubspot", `[{"eventId":100,"subscriptionId":1,"portalId":2,"appId":3,"occurredAt":1778052367891,"attemptNumber":0,`+
		`"subscriptionType":"contact.propertyChange","objectId":9007199254740993,"propertyName":"phone","propertyValue":"1"}]`,
		[][2]string{{`"attemptNumber":0`, `"attemptNumber":7`}, {`"appId":3,`, ``}, {`[{`, ` [ { `}},
		[][2]string{
			{"9007199254740993", "9007199254740992"}, // one and the same as a float64
			{`"eventId":100`, `"eventId":101`},
			{`"portalId":2`, `"portalId":4`},
			{"1778052367891", "1778052367892"},
			{"contact.propertyChange", "company.propertyChange"},
			{`"phone"`, `"mobilephone"`},
		})
}

// TestRetryHubspot: a batch that comes again with one change more has one
// event that is new.
func TestRetryHubspot(t *testing.T) {
	t.Parallel()
	const one = `{"eventId":100,"portalId":2,"occurredAt":1778052367891,"attemptNumber":0,"subscriptionType":"contact.creation","objectId":1}`
	again := strings.Replace(one, `"attemptNumber":0`, `"attemptNumber":1`, 1)
	other := strings.Replace(one, `"objectId":1`, `"objectId":2`, 1)
	newIn(t, "hubspot", "["+one+"]", "["+again+","+other+"]", 1)
	newIn(t, "hubspot", "["+one+"]", "["+again+"]", 0)
}

func TestVerifyHubspot(t *testing.T) {
	t.Parallel()
	const secret = "own-secret"
	now := time.Unix(1_770_000_000, 0)
	req := request([]byte(`[{"eventId":1}]`), nil)
	body := string(req.Body)
	v3, v2, v1 := hubspotSign(secret, req, now), hubspotHash("v2", secret+req.Method+req.URL+body), hubspotHash("v1", secret+body)
	without := func(headers map[string]string, name string) map[string]string {
		headers = maps.Clone(headers)
		delete(headers, name)
		return headers
	}
	both := maps.Clone(v1)
	maps.Copy(both, hubspotSign("other", req, now))
	for name, tt := range map[string]struct {
		headers map[string]string
		secrets []string
		url     string
		body    string
		at      time.Duration
		want    error
	}{
		"V3":                {headers: v3},
		"V3InGrace":         {headers: v3, secrets: []string{"new", secret}},
		"V3Edge":            {headers: v3, at: 5 * time.Minute},
		"V3Old":             {headers: v3, at: 5*time.Minute + time.Millisecond, want: provider.ErrExpired},
		"V3Ahead":           {headers: v3, at: -5*time.Minute - time.Millisecond, want: provider.ErrExpired},
		"V3NoTime":          {headers: without(v3, "X-HubSpot-Request-Timestamp"), want: provider.ErrMissing},
		"V3TimeIsNoNumber":  {headers: map[string]string{"X-HubSpot-Signature-v3": "AAAA", "X-HubSpot-Request-Timestamp": "-1"}, want: provider.ErrMalformed},
		"V3NotBase64":       {headers: map[string]string{"X-HubSpot-Signature-v3": "!", "X-HubSpot-Request-Timestamp": "1770000000000"}, want: provider.ErrMalformed},
		"V3OtherSecret":     {headers: v3, secrets: []string{"other"}, want: provider.ErrMismatch},
		"V3OtherBody":       {headers: v3, body: `[{"eventId":2}]`, want: provider.ErrMismatch},
		"V3OtherAddress":    {headers: v3, url: "http://hooks.example/webhooks/x", want: provider.ErrMismatch},
		"V3WrongBesideV1":   {headers: both, want: provider.ErrMismatch},
		"V2":                {headers: v2, at: 24 * time.Hour},
		"V2WithoutVersion":  {headers: without(v2, "X-HubSpot-Signature-Version")},
		"V2OtherAddress":    {headers: v2, url: "https://evil.example/webhooks/x", want: provider.ErrMismatch},
		"V2OtherBody":       {headers: v2, body: "[]", want: provider.ErrMismatch},
		"V1":                {headers: v1, at: 24 * time.Hour},
		"V1WithoutVersion":  {headers: without(v1, "X-HubSpot-Signature-Version")},
		"V1OtherSecret":     {headers: v1, secrets: []string{"other"}, want: provider.ErrMismatch},
		"V1NotHex":          {headers: map[string]string{"X-HubSpot-Signature": "zz"}, want: provider.ErrMalformed},
		"VersionUnknown":    {headers: hubspotHash("v9", secret+body), want: provider.ErrMalformed},
		"Nothing":           {headers: map[string]string{}, want: provider.ErrMissing},
		"NoSecret":          {headers: hubspotHash("v1", body), secrets: []string{}, want: provider.ErrNoSecret},
		"EmptySecret":       {headers: hubspotHash("v1", body), secrets: []string{""}, want: provider.ErrNoSecret},
		"EmptySecretBeside": {headers: hubspotHash("v1", body), secrets: []string{"", secret}, want: provider.ErrMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := request(req.Body, tt.headers)
			if tt.body != "" {
				r.Body = []byte(tt.body)
			}
			if tt.url != "" {
				r.URL = tt.url
			}
			secrets := tt.secrets
			if secrets == nil {
				secrets = []string{secret}
			}
			if got := provider.ByName("hubspot").Verify(now.Add(tt.at), provider.Config{Secrets: secrets}, r); !errors.Is(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// newIn counts the events of the second body that the first did not have.
func newIn(t *testing.T, vendor, first, second string, want int) {
	t.Helper()
	seen := map[event.Hash]bool{}
	fresh := func(body string) int {
		events, err := provider.ByName(vendor).Decode(request([]byte(body), nil))
		if err != nil {
			t.Fatalf("decode %s: %v", body, err)
		}
		n := 0
		for i := range events {
			if h := events[i].Identity(); !seen[h] {
				seen[h] = true
				n++
			}
		}
		return n
	}
	fresh(first)
	if got := fresh(second); got != want {
		t.Errorf("%s after %s: got %d new events, want %d", second, first, got, want)
	}
}
