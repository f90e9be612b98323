package provider_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/provider"
)

// vectorKey is what the vendor and we share.
type vectorKey struct {
	Secret      string `json:"secret"`
	PublicKey   string `json:"public_key"`
	User        string `json:"user"`
	Password    string `json:"password"`
	Client      string `json:"client_secret"`         // hubspot
	Signing     string `json:"signing_key"`           // calendly, mailgun
	Webhook     string `json:"webhook_key"`           // mandrill
	PublicDER   string `json:"public_key_der_base64"` // sendgrid
	PublicPEM   string `json:"public_key_pem"`        // sns
	Certificate string `json:"certificate_pem"`       // sns
	Token       string `json:"token"`                 // url-token
	Header      string `json:"header"`                // static-header
	Value       string `json:"value"`                 // static-header
}

// headerValue is a header of a case: a text, or the first of a list.
type headerValue string

// UnmarshalJSON implements json.Unmarshaler.
func (h *headerValue) UnmarshalJSON(raw []byte) error {
	var list []word
	if err := json.Unmarshal(raw, &list); err == nil {
		if *h = ""; len(list) > 0 {
			*h = headerValue(list[0])
		}
		return nil
	}
	return (*word)(h).UnmarshalJSON(raw)
}

// vector is one signature case of a corpus.
type vector struct {
	Scheme   string    `json:"scheme"`
	Expect   string    `json:"expect"`
	Why      string    `json:"why"`
	Key      vectorKey `json:"key"`
	VerifyAt *int64    `json:"verify_at_unix"`
	Request  struct {
		Method  string                 `json:"method"`
		URL     string                 `json:"url"`
		Headers map[string]headerValue `json:"headers"`
		Body    string                 `json:"body_base64"`
	} `json:"request"`
}

// headers are those of the request.
func (v vector) headers() map[string]string {
	headers := make(map[string]string, len(v.Request.Headers))
	for name, value := range v.Request.Headers {
		headers[name] = string(value)
	}
	return headers
}

func TestVerifyCorpus(t *testing.T) {
	t.Parallel()
	for name, dir := range corpora(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			paths := jsonFiles(t, filepath.Join(dir, "vectors"))
			if len(paths) == 0 {
				t.Error("the corpus has no vector")
			}
			for _, path := range paths {
				t.Run(filepath.Base(filepath.Dir(path))+"/"+filepath.Base(path), func(t *testing.T) {
					t.Parallel()
					for _, miss := range vectorMisses(path) {
						t.Error(miss)
					}
				})
			}
		})
	}
}

// vectorMisses verifies one signature case, with the key alone and with it in
// its grace time, and tells where that does not come out as expected.
func vectorMisses(path string) (misses []string) {
	defer func() {
		if r := recover(); r != nil { // one case must not end the run
			misses = append(misses, fmt.Sprintf("got a panic: %v", r))
		}
	}()
	raw, err := os.ReadFile(path)
	if err != nil {
		return []string{err.Error()}
	}
	var v vector
	if err := json.Unmarshal(bytes.TrimPrefix(raw, []byte("\uFEFF")), &v, jsontext.AllowDuplicateNames(true)); err != nil {
		return []string{"bad corpus: " + err.Error()}
	}
	if v.Expect != "valid" && v.Expect != "invalid" {
		return []string{fmt.Sprintf("bad corpus: expect is %q", v.Expect)}
	}
	body, err := base64.StdEncoding.DecodeString(v.Request.Body)
	if err != nil {
		return []string{"bad corpus: " + err.Error()}
	}
	p := v.provider(filepath.Base(filepath.Dir(path)))
	if p == nil {
		return []string{"no adapter for " + filepath.Base(filepath.Dir(path)) + " and the scheme " + v.Scheme}
	}
	cfgs, err := v.configs()
	if err != nil {
		return []string{err.Error()}
	}
	req := request(body, v.headers())
	if v.Request.Method != "" {
		req.Method = v.Request.Method
	}
	if req.URL = v.Request.URL; req.URL == "" {
		req.URL = "https://hooks.example/webhooks/x"
	}
	for _, cfg := range cfgs {
		err := p.Verify(v.now(body), cfg, req)
		got := "valid"
		if err != nil {
			got = "invalid (" + err.Error() + ")"
		}
		if (err == nil) != (v.Expect == "valid") {
			misses = append(misses, fmt.Sprintf("got %s, want %s: %s", got, v.Expect, v.Why))
		}
		if strings.Contains(v.Why, "before any fetch") && errors.Is(err, provider.ErrUnavailable) {
			misses = append(misses, "got a question for the certificate, want none")
		}
	}
	return slices.Compact(misses) // often both ways miss alike
}

// provider is the adapter that a case is for: that of its folder, or, of a
// folder with a name of its own, the one whose scheme it is.
func (v vector) provider(folder string) *provider.Provider {
	if p := provider.ByName(folder); p != nil {
		return p
	}
	switch scheme, _, _ := strings.Cut(v.Scheme, "-"); scheme {
	case "standard":
		return provider.ByName("generic")
	case "aws":
		return provider.ByName("ses")
	default:
		return provider.ByName(scheme) // nil for a scheme that several have
	}
}

// now is the clock of the case; where it names none, the time that it is
// signed with, or any.
func (v vector) now(body []byte) time.Time {
	if v.VerifyAt != nil {
		return time.Unix(*v.VerifyAt, 0)
	}
	for name, value := range v.headers() {
		value, calendly := strings.CutPrefix(value, "t=")
		if calendly {
			value, _, _ = strings.Cut(value, ",")
		}
		n, err := strconv.ParseInt(value, 10, 64)
		switch {
		case err != nil:
		case strings.EqualFold(name, "X-HubSpot-Request-Timestamp"):
			return time.UnixMilli(n)
		case calendly, strings.HasSuffix(strings.ToLower(name), "-timestamp"):
			return time.Unix(n, 0)
		}
	}
	var mailgun struct {
		Signature struct {
			Timestamp word `json:"timestamp"`
		} `json:"signature"`
	}
	if json.Unmarshal(body, &mailgun) == nil {
		if n, err := strconv.ParseInt(string(mailgun.Signature.Timestamp), 10, 64); err == nil {
			return time.Unix(n, 0)
		}
	}
	return time.Unix(1_700_000_000, 0)
}

// configs are the ways in which a source may have the key of a case.
func (v vector) configs() ([]provider.Config, error) {
	k := v.Key
	secret := k.Secret + k.PublicKey + k.Client + k.Signing + k.Webhook + k.PublicDER + k.Token
	former := "another-secret"
	switch v.Scheme {
	case "http-basic":
		pair := k.User + ":" + k.Password
		return []provider.Config{{Secrets: []string{pair}}, {Settings: provider.Settings{BasicAuth: pair}}}, nil
	case "static-header":
		return []provider.Config{{Settings: provider.Settings{Headers: map[string]string{k.Header: k.Value + k.Secret}}}}, nil
	case "aws-sns-rsa":
		coded, err := k.certificate()
		if err != nil {
			return nil, fmt.Errorf("bad corpus: %w", err)
		}
		return []provider.Config{{Certificate: func(address string) ([]byte, error) {
			if err := provider.CheckCertificateURL(address); err != nil {
				return nil, err
			}
			return coded, nil
		}}}, nil
	case "standard-webhooks", "standard-webhooks-v1a":
		former = strings.Repeat("QUJD", 8)
	case "sendgrid-ecdsa-p256-sha256", "body-secret", "calendly", "heygen-v3", "hmac-sha256-hex-body", "hubspot-v1", "hubspot-v2",
		"hubspot-v3", "mailgun-hmac-sha256", "mandrill-hmac-sha1", "url-token":
	default:
		return nil, fmt.Errorf("no scheme %q is known", v.Scheme)
	}
	if secret == "" {
		return nil, errors.New("the case has no key that is known")
	}
	return []provider.Config{{Secrets: []string{secret}}, {Secrets: []string{former, secret}}}, nil
}

// certificate is the case's certificate. Some cases have the key of one that
// is gone: it is put into a new one.
func (k vectorKey) certificate() ([]byte, error) {
	if k.Certificate != "" {
		return []byte(k.Certificate), nil
	}
	block, _ := pem.Decode([]byte(k.PublicPEM))
	if block == nil {
		return nil, errors.New("the case has neither a certificate nor a public key")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return certify(public)
}

// certify makes a certificate of a public key whose private half nobody has.
func certify(public any) ([]byte, error) {
	issuer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	form := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1, 0)} // long over: its validity is not looked at
	der, err := x509.CreateCertificate(rand.Reader, &form, &form, public, issuer)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
