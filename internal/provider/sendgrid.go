package provider

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"strconv"
	"strings"
	"time"

	"tallyhook/internal/event"
)

// sendgridAge is how old a signature may be. SendGrid tries again over a
// rolling 24 hours, and whether a retry is signed anew is not documented: a
// shorter window could refuse what an outage of ours has held up. What is
// replayed within it is a duplicate by its sg_event_id.
const (
	sendgridAge   = 25 * time.Hour
	sendgridAhead = 5 * time.Minute
)

// sendgrid posts an array of events
// (https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event).
//
// Authentication: "X-Twilio-Email-Event-Webhook-Signature" is base64 ECDSA
// (P-256, SHA-256, ASN.1) over the bytes of
// "X-Twilio-Email-Event-Webhook-Timestamp" and the raw body, which ends in CRLF.
// The source's secret is the verification key that SendGrid shows: base64 of
// the public key (DER, SPKI). Bearer tokens of its OAuth alternative change, and
// are not supported.
//
// Retries (same pages): anything but 2xx, for up to 24 hours. Duplicates are
// normal, also of what was answered 200.
//
// Identity: sg_event_id, with the type: samples in public test suites reuse one
// for two events. Without it, the fields.
//
// Message: "sg_message_id" up to ".filter" or ".recvd" is the X-Message-Id that
// the sender of a mail got. It has no such start on what was dropped before it
// was sent, and is absent on asynchronous bounces: then the local part of
// "smtp-id". Custom arguments are members of the event; "anymail_id" is the
// message id of senders that use django-anymail, who know no other.
//
// A bounce is permanent by SendGrid's definition, except of type "blocked"
// (the receiving server's refusal of the moment) and "expired".
func sendgrid() *Provider {
	return &Provider{
		Name:   "sendgrid",
		Number: 5,
		Title:  "SendGrid",
		Scheme: "X-Twilio-Email-Event-Webhook-Signature: ECDSA P-256 of time and body, 25 hours",
		Events: []string{
			"processed", "delivered", "deferred", "bounce", "dropped", "open", "click", "spamreport", "unsubscribe",
			"group_unsubscribe", "group_resubscribe",
		},
		Setup: "In SendGrid open Settings, Mail Settings, Event Webhooks, Create new webhook, paste the source's URL, choose all " +
			"deliverability and engagement events, and switch Signed Event Webhook on. Save, open it again and give the source " +
			"the verification key as its secret. Send with custom_args {\"enrollment_id\": ...} to tie events without doubt.",
		Tells:       []string{tellsTags, tellsCampaigns},
		CheckSecret: checkSendgridSecret,
		Verify:      verifySendgrid,
		Decode:      decodeSendgrid,
		Sample:      sampleSendgrid,
	}
}

func checkSendgridSecret(secret string) error {
	switch {
	case len(secret) > maxSecret:
		return errors.New("is too long for a verification key")
	case sendgridKey(secret) == nil:
		return errors.New("is not a verification key: base64 of an ECDSA public key (P-256), as SendGrid shows it")
	}
	return nil
}

// sendgridKey reads a verification key, with or without the frame of PEM; nil
// when it is none.
func sendgridKey(secret string) *ecdsa.PublicKey {
	secret = strings.ReplaceAll(secret, "-----BEGIN PUBLIC KEY-----", "")
	secret = strings.ReplaceAll(secret, "-----END PUBLIC KEY-----", "")
	der, err := decodeBase64(strings.Join(strings.Fields(secret), ""))
	if err != nil {
		return nil
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil
	}
	public, ok := key.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil
	}
	return public
}

func verifySendgrid(now time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	var keys []*ecdsa.PublicKey
	for _, secret := range cfg.Secrets {
		if key := sendgridKey(secret); key != nil {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return ErrNoSecret
	}
	timestamp := req.header("X-Twilio-Email-Event-Webhook-Timestamp")
	header := strings.TrimSpace(req.header("X-Twilio-Email-Event-Webhook-Signature"))
	if timestamp == "" || header == "" {
		return ErrMissing
	}
	at, err := strconv.ParseUint(timestamp, 10, 40) // 40 bits: no overflow below, until the year 36812
	if err != nil {
		return ErrMalformed
	}
	signature, err := decodeBase64(header)
	if err != nil || len(signature) == 0 {
		return ErrMalformed
	}
	age := now.Unix() - int64(at)
	if age > int64(sendgridAge/time.Second) || age < -int64(sendgridAhead/time.Second) {
		return ErrExpired
	}
	h := sha256.New()
	h.Write([]byte(timestamp))
	h.Write(req.Body)
	sum := h.Sum(nil)
	for _, key := range keys {
		if ecdsa.VerifyASN1(key, sum, signature) {
			return nil
		}
	}
	return ErrMismatch
}

func sampleSendgrid(s Sampling) Sample {
	return Sample{
		Body:     s.fill("[{\"event\":\"open\",\"email\":\"$TO\",\"timestamp\":$UNIX,\"sg_event_id\":\"$ID\",\"sg_message_id\":\"$ID.filter1.2\"}]\r\n"),
		Unsigned: "the source has SendGrid's public key, and only SendGrid can sign; use Test Your Integration on its page of event webhooks",
	}
}

func decodeSendgrid(req Request) ([]event.Event, error) {
	items, err := readItems(req.Body)
	if err != nil {
		return nil, err
	}
	return decodeEach("sendgrid", items, sendgridEvent)
}

func sendgridEvent(e *event.Event, o object) error {
	e.Kind = o.text("event")
	kind := strings.ToLower(e.Kind) // some of SendGrid's own samples say "Processed"
	e.Type = sendgridType(kind)
	e.ProviderEventID = o.text("sg_event_id")
	e.ProviderMessageID = sendgridMessage(o)
	e.Email = bareAddress(o.text("email"))
	e.Campaign = o.text("singlesend_id", "marketing_campaign_id")
	e.Tags = texts(o["category"])
	switch e.Type {
	case event.Bounced:
		e.Bounce = sendgridBounce(o)
	case event.Clicked:
		e.URL = o.text("url")
	case event.Opened:
		if machine, told := o.flag("sg_machine_open"); told {
			e.Machine = event.MachineNo
			if machine {
				e.Machine = event.MachineYes
			}
		}
	default: // nothing more to tell
	}
	e.EnrollmentID = event.PassedBack(e.Payload) // custom arguments come as members of the event
	e.StepNumber = stepOf(e.Payload)
	if e.EnrollmentID == "" {
		e.EnrollmentID = taggedID(o["category"])
	}
	at := firstTold(o["timestamp"])
	if e.ProviderEventID == "" {
		e.IdentityParts = []string{
			"sendgrid", kind, e.ProviderMessageID, o.text("smtp-id"), event.NormalAddress(e.Email), timeText(at), e.URL,
			o.text("type"), o.text("attempt"), o.text("asm_group_id"), o.text("ip"), o.text("useragent"), o.text("url"),
		}
	}
	return setTime(e, at)
}

func sendgridType(kind string) event.Type {
	switch kind {
	case "processed":
		return event.Queued
	case "delivered":
		return event.Delivered
	case "deferred":
		return event.Deferred
	case "bounce":
		return event.Bounced
	case "dropped":
		return event.Dropped
	case "open":
		return event.Opened
	case "click":
		return event.Clicked
	case "spamreport":
		return event.Complained
	case "unsubscribe", "group_unsubscribe":
		return event.Unsubscribed
	case "group_resubscribe":
		return event.Resubscribed
	}
	return "" // the account's own state, or new
}

func sendgridBounce(o object) event.Bounce {
	switch strings.ToLower(o.text("type")) {
	case "bounce":
		return event.Hard
	case "": // an older form: a status of the class 4 is the receiving server's "not now"
		if !strings.HasPrefix(o.text("status"), "4") {
			return event.Hard
		}
	}
	return event.Soft
}

func sendgridMessage(o object) string {
	if id := o.text("anymail_id"); id != "" {
		return id
	}
	id := o.text("sg_message_id")
	for _, mark := range []string{"filter", "recvd"} {
		if strings.HasPrefix(id, mark) && strings.Contains(id, ".") { // dropped before it was sent
			id = ""
		}
		id, _, _ = strings.Cut(id, "."+mark)
	}
	if id == "" {
		id, _, _ = strings.Cut(event.NormalID(o.text("smtp-id")), "@")
	}
	return id
}
