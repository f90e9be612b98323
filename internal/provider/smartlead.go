package provider

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// smartlead posts one object for each request, in one of three shapes that its
// own documents show: the help centre's (event_type, event_timestamp and
// sent_message, reply_message), the API reference's flat one (time_sent and
// its like), and the core page's (event, timestamp, nested lead, email, reply).
// All three are read, and a field of one is taken in the others too.
//
// Authentication: there is no signature and no header, so the URL's token is
// the secret. Every body repeats the hook's "secret_key" (help.smartlead.ai):
// a source that has a secret requires it. The test button sends the literal
// "secretkey" (third-party report) and is then refused. Bodies also repeat
// "webhook_url", which holds the source's token: both are masked.
//
// Retries (third-party reports, not in Smartlead's documents): 5, every 300
// seconds, on anything but 2xx. Its timeout is unknown. A hook at the level of
// the user silences those of a client or a campaign.
//
// Identity: "event_id" where newer bodies have one. Else the fields: "stats_id"
// is one for each sent mail and not for each event, so it alone would fold all
// opens, clicks and answers of a mail into one.
//
// Address: "sl_lead_email" is the lead. "to_email" is the lead too, except in
// answers, where it may be an alias or our own mailbox. Real bounces name the
// lead in the text of "description" only.
func smartlead() *Provider {
	return &Provider{
		Name:   "smartlead",
		Number: 10,
		Title:  "Smartlead",
		Scheme: "the URL's token; optionally the hook's secret_key, repeated in each body",
		Events: []string{
			"EMAIL_SENT", "FIRST_EMAIL_SENT", "EMAIL_OPEN", "EMAIL_OPENED", "EMAIL_LINK_CLICK", "EMAIL_CLICKED",
			"EMAIL_REPLY", "EMAIL_REPLIED", "EMAIL_BOUNCE", "EMAIL_BOUNCED", "LEAD_UNSUBSCRIBED", "EMAIL_UNSUBSCRIBED",
		},
		Setup: "In Smartlead open Settings, Webhooks, Add webhook (or POST /api/v1/webhook/create), paste the source's URL and choose " +
			"email sent, opened, link clicked, replied, bounced and lead unsubscribed; leave out \"first email sent\", which repeats " +
			"email sent. Copy secret_key out of a first event and give it to the source as its secret. Map the campaign's number to " +
			"an instance under provider_campaigns.",
		Tells:       []string{tellsCampaigns},
		CheckSecret: checkLemlistSecret, // any text
		Verify:      verifySmartlead,
		Decode:      decodeSmartlead,
		Sample:      sampleSmartlead,
		Mask:        maskSmartlead,
	}
}

func maskSmartlead(body []byte) []byte { return maskMembers(body, "secret_key", "webhook_url") }

func verifySmartlead(_ time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	if len(cfg.Secrets) == 0 {
		return nil
	}
	if !hasSecret(cfg.Secrets) {
		return ErrNoSecret
	}
	items, err := readItems(req.Body)
	if err != nil {
		return ErrMalformed
	}
	if len(items) == 0 {
		return ErrMissing
	}
	for _, item := range items {
		o, err := readObject(item)
		if err != nil {
			return ErrMalformed
		}
		switch got := o.text("secret_key"); {
		case got == "":
			return ErrMissing
		case !anySecret(cfg.Secrets, got):
			return ErrMismatch
		}
	}
	return nil
}

func sampleSmartlead(s Sampling) Sample {
	body := s.fill(`{"event_type":"EMAIL_OPEN","event_timestamp":"$AT","stats_id":"$ID","sl_lead_email":"$TO"`)
	if s.secret() != "" {
		body = append(body, `,"secret_key":`+quoted(s.secret())...)
	}
	return Sample{Body: append(body, '}')}
}

func decodeSmartlead(req Request) ([]event.Event, error) {
	items, err := readItems(req.Body)
	if err != nil {
		return nil, err
	}
	return decodeEach("smartlead", items, smartleadEvent)
}

func smartleadEvent(e *event.Event, o object) error {
	e.Kind = o.text("event_type", "event")
	e.Type = smartleadType(e.Kind)
	e.ProviderEventID = o.text("event_id")
	e.ProviderMessageID = smartleadMessage(e.Type, o)
	e.LeadID = o.text("sl_email_lead_id", "lead_id")
	e.Email = smartleadAddress(e.Type, o)
	e.Campaign = o.text("campaign_id")
	e.StepNumber = stepNumber(o.text("sequence_number"))
	switch e.Type {
	case event.Bounced:
		// Hard is never guessed, and a bounce that the sender's own side made says nothing about the address.
		e.Bounce = event.Soft
		if own, _ := o.flag("is_sender_originated_bounce"); !own && strings.EqualFold(o.text("bounce_type"), "hard") {
			e.Bounce = event.Hard
		}
	case event.Clicked:
		e.URL = smartleadLink(o)
	default: // nothing more to tell
	}
	// A lead's custom fields, and members of the body itself.
	lead, data := memberObject(o, "lead"), memberObject(o, "lead_data")
	for _, fields := range [][]byte{o.nested("custom_fields"), lead.nested("custom_fields"), data.nested("custom_fields"), e.Payload} {
		if e.EnrollmentID == "" {
			e.EnrollmentID = event.PassedBack(fields)
		}
	}
	at := smartleadTime(e.Type, o)
	if err := setTime(e, at); err != nil {
		return err
	}
	if e.ProviderEventID == "" {
		kind := string(e.Type) // EMAIL_OPEN and EMAIL_OPENED are one thing under two names
		if kind == "" {
			kind = e.Kind
		}
		e.IdentityParts = []string{
			"smartlead", kind, o.text("stats_id"), string(at), e.ProviderMessageID, o.text("message_id"),
			memberObject(o, "reply_message").text("message_id"), memberObject(o, "bounce_message").text("message_id"),
			e.Campaign, e.LeadID, o.text("sl_email_lead_map_id"), event.NormalAddress(e.Email), o.text("sequence_number"),
			e.URL, o.text("open_count", "opened_count"), o.text("click_count"), memberObject(o, "lead_category").text("new_id"),
			o.text("campaign_status"),
		}
	}
	e.Payload = maskSmartlead(e.Payload)
	return nil
}

// smartleadType maps an event of any of the shapes; "" is one that is not
// about a mail to a lead (LEAD_CATEGORY_UPDATED, CAMPAIGN_STATUS_CHANGED,
// UNTRACKED_REPLIES, MANUAL_STEP_REACHED), or is new.
func smartleadType(kind string) event.Type {
	switch kind {
	case "EMAIL_SENT", "FIRST_EMAIL_SENT":
		return event.Sent
	case "EMAIL_OPEN", "EMAIL_OPENED":
		return event.Opened
	case "EMAIL_LINK_CLICK", "EMAIL_CLICKED":
		return event.Clicked
	case "EMAIL_REPLY", "EMAIL_REPLIED":
		return event.Replied
	case "EMAIL_BOUNCE", "EMAIL_BOUNCED":
		return event.Bounced
	case "LEAD_UNSUBSCRIBED", "EMAIL_UNSUBSCRIBED":
		return event.Unsubscribed
	}
	return ""
}

// smartleadMessage is the id of our mail. An answer's own "message_id" is that
// of the answer.
func smartleadMessage(t event.Type, o object) string {
	id := memberObject(o, "sent_message").text("message_id")
	if id == "" {
		id = memberObject(o, "email").text("message_id")
	}
	if id == "" && t != event.Replied {
		id = o.text("message_id")
	}
	return event.NormalID(id)
}

func smartleadAddress(t event.Type, o object) string {
	for _, address := range []string{
		o.text("sl_lead_email"),
		memberObject(o, "lead").text("email"),
		memberObject(o, "lead_data").text("email"),
		o.text("lead_email"),
		memberObject(o, "leadCorrespondence").text("targetLeadEmail"),
	} {
		if address = bareAddress(address); address != "" {
			return address
		}
	}
	address := bareAddress(o.text("to_email", "email", "to"))
	if t == event.Replied && event.NormalAddress(address) == event.NormalAddress(o.text("from_email")) {
		return "" // our own mailbox
	}
	if address == "" && t == event.Bounced {
		_, rest, _ := strings.Cut(o.text("description"), " sent to ")
		if to, _, ok := strings.Cut(rest, " got bounced"); ok && event.ValidAddress(to) {
			return strings.TrimSpace(to)
		}
	}
	return address
}

// smartleadTime is the time of the event itself: that of the mail is no
// substitute.
func smartleadTime(t event.Type, o object) jsontext.Value {
	told := []jsontext.Value{o["event_timestamp"], o["timestamp"]}
	switch t {
	case event.Sent:
		told = append(told, o["time_sent"], memberObject(o, "sent_message")["time"])
	case event.Opened:
		told = append(told, o["time_opened"])
	case event.Clicked:
		told = append(told, o["time_clicked"], memberObject(o, "link")["clicked_at"])
	case event.Replied:
		told = append(told, o["time_replied"], memberObject(o, "reply_message")["time"], memberObject(o, "reply")["received_at"])
	case event.Bounced:
		told = append(told, o["time_bounced"], memberObject(o, "bounce_message")["time"])
	case event.Unsubscribed:
		told = append(told, o["time_unsubscribed"])
	default: // no field of its own
	}
	return firstTold(told...)
}

// smartleadLink reads what was clicked: text, or a list or an object of it.
// The shape of link_details is not documented.
func smartleadLink(o object) string {
	for _, name := range []string{"clicked_url", "link_clicked", "link_details", "link", "links"} {
		if link := linkIn(o[name]); link != "" {
			return link
		}
	}
	return ""
}

func linkIn(v jsontext.Value) string {
	if event.IsArray(v) {
		items, err := readItems(v)
		if err != nil || len(items) == 0 {
			return ""
		}
		v = items[0]
	}
	if o, err := readObject(v); err == nil {
		return o.text("url", "link", "link_url", "clicked_url", "href")
	}
	return object{"": v}.text("")
}

// decodeEach reads the items of a body whose vendor tells one event in one
// object. One bad item fails the body: the sender got a 200 and will not send
// it again, so the whole is kept as a dead letter.
func decodeEach(name string, items []jsontext.Value, one func(e *event.Event, o object) error) ([]event.Event, error) {
	events := make([]event.Event, 0, len(items))
	for i, item := range items {
		o, err := readObject(item)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", i, err)
		}
		e := event.Event{Provider: name, Channel: event.Email, Payload: item}
		if err := one(&e, o); err != nil {
			return nil, fmt.Errorf("event %d: %w", i, err)
		}
		if e.Kind == "" {
			return nil, fmt.Errorf("event %d: %w", i, errNoKind)
		}
		e.Control = e.Type == ""
		if err := e.Check(); err != nil {
			return nil, fmt.Errorf("event %d: %.80q: %w", i, e.Kind, err)
		}
		events = append(events, e)
	}
	return events, nil
}

var errNoKind = errors.New("does not say what happened")

// memberObject gives a member that is an object; nil, which reads as empty,
// when it is none.
func memberObject(o object, name string) object {
	m, err := readObject(o[name])
	if err != nil {
		return nil
	}
	return m
}

// firstTold gives the first value that is neither absent, null nor "".
func firstTold(values ...jsontext.Value) jsontext.Value {
	for _, v := range values {
		if k := v.Kind(); k != 0 && k != 'n' && string(v) != `""` {
			return v
		}
	}
	return nil
}
