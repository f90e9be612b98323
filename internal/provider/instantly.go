package provider

import (
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// instantly posts one object for each request
// (https://developer.instantly.ai/webhook-events).
//
// Authentication: there is no signature. A webhook can carry static headers of
// one's own ("headers" on the webhook object): they are required with the
// settings, and a source's secret is required as the header Authorization,
// bare or after "Bearer", and rotates with a grace time. Third-party pages that
// tell of HMAC or x-api-key are wrong.
//
// Retries (third-party report, not verified): 3 within 30 seconds, and the
// webhook is disabled after repeated failures. So what is lost in an outage has
// to be read from Instantly's own list of webhook events.
//
// Identity: there is no event id, and email_id is the mail's. The fields, with
// the lead's address folded: its case varies between events.
//
// The states of a lead (lead_interested, lead_meeting_booked, ...) and custom
// labels are somebody's judgement of an answer that is told by itself as
// reply_received: they are kept as control events.
func instantly() *Provider {
	return &Provider{
		Name:   "instantly",
		Number: 11,
		Title:  "Instantly",
		Scheme: "the URL's token; optionally static headers",
		Events: []string{
			"email_sent", "email_opened", "email_link_clicked", "link_clicked", "reply_received", "auto_reply_received",
			"email_bounced", "lead_unsubscribed",
		},
		Setup: "In Instantly open Settings, Integrations, Webhooks, Add webhook (or POST https://api.instantly.ai/api/v2/webhooks), paste the " +
			"source's URL and choose all events. By the API, add a header Authorization: Bearer and a random text, and give " +
			"the source that text as its secret. Map the campaign's id to an instance under provider_campaigns.",
		Tells:       []string{tellsCampaigns},
		CheckSecret: checkLemlistSecret, // any text
		Verify:      verifyInstantly,
		Decode:      decodeInstantly,
		Sample:      sampleInstantly,
	}
}

func verifyInstantly(_ time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	if len(cfg.Secrets) == 0 {
		return nil
	}
	if !hasSecret(cfg.Secrets) {
		return ErrNoSecret
	}
	got := strings.TrimSpace(req.header("Authorization"))
	if scheme, rest, ok := strings.Cut(got, " "); ok && strings.EqualFold(scheme, "Bearer") {
		got = strings.TrimSpace(rest)
	}
	switch {
	case got == "":
		return ErrMissing
	case !anySecret(cfg.Secrets, got):
		return ErrMismatch
	}
	return nil
}

func sampleInstantly(s Sampling) Sample {
	out := Sample{Body: s.fill(`{"event_type":"email_opened","timestamp":"$AT","workspace":"$ID","email_id":"$ID","lead_email":"$TO"}`)}
	if s.secret() != "" {
		out.Header = map[string]string{"Authorization": "Bearer " + s.secret()}
	}
	return out
}

func decodeInstantly(req Request) ([]event.Event, error) {
	items, err := readItems(req.Body)
	if err != nil {
		return nil, err
	}
	return decodeEach("instantly", items, instantlyEvent)
}

func instantlyEvent(e *event.Event, o object) error {
	e.Kind = o.text("event_type")
	e.Type = instantlyType(e.Kind)
	e.Email = event.NormalAddress(o.text("lead_email")) // email_account is our own side and never the recipient
	e.ProviderMessageID = o.text("email_id")
	e.Campaign = o.text("campaign_id")
	e.StepNumber = stepNumber(o.text("step"))
	e.EnrollmentID = event.PassedBack(e.Payload) // a lead's own fields come as members of the event
	if e.Type == event.Bounced {
		e.Bounce = event.Soft // the documents tell no hardness
		if strings.EqualFold(o.text("bounce_type"), "hard") {
			e.Bounce = event.Hard
		}
	}
	if e.Type == event.Clicked {
		e.URL = o.text("link_url", "link")
	}
	at := firstTold(o["timestamp"])
	e.IdentityParts = []string{
		"instantly", instantlyKind(e.Kind), o.text("workspace"), e.Campaign, e.Email, o.text("email_account"),
		o.text("step"), o.text("variant"), timeText(at), e.ProviderMessageID, e.URL,
	}
	return setTime(e, at)
}

// instantlyKind makes the two names that the documents have for a click one.
func instantlyKind(kind string) string {
	if kind == "link_clicked" {
		return "email_link_clicked"
	}
	return kind
}

func instantlyType(kind string) event.Type {
	switch instantlyKind(kind) {
	case "email_sent":
		return event.Sent
	case "email_opened":
		return event.Opened
	case "email_link_clicked":
		return event.Clicked
	case "reply_received":
		return event.Replied
	case "auto_reply_received":
		return event.Autoresponded
	case "email_bounced":
		return event.Bounced
	case "lead_unsubscribed":
		return event.Unsubscribed
	}
	return ""
}

// timeText is a time as it was sent, in full precision, for an identity.
func timeText(v jsontext.Value) string { return object{"": v}.text("") }
