package provider_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
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

// ownSecret is a fixed secret, made for these tests alone.
func ownSecret() string {
	return "whsec_" + base64.StdEncoding.EncodeToString([]byte("an own key for tests, 24+ bytes"))
}

// sign is the scheme written a second time, from the specification.
func sign(id string, at int64, body []byte, secret string) string {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return ""
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + strconv.FormatInt(at, 10) + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func signed(id string, at time.Time, body []byte, secret string) map[string]string {
	return map[string]string{
		"webhook-id":        id,
		"webhook-timestamp": strconv.FormatInt(at.Unix(), 10),
		"webhook-signature": sign(id, at.Unix(), body, secret),
	}
}

func TestVerifyGeneric(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_770_000_000, 0)
	body := []byte("{\"event_type\":\"opened\"}\r\n")
	other, err := provider.ByName("generic").MakeSecret()
	if err != nil {
		t.Fatal(err)
	}
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	public := "whpk_" + base64.StdEncoding.EncodeToString(private[ed25519.SeedSize:])
	ts := now.Unix()
	v1a := "v1a," + base64.StdEncoding.EncodeToString(
		ed25519.Sign(private, append([]byte("m."+strconv.FormatInt(ts, 10)+"."), body...)))
	tests := map[string]struct {
		secrets []string
		headers map[string]string // over the good ones
		body    []byte
		at      time.Time
		want    error
	}{
		"Good":                {},
		"WithoutPrefix":       {secrets: []string{strings.TrimPrefix(ownSecret(), "whsec_")}},
		"WithoutPadding":      {secrets: []string{strings.TrimRight(ownSecret(), "=")}},
		"SecondSecret":        {secrets: []string{other, ownSecret()}},
		"SecretAfterBroken":   {secrets: []string{"whsec_!", "whpk_AAAA", ownSecret()}},
		"OtherSecret":         {secrets: []string{other}, want: provider.ErrMismatch},
		"NoSecret":            {secrets: []string{}, want: provider.ErrNoSecret},
		"BrokenSecretsOnly":   {secrets: []string{"", "whsec_", "whsec_!", "whpk_AAAA", "whsk_AAAA"}, want: provider.ErrNoSecret},
		"OneByteMore":         {body: append(bytes.Clone(body), '\n'), want: provider.ErrMismatch},
		"OneByteLess":         {body: body[:len(body)-1], want: provider.ErrMismatch},
		"OtherID":             {headers: map[string]string{"webhook-id": "n"}, want: provider.ErrMismatch},
		"OtherTime":           {headers: map[string]string{"webhook-timestamp": strconv.FormatInt(ts+1, 10)}, want: provider.ErrMismatch},
		"FiveMinutesLate":     {at: now.Add(5 * time.Minute)},
		"FiveMinutesEarly":    {at: now.Add(-5 * time.Minute)},
		"TooLate":             {at: now.Add(5*time.Minute + time.Second), want: provider.ErrExpired},
		"TooEarly":            {at: now.Add(-5*time.Minute - time.Second), want: provider.ErrExpired},
		"NoID":                {headers: map[string]string{"webhook-id": ""}, want: provider.ErrMissing},
		"NoTime":              {headers: map[string]string{"webhook-timestamp": ""}, want: provider.ErrMissing},
		"NoSignature":         {headers: map[string]string{"webhook-signature": ""}, want: provider.ErrMissing},
		"TimeNotDigits":       {headers: map[string]string{"webhook-timestamp": "+" + strconv.FormatInt(ts, 10)}, want: provider.ErrMalformed},
		"TimeNegative":        {headers: map[string]string{"webhook-timestamp": "-1"}, want: provider.ErrMalformed},
		"TimeHuge":            {headers: map[string]string{"webhook-timestamp": "99999999999999999999"}, want: provider.ErrMalformed},
		"TimeInMilliseconds":  {headers: map[string]string{"webhook-timestamp": strconv.FormatInt(now.UnixMilli(), 10)}, want: provider.ErrMalformed},
		"UnknownVersionOnly":  {headers: map[string]string{"webhook-signature": "v2," + sign("m", ts, body, ownSecret())[3:]}, want: provider.ErrMalformed},
		"EmptyEntry":          {headers: map[string]string{"webhook-signature": "v1,"}, want: provider.ErrMalformed},
		"NotBase64":           {headers: map[string]string{"webhook-signature": "v1,%%%"}, want: provider.ErrMalformed},
		"LaterEntry":          {headers: map[string]string{"webhook-signature": "v3,x v1,AAAA  " + sign("m", ts, body, ownSecret())}},
		"HalfASignature":      {headers: map[string]string{"webhook-signature": sign("m", ts, body, ownSecret())[:23]}, want: provider.ErrMismatch},
		"EndlessList":         {headers: map[string]string{"webhook-signature": strings.Repeat("v1,AAAA ", 16) + sign("m", ts, body, ownSecret())}, want: provider.ErrMismatch},
		"PublicKey":           {secrets: []string{public}, headers: map[string]string{"webhook-signature": "v1,AAAA " + v1a}},
		"PublicKeyInGrace":    {secrets: []string{ownSecret(), public}, headers: map[string]string{"webhook-signature": v1a}},
		"PublicKeyTampered":   {secrets: []string{public}, headers: map[string]string{"webhook-signature": v1a}, body: []byte("{}"), want: provider.ErrMismatch},
		"PublicKeyShort":      {secrets: []string{public}, headers: map[string]string{"webhook-signature": "v1a,AAAA"}, want: provider.ErrMismatch},
		"PublicKeyNotAsMAC":   {secrets: []string{public}, headers: map[string]string{"webhook-signature": sign("m", ts, body, public[5:])}, want: provider.ErrMismatch},
		"SignedUnderTwoNames": {headers: map[string]string{"svix-id": "n", "svix-timestamp": "1", "svix-signature": "v1,AAAA"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			headers := signed("m", now, body, ownSecret())
			maps.Copy(headers, tt.headers)
			cfg := provider.Config{Secrets: []string{ownSecret()}}
			if tt.secrets != nil {
				cfg.Secrets = tt.secrets
			}
			sent, at := body, now
			if tt.body != nil {
				sent = tt.body
			}
			if !tt.at.IsZero() {
				at = tt.at
			}
			if got := provider.ByName("generic").Verify(at, cfg, request(sent, headers)); !errors.Is(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestStandardSecret(t *testing.T) {
	t.Parallel()
	p := provider.ByName("generic")
	seen := map[string]bool{}
	for range 50 {
		s, err := p.MakeSecret()
		if err != nil {
			t.Fatal(err)
		}
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, "whsec_"))
		if err != nil || !strings.HasPrefix(s, "whsec_") || len(key) < 24 || len(key) > 32 || seen[s] {
			t.Fatalf("made a bad secret of %d bytes: %v", len(key), err)
		}
		seen[s] = true
		if err := p.CheckSecret(s); err != nil {
			t.Errorf("a made secret is refused: %v", err)
		}
	}
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, n)) }
	for name, tt := range map[string]struct {
		secret string
		ok     bool
	}{
		"Symmetric":      {"whsec_" + b64(24), true},
		"NoPrefix":       {b64(24), true},
		"Public":         {"whpk_" + b64(32), true},
		"Empty":          {"", false},
		"PrefixOnly":     {"whsec_", false},
		"NotBase64":      {"whsec_not base64 at all, sorry", false},
		"Short":          {"whsec_" + b64(8), false},
		"Password":       {"correcthorse", false},
		"PublicShort":    {"whpk_" + b64(31), false},
		"Private":        {"whsk_" + b64(64), false},
		"UnknownPrefix":  {"whxx_" + b64(32), false},
		"BeyondReason":   {"whsec_" + b64(5000), false},
		"PublicNoBase64": {"whpk_****", false},
	} {
		if err := p.CheckSecret(tt.secret); (err == nil) != tt.ok {
			t.Errorf("%s: got %v, want ok %v", name, err, tt.ok)
		}
	}
}

func TestDecodeGenericIdentity(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_770_000_000, 0)
	body := []byte(`{"event_type":"opened","channel":"email","email":"ada@example.com"}`)
	first := decodeOne(t, "generic", body, signed("msg_1", now, body, ownSecret()))
	retry := decodeOne(t, "generic", body, signed("msg_1", now.Add(time.Hour), body, ownSecret()))
	next := decodeOne(t, "generic", body, signed("msg_2", now, body, ownSecret()))
	if first.Identity() != retry.Identity() {
		t.Error("a retry, signed anew, is another event")
	}
	if first.Identity() == next.Identity() {
		t.Error("two messages with equal bodies are one event")
	}
	if first.ProviderEventID != "" {
		t.Errorf("provider event id: got %q, want none", first.ProviderEventID)
	}
	// An id that was seen, with another event: kept, not dropped as a duplicate.
	otherBody := with(t, body, map[string]any{"event_type": "unsubscribed"})
	if other := decodeOne(t, "generic", otherBody, signed("msg_1", now, otherBody, ownSecret())); other.Identity() == first.Identity() {
		t.Error("another event under a seen webhook-id is the same event")
	}
	// An unsigned webhook-id beside a signed svix-id says nothing.
	svix := map[string]string{"svix-id": "msg_1", "svix-timestamp": "1770000000", "svix-signature": "v1,AAAA", "webhook-id": "msg_9"}
	if got := decodeOne(t, "generic", body, svix); got.Identity() != first.Identity() {
		t.Error("the identity is not the signed id's")
	}
	withID := with(t, body, map[string]any{"provider_event_id": "e1"})
	a := decodeOne(t, "generic", withID, signed("msg_1", now, withID, ownSecret()))
	b := decodeOne(t, "generic", withID, signed("msg_2", now, withID, ownSecret()))
	if a.Identity() != b.Identity() {
		t.Error("the event's own id does not identify it")
	}

	array := []byte(`[` + string(body) + `,` + string(with(t, body, map[string]any{"email": "bob@example.com"})) + `]`)
	got, err := provider.ByName("generic").Decode(request(array, signed("msg_1", now, array, ownSecret())))
	if err != nil || len(got) != 2 {
		t.Fatalf("array: got %d events, %v", len(got), err)
	}
	if len(got[0].IdentityParts)+len(got[1].IdentityParts) != 0 || got[0].Identity() == got[1].Identity() {
		t.Error("the elements of an array share an identity")
	}
}

func TestDecodeGeneric(t *testing.T) {
	t.Parallel()
	base := []byte(`{"event_type":"replied","channel":"email","email":"ada@example.com","metadata":{"n":90071992547409931}}`)
	e := decodeOne(t, "generic", base, nil)
	if e.Provider != "generic" || e.Kind != "replied" || e.Type != event.Replied || string(e.Metadata) != `{"n":90071992547409931}` {
		t.Errorf("got %+v", e)
	}
	if e := decodeOne(t, "generic", with(t, base, map[string]any{"provider": "Outreach", "extra": 1}), nil); e.Provider != "outreach" {
		t.Errorf("provider: got %q, want the event's own", e.Provider)
	}
	for name, tt := range map[string]struct{ body, want string }{
		"UnknownType":  {`{"event_type":"hopped","channel":"email","email":"a@b.c"}`, "body.event_type"},
		"NoWayToFind":  {`{"event_type":"opened","channel":"email"}`, "enrollment"},
		"BadItem":      {`[{"event_type":"opened","channel":"email","email":"a@b.c"},{"event_type":"opened","channel":"fax","email":"a@b.c"}]`, "body[1].channel"},
		"EmptyArray":   {`[]`, "empty"},
		"Nested":       {`[[]]`, "body[0]"},
		"HugeArray":    {`[` + strings.Repeat(`{},`, event.MaxArray) + `{}]`, "1000"},
		"TimeNotRead":  {`{"event_type":"opened","channel":"email","email":"a@b.c","timestamp":"soon"}`, "body.timestamp"},
		"CaseOfName":   {`{"Event_Type":"opened","channel":"email","email":"a@b.c"}`, "body.event_type"},
		"NullCharName": {`{"event_type":"opened","channel":"email","email":"a@b.c","campaign":"\u0000"}`, "body.campaign"},
	} {
		got, err := provider.ByName("generic").Decode(request([]byte(tt.body), nil))
		if err == nil || !strings.Contains(err.Error(), tt.want) || got != nil {
			t.Errorf("%s: got %d events, error %v, want one naming %q", name, len(got), err, tt.want)
		}
	}
}

// verifiesBySpec is the receiver's half of sign, without its tolerance.
func verifiesBySpec(id, timestamp, signature, secret string, body []byte) bool {
	at, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return false
	}
	want, err := base64.StdEncoding.DecodeString(sign(id, at, body, secret)[len("v1,"):])
	if err != nil {
		return false
	}
	for entry := range strings.FieldsSeq(signature) {
		got, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimPrefix(entry, "v1,"), "="))
		if err == nil && bytes.Equal(got, want) {
			return true
		}
	}
	return false
}
