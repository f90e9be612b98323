package provider

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// mailjet posts one object, or an array of them where events are grouped
// (https://dev.mailjet.com/email/guides/webhooks/).
//
// Authentication: Mailjet signs nothing; its documents ask for Basic credentials
// in the URL. A source's secret of the form user:password is required as them.
//
// Retries (https://documentation.mailjet.com/hc/en-us/articles/360043578154):
// anything but 200 is tried again every 30 seconds for 24 hours, unless there is
// a newer event; an older translation of the same page says 10 times, every 10
// minutes.
//
// Identity: there is no event id. MessageID is above 2^53 and stays the digits
// it was sent as; "0" stands for none, as in the other ids.
//
// "sent" is the receiving server's acceptance, so delivered.
func mailjet() *Provider {
	return &Provider{
		Name:   "mailjet",
		Number: 16,
		Title:  "Mailjet",
		Scheme: "the URL's token; optionally Basic credentials",
		Events: []string{"sent", "open", "click", "bounce", "blocked", "spam", "unsub"},
		Setup: "In Mailjet open Account settings, Event notifications (webhooks), and paste the source's URL for each event. If the " +
			"source has a secret user:password, write it into the URL: https://user:password@... Send with CustomID set to the " +
			"enrollment's id, or EventPayload to {\"enrollment_id\": ...}, to tie events without doubt.",
		Tells:       []string{tellsCampaigns},
		CheckSecret: checkUserPassword,
		Verify:      verifyPostmark, // Basic credentials
		Decode:      decodeMailjet,
		Sample:      sampleMailjet,
	}
}

func sampleMailjet(s Sampling) Sample {
	return s.authorized(s.fill(`{"event":"open","time":$UNIX,"MessageID":$N,"Message_GUID":"$ID","email":"$TO"}`))
}

func decodeMailjet(req Request) ([]event.Event, error) {
	items, err := readItems(req.Body)
	if err != nil {
		return nil, err
	}
	return decodeEach("mailjet", items, mailjetEvent)
}

func mailjetEvent(e *event.Event, o object) error {
	e.Kind = o.text("event")
	e.ProviderMessageID = mailjetID(o, "MessageID")
	e.LeadID = mailjetID(o, "mj_contact_id")
	e.Campaign = mailjetID(o, "customcampaign", "mj_campaign_id")
	e.Email = bareAddress(o.text("email"))
	switch e.Kind {
	case "sent":
		e.Type = event.Delivered
	case "open":
		e.Type = event.Opened
	case "click":
		e.Type = event.Clicked
		e.URL = o.text("url")
	case "bounce":
		hard, _ := o.flag("hard_bounce")
		switch {
		case hard:
			e.Type, e.Bounce = event.Bounced, event.Hard
		case o.text("error") == "greylisted": // Mailjet tries again
			e.Type = event.Deferred
		default:
			e.Type, e.Bounce = event.Bounced, event.Soft
		}
	case "blocked": // not sent at all
		e.Type = event.Dropped
	case "spam":
		e.Type = event.Complained
	case "unsub":
		e.Type = event.Unsubscribed
	}
	if err := mailjetCustom(e, o); err != nil {
		return err
	}
	at := firstTold(o["time"])
	e.IdentityParts = []string{
		"mailjet", e.Kind, e.ProviderMessageID, o.text("Message_GUID"), event.NormalAddress(e.Email), timeText(at), e.URL,
		o.text("ip"), o.text("agent"), o.text("mj_contact_id"), o.text("mj_list_id"), o.text("source"),
	}
	return setTime(e, at)
}

// mailjetID reads the first id that is one: 0 and "" stand for none.
func mailjetID(o object, names ...string) string {
	for _, name := range names {
		if id := o.text(name); id != "0" && id != "" {
			return id
		}
	}
	return ""
}

// mailjetCustom reads what the sender gave the mail: CustomID is a text,
// Payload a text that may hold JSON.
func mailjetCustom(e *event.Event, o object) error {
	payload := jsontext.Value(strings.TrimSpace(o.text("Payload")))
	if custom, err := readObject(payload); err == nil && len(custom) > 0 {
		if err := setMetadata(e, payload); err != nil {
			return err
		}
	}
	for _, s := range []string{o.text("CustomID"), string(payload)} {
		if e.EnrollmentID == "" {
			e.EnrollmentID = ownID(s)
		}
	}
	return nil
}
