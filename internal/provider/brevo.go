package provider

import (
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// brevo (once Sendinblue) posts one object for each request, or, where batching
// is on, an array of up to 500 (https://developers.brevo.com/docs/transactional-webhooks).
//
// Authentication: Brevo signs nothing. Its webhooks can carry Basic credentials
// in the URL, a bearer token, or headers of one's own. A source's secret of the
// form user:password is required as Basic credentials, any other as the bearer
// token; headers and its ranges (1.179.112.0/20, 172.246.240.0/20) with the
// settings.
//
// Retries (https://developers.brevo.com/docs/how-to-use-webhooks): 4, after 10
// minutes, 1, 2 and 8 hours, but only when there is no answer or a 429. Any
// other 4xx and any 5xx makes it throw the event away. So what would be a 503
// is a 429 here.
//
// Identity: there is no event id ("id" is the webhook's). What happened to which
// mail and address, when, and with which link. The first open is told as
// unique_opened, and opened besides: a webhook should have one of each pair.
//
// Time: ts_epoch (ms; in one public sample s) is UTC. ts_event and ts follow the
// account's time zone by some reports and are taken where it is absent; date
// has no zone and is not taken.
func brevo() *Provider {
	return &Provider{
		Name:   "brevo",
		Number: 9,
		Title:  "Brevo",
		Scheme: "the URL's token; optionally Basic credentials, a bearer token, headers and client addresses",
		Events: []string{
			"request", "sent", "delivered", "deferred", "soft_bounce", "hard_bounce", "invalid_email", "blocked", "error",
			"opened", "unique_opened", "proxy_open", "unique_proxy_open", "click", "complaint", "spam", "unsubscribe",
			"unsubscribed",
		},
		Setup: "In Brevo open Transactional, Settings, Webhook, Add a new webhook, paste the source's URL and choose all events; of " +
			"\"opened\" and \"first opening\" choose one. If the source has a secret user:password, write it into the URL: " +
			"https://user:password@...; any other secret is entered as the token. Send with the header X-Mailin-custom: " +
			"{\"enrollment_id\": ...} to tie events without doubt.",
		Tells:       []string{tellsTags, tellsCampaigns},
		CheckSecret: checkMailtrapSecret, // user:password, or any text
		Verify:      verifyBrevo,
		Decode:      decodeBrevo,
		Sample:      sampleBrevo,
		Refuse:      refuseBrevo,
	}
}

// refuseBrevo answers 429 to what shall be sent again.
func refuseBrevo(r Refusal) int {
	if status := DefaultRefusal(r); status < 500 {
		return status
	}
	return 429
}

func verifyBrevo(now time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	if len(cfg.Secrets) == 0 {
		return nil
	}
	var tokens, pairs []string
	for _, s := range cfg.Secrets {
		switch {
		case strings.Contains(s, ":"):
			pairs = append(pairs, s)
		case s != "":
			tokens = append(tokens, s)
		}
	}
	// While the one is replaced by the other, either will do.
	err := ErrNoSecret
	if len(tokens) > 0 {
		if err = verifyInstantly(now, Config{Secrets: tokens}, req); err == nil {
			return nil
		}
	}
	if len(pairs) > 0 {
		return checkBasicAuth(req, pairs)
	}
	return err
}

func sampleBrevo(s Sampling) Sample {
	return s.authorized(s.fill(`{"event":"opened","email":"$TO","message-id":"<$ID@example.com>","ts_epoch":$UNIX000}`))
}

func decodeBrevo(req Request) ([]event.Event, error) {
	items, err := readItems(req.Body)
	if err != nil {
		return nil, err
	}
	return decodeEach("brevo", items, brevoEvent)
}

func brevoEvent(e *event.Event, o object) error {
	e.Kind = o.text("event")
	e.Type, e.Bounce, e.Machine = brevoType(e.Kind)
	e.ProviderMessageID = event.NormalID(o.text("message-id", "messageId"))
	e.Email = bareAddress(o.text("email"))
	e.Campaign = o.text("camp_id")
	if e.Type == event.Clicked {
		e.URL = o.text("link", "URL", "url")
	}
	if err := brevoCustom(e, o); err != nil {
		return err
	}
	at := firstTold(o["ts_epoch"], o["ts_event"], o["ts"])
	e.IdentityParts = []string{
		"brevo", brevoKind(e.Kind), e.ProviderMessageID, event.NormalAddress(e.Email), timeText(at), o.text("link", "URL", "url"),
		e.Campaign, o.text("date"), o.text("date_event"),
	}
	return setTime(e, at)
}

// brevoKind folds the names that bodies have and those of the API's settings:
// hard_bounce, hardBounce.
func brevoKind(kind string) string { return strings.ToLower(strings.ReplaceAll(kind, "_", "")) }

func brevoType(kind string) (event.Type, event.Bounce, event.Machine) {
	const unknown = event.MachineUnknown
	switch brevoKind(kind) {
	case "request", "sent":
		return event.Sent, "", unknown
	case "delivered":
		return event.Delivered, "", unknown
	case "deferred":
		return event.Deferred, "", unknown
	case "softbounce":
		return event.Bounced, event.Soft, unknown
	case "hardbounce", "invalidemail", "invalid":
		return event.Bounced, event.Hard, unknown
	case "blocked":
		return event.Dropped, "", unknown
	case "error":
		return event.Failed, "", unknown
	case "opened", "uniqueopened":
		return event.Opened, "", unknown
	case "proxyopen", "uniqueproxyopen", "loadedbyproxy":
		return event.Opened, "", event.MachineYes
	case "click", "clicked":
		return event.Clicked, "", unknown
	case "complaint", "spam":
		return event.Complained, "", unknown
	case "unsubscribe", "unsubscribed":
		return event.Unsubscribed, "", unknown
	}
	return "", "", unknown // contacts and lists, mail to us, or new
}

// brevoCustom reads what the sender gave the mail: X-Mailin-custom is a text
// that may hold JSON, or "name:value|name:value"; tags are a list, and "tag" a
// list, the text of one, or a text.
func brevoCustom(e *event.Event, o object) error {
	custom := jsontext.Value(strings.TrimSpace(o.text("X-Mailin-custom")))
	if nested := o.nested("X-Mailin-custom"); nested != nil {
		custom = nested
	}
	if fields, err := readObject(custom); err == nil && len(fields) > 0 {
		if err := setMetadata(e, custom); err != nil {
			return err
		}
	}
	e.Tags = brevoTags(o)
	found := append([]string{string(custom)}, strings.Split(string(custom), "|")...)
	for _, s := range append(found, e.Tags...) {
		if e.EnrollmentID != "" {
			break
		}
		if e.EnrollmentID = ownID(strings.TrimSpace(s)); e.EnrollmentID == "" {
			e.EnrollmentID = ownTag(s)
		}
	}
	return nil
}

func brevoTags(o object) []string {
	tags := texts(o["tags"])
	tag := o["tag"]
	if s := (object{"": tag}).text(""); event.IsArray([]byte(s)) {
		tag = jsontext.Value(s)
	}
	for _, s := range texts(tag) {
		if s != "" {
			tags = append(tags, s)
		}
	}
	return tags
}
