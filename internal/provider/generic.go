package provider

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"tallyhook/internal/event"
)

// Prefixes of Standard Webhooks secrets, by what they hold.
const (
	prefixSymmetric = "whsec_"
	prefixPublic    = "whpk_"
	prefixPrivate   = "whsk_"
)

// standardTolerance is how far the signed time may be from ours, both ways:
// the five minutes of the specification's own libraries.
const standardTolerance = 5 * time.Minute

// generic is any sender that signs by Standard Webhooks 1.0.0
// (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md)
// and sends canonical events: a script, a serverless function, another system.
//
// Signature: "webhook-signature" is a list, divided by spaces, of
// "version,base64". v1 is HMAC-SHA256 with the secret (whsec_...), v1a is
// ed25519 (public key whpk_...), both over "id.timestamp.body" with the header
// values as sent. One entry that verifies is enough, so a sender can sign with
// the old and the new key while it rotates; entries of unknown versions are
// passed over. Svix's headers svix-id, svix-timestamp and svix-signature are
// the same scheme under the older names.
//
// Retries (the same specification, "Deliverability and reliability"): a sender
// takes any 2xx as success and should retry everything else with growing
// delays over a day or more; 410 tells it to disable the endpoint, so 410 is
// never answered; 429 and 503 ask it to slow down. A retry keeps webhook-id
// and signs a new timestamp, hence the identity below.
//
// Identity: the event's provider_event_id; without one, the webhook-id of a
// body that is one event. A body of several cannot share one id: each element
// is then identified by its own fields.
func generic() *Provider {
	names := make([]string, 0, len(event.Types()))
	for _, t := range event.Types() {
		names = append(names, string(t))
	}
	return &Provider{
		Name:   "generic",
		Number: 1,
		Title:  "Standard Webhooks",
		Scheme: "Standard Webhooks: HMAC-SHA256 (whsec_) or ed25519 (whpk_) over id.timestamp.body, 5 minutes",
		Events: names,
		Setup: "Post one event object, or an array of up to " + strconv.Itoa(event.MaxArray) + ", to the source's URL and sign it " +
			"with any Standard Webhooks library and the secret shown when the source was made (whsec_...). To sign with a " +
			"private key instead, make the source with your ed25519 public key (whpk_...) as its secret. " +
			"Give each event a provider_event_id where you can.",
		Tells:       []string{tellsCampaigns},
		MakeSecret:  makeStandardSecret,
		CheckSecret: checkStandardSecret,
		Verify:      verifyGeneric,
		Decode:      decodeGeneric,
		Sample:      sampleGeneric,
	}
}

func makeStandardSecret() (string, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return "", fmt.Errorf("make secret: %w", err)
	}
	return prefixSymmetric + base64.StdEncoding.EncodeToString(key), nil
}

// checkStandardSecret refuses what is surely not a signing key. The
// specification makes keys of 24 to 64 bytes; a receiver does not choose the
// sender's, so from 16 on they are taken. Below, it is more likely a password
// that happens to be base64 than a key.
func checkStandardSecret(secret string) error {
	switch {
	case strings.HasPrefix(secret, prefixPrivate):
		return errors.New("this is the sender's private key (whsk_); give the public key (whpk_) instead")
	case strings.HasPrefix(secret, prefixPublic):
		if standardKeyOf(secret).public == nil {
			return fmt.Errorf("a public key is whpk_ and the base64 of %d bytes", ed25519.PublicKeySize)
		}
	case len(secret) > maxSecret:
		return fmt.Errorf("is longer than %d bytes", maxSecret)
	default:
		if n := len(standardKeyOf(secret).shared); n < 16 {
			return errors.New("a signing secret is whsec_ and the base64 of 24 to 64 random bytes")
		}
	}
	return nil
}

// standardKey is one secret made ready: exactly one member is set, none when
// the secret cannot verify anything.
type standardKey struct {
	shared []byte
	public ed25519.PublicKey
}

func standardKeyOf(secret string) standardKey {
	if coded, ok := strings.CutPrefix(secret, prefixPublic); ok {
		if b, err := decodeBase64(coded); err == nil && len(b) == ed25519.PublicKeySize {
			return standardKey{public: b}
		}
		return standardKey{}
	}
	// No base64 holds "_", so a whsk_ or any other prefix ends here too.
	if b, err := decodeBase64(strings.TrimPrefix(secret, prefixSymmetric)); err == nil && len(b) > 0 {
		return standardKey{shared: b}
	}
	return standardKey{}
}

// standardHeaders are the three values that a signature covers. They are
// taken from one family of names as a whole: an unsigned webhook-id beside a
// signed svix-id would otherwise become the event's identity.
type standardHeaders struct {
	id, timestamp, signature string
}

func standardHeadersOf(req Request) standardHeaders {
	for _, family := range []string{"webhook", "svix"} {
		if signature := req.header(family + "-signature"); signature != "" {
			return standardHeaders{
				id: req.header(family + "-id"), timestamp: req.header(family + "-timestamp"), signature: signature,
			}
		}
	}
	return standardHeaders{}
}

func verifyGeneric(now time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	return verifyStandard(now, cfg.Secrets, req)
}

// verifyStandard is the scheme itself, for every provider that signs by it.
func verifyStandard(now time.Time, secrets []string, req Request) error {
	h := standardHeadersOf(req)
	if h.id == "" || h.timestamp == "" || h.signature == "" {
		return ErrMissing
	}
	if err := checkStandardTime(now, h.timestamp); err != nil {
		return err
	}
	signed := make([]byte, 0, len(h.id)+len(h.timestamp)+len(req.Body)+2)
	signed = append(signed, h.id...)
	signed = append(signed, '.')
	signed = append(signed, h.timestamp...)
	signed = append(signed, '.')
	signed = append(signed, req.Body...)

	shared, public := signaturesOf(h.signature)
	usable, matched := false, false
	for _, secret := range secrets {
		key := standardKeyOf(secret)
		switch {
		case key.public != nil:
			usable = true
			for _, s := range public {
				matched = ed25519.Verify(key.public, signed, s) || matched
			}
		case key.shared != nil:
			usable = true
			mac := hmac.New(sha256.New, key.shared)
			mac.Write(signed)
			want := mac.Sum(nil)
			for _, s := range shared {
				matched = hmac.Equal(s, want) || matched
			}
		}
	}
	switch {
	case !usable:
		return ErrNoSecret
	case matched:
		return nil
	case len(shared)+len(public) == 0:
		return ErrMalformed
	}
	return ErrMismatch
}

// checkStandardTime wants whole Unix seconds in plain digits within the
// tolerance.
func checkStandardTime(now time.Time, timestamp string) error {
	at, err := strconv.ParseUint(timestamp, 10, 40) // 40 bits: no overflow below, until the year 36812
	if err != nil {
		return ErrMalformed
	}
	age := now.Unix() - int64(at)
	if tolerance := int64(standardTolerance / time.Second); age > tolerance || age < -tolerance {
		return ErrExpired
	}
	return nil
}

// maxSignatures bounds the work one request can ask for, in entries of the
// list: ed25519 is not free and a sender rotates between two keys.
const maxSignatures = 16

// signaturesOf reads the entries of the two known versions; any other entry
// is passed over, as the specification asks.
func signaturesOf(header string) (shared, public [][]byte) {
	for i, entry := range strings.Fields(header) {
		if i == maxSignatures {
			break
		}
		version, coded, _ := strings.Cut(entry, ",")
		b, err := decodeBase64(coded)
		if err != nil || len(b) == 0 {
			continue
		}
		switch version {
		case "v1":
			shared = append(shared, b)
		case "v1a":
			public = append(public, b)
		}
	}
	return shared, public
}

// SignedID is the id that a Standard Webhooks signature covers; empty when the
// request is not signed so.
func SignedID(req Request) string { return standardHeadersOf(req).id }

func sampleGeneric(s Sampling) Sample {
	return s.standard("webhook", s.fill(`{"event_type":"opened","channel":"email","provider_event_id":"$ID","email":"$TO","timestamp":"$AT"}`))
}

// decodeGeneric reads canonical events. One bad element fails the body: the
// sender got a 200 and will not send it again, so the whole body is kept as
// one dead letter rather than a part of it lost.
func decodeGeneric(req Request) ([]event.Event, error) {
	if !event.IsArray(req.Body) {
		e, ferr := event.Decode(req.Body, "body", event.Lenient)
		if ferr != nil {
			return nil, ferr
		}
		if err := finishGeneric(&e, "body"); err != nil {
			return nil, err
		}
		e.Signed(SignedID(req))
		return []event.Event{e}, nil
	}
	items, ferr := event.DecodeArray(req.Body, "body", event.Lenient)
	if ferr != nil {
		return nil, ferr
	}
	events := make([]event.Event, 0, len(items))
	for i := range items {
		if items[i].Err != nil {
			return nil, items[i].Err
		}
		e := items[i].Event
		if err := finishGeneric(&e, "body["+strconv.Itoa(i)+"]"); err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, nil
}

func finishGeneric(e *event.Event, location string) error {
	if e.Provider == "" {
		e.Provider = "generic"
	}
	e.Kind = string(e.Type)
	if err := e.Check(); err != nil {
		return fmt.Errorf("%s: %w", location, err)
	}
	return nil
}
