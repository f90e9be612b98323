package provider

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// mailgunTolerance is how far the signed time may be from ours, both ways. It
// is longer than the five minutes after which Mailgun first tries again, so
// that one retry is taken even if it were not signed anew.
const mailgunTolerance = 10 * time.Minute

// mailgun posts one object for each request, {"signature": ..., "event-data":
// ...} (https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhooks);
// its legacy webhooks post a form.
//
// Authentication: "signature" is hex HMAC-SHA256 with the account's webhook
// signing key over timestamp and token, and nothing else: the event is not
// signed. What protects it is TLS, and that a token belongs to the first event
// that came with it: see Nonce.
//
// Retries (same pages): anything but 200 after 5, 10 and 15 minutes, 1, 2 and 4
// hours, each signed anew; 406 stops them and is never answered. Delivered
// events are not tried again.
//
// Identity: "id" is unique within a day only, and samples of the test button
// share one among all kinds. So the id with its time, kind and recipient. Where
// there is no id (rejected, legacy) it is the token.
//
// A permanent failure whose reason begins with "suppress" was never tried: it
// is dropped and not a bounce.
func mailgun() *Provider {
	return &Provider{
		Name:   "mailgun",
		Number: 6,
		Title:  "Mailgun",
		Scheme: "signature in the body: hex HMAC-SHA256 of timestamp and token, 10 minutes",
		Events: []string{
			"accepted", "delivered", "failed", "opened", "clicked", "unsubscribed", "complained", "rejected", "bounced", "dropped",
		},
		Setup: "In Mailgun open Send, Sending, Webhooks, choose the domain, Add webhook, and paste the source's URL for each event " +
			"type. Give the source the HTTP webhook signing key (Settings, API security), which is not the API key. Send with " +
			"v:enrollment_id to tie events without doubt.",
		Tells:       []string{tellsTags, tellsCampaigns},
		Nested:      true,               // the legacy forms
		CheckSecret: checkLemlistSecret, // any text
		Verify:      verifyMailgun,
		Decode:      decodeMailgun,
		Sample:      sampleMailgun,
		Nonce:       nonceMailgun,
	}
}

func verifyMailgun(now time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	if !hasSecret(cfg.Secrets) {
		return ErrNoSecret
	}
	body, err := readMailgun(req)
	if err != nil {
		return ErrMalformed
	}
	if body.timestamp == "" || body.token == "" || body.signature == "" {
		return ErrMissing
	}
	at, err := strconv.ParseUint(body.timestamp, 10, 40)
	if err != nil {
		return ErrMalformed
	}
	age := now.Unix() - int64(at)
	if tolerance := int64(mailgunTolerance / time.Second); age > tolerance || age < -tolerance {
		return ErrExpired
	}
	return verifyHexHMAC(cfg.Secrets, body.signature, []byte(body.timestamp), []byte(body.token))
}

func nonceMailgun(req Request) string {
	body, err := readMailgun(req)
	if err != nil {
		return ""
	}
	return body.token
}

func sampleMailgun(s Sampling) Sample {
	signature := `{"signature":{"timestamp":"$UNIX","token":"$ID","signature":"` + s.hexMAC(s.unix(), s.ID) + `"},`
	return Sample{Body: s.fill(signature + `"event-data":{"event":"opened","id":"$ID","timestamp":$UNIX.5,"recipient":"$TO","message":{"headers":{"message-id":"$ID@example.com"}}}}`)}
}

func decodeMailgun(req Request) ([]event.Event, error) {
	body, err := readMailgun(req)
	if err != nil {
		return nil, err
	}
	return decodeEach("mailgun", []jsontext.Value{body.raw}, func(e *event.Event, o object) error {
		if body.form != nil {
			return mailgunForm(e, body)
		}
		return mailgunEvent(e, body)
	})
}

func mailgunEvent(e *event.Event, body mailgunBody) error {
	o := body.data
	headers := memberObject(memberObject(o, "message"), "headers")
	e.Kind = o.text("event")
	e.Type, e.Bounce = mailgunType(e.Kind, o.text("severity"), o.text("reason"))
	e.ProviderEventID = o.text("id")
	e.ProviderMessageID = event.NormalID(headers.text("message-id"))
	if e.Email = bareAddress(o.text("recipient")); e.Email == "" {
		e.Email = soleAddress(headers.text("to")) // "rejected" has no recipient of its own
	}
	if campaigns, err := readItems(o["campaigns"]); err == nil && len(campaigns) == 1 {
		if campaign, err := readObject(campaigns[0]); err == nil {
			e.Campaign = campaign.text("id")
		}
	}
	if e.Type == event.Clicked {
		e.URL = o.text("url")
	}
	e.Machine = mailgunMachine(memberObject(o, "client-info"))
	// Variables that Mailgun could not load come as a text that says so.
	if err := setMetadata(e, o.nested("user-variables")); err != nil {
		return err
	}
	e.Tags = texts(o["tags"])
	if e.EnrollmentID == "" {
		e.EnrollmentID = taggedID(o["tags"])
	}
	at := firstTold(o["timestamp"])
	id := e.ProviderEventID
	if id == "" {
		id = body.token
	}
	e.IdentityParts = []string{
		"mailgun", e.Kind, id, timeText(at), event.NormalAddress(e.Email), e.ProviderMessageID,
	}
	if id == "" { // not signed: only a body that is read again
		e.IdentityParts = append(e.IdentityParts, compactJSON(body.raw))
	}
	return setTime(e, at)
}

// mailgunForm reads the legacy form, in which the sender's variables are
// fields beside Mailgun's own: of two with one name, the event's come first, and
// those of the signature last.
func mailgunForm(e *event.Event, body mailgunBody) error {
	form := body.form
	e.Kind = form.first("event")
	e.Type, e.Bounce = mailgunLegacyType(e.Kind, form.first("code"))
	e.ProviderEventID = body.token
	e.Email = bareAddress(form.first("recipient"))
	headers := mailgunHeaders(form.first("message-headers"))
	e.ProviderMessageID = event.NormalID(form.first("Message-Id", "message-id"))
	if e.ProviderMessageID == "" {
		e.ProviderMessageID = event.NormalID(headers["message-id"])
	}
	e.Campaign = form.first("campaign-id")
	if e.Type == event.Clicked {
		e.URL = form.first("url")
	}
	if strings.EqualFold(form.first("client-type"), "robot") {
		e.Machine = event.MachineYes
	}
	if variables := (object{"": jsontext.Value(headers["x-mailgun-variables"])}).nested(""); jsontext.Value(variables).IsValid() {
		if err := setMetadata(e, variables); err != nil {
			return err
		}
	}
	if e.EnrollmentID == "" {
		e.EnrollmentID = ownID(form.first("tallyhook_enrollment_id", "enrollment_id"))
	}
	if e.StepNumber == 0 {
		e.StepNumber = stepNumber(form.first("step_number", "step"))
	}
	e.Tags = slices.Concat(form["tag"], form["X-Mailgun-Tag"])
	for _, tag := range e.Tags {
		if e.EnrollmentID == "" {
			e.EnrollmentID = ownTag(tag)
		}
	}
	e.IdentityParts = []string{"mailgun", "token", body.token}
	if body.token == "" {
		e.IdentityParts = append(e.IdentityParts, string(body.raw))
	}
	return setTime(e, jsontext.Value(strconv.Quote(body.timestamp)))
}

func mailgunType(kind, severity, reason string) (event.Type, event.Bounce) {
	switch kind {
	case "accepted":
		return event.Queued, ""
	case "delivered":
		return event.Delivered, ""
	case "failed":
		return mailgunFailure(severity, reason)
	case "opened":
		return event.Opened, ""
	case "clicked":
		return event.Clicked, ""
	case "unsubscribed":
		return event.Unsubscribed, ""
	case "complained":
		return event.Complained, ""
	case "rejected":
		return event.Dropped, ""
	case "bounced": // names of the legacy webhooks
		return event.Bounced, event.Hard
	case "dropped":
		return event.Dropped, ""
	}
	return "", "" // stored (mail to us), lists, or new
}

func mailgunFailure(severity, reason string) (event.Type, event.Bounce) {
	switch severity {
	case "permanent":
		if strings.HasPrefix(reason, "suppress") {
			return event.Dropped, ""
		}
		return event.Bounced, event.Hard
	case "temporary":
		return event.Deferred, ""
	}
	return event.Bounced, event.Soft // hard is never guessed
}

func mailgunLegacyType(kind, code string) (event.Type, event.Bounce) {
	t, bounce := mailgunType(kind, "", "")
	if t == event.Bounced && strings.HasPrefix(code, "4") {
		bounce = event.Soft
	}
	return t, bounce
}

// mailgunMachine reads who opened or clicked. "bot" names the program that a
// mailbox provider uses, and is empty or absent otherwise; its values are not
// documented.
func mailgunMachine(client object) event.Machine {
	if client == nil {
		return event.MachineUnknown
	}
	bot, told := client.flag("bot")
	switch {
	case bot, client.text("bot") != "" && !told, strings.EqualFold(client.text("client-type"), "robot"):
		return event.MachineYes
	case told:
		return event.MachineNo
	}
	return event.MachineUnknown
}
