package provider

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// hubspotTolerance is how far the time of a v3 signature may be from ours:
// HubSpot asks to refuse what is older, and a later one is no better.
const hubspotTolerance = 5 * time.Minute

// hubspot posts an array of up to 100 changes of its CRM
// (https://developers.hubspot.com/docs/api/webhooks); a workflow's "send
// webhook" action posts one object of the customer's making.
//
// Authentication (https://developers.hubspot.com/docs/api/webhooks/validating-requests),
// each with the app's client secret and the address taken from PUBLIC_URL,
// never from the Host header:
//
//	v3  X-HubSpot-Signature-v3: base64 HMAC-SHA256 over method, address, body
//	    and X-HubSpot-Request-Timestamp (ms), 5 minutes
//	v2  X-HubSpot-Signature: hex SHA-256 over secret, method, address and body
//	v1  X-HubSpot-Signature: hex SHA-256 over secret and body
//
// Requests carry older versions beside the newest: where v3 is there, v3 is
// what counts. v2 and v1 sign no time, so a replay is told by its identity.
//
// Retries: up to 10 within 24 hours, at random, on anything but 2xx and after
// 5 seconds without an answer. A workflow's action is not tried again on a 4xx.
//
// Identity: eventId is not unique (HubSpot says so, and its test button always
// sends 100), so it is joined with what changed and when. attemptNumber grows
// with each retry and takes no part.
//
// The CRM tells changes of objects and properties and nothing of a mail's
// opens, clicks or answers: every event is kept as a control event.
func hubspot() *Provider {
	return &Provider{
		Name:   "hubspot",
		Number: 3,
		Title:  "HubSpot",
		Scheme: "X-HubSpot-Signature-v3: base64 HMAC-SHA256 of method, PUBLIC_URL's address, body and time, 5 minutes; v2 and v1 too",
		Events: []string{}, // none that is canonical
		Setup: "In HubSpot open your app (Development, Projects or Legacy apps), Webhooks, and paste the source's URL as the target URL. " +
			"Give the source the app's client secret, subscribe to contact.creation, contact.propertyChange and what else you " +
			"want kept, and activate the subscriptions. PUBLIC_URL must be what HubSpot calls.",
		CheckSecret: checkLemlistSecret, // any text
		Verify:      verifyHubspot,
		Decode:      decodeHubspot,
		Sample:      sampleHubspot,
	}
}

func verifyHubspot(now time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	if !hasSecret(cfg.Secrets) {
		return ErrNoSecret
	}
	if given := strings.TrimSpace(req.header("X-HubSpot-Signature-v3")); given != "" {
		return verifyHubspotV3(now, cfg.Secrets, given, req)
	}
	given := strings.TrimSpace(req.header("X-HubSpot-Signature"))
	if given == "" {
		return ErrMissing
	}
	sum, err := hex.DecodeString(given)
	if err != nil || len(sum) != sha256.Size {
		return ErrMalformed
	}
	var prefixes []string
	version := strings.ToLower(strings.TrimSpace(req.header("X-HubSpot-Signature-Version")))
	if version == "" || version == "v1" {
		prefixes = append(prefixes, "")
	}
	if version == "" || version == "v2" {
		for _, address := range hubspotURLs(req.URL) {
			prefixes = append(prefixes, req.Method+address)
		}
	}
	if len(prefixes) == 0 {
		return ErrMalformed
	}
	matched := false
	for _, secret := range cfg.Secrets {
		if secret == "" {
			continue
		}
		for _, prefix := range prefixes {
			h := sha256.New()
			h.Write([]byte(secret + prefix))
			h.Write(req.Body)
			matched = hmac.Equal(h.Sum(nil), sum) || matched
		}
	}
	if !matched {
		return ErrMismatch
	}
	return nil
}

func verifyHubspotV3(now time.Time, secrets []string, given string, req Request) error {
	timestamp := strings.TrimSpace(req.header("X-HubSpot-Request-Timestamp"))
	if timestamp == "" {
		return ErrMissing
	}
	at, err := strconv.ParseUint(timestamp, 10, 50) // 50 bits: no overflow below, until the year 37648
	if err != nil {
		return ErrMalformed
	}
	sum, err := decodeBase64(given)
	if err != nil || len(sum) != sha256.Size {
		return ErrMalformed
	}
	age := now.UnixMilli() - int64(at)
	if tolerance := hubspotTolerance.Milliseconds(); age > tolerance || age < -tolerance {
		return ErrExpired
	}
	matched := false
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		for _, address := range hubspotURLs(req.URL) {
			mac := hmac.New(sha256.New, []byte(secret))
			mac.Write([]byte(req.Method + address))
			mac.Write(req.Body)
			mac.Write([]byte(timestamp))
			matched = hmac.Equal(mac.Sum(nil), sum) || matched
		}
	}
	if !matched {
		return ErrMismatch
	}
	return nil
}

// hubspotURLs are the forms of an address that HubSpot may have signed: as it
// is, and with the escapes of these characters undone, as its documents ask.
func hubspotURLs(address string) []string {
	undo := strings.NewReplacer(
		"%3A", ":", "%2F", "/", "%3F", "?", "%40", "@", "%21", "!", "%24", "$", "%27", "'", "%28", "(", "%29", ")",
		"%2A", "*", "%2C", ",", "%3B", ";",
		"%3a", ":", "%2f", "/", "%3f", "?", "%2a", "*", "%2c", ",", "%3b", ";",
	)
	if undone := undo.Replace(address); undone != address {
		return []string{address, undone}
	}
	return []string{address}
}

func sampleHubspot(s Sampling) Sample {
	body := s.fill(`[{"eventId":$N,"portalId":1,"occurredAt":$UNIX000,"attemptNumber":0,"subscriptionType":"contact.creation","objectId":1}]`)
	at := strconv.FormatInt(s.Now.UnixMilli(), 10)
	sum := mac(sha256.New, []byte(s.secret()), "POST", s.URL, string(body), at)
	return Sample{Body: body, Header: map[string]string{
		"X-HubSpot-Signature-v3": base64.StdEncoding.EncodeToString(sum), "X-HubSpot-Request-Timestamp": at,
	}}
}

func decodeHubspot(req Request) ([]event.Event, error) {
	items, err := readItems(req.Body)
	if err != nil {
		return nil, err
	}
	return decodeEach("hubspot", items, hubspotEvent)
}

func hubspotEvent(e *event.Event, o object) error {
	e.Kind = o.text("subscriptionType", "eventType")
	if e.Kind == "" && o.text("eventId") == "" { // a workflow's action, in a form of the customer's own
		e.Kind = "workflow"
		e.OccurredAtEstimated = true
		e.IdentityParts = []string{"hubspot", e.Kind, compactJSON(e.Payload)}
		return nil
	}
	e.LeadID = o.text("objectId")
	at := firstTold(o["occurredAt"])
	parts := []string{o.text("portalId"), e.Kind, e.LeadID, o.text("eventId"), timeText(at), o.text("propertyName")}
	e.ProviderEventID = strings.Join(parts, "|")
	removed, told := o.flag("associationRemoved")
	e.IdentityParts = append(append([]string{"hubspot"}, parts...),
		o.text("objectTypeId"), o.text("associationType", "associationTypeId"), o.text("fromObjectId"), o.text("toObjectId"),
		strconv.FormatBool(told && removed), o.text("primaryObjectId"), o.text("newObjectId"), o.text("messageId"),
	)
	return setTime(e, at)
}

// compactJSON is a value without the space between its parts, for an identity.
func compactJSON(raw jsontext.Value) string {
	v := raw.Clone()
	if err := v.Compact(); err != nil {
		return string(raw)
	}
	return string(v)
}
