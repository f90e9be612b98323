package provider

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// mailtrap posts {"events": [...]} with up to 500 events, or the same events
// one a line (JSON Lines), as the webhook is set
// (https://docs.mailtrap.io/email-api-smtp/advanced/webhooks).
//
// Authentication: "Mailtrap-Signature" is hex HMAC-SHA256 with the webhook's
// signing_secret over the raw body (Mailtrap's SDKs). A source's secret is that,
// or user:password where it has a colon, required as Basic credentials. A source
// without one relies on the URL's token, as webhooks older than the signature do.
//
// Retries (same page): anything but 200 is tried again 40 times, every 5 minutes;
// then the webhook is paused and has to be resumed by hand. 30 seconds timeout.
//
// Identity: event_id, with what happened to which mail: documented samples
// repeat one id for two events.
//
// A "soft bounce" is not final: Mailtrap tries again, so deferred.
func mailtrap() *Provider {
	return &Provider{
		Name:   "mailtrap",
		Number: 19,
		Title:  "Mailtrap",
		Scheme: "Mailtrap-Signature: hex HMAC-SHA256 of the body; or Basic credentials",
		Events: []string{
			"delivery", "open", "click", "bounce", "soft bounce", "spam", "unsubscribe", "suspension", "reject",
		},
		Setup: "In Mailtrap open Settings, Webhooks, Create new webhook, paste the source's URL, choose Email sending, your stream and " +
			"domain, and all events. Give the source the webhook's signing secret. Send with custom_variables " +
			"{\"enrollment_id\": ...} to tie events without doubt.",
		Tells:       []string{tellsStreams, tellsCampaigns},
		CheckSecret: checkMailtrapSecret,
		Verify:      verifyMailtrap,
		Decode:      decodeMailtrap,
		Sample:      sampleMailtrap,
	}
}

func checkMailtrapSecret(secret string) error {
	if strings.Contains(secret, ":") {
		return checkUserPassword(secret)
	}
	return checkLemlistSecret(secret)
}

func verifyMailtrap(_ time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	if len(cfg.Secrets) == 0 {
		return nil
	}
	var keys, pairs []string
	for _, s := range cfg.Secrets {
		switch {
		case strings.Contains(s, ":"):
			pairs = append(pairs, s)
		case s != "":
			keys = append(keys, s)
		}
	}
	// While the one is replaced by the other, either will do.
	err := ErrNoSecret
	if len(keys) > 0 {
		if err = verifyHexHMAC(keys, req.header("Mailtrap-Signature"), req.Body); err == nil {
			return nil
		}
	}
	if len(pairs) > 0 {
		return checkBasicAuth(req, pairs)
	}
	return err
}

func sampleMailtrap(s Sampling) Sample {
	body := s.fill(`{"events":[{"event":"open","event_id":"$ID","timestamp":$UNIX,"message_id":"$ID","email":"$TO"}]}`)
	if strings.Contains(s.secret(), ":") {
		return s.authorized(body)
	}
	return s.signed(body, "Mailtrap-Signature", s.hexMAC(string(body)))
}

func decodeMailtrap(req Request) ([]event.Event, error) {
	if len(bytes.TrimSpace(req.Body)) == 0 {
		return nil, errors.New("the body is empty")
	}
	var items []jsontext.Value
	dec := jsontext.NewDecoder(bytes.NewReader(req.Body))
	for {
		v, err := dec.ReadValue()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, notJSON(err)
		}
		v = v.Clone()
		if o, err := readObject(v); err == nil && event.IsArray(o["events"]) {
			v = o["events"]
		}
		some, err := readItems(v)
		if err != nil {
			return nil, err
		}
		if items = append(items, some...); len(items) > maxItems {
			return nil, fmt.Errorf("the body has more than %d events", maxItems)
		}
	}
	return decodeEach("mailtrap", items, mailtrapEvent)
}

func mailtrapEvent(e *event.Event, o object) error {
	e.Kind = o.text("event")
	e.Type, e.Bounce = mailtrapType(e.Kind)
	e.ProviderEventID = o.text("event_id")
	e.ProviderMessageID = o.text("message_id")
	e.Email = bareAddress(o.text("email"))
	e.Campaign = o.text("category")
	e.Stream = o.text("sending_stream")
	if e.Type == event.Clicked {
		e.URL = o.text("url")
	}
	if err := setMetadata(e, o.nested("custom_variables")); err != nil {
		return err
	}
	at := firstTold(o["timestamp"])
	e.IdentityParts = []string{"mailtrap", e.Kind, e.ProviderEventID, e.ProviderMessageID}
	if e.ProviderEventID == "" {
		e.IdentityParts = append(e.IdentityParts, event.NormalAddress(e.Email), timeText(at), e.URL, o.text("ip"), o.text("user_agent"))
	}
	return setTime(e, at)
}

func mailtrapType(kind string) (event.Type, event.Bounce) {
	switch kind {
	case "delivery":
		return event.Delivered, ""
	case "open":
		return event.Opened, ""
	case "click":
		return event.Clicked, ""
	case "bounce":
		return event.Bounced, event.Hard
	case "soft bounce", "soft_bounce", "suspension":
		return event.Deferred, ""
	case "spam":
		return event.Complained, ""
	case "unsubscribe":
		return event.Unsubscribed, ""
	case "reject":
		return event.Dropped, ""
	}
	return "", "" // the account's own log
}
