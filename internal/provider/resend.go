package provider

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// resend posts one object for each request (https://resend.com/docs/webhooks/introduction).
//
// Authentication: Standard Webhooks under Svix's header names: svix-id,
// svix-timestamp, svix-signature, with the webhook's signing secret (whsec_...),
// 5 minutes both ways. webhook-* is understood too.
//
// Retries (same pages): anything but 2xx, after 5 seconds, 5 and 30 minutes, 2,
// 5 and twice 10 hours; an endpoint that fails for days is disabled. A retry
// keeps svix-id and is signed with a new time.
//
// Identity: svix-id, which is signed and in no body, with the type. A body read
// again from the dead letters has it too: it is kept with it.
//
// Recipient: a mail to several has one email_id and one event for each of them,
// which does not say whose it is. Then the recipient is left out and the event
// is the message's.
//
// Bounces: without a type (as they were before Resend told it) they are the
// permanent ones, the only ones that were told then.
func resend() *Provider {
	return &Provider{
		Name:   "resend",
		Number: 8,
		Title:  "Resend",
		Scheme: "Standard Webhooks (svix-id, svix-timestamp, svix-signature): HMAC-SHA256, 5 minutes",
		Events: []string{
			"email.scheduled", "email.sent", "email.delivered", "email.delivery_delayed", "email.bounced", "email.complained",
			"email.opened", "email.clicked", "email.failed", "email.suppressed",
		},
		Setup: "In Resend open Webhooks, Add webhook, paste the source's URL and choose all events of emails. Give the source the " +
			"signing secret (whsec_...) that the webhook's page shows. Send with tags [{\"name\": \"enrollment_id\", \"value\": ...}] " +
			"to tie events without doubt.",
		Tells:       []string{tellsTags, tellsCampaigns},
		CheckSecret: checkStandardSecret,
		Verify:      verifyGeneric,
		Decode:      decodeResend,
		Sample:      sampleResend,
	}
}

func sampleResend(s Sampling) Sample {
	return s.standard("svix", s.fill(`{"type":"email.opened","created_at":"$AT","data":{"email_id":"$ID","to":["$TO"]}}`))
}

func decodeResend(req Request) ([]event.Event, error) {
	items, err := readItems(req.Body)
	if err != nil {
		return nil, err
	}
	id := SignedID(req)
	if len(items) != 1 { // one id cannot be that of several
		id = ""
	}
	return decodeEach("resend", items, func(e *event.Event, o object) error { return resendEvent(e, o, id) })
}

func resendEvent(e *event.Event, o object, id string) error {
	data := memberObject(o, "data")
	bounce, click := memberObject(data, "bounce"), memberObject(data, "click")
	e.Kind = o.text("type")
	e.Type = resendType(e.Kind)
	e.ProviderEventID = id
	e.ProviderMessageID = data.text("email_id")
	e.Campaign = data.text("broadcast_id")
	if len(texts(data["cc"])) == 0 && len(texts(data["bcc"])) == 0 {
		e.Email = soleOf(texts(data["to"]))
	}
	switch e.Type {
	case event.Bounced:
		e.Bounce = event.Soft // Transient, Undetermined
		if kind := bounce.text("type"); kind == "" || strings.EqualFold(kind, "permanent") {
			e.Bounce = event.Hard
		}
	case event.Clicked:
		e.URL = click.text("link")
	default: // nothing more to tell
	}
	tags := resendTags(data["tags"])
	if err := setMetadata(e, tags); err != nil {
		return err
	}
	e.Tags = namedTags(textFields(tags))
	at := firstTold(o["created_at"])
	if id == "" {
		e.IdentityParts = []string{
			"resend", e.Kind, e.ProviderMessageID, strings.ToLower(strings.Join(texts(data["to"]), "\n")), timeText(at), e.URL, e.Campaign,
			data.text("id"), click.text("timestamp"), click.text("ipAddress"), bounce.text("message"),
		}
	}
	return setTime(e, at)
}

func resendType(kind string) event.Type {
	switch kind {
	case "email.scheduled":
		return event.Queued
	case "email.sent":
		return event.Sent
	case "email.delivered":
		return event.Delivered
	case "email.delivery_delayed":
		return event.Deferred
	case "email.bounced":
		return event.Bounced
	case "email.complained":
		return event.Complained
	case "email.opened":
		return event.Opened
	case "email.clicked":
		return event.Clicked
	case "email.failed":
		return event.Failed
	case "email.suppressed":
		return event.Dropped
	}
	return "" // mail to us, contacts, domains, or new
}

// resendTags reads a mail's tags as an object: they come as one, or as the
// list of names and values that they were sent as.
func resendTags(v jsontext.Value) jsontext.Value {
	switch v.Kind() {
	case '{':
		return object{"": v}.nested("")
	case '[':
		return pairsObject(v, "name", "value")
	default: // no tags
	}
	return nil
}
