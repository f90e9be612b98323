package provider

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// lemlist posts one activity for each request.
//
// Authentication: there is no signature and no header, so the URL's token is
// the secret. A hook may be made with a "secret", which lemlist then repeats in
// every body (two independent integrators; not in its documents): a source that
// has a secret requires it. The settings apply in addition.
//
// Retries (third-party reports, not in lemlist's documents): up to 5, after
// 10 s * 2^n; 404 and 410 make it delete the hook, for good and without a
// word. So neither is ever answered, see refuseLemlist. Its timeout is unknown.
//
// Identity: "_id" (act_...). Without one, which third-party samples show, the
// fields that make the activity what it is.
//
// A reply is told several times: as emailsReplied, and as the new state of the
// lead (contacted, hooked, attracted, warmed, interested, ...) under another
// "_id". The states are kept as control events, or every answer would count
// twice.
func lemlist() *Provider {
	return &Provider{
		Mask:   maskLemlist,
		Name:   "lemlist",
		Number: 2,
		Title:  "lemlist",
		Scheme: "the URL's token; optionally the hook's secret, repeated in each body",
		Events: []string{
			"emailsSent", "emailsOpened", "emailsClicked", "emailsReplied", "emailsBounced", "emailsFailed",
			"emailsSendFailed", "emailsUnsubscribed", "linkedinVisitDone", "linkedinInviteDone",
			"linkedinInviteAccepted", "linkedinSent", "linkedinOpened", "linkedinReplied", "linkedinVoiceNoteDone",
			"linkedinVisitFailed", "linkedinInviteFailed", "linkedinSendFailed", "linkedinVoiceNoteFailed",
		},
		Setup: "In lemlist open Settings, Integrations, Webhooks (or POST https://api.lemlist.com/api/hooks), add a hook with the " +
			"source's URL as its target and no type, which means all activities. If you give the hook a secret, give the " +
			"source the same one. Map the campaign's id (cam_...) to an instance under provider_campaigns.",
		Tells:       []string{tellsCampaigns},
		CheckSecret: checkLemlistSecret,
		Verify:      verifyLemlist,
		Decode:      decodeLemlist,
		Sample:      sampleLemlist,
		Refuse:      refuseLemlist,
	}
}

// refuseLemlist keeps the hook alive. A URL whose source is gone or not yet
// there answers 401, not 404: lemlist takes it for a passing failure and tries
// again, and the hook is still there when the source comes back.
func refuseLemlist(r Refusal) int {
	if r == RefuseUnknown {
		return 401
	}
	return DefaultRefusal(r)
}

func checkLemlistSecret(secret string) error {
	switch {
	case strings.TrimSpace(secret) == "":
		return errors.New("must not be empty")
	case len(secret) > maxSecret:
		return fmt.Errorf("is longer than %d bytes", maxSecret)
	case strings.ContainsFunc(secret, isControl):
		return errors.New("holds a control character")
	}
	return nil
}

// verifyLemlist has to read the body to find the secret in it; without a
// secret the body stays unread.
func verifyLemlist(_ time.Time, cfg Config, req Request) error {
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
		switch got := o.text("secret"); {
		case got == "":
			return ErrMissing
		case !anySecret(cfg.Secrets, got):
			return ErrMismatch
		}
	}
	return nil
}

func sampleLemlist(s Sampling) Sample {
	body := s.fill(`{"_id":"act_$ID","type":"emailsOpened","createdAt":"$AT","leadEmail":"$TO"`)
	if s.secret() != "" {
		body = append(body, `,"secret":`+quoted(s.secret())...)
	}
	return Sample{Body: append(body, '}')}
}

func decodeLemlist(req Request) ([]event.Event, error) {
	items, err := readItems(req.Body)
	if err != nil {
		return nil, err
	}
	var events []event.Event
	for i, item := range items {
		o, err := readObject(item)
		if err != nil {
			return nil, fmt.Errorf("activity %d: %w", i, err)
		}
		// The description of a hook itself, as the API answers it: nothing happened.
		if strings.HasPrefix(o.text("_id"), "hoo_") {
			continue
		}
		e, err := lemlistEvent(o, item)
		if err != nil {
			return nil, fmt.Errorf("activity %d: %w", i, err)
		}
		events = append(events, e)
	}
	return events, nil
}

func lemlistEvent(o object, raw jsontext.Value) (event.Event, error) {
	kind := o.text("type")
	if kind == "" {
		return event.Event{}, errors.New("the activity has no type")
	}
	e := event.Event{
		Provider:          "lemlist",
		Kind:              kind,
		Type:              lemlistType(kind),
		Channel:           lemlistChannel(kind),
		ProviderEventID:   o.text("_id"),
		ProviderMessageID: o.text("emailId"),
		LeadID:            o.text("leadId"),
		// leadEmail is absent in LinkedIn activities: those are found by the
		// lead. sendUserEmail is our own side and never the recipient.
		Email:      bareAddress(o.text("leadEmail", "email", "recipient")),
		Campaign:   o.text("campaignId"),
		StepNumber: stepNumber(o.text("sequenceStep")),
		Payload:    maskLemlist(raw),
	}
	e.Control = e.Type == ""
	if e.Type == event.Bounced {
		e.Bounce = event.Soft // lemlist does not say; hard is never guessed
	}
	if e.Type == event.Opened || e.Type == event.Clicked {
		// "bot" comes with every activity but means something on these alone.
		if bot, told := o.flag("bot"); told {
			e.Machine = event.MachineNo
			if bot {
				e.Machine = event.MachineYes
			}
		}
	}
	if e.Type == event.Clicked {
		e.URL = o.text("url", "link")
	}
	// A lead's custom variables come back as members of the activity itself,
	// in some samples under "variables".
	e.EnrollmentID = event.PassedBack(o.nested("variables"))
	if e.EnrollmentID == "" {
		e.EnrollmentID = event.PassedBack(raw)
	}
	if err := setTime(&e, o["createdAt"]); err != nil {
		return event.Event{}, err
	}
	if e.ProviderEventID == "" {
		// The time as sent, in full precision. "data" tells enrichmentDone apart.
		e.IdentityParts = []string{
			"lemlist", kind, e.Campaign, e.LeadID, o.text("contactId"), event.NormalAddress(e.Email),
			o.text("createdAt"), o.text("sequenceId"), o.text("sequenceStep"), e.ProviderMessageID,
			o.text("url", "link"), o.text("sendUserId"), o.text("taskId"), string(o["data"]),
		}
	}
	if err := e.Check(); err != nil {
		return event.Event{}, fmt.Errorf("%.80q: %w", kind, err)
	}
	return e, nil
}

// lemlistType maps an activity; "" is one that says nothing about outreach
// (paused, campaignComplete, sendLimitReached, enrichmentDone, ...), repeats
// another under a second id (the lead's states, *Interested), or is new.
func lemlistType(kind string) event.Type {
	switch kind {
	case "emailsSent":
		return event.Sent
	case "emailsOpened":
		return event.Opened
	case "emailsClicked":
		return event.Clicked
	case "emailsReplied":
		return event.Replied
	case "emailsBounced":
		return event.Bounced
	case "emailsFailed", "emailsSendFailed": // the second is the older name
		return event.Failed
	case "emailsUnsubscribed":
		return event.Unsubscribed
	case "linkedinVisitDone":
		return event.ProfileVisited
	case "linkedinInviteDone":
		return event.ConnectionSent
	case "linkedinInviteAccepted":
		return event.ConnectionAccepted
	case "linkedinSent":
		return event.MessageSent
	case "linkedinOpened":
		return event.MessageRead
	case "linkedinReplied":
		return event.MessageReplied
	case "linkedinVoiceNoteDone":
		return event.VoiceMessageSent
	}
	if strings.HasPrefix(kind, "linkedin") && strings.HasSuffix(kind, "Failed") {
		return event.Failed // one for each kind of LinkedIn step, and lemlist adds kinds
	}
	return ""
}

func lemlistChannel(kind string) event.Channel {
	switch {
	case strings.HasPrefix(kind, "linkedin"):
		return event.LinkedIn
	case strings.HasPrefix(kind, "aircall"):
		return event.Phone
	case strings.HasPrefix(kind, "sms"):
		return event.SMS
	}
	return event.Email
}

// stepNumber reads a step that counts from 1; anything else is "not told".
func stepNumber(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1000 {
		return 0
	}
	return n
}

// maskLemlist hides the body's own secret.
func maskLemlist(raw []byte) []byte { return maskMembers(raw, "secret") }
