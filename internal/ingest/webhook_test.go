package ingest_test

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/fault"
	"tallyhook/internal/ingest"
	"tallyhook/internal/provider"
)

// oneSource is the source of every token.
type oneSource struct {
	access.Opened

	refused []access.Rejection
}

func (s *oneSource) SourceByToken(context.Context, string) (access.Opened, error) {
	return s.Opened, nil
}

func (s *oneSource) OpenSource(context.Context, uuid.UUID) (access.Opened, error) {
	return s.Opened, nil
}

func (s *oneSource) Reject(_ uuid.UUID, r access.Rejection) { s.refused = append(s.refused, r) }

// receiving is a receiver with one source, on a real store.
type receiving struct {
	*testing.T
	*ingest.Receiver

	source *oneSource
	door   *door // to the store
}

func receive(t *testing.T, vendor string, cfg provider.Config) *receiving {
	t.Helper()
	d := &door{}
	f := start(t, d, ingest.Options{})
	source := &oneSource{Opened: access.Opened{ID: uuid.New(), Tenant: 1, Provider: provider.ByName(vendor), Config: cfg}}
	return &receiving{t, &ingest.Receiver{
		Sources: source, Bodies: f.World, Committer: f.Committer, Now: f.Clock.Now, Logger: slog.New(slog.DiscardHandler), Metrics: f.metrics,
	}, source, d}
}

// accepted is no kind of a refusal.
const accepted = fault.Kind(255)

// post sends a webhook; want is the kind of its refusal.
func (r *receiving) post(body string, want fault.Kind) ingest.Counts {
	r.Helper()
	receipt, err := r.Receive(r.Context(), "token", provider.Request{Method: "POST", URL: "https://hooks.example/webhooks/x", Header: noHeader{}, Body: []byte(body)})
	switch {
	case want == accepted && err != nil:
		r.Fatalf("refused: %v", err)
	case want != accepted && !fault.Is(err, want):
		r.Fatalf("got %v, want %v", err, want)
	}
	return receipt.Counts
}

type noHeader struct{}

func (noHeader) Get(string) string { return "" }

func mailgunBody(at time.Time, token, kind, id string) string {
	ts := fmt.Sprint(at.Unix())
	mac := hmac.New(sha256.New, []byte("own-key"))
	mac.Write([]byte(ts + token))
	return fmt.Sprintf(`{"signature":{"timestamp":%q,"token":%q,"signature":%q},"event-data":{"event":%q,"id":%q,"timestamp":1778052367.5,"recipient":"a@x.example"}}`,
		ts, token, hex.EncodeToString(mac.Sum(nil)), kind, id)
}

// TestNonce: whoever has seen a webhook whose body is not signed cannot put
// another event under its signature; a vendor that tries again can send its own.
func TestNonce(t *testing.T) {
	t.Parallel()
	r := receive(t, "mailgun", provider.Config{Secrets: []string{"own-key"}})
	now := r.Now()
	if c := r.post(mailgunBody(now, "t1", "opened", "i1"), accepted); c.Received != 1 || c.Duplicate != 0 {
		t.Errorf("the first: %+v", c)
	}
	if c := r.post(mailgunBody(now, "t1", "opened", "i1"), accepted); c.Duplicate != 1 {
		t.Errorf("the same again: %+v", c)
	}
	r.post(mailgunBody(now, "t1", "unsubscribed", "i1"), fault.Unauthenticated)
	r.post(mailgunBody(now, "t1", "opened", "i2"), fault.Unauthenticated)
	if n := len(r.source.refused); n != 2 || r.source.refused[0].Status != 401 || !strings.Contains(r.source.refused[0].Reason, "token") {
		t.Errorf("the refusals: %+v", r.source.refused)
	}
	if c := r.post(mailgunBody(now.Add(time.Minute), "t2", "opened", "i1"), accepted); c.Duplicate != 1 {
		t.Errorf("a retry, signed anew: %+v", c)
	}
	commits := len(r.door.sizes())
	for i := range 100 {
		forged := strings.Replace(mailgunBody(now, fmt.Sprint("f", i), "opened", "i1"), `"signature":"`, `"signature":"0`, 1)
		r.post(forged, fault.Unauthenticated)
	}
	if n := len(r.door.sizes()); n != commits {
		t.Errorf("forged signatures cost %d commits", n-commits)
	}
	if c := r.post(mailgunBody(now, "t3", "unsubscribed", "i1"), accepted); c.Received != 1 || c.Duplicate != 0 {
		t.Errorf("another event with a token of its own: %+v", c)
	}
}

// topic is an SNS topic with a key of its own.
type topic struct {
	key   *rsa.PrivateKey
	coded []byte
}

const topicARN = "arn:aws:sns:eu-west-1:123456789012:mail"

func newTopic(t *testing.T) topic {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 1024) // short: it is for a test, and it is quick
	if err != nil {
		t.Fatal(err)
	}
	form := x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, &form, &form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return topic{key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (p topic) confirmation(t *testing.T) string {
	t.Helper()
	m := map[string]string{
		"Type": "SubscriptionConfirmation", "MessageId": "m1", "TopicArn": topicARN, "Message": "Visit the SubscribeURL.", "Token": "own",
		"Timestamp": "2026-05-06T07:26:09.500Z", "SignatureVersion": "2", "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/own.pem",
		"SubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=" + topicARN + "&Token=own",
	}
	var signed strings.Builder
	for _, name := range []string{"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"} {
		signed.WriteString(name + "\n" + m[name] + "\n")
	}
	sum := sha256.Sum256([]byte(signed.String()))
	signature, err := rsa.SignPKCS1v15(rand.Reader, p.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	m["Signature"] = base64.StdEncoding.EncodeToString(signature)
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestCertificate: a certificate that cannot be had is our trouble and not the
// sender's.
func TestCertificate(t *testing.T) {
	t.Parallel()
	p := newTopic(t)
	r := receive(t, "ses", provider.Config{})
	r.post(p.confirmation(t), fault.Unavailable) // nothing may be fetched
	r.Certificate = func(context.Context, string) ([]byte, error) { return nil, errors.New("timeout") }
	r.post(p.confirmation(t), fault.Unavailable)
	if last := r.source.refused[len(r.source.refused)-1]; last.Status != 503 {
		t.Errorf("recorded as %d, want 503", last.Status)
	}
	r.Certificate = func(context.Context, string) ([]byte, error) { return newTopic(t).coded, nil }
	r.post(p.confirmation(t), fault.Unauthenticated)
	r.Certificate = func(context.Context, string) ([]byte, error) { return p.coded, nil }
	if c := r.post(p.confirmation(t), accepted); c.Ignored != 1 {
		t.Errorf("got %+v", c)
	}
}

// TestConfirm: a subscription is confirmed where the settings name its topic,
// after its message is safe, and again when that has failed.
func TestConfirm(t *testing.T) {
	t.Parallel()
	p := newTopic(t)
	var called []string
	var failing error
	start := func(cfg provider.Config) *receiving {
		r := receive(t, "ses", cfg)
		r.Certificate = func(context.Context, string) ([]byte, error) { return p.coded, nil }
		r.Confirm = func(_ context.Context, address string) error {
			called = append(called, address)
			return failing
		}
		return r
	}
	if c := start(provider.Config{}).post(p.confirmation(t), accepted); c.Ignored != 1 || len(called) != 0 {
		t.Errorf("nobody asked for it: %+v, called %q", c, called)
	}
	r := start(provider.Config{Settings: provider.Settings{TopicARNs: []string{topicARN}}})
	failing = errors.New("timeout")
	r.post(p.confirmation(t), fault.Unavailable)
	failing = nil
	if c := r.post(p.confirmation(t), accepted); c.Duplicate != 1 {
		t.Errorf("the second time: %+v", c)
	}
	if len(called) != 2 || !strings.HasPrefix(called[1], "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription") {
		t.Errorf("called %q", called)
	}
}
