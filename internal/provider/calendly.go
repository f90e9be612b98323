package provider

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"tallyhook/internal/event"
)

// calendlyTolerance is how far the signed time may be from ours, both ways
// (https://developer.calendly.com/api-docs/overview/webhooks/webhook-signatures).
const calendlyTolerance = 3 * time.Minute

// calendly posts one object for each request.
//
// Authentication: "Calendly-Webhook-Signature: t=...,v1=..." is hex HMAC-SHA256
// over "t.body" with the signing key that the subscription was made with. Without
// a key Calendly signs nothing, so a source always has one.
//
// Retries (https://developer.calendly.com/api-docs/overview/webhooks/webhook-errors):
// for 24 hours with growing delays, on anything but 2xx; then the subscription is
// disabled and has to be made again. Whether a retry is signed anew is not
// documented.
//
// Identity: the invitee's "uri" with what happened to it. A meeting that is moved
// is told as a cancellation and a new booking under another uri.
func calendly() *Provider {
	return &Provider{
		Name:   "calendly",
		Number: 14,
		Title:  "Calendly",
		Scheme: "Calendly-Webhook-Signature: hex HMAC-SHA256 of t.body, 3 minutes",
		Events: []string{"invitee.created"},
		Setup: "POST https://api.calendly.com/webhook_subscriptions with the source's URL, events [\"invitee.created\", " +
			"\"invitee.canceled\"] and the source's secret as signing_key. End scheduling links with ?utm_content= and the " +
			"enrollment's id to tie a booking without doubt.",
		Tells:       []string{tellsCampaigns},
		MakeSecret:  makeHexSecret,
		CheckSecret: checkLemlistSecret, // any text
		Verify:      verifyCalendly,
		Decode:      decodeCalendly,
		Sample:      sampleCalendly,
	}
}

func makeHexSecret() (string, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return "", fmt.Errorf("make secret: %w", err)
	}
	return hex.EncodeToString(key), nil
}

func verifyCalendly(now time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	if !hasSecret(cfg.Secrets) {
		return ErrNoSecret
	}
	header := req.header("Calendly-Webhook-Signature")
	if header == "" {
		return ErrMissing
	}
	timestamp := ""
	var signatures []string
	for i, part := range strings.Split(header, ",") {
		if i == maxSignatures {
			break
		}
		switch name, value, _ := strings.Cut(strings.TrimSpace(part), "="); name {
		case "t":
			timestamp = value
		case "v1":
			signatures = append(signatures, value)
		}
	}
	at, err := strconv.ParseUint(timestamp, 10, 40)
	if err != nil || len(signatures) == 0 {
		return ErrMalformed
	}
	age := now.Unix() - int64(at)
	if tolerance := int64(calendlyTolerance / time.Second); age > tolerance || age < -tolerance {
		return ErrExpired
	}
	result := ErrMalformed
	for _, s := range signatures {
		switch err := verifyHexHMAC(cfg.Secrets, s, []byte(timestamp), []byte{'.'}, req.Body); err {
		case nil:
			return nil
		case ErrMismatch: //nolint:errorlint // verifyHexHMAC wraps nothing
			result = err
		}
	}
	return result
}

func sampleCalendly(s Sampling) Sample {
	body := s.fill(`{"event":"invitee.created","created_at":"$AT","payload":{"uri":"https://api.calendly.com/scheduled_events/$ID/invitees/$ID","email":"$TO"}}`)
	return s.signed(body, "Calendly-Webhook-Signature", "t="+s.unix()+",v1="+s.hexMAC(s.unix(), ".", string(body)))
}

func decodeCalendly(req Request) ([]event.Event, error) {
	items, err := readItems(req.Body)
	if err != nil {
		return nil, err
	}
	return decodeEach("calendly", items, calendlyEvent)
}

func calendlyEvent(e *event.Event, o object) error {
	payload := memberObject(o, "payload")
	meeting, tracking := memberObject(payload, "scheduled_event"), memberObject(payload, "tracking")
	e.Kind = o.text("event")
	e.Channel = event.Meeting
	if e.Kind == "invitee.created" {
		e.Type = event.MeetingBooked
	}
	e.ProviderEventID = payload.text("uri")
	e.ActionID = meeting.text("uri")
	e.Campaign = meeting.text("event_type")
	e.Email = bareAddress(payload.text("email"))
	e.EnrollmentID = event.PassedBack(payload.nested("tracking"))
	if e.EnrollmentID == "" {
		e.EnrollmentID = ownID(tracking.text("utm_content"))
	}
	at := firstTold(o["created_at"], payload["created_at"])
	if e.ProviderEventID == "" {
		e.IdentityParts = []string{
			"calendly", e.Kind, event.NormalAddress(e.Email), e.ActionID, timeText(at), meeting.text("start_time"),
		}
	}
	return setTime(e, at)
}
