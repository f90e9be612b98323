package provider

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // SNS's signature version 1
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// snsHost tells SNS's own hosts, sns.<region>.amazonaws.com and those in China.
func snsHost(host string) bool {
	region, ok := strings.CutPrefix(host, "sns.")
	if !ok {
		return false
	}
	region, ok = strings.CutSuffix(strings.TrimSuffix(region, ".cn"), ".amazonaws.com")
	return ok && len(region) >= 3 && len(region) <= 32 && !strings.ContainsFunc(region, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	})
}

// snsURL reads an address that is wholly SNS's own: https, its host and no
// other port, nobody's credentials.
func snsURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || len(address) > 2048 || u.Scheme != "https" || u.User != nil || u.Opaque != "" || u.Fragment != "" || !snsHost(u.Host) {
		return nil, errors.New("the address is not one of SNS")
	}
	return u, nil
}

// CheckCertificateURL refuses what is not the address of a certificate of SNS,
// before anything is fetched: who gives the address would else choose the key.
func CheckCertificateURL(address string) error {
	u, err := snsURL(address)
	if err != nil {
		return err
	}
	if u.RawQuery != "" || u.ForceQuery || !strings.HasSuffix(u.Path, ".pem") || strings.Contains(u.Path, "..") {
		return errors.New("the address is not that of a certificate")
	}
	return nil
}

// verifySNS checks the signature of SNS
// (https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html):
// RSA PKCS #1 v1.5 with SHA-1 (version 1) or SHA-256 (version 2) over the names
// and values of the signed members, one a line. The key is that of the
// certificate at SigningCertURL. It is trusted because AWS serves it over TLS
// from a host of SNS, which is why its address is checked first; its own validity
// is not looked at, as in Amazon's libraries.
//
// The topic is checked before anything is fetched. No time is bounded: SNS may
// deliver an hour late, and a message that comes again is a duplicate.
func verifySNS(_ time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	o, err := readObject(bytes.TrimSpace(req.Body))
	if err != nil {
		return ErrMalformed
	}
	signed, err := snsSigned(o)
	if err != nil {
		return err
	}
	if topics := cfg.Settings.TopicARNs; len(topics) > 0 && !slices.Contains(topics, o.text("TopicArn")) {
		return ErrTopic
	}
	signature, err := decodeBase64(strings.Join(strings.Fields(o.text("Signature")), ""))
	if err != nil || len(signature) == 0 {
		return ErrMalformed
	}
	address := o.text("SigningCertURL")
	if CheckCertificateURL(address) != nil {
		return ErrMalformed
	}
	if cfg.Certificate == nil {
		return ErrUnavailable
	}
	coded, err := cfg.Certificate(address)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	key, err := CertificateKey(coded)
	if err != nil {
		return ErrMalformed
	}
	switch o.text("SignatureVersion") {
	case "1":
		sum := sha1.Sum(signed) //nolint:gosec // the vendor's scheme
		err = rsa.VerifyPKCS1v15(key, crypto.SHA1, sum[:], signature)
	case "2":
		sum := sha256.Sum256(signed)
		err = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature)
	default:
		return ErrMalformed
	}
	if err != nil {
		return ErrMismatch
	}
	return nil
}

// snsSigned is what the signature of a message covers.
func snsSigned(o object) ([]byte, error) {
	var names []string
	switch o.text("Type") {
	case "Notification":
		names = []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"}
	case "SubscriptionConfirmation", "UnsubscribeConfirmation":
		names = []string{"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"}
	default: // raw delivery, or not of SNS
		return nil, ErrMissing
	}
	var signed []byte
	for _, name := range names {
		switch v := o[name]; v.Kind() {
		case '"':
			value, err := jsontext.AppendUnquote(nil, v)
			if err != nil {
				return nil, ErrMalformed
			}
			signed = append(append(append(append(signed, name...), '\n'), value...), '\n')
		default:
			if name != "Subject" { // the one that may be absent
				return nil, ErrMissing
			}
			if k := v.Kind(); k != 0 && k != 'n' {
				return nil, ErrMalformed
			}
		}
	}
	if o.text("Signature") == "" || o.text("SigningCertURL") == "" {
		return nil, ErrMissing
	}
	return signed, nil
}

// CertificateKey is the RSA key of a certificate in PEM.
func CertificateKey(coded []byte) (*rsa.PublicKey, error) {
	block, _ := pem.Decode(coded)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("not a certificate in PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("the certificate has no RSA key")
	}
	return key, nil
}

// confirmSNS gives the address that confirms a subscription, "" when there is
// none to confirm or nobody asked for it: only a topic that the settings name,
// at an address of SNS that is about the same topic.
func confirmSNS(cfg Config, req Request) string {
	o, err := readObject(bytes.TrimSpace(req.Body))
	if err != nil || o.text("Type") != "SubscriptionConfirmation" {
		return ""
	}
	topic := o.text("TopicArn")
	if topic == "" || !slices.Contains(cfg.Settings.TopicARNs, topic) {
		return ""
	}
	address := o.text("SubscribeURL")
	u, err := snsURL(address)
	if err != nil || u.Path != "/" && u.Path != "" {
		return ""
	}
	if q := u.Query(); q.Get("Action") != "ConfirmSubscription" || q.Get("TopicArn") != topic {
		return ""
	}
	return address
}

// checkTopics refuses what is not a topic's name: it would never match.
func checkTopics(arns []string) error {
	form := regexp.MustCompile(`^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?$`)
	for _, arn := range arns {
		if !form.MatchString(arn) {
			return fmt.Errorf("topic_arns: %.300q is not a topic such as arn:aws:sns:eu-west-1:123456789012:mail", arn)
		}
	}
	return nil
}
