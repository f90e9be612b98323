package provider

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// postmark posts one object for each request.
//
// Authentication: Postmark signs nothing. Its webhooks can carry Basic
// credentials (in the URL or HttpAuth) and custom headers, and come from
// published addresses (https://postmarkapp.com/support/article/800-ips-for-firewalls):
// 3.134.147.250, 50.31.156.6, 50.31.156.77, 18.217.206.57. All three can be
// required in the settings; a source's secret of the form user:password is
// required as Basic credentials too, and rotates with a grace time.
//
// Retries (https://postmarkapp.com/developer/webhooks/webhooks-overview): 10
// over about 10.5 hours, after 1, 5, 10, 10, 10, 15, 30 minutes and 1, 2, 6
// hours. Only 200 is success, any other 2xx is retried; 403 stops the retries.
// The default refusals have neither, so Refuse is not set: a 404 or 401 is
// retried, and a source that is repaired within those hours loses nothing.
//
// Identity: "ID" exists on Bounce and SpamComplaint only, and is qualified by
// the record type. All others are identified by what they are about and when,
// with the time as sent: truncated to microseconds, two opens could fall into one.
//
// One hard bounce is told twice, as Bounce and as SubscriptionChange. Both are
// kept: they are two records, either may be missing, and bounced is sticky.
// Opens are not marked as machine-made, though Apple's mail privacy inflates
// them; there is no event for processed or sent.
func postmark() *Provider {
	return &Provider{
		Name:   "postmark",
		Number: 4,
		Title:  "Postmark",
		Scheme: "the URL's token; optionally Basic credentials, headers and client addresses",
		Events: []string{"Delivery", "Bounce", "SpamComplaint", "Open", "Click", "SubscriptionChange"},
		Setup: "In Postmark open the server, its message stream, Webhooks, Add webhook, and paste the source's URL. Choose " +
			"Delivery, Bounce, Spam complaint, Link click, Open and Subscription change. If the source has a secret " +
			"user:password, enter both under Basic auth. Send with Metadata {\"enrollment_id\": ...} to tie events without doubt.",
		Tells:       []string{tellsStreams, tellsTags},
		CheckSecret: checkUserPassword,
		Verify:      verifyPostmark,
		Decode:      decodePostmark,
		Sample:      samplePostmark,
	}
}

func verifyPostmark(_ time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	if len(cfg.Secrets) == 0 {
		return nil
	}
	pairs := make([]string, 0, len(cfg.Secrets))
	for _, s := range cfg.Secrets {
		if strings.Contains(s, ":") {
			pairs = append(pairs, s)
		}
	}
	if len(pairs) == 0 { // a secret that nothing can be compared with opens nothing
		return ErrNoSecret
	}
	return checkBasicAuth(req, pairs)
}

func samplePostmark(s Sampling) Sample {
	return s.authorized(s.fill(`{"RecordType":"Open","MessageID":"$ID","Recipient":"$TO","ReceivedAt":"$AT"}`))
}

func decodePostmark(req Request) ([]event.Event, error) {
	raw := jsontext.Value(bytes.TrimSpace(req.Body))
	o, err := readObject(raw)
	if err != nil {
		return nil, err
	}
	record := postmarkRecord(o)
	if record == "" {
		return nil, errors.New("the body has no RecordType")
	}
	e := event.Event{
		Provider:          "postmark",
		Kind:              record,
		Channel:           event.Email,
		ProviderMessageID: o.text("MessageID"),
		Email:             bareAddress(o.text("Recipient", "Email")),
		Metadata:          o.nested("Metadata"),
		Stream:            o.text("MessageStream"),
		Tags:              texts(o["Tag"]),
		Payload:           raw,
	}
	if e.EnrollmentID = passedBack(e.Metadata); e.EnrollmentID == "" {
		e.EnrollmentID = taggedID(o["Tag"])
	}
	e.StepNumber = stepOf(e.Metadata)
	postmarkType(&e, o)
	e.Control = e.Type == ""

	at := o[postmarkTimeField(record)]
	if err := setTime(&e, at); err != nil {
		return nil, fmt.Errorf("%.80q: %w", record, err)
	}
	switch id := o.text("ID"); {
	case id != "" && (record == "Bounce" || record == "SpamComplaint"):
		e.ProviderEventID = id
		e.IdentityParts = []string{"postmark", record, id}
	default:
		suppress, told := o.flag("SuppressSending")
		e.IdentityParts = []string{
			"postmark", record, id, e.ProviderMessageID, event.NormalAddress(e.Email),
			string(at), o.text("OriginalLink"), o.text("Type"),
			// ChangedAt has whole seconds: off and on again may share one.
			strconv.FormatBool(suppress && told), o.text("SuppressionReason"), o.text("MessageStream"),
		}
	}
	if bytes.Contains(e.Metadata, []byte(`\u0000`)) {
		return nil, fmt.Errorf("%.80q: the metadata holds the character U+0000, which cannot be stored", record)
	}
	if err := e.Check(); err != nil {
		return nil, fmt.Errorf("%.80q: %w", record, err)
	}
	return []event.Event{e}, nil
}

// stepOf reads the step of the sequence that the customer put into the
// metadata of a mail, as "step_number" or "step"; 0 when there is none.
func stepOf(metadata []byte) int {
	o, err := readObject(metadata)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(o.text("step_number", "step"))
	if err != nil || n < 1 || n > 1000 {
		return 0
	}
	return n
}

// postmarkRecord tells what a body is about. Bodies older than RecordType, and
// mail to us, are told by the members that only they have.
func postmarkRecord(o object) string {
	if record := o.text("RecordType"); record != "" {
		return record
	}
	for _, told := range [][2]string{
		{"SuppressSending", "SubscriptionChange"},
		{"FirstOpen", "Open"},
		{"OriginalLink", "Click"},
		{"DeliveredAt", "Delivery"},
		{"BouncedAt", "Bounce"},
		{"FromFull", "Inbound"},
	} {
		if o[told[0]].Kind() != 0 {
			return told[1]
		}
	}
	return ""
}

// postmarkTimeField names the member that has a record's time. Unknown records
// have none that is known.
func postmarkTimeField(record string) string {
	switch record {
	case "Delivery":
		return "DeliveredAt"
	case "Bounce", "SpamComplaint":
		return "BouncedAt"
	case "Open", "Click":
		return "ReceivedAt"
	case "SubscriptionChange":
		return "ChangedAt"
	}
	return ""
}

// postmarkType sets the type and what goes with it; it leaves a record that is
// not known as it is, which makes it a control event.
func postmarkType(e *event.Event, o object) {
	switch e.Kind {
	case "Delivery":
		e.Type = event.Delivered
	case "Open":
		e.Type = event.Opened
	case "Click":
		e.Type = event.Clicked
		e.URL = o.text("OriginalLink")
	case "SpamComplaint":
		e.Type = event.Complained
	case "Bounce":
		e.Type, e.Bounce = postmarkBounce(o.text("Type"))
	case "SubscriptionChange":
		e.Type, e.Bounce = postmarkSubscription(o)
	}
}

// postmarkBounce maps the bounce types of
// https://postmarkapp.com/developer/api/bounce-api#bounce-types.
func postmarkBounce(kind string) (event.Type, event.Bounce) {
	switch kind {
	case "HardBounce":
		return event.Bounced, event.Hard
	case "SoftBounce",
		"Unknown", "VirusNotification": // bounces whose cause Postmark could not or did not class
		return event.Bounced, event.Soft
	case "Transient", "DnsError", "OpenRelayTest":
		return event.Deferred, ""
	case "SpamNotification", "SpamComplaint":
		return event.Complained, ""
	case "Unsubscribe":
		return event.Unsubscribed, ""
	case "Subscribe":
		return event.Resubscribed, ""
	case "AutoResponder", "AddressChange", "ChallengeVerification":
		return event.Autoresponded, ""
	case "BadEmailAddress", "ManuallyDeactivated", "Blocked", "Unconfirmed", "DMARCPolicy":
		return event.Dropped, ""
	case "SMTPApiError", "TemplateRenderingFailed":
		return event.Failed, ""
	}
	return "", "" // InboundError is about mail to us; any other is new
}

// postmarkSubscription maps a change of a suppression. A change that does not
// say which way, or a new reason, is not guessed.
func postmarkSubscription(o object) (event.Type, event.Bounce) {
	suppress, told := o.flag("SuppressSending")
	switch {
	case !told:
		return "", ""
	case !suppress:
		return event.Resubscribed, ""
	}
	switch o.text("SuppressionReason") {
	case "HardBounce":
		return event.Bounced, event.Hard
	case "SpamComplaint":
		return event.Complained, ""
	case "ManualSuppression":
		return event.Unsubscribed, ""
	}
	return "", ""
}
