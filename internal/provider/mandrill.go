package provider

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the vendor's scheme; HMAC does not rest on collision resistance
	"encoding/base64"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// mandrill (Mailchimp Transactional) posts a form whose field mandrill_events
// is an array of up to 1,000 events, roughly each minute
// (https://mailchimp.com/developer/transactional/docs/webhooks/).
//
// Authentication: "X-Mandrill-Signature" is base64 HMAC-SHA1 with the webhook's
// key over the URL as it was registered and each field's name and value, sorted
// by name. The URL is PUBLIC_URL's, never the Host header's; Basic credentials
// in the registered URL are signed with it, and are taken from the request.
//
// A new URL is checked with HEAD, which the edge answers. Only where that fails
// Mandrill posts an empty array signed with the key "test-webhook", which
// everybody knows: it is refused.
//
// Retries: failed batches are tried again until they are taken or given up by
// hand (https://mandrill.zendesk.com/hc/en-us/articles/205583277); how often and
// how long was not verified.
//
// Identity: there is no event id, and _id is the mail's. The fields; two opens
// within one second are told apart by address and program.
func mandrill() *Provider {
	return &Provider{
		Name:   "mandrill",
		Number: 17,
		Title:  "Mandrill (Mailchimp Transactional)",
		Scheme: "X-Mandrill-Signature: base64 HMAC-SHA1 of PUBLIC_URL's address and the form",
		Events: []string{
			"send", "delivered", "deferral", "hard_bounce", "soft_bounce", "open", "click", "spam", "unsub", "reject",
		},
		Setup: "In Mandrill open Settings, Webhooks, Add a webhook, paste the source's URL exactly as it was shown, and choose all " +
			"message events. Give the source the webhook's key, which the list shows after that. PUBLIC_URL must be what " +
			"Mandrill calls. Send with metadata {\"enrollment_id\": ...} to tie events without doubt.",
		Tells:       []string{tellsTags},
		Nested:      true,
		CheckSecret: checkMandrillSecret,
		Verify:      verifyMandrill,
		Decode:      decodeMandrill,
		Sample:      sampleMandrill,
	}
}

func checkMandrillSecret(secret string) error {
	if secret == "test-webhook" {
		return errors.New("this is the key of Mandrill's URL check, which everybody knows; give the webhook's own key")
	}
	return checkLemlistSecret(secret)
}

func verifyMandrill(_ time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	if !hasSecret(cfg.Secrets) {
		return ErrNoSecret
	}
	header := req.header("X-Mandrill-Signature")
	if header == "" {
		return ErrMissing
	}
	given, err := decodeBase64(strings.TrimSpace(header))
	if err != nil || len(given) != sha1.Size {
		return ErrMalformed
	}
	form, err := url.ParseQuery(string(req.Body))
	if err != nil {
		return ErrMalformed
	}
	if !form.Has("mandrill_events") { // else a signature over the URL alone would do
		return ErrMissing
	}
	var signed []byte
	names := make([]string, 0, len(form))
	for name := range form {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if len(form[name]) != 1 { // what is signed and what is read could differ
			return ErrMalformed
		}
		signed = append(append(signed, name...), form[name][0]...)
	}
	matched := false
	for _, secret := range cfg.Secrets {
		if secret == "" {
			continue
		}
		for _, address := range mandrillURLs(req) {
			mac := hmac.New(sha1.New, []byte(secret))
			mac.Write([]byte(address))
			mac.Write(signed)
			matched = hmac.Equal(mac.Sum(nil), given) || matched
		}
	}
	if !matched {
		return ErrMismatch
	}
	return nil
}

// mandrillURLs are the addresses that the webhook may have been registered
// with: ours, and ours with the credentials that the request carries.
func mandrillURLs(req Request) []string {
	urls := []string{req.URL}
	scheme, rest, ok := strings.Cut(req.URL, "://")
	kind, coded, basic := strings.Cut(strings.TrimSpace(req.header("Authorization")), " ")
	if !ok || !basic || !strings.EqualFold(kind, "Basic") {
		return urls
	}
	pair, err := decodeBase64(strings.TrimSpace(coded))
	if err != nil {
		return urls
	}
	urls = append(urls, scheme+"://"+string(pair)+"@"+rest)
	user, password, _ := strings.Cut(string(pair), ":")
	if escaped := url.UserPassword(user, password).String(); escaped != string(pair) {
		urls = append(urls, scheme+"://"+escaped+"@"+rest)
	}
	return urls
}

func sampleMandrill(s Sampling) Sample {
	events := string(s.fill(`[{"event":"open","ts":$UNIX,"_id":"$ID","msg":{"_id":"$ID","email":"$TO"}}]`))
	sum := mac(sha1.New, []byte(s.secret()), s.URL, "mandrill_events", events)
	return Sample{
		Body: []byte(url.Values{"mandrill_events": {events}}.Encode()),
		Header: map[string]string{
			"Content-Type": "application/x-www-form-urlencoded", "X-Mandrill-Signature": base64.StdEncoding.EncodeToString(sum),
		},
	}
}

func decodeMandrill(req Request) ([]event.Event, error) {
	form, err := url.ParseQuery(string(req.Body))
	if err != nil {
		return nil, errors.New("the body is not a form")
	}
	if !form.Has("mandrill_events") {
		return nil, errors.New("the form has no field mandrill_events")
	}
	items, err := readItems([]byte(form.Get("mandrill_events")))
	if err != nil {
		return nil, err
	}
	return decodeEach("mandrill", items, mandrillEvent)
}

func mandrillEvent(e *event.Event, o object) error {
	msg, reject := memberObject(o, "msg"), memberObject(o, "reject")
	e.Kind = o.text("event")
	if e.Kind == "" { // a change of the deny or allow list
		if e.Kind = o.text("type"); e.Kind != "" && o.text("action") != "" {
			e.Kind += "." + o.text("action")
		}
	}
	e.Type, e.Bounce = mandrillType(o.text("event"))
	e.ProviderMessageID = msg.text("_id")
	if e.ProviderMessageID == "" {
		e.ProviderMessageID = o.text("_id")
	}
	e.Email = bareAddress(msg.text("email"))
	if e.Email == "" {
		e.Email = bareAddress(reject.text("email"))
	}
	if e.Type == event.Clicked {
		e.URL = o.text("url")
	}
	if err := setMetadata(e, msg.nested("metadata")); err != nil {
		return err
	}
	e.Tags = texts(msg["tags"])
	if e.EnrollmentID == "" {
		e.EnrollmentID = taggedID(msg["tags"])
	}
	at := firstTold(o["ts"])
	e.IdentityParts = []string{
		"mandrill", e.Kind, e.ProviderMessageID, event.NormalAddress(e.Email), timeText(at), e.URL, o.text("ip"), o.text("user_agent"),
	}
	return setTime(e, at)
}

func mandrillType(kind string) (event.Type, event.Bounce) {
	switch kind {
	case "send":
		return event.Sent, ""
	case "delivered":
		return event.Delivered, ""
	case "deferral":
		return event.Deferred, ""
	case "hard_bounce":
		return event.Bounced, event.Hard
	case "soft_bounce":
		return event.Bounced, event.Soft
	case "open":
		return event.Opened, ""
	case "click":
		return event.Clicked, ""
	case "spam":
		return event.Complained, ""
	case "unsub":
		return event.Unsubscribed, ""
	case "reject":
		return event.Dropped, ""
	}
	return "", "" // inbound mail, changes of lists, or new
}

// setMetadata takes what the sender gave the mail, and our enrollment and the
// step of the sequence out of it.
func setMetadata(e *event.Event, raw jsontext.Value) error {
	if len(raw) == 0 {
		return nil
	}
	if bytes.Contains(raw, []byte(`\u0000`)) {
		return errors.New("the metadata holds the character U+0000, which cannot be stored")
	}
	e.Metadata = raw
	e.EnrollmentID = passedBack(raw)
	e.StepNumber = stepOf(raw)
	return nil
}

// passedBack finds our enrollment's id in what the sender gave a mail: a member
// of it, or of an object or the text of one that a member holds, as Mailgun's
// documents put variables. It must only be given what the sender wrote: a
// contact's answer can hold any text.
func passedBack(raw jsontext.Value) string {
	id := event.PassedBack(raw)
	if id != "" || !bytes.Contains(raw, []byte("enrollment_id")) {
		return id
	}
	o, err := readObject(raw)
	if err != nil {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(o)) {
		inner := o[name]
		if inner.Kind() == '"' {
			inner = jsontext.Value(strings.TrimSpace(o.text(name)))
		}
		if id = event.PassedBack(inner); id != "" {
			break
		}
	}
	return id
}
