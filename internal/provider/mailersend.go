package provider

import (
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// mailersend posts one object for each request: an activity of one mail to one
// recipient (https://developers.mailersend.com/api/v1/webhooks.html).
//
// Authentication: "Signature" is hex HMAC-SHA256 with the webhook's signing
// secret over the raw body; no time is signed. Bodies repeat the webhook's
// "url", which holds the source's token: it is masked.
//
// Retries are not documented beside this: 10 failures within 24 hours make it
// send a warning, 20 pause the webhook, until somebody enables it again (same
// page). So an outage of ours can silence it: compare with its activity log.
//
// Identity: the activity's id with its type. The first open and click are told
// once more as opened_unique and clicked_unique: a webhook should have one of
// each pair.
func mailersend() *Provider {
	return &Provider{
		Name:   "mailersend",
		Number: 15,
		Title:  "MailerSend",
		Scheme: "Signature: hex HMAC-SHA256 of the body",
		Events: []string{
			"activity.sent", "activity.delivered", "activity.deferred", "activity.soft_bounced", "activity.hard_bounced",
			"activity.opened", "activity.opened_unique", "activity.clicked", "activity.clicked_unique",
			"activity.unsubscribed", "activity.spam_complaint",
		},
		Setup: "In MailerSend open Domains, your domain, Webhooks, Create webhook, paste the source's URL and choose sent, delivered, " +
			"soft and hard bounced, opened, clicked, unsubscribed and spam complaint. Leave out \"opened unique\" and " +
			"\"clicked unique\", which repeat. Give the source the webhook's signing secret.",
		Tells:       []string{tellsTags},
		CheckSecret: checkLemlistSecret, // any text
		Verify:      verifyMailersend,
		Decode:      decodeMailersend,
		Sample:      sampleMailersend,
		Mask:        maskMailersend,
	}
}

func maskMailersend(body []byte) []byte { return maskMembers(body, "url") }

func verifyMailersend(_ time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	return verifyHexHMAC(cfg.Secrets, req.header("Signature"), req.Body)
}

func sampleMailersend(s Sampling) Sample {
	body := s.fill(`{"type":"activity.opened","created_at":"$AT","data":{"id":"$ID","email":{"message":{"id":"$ID"},"recipient":{"email":"$TO"}}}}`)
	return s.signed(body, "Signature", s.hexMAC(string(body)))
}

func decodeMailersend(req Request) ([]event.Event, error) {
	items, err := readItems(req.Body)
	if err != nil {
		return nil, err
	}
	return decodeEach("mailersend", items, mailersendEvent)
}

func mailersendEvent(e *event.Event, o object) error {
	data := memberObject(o, "data")
	email := memberObject(data, "email")
	e.Kind = o.text("type")
	e.Type, e.Bounce = mailersendType(e.Kind)
	e.ProviderEventID = data.text("id")
	e.ProviderMessageID = memberObject(email, "message").text("id")
	e.Email = bareAddress(memberObject(email, "recipient").text("email"))
	e.Tags = texts(email["tags"])
	e.EnrollmentID = taggedID(email["tags"])
	if e.Type == event.Clicked {
		e.URL = memberObject(data, "morph").text("url")
	}
	at := firstTold(o["created_at"], data["created_at"])
	if e.ProviderEventID == "" {
		e.IdentityParts = []string{
			"mailersend", string(e.Type), e.Kind, e.ProviderMessageID, event.NormalAddress(e.Email), timeText(at), e.URL,
			memberObject(data, "morph").text("id"), o.text("domain_id"),
		}
	}
	e.Payload = maskMailersend(e.Payload)
	return setTime(e, at)
}

func mailersendType(kind string) (event.Type, event.Bounce) {
	switch kind {
	case "activity.sent":
		return event.Sent, ""
	case "activity.delivered":
		return event.Delivered, ""
	case "activity.deferred":
		return event.Deferred, ""
	case "activity.soft_bounced":
		return event.Bounced, event.Soft
	case "activity.hard_bounced":
		return event.Bounced, event.Hard
	case "activity.opened", "activity.opened_unique":
		return event.Opened, ""
	case "activity.clicked", "activity.clicked_unique":
		return event.Clicked, ""
	case "activity.unsubscribed":
		return event.Unsubscribed, ""
	case "activity.spam_complaint":
		return event.Complained, ""
	}
	return "", "" // surveys, identities, maintenance, suppression lists, inbound mail
}

// taggedID finds our own enrollment id among a mail's tags, for vendors that
// pass back nothing else: "enrollment_id:<id>" or "enrollment_id=<id>".
func taggedID(tags jsontext.Value) string {
	list := []jsontext.Value{tags}
	if event.IsArray(tags) {
		var err error
		if list, err = readItems(tags); err != nil {
			return ""
		}
	}
	for _, v := range list {
		if id := ownTag(object{"": v}.text("")); id != "" {
			return id
		}
	}
	return ""
}

// ownTag reads one such tag.
func ownTag(tag string) string {
	tag = strings.TrimPrefix(strings.TrimSpace(tag), "tallyhook_")
	rest, ok := strings.CutPrefix(tag, "enrollment_id")
	if !ok || rest == "" || rest[0] != ':' && rest[0] != '=' {
		return ""
	}
	return ownID(strings.TrimSpace(rest[1:]))
}
