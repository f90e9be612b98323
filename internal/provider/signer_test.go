package provider_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"tallyhook/internal/provider"
)

// signedFor makes a request that verifies: a source's configuration, the
// headers, and the body as the vendor would have it. Where a vendor signs
// nothing, it is the body as it is.
func signedFor(t testing.TB, vendor string, now time.Time, body []byte) (cfg provider.Config, headers map[string]string, sent []byte) {
	t.Helper()
	const secret = "own-secret"
	at := strconv.FormatInt(now.Unix(), 10)
	cfg, sent = provider.Config{Secrets: []string{secret}}, body
	switch vendor {
	case "generic", "resend":
		cfg.Secrets = []string{ownSecret()}
		headers = signed("msg_1", now, body, ownSecret())
	case "heygen":
		headers = map[string]string{"Heygen-Signature": hexHMAC(secret, body)}
	case "mailersend":
		headers = map[string]string{"Signature": hexHMAC(secret, body)}
	case "calendly":
		headers = map[string]string{"Calendly-Webhook-Signature": "t=" + at + ",v1=" + hexHMAC(secret, []byte(at+"."+string(body)))}
	case "mandrill":
		sent = []byte("mandrill_events=[]")
		headers = map[string]string{"X-Mandrill-Signature": mandrillSign(secret, request(nil, nil).URL, "mandrill_events", "[]")}
	case "hubspot":
		headers = hubspotSign(secret, request(body, nil), now)
	case "mailgun":
		sent = mailgunSign(t, secret, "own-token", now, body)
		headers = map[string]string{}
	case "sendgrid":
		key, public := sendgridPair(t)
		cfg.Secrets = []string{public}
		headers = sendgridSign(t, key, now, body)
	case "ses":
		s := newSNS(t)
		cfg = provider.Config{Certificate: s.certificate}
		sent = s.sign(t, map[string]string{"Type": "Notification", "Message": string(body)})
		headers = map[string]string{}
	default:
		cfg, headers = provider.Config{}, map[string]string{}
	}
	return cfg, headers, sent
}

func hubspotSign(secret string, req provider.Request, at time.Time) map[string]string {
	ms := strconv.FormatInt(at.UnixMilli(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(req.Method + req.URL + string(req.Body) + ms))
	return map[string]string{
		"X-HubSpot-Signature-v3": base64.StdEncoding.EncodeToString(mac.Sum(nil)), "X-HubSpot-Request-Timestamp": ms,
	}
}

// hubspotHash signs by the versions 1 and 2.
func hubspotHash(version, parts string) map[string]string {
	sum := sha256.Sum256([]byte(parts))
	return map[string]string{"X-HubSpot-Signature-Version": version, "X-HubSpot-Signature": hex.EncodeToString(sum[:])}
}

// mailgunSign puts event-data into its envelope.
func mailgunSign(t testing.TB, secret, token string, at time.Time, data []byte) []byte {
	t.Helper()
	ts := strconv.FormatInt(at.Unix(), 10)
	return []byte(`{"signature":{"timestamp":"` + ts + `","token":"` + token + `","signature":"` + hexHMAC(secret, []byte(ts+token)) +
		`"},"event-data":` + string(data) + `}`)
}

func sendgridPair(t testing.TB) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, base64.StdEncoding.EncodeToString(der)
}

func sendgridSign(t testing.TB, key *ecdsa.PrivateKey, at time.Time, body []byte) map[string]string {
	t.Helper()
	ts := strconv.FormatInt(at.Unix(), 10)
	sum := sha256.Sum256(append([]byte(ts), body...))
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"X-Twilio-Email-Event-Webhook-Signature": base64.StdEncoding.EncodeToString(signature),
		"X-Twilio-Email-Event-Webhook-Timestamp": ts,
	}
}

// sns is a topic with a key of its own.
type sns struct {
	key   *rsa.PrivateKey
	coded []byte   // its certificate
	asked []string // addresses that were asked for
}

const (
	snsCert  = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-own.pem"
	snsTopic = "arn:aws:sns:eu-west-1:123456789012:mail"
)

func newSNS(t testing.TB) *sns {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 1024) // short: it is for a test, and it is quick
	if err != nil {
		t.Fatal(err)
	}
	coded, err := certify(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &sns{key: key, coded: coded}
}

func (s *sns) certificate(address string) ([]byte, error) {
	s.asked = append(s.asked, address)
	return s.coded, nil
}

// sign makes a message of SNS; members replace or add to the usual ones.
func (s *sns) sign(t testing.TB, members map[string]string) []byte {
	t.Helper()
	m := map[string]string{
		"Type": "Notification", "MessageId": "0198c0de-0000-4000-8000-000000000001", "TopicArn": snsTopic, "Message": "{}",
		"Timestamp": "2026-05-06T07:08:09.010Z", "SignatureVersion": "2", "SigningCertURL": snsCert,
	}
	maps.Copy(m, members)
	names := []string{"Message", "MessageId", "SubscribeURL", "Subject", "Timestamp", "Token", "TopicArn", "Type"}
	var b strings.Builder
	for _, name := range names {
		if v, there := m[name]; there {
			b.WriteString(name + "\n" + v + "\n")
		}
	}
	var signature []byte
	var err error
	if m["SignatureVersion"] == "1" {
		sum := sha1.Sum([]byte(b.String()))
		signature, err = rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA1, sum[:])
	} else {
		sum := sha256.Sum256([]byte(b.String()))
		signature, err = rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, sum[:])
	}
	if err != nil {
		t.Fatal(err)
	}
	m["Signature"] = base64.StdEncoding.EncodeToString(signature)
	body, err := json.Marshal(m, json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	return body
}
