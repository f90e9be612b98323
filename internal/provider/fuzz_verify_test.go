package provider_test

import (
	"bytes"
	"encoding/base64"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"tallyhook/internal/provider"
)

func FuzzVerifyLemlist(f *testing.F)       { fuzzVerify(f, "lemlist") }
func FuzzVerifyHubspot(f *testing.F)       { fuzzVerify(f, "hubspot") }
func FuzzVerifyPostmark(f *testing.F)      { fuzzVerify(f, "postmark") }
func FuzzVerifySendgrid(f *testing.F)      { fuzzVerify(f, "sendgrid") }
func FuzzVerifyMailgun(f *testing.F)       { fuzzVerify(f, "mailgun") }
func FuzzVerifyResend(f *testing.F)        { fuzzVerify(f, "resend") }
func FuzzVerifyBrevo(f *testing.F)         { fuzzVerify(f, "brevo") }
func FuzzVerifySmartlead(f *testing.F)     { fuzzVerify(f, "smartlead") }
func FuzzVerifyInstantly(f *testing.F)     { fuzzVerify(f, "instantly") }
func FuzzVerifyPhantombuster(f *testing.F) { fuzzVerify(f, "phantombuster") }
func FuzzVerifyHeygen(f *testing.F)        { fuzzVerify(f, "heygen") }
func FuzzVerifyCalendly(f *testing.F)      { fuzzVerify(f, "calendly") }
func FuzzVerifyMailersend(f *testing.F)    { fuzzVerify(f, "mailersend") }
func FuzzVerifyMailjet(f *testing.F)       { fuzzVerify(f, "mailjet") }
func FuzzVerifyMandrill(f *testing.F)      { fuzzVerify(f, "mandrill") }
func FuzzVerifySparkpost(f *testing.F)     { fuzzVerify(f, "sparkpost") }
func FuzzVerifyMailtrap(f *testing.F)      { fuzzVerify(f, "mailtrap") }

// fuzzVerify: no request verifies with a secret that it was not made with, nor
// with an empty one; and of a scheme that signs the body no other body does.
func fuzzVerify(f *testing.F, vendor string) {
	f.Helper()
	p, now := provider.ByName(vendor), time.Unix(1_770_000_000, 0)
	cfg, headers, sent := signedFor(f, vendor, now, []byte(`{"event":"open","type":"emailsOpened","secret":"s","secret_key":"s"}`))
	const address = "https://hooks.example/webhooks/x?token=t&secret=s"
	f.Add(headerText(headers), address, sent)
	f.Add("Authorization: Basic dTpw\nMailtrap-Signature: 00", address, []byte(`[{"secret":"s","secret_key":"s"}]`))
	f.Add("Authorization: Bearer s", address, []byte(`{`))
	for _, path := range jsonFiles(f, filepath.Join("testdata", "vectors")) {
		var v vector
		if err := json.Unmarshal(read(f, path), &v); err != nil {
			f.Fatal(err)
		}
		body, err := base64.StdEncoding.DecodeString(v.Request.Body)
		if err != nil {
			f.Fatal(err)
		}
		if filepath.Base(filepath.Dir(path)) == vendor {
			f.Add(headerText(v.headers()), v.Request.URL, body)
		}
	}
	f.Fuzz(func(t *testing.T, head, address string, body []byte) {
		req := request(body, headersOf(head))
		req.URL = address
		for name, secrets := range map[string][]string{"a stranger's": {stranger(vendor)}, "an empty": {""}} {
			if p.Verify(now, provider.Config{Secrets: secrets}, req) == nil {
				t.Fatalf("verifies with %s secret", name)
			}
		}
		if len(cfg.Secrets) > 0 && p.Verify(now, cfg, req) == nil && !sameSigned(vendor, body, sent) {
			t.Fatal("another body verifies")
		}
		if p.Nonce != nil {
			p.Nonce(req)
		}
		if p.Mask != nil && len(p.Mask(body)) > 16*len(body)+16 {
			t.Fatal("the mask grows")
		}
	})
}

// stranger is a secret of the vendor's form that no seed was made with.
func stranger(vendor string) string {
	switch vendor {
	case "resend", "generic":
		return "whsec_" + base64.StdEncoding.EncodeToString([]byte("nobody has this one, 24+ bytes"))
	case "sendgrid": // the key of SendGrid's documents, whose private half we do not have
		return "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q=="
	}
	return "nobody:knows this 0198c0de"
}

// sameSigned tells whether two bodies are the same as far as they are signed.
func sameSigned(vendor string, a, b []byte) bool {
	switch vendor {
	case "mailgun": // which signs no body
		return true
	case "mandrill": // which signs the fields of a form, not how they are written
		one, err := url.ParseQuery(string(a))
		other, otherErr := url.ParseQuery(string(b))
		return err == nil && otherErr == nil && maps.EqualFunc(one, other, slices.Equal[[]string])
	}
	return bytes.Equal(a, b)
}

// headerText writes headers a line each, as the fuzzer changes them.
func headerText(headers map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		b.WriteString(name + ": " + headers[name] + "\n")
	}
	return b.String()
}

func headersOf(text string) map[string]string {
	headers := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			headers[name] = value
		}
	}
	return headers
}

// TestFuzzTargets: each adapter's decoder and verifier has a target.
func TestFuzzTargets(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{}
	for _, path := range paths {
		for _, m := range regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`).FindAllSubmatch(read(t, path), -1) {
			targets[strings.ToLower(string(m[1]))] = true
		}
	}
	for _, p := range provider.All() {
		for _, what := range []string{"fuzzdecode", "fuzzverify"} {
			if !targets[what+p.Name] {
				t.Errorf("%s has no target %s", p.Name, what)
			}
		}
	}
}
