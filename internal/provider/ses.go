package provider

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// ses is Amazon SES over SNS: SNS posts one message for each request, with the
// SES record as a text in it (https://docs.aws.amazon.com/ses/latest/dg/monitor-using-event-publishing.html,
// https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html).
// Records of event publishing and those of feedback notifications are read.
//
// Authentication: SNS signs each message: see verifySNS. That proves that some
// AWS account sent it; whose, the setting topic_arns says. There is no secret.
// "Raw message delivery" has no signature and is refused.
//
// A new subscription has to be confirmed by a GET of its SubscribeURL. That is
// done only when topic_arns names the topic, so that nobody can make us confirm
// theirs, and only at an address of SNS itself (see Confirm). Without the setting
// the message is kept, and a person opens the address.
//
// Retries (https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html):
// by default 3, 20 seconds apart, up to an hour by a policy of one's own, on a
// 5xx, a 429 or no answer within 15 seconds. Other 4xx are not tried again.
//
// Identity: SNS's MessageId, the same on retries, with kind and recipient. The
// same record over two topics is two events: publish each kind over one.
//
// Recipients: a bounce, complaint, delivery or delay has one event for each of
// those that it lists. Everything else is about the message: its recipient is
// told only when there is just one destination.
func ses() *Provider {
	return &Provider{
		Name:   "ses",
		Number: 7,
		Title:  "Amazon SES",
		Scheme: "SNS signature versions 1 and 2, with the certificate of SigningCertURL; topics by topic_arns",
		Events: []string{
			"Send", "Delivery", "Bounce", "Complaint", "Reject", "Open", "Click", "Rendering Failure", "DeliveryDelay", "Subscription",
		},
		Setup: "In Amazon SNS make a standard topic and give the source its ARN: \"settings\": {\"topic_arns\": [\"arn:aws:sns:...\"]}. " +
			"Add a subscription to the topic: protocol HTTPS, endpoint the source's URL, raw message delivery off; it is confirmed by " +
			"itself. In Amazon SES open your configuration set, Event destinations, and add the topic with all event types. Send " +
			"with the message tag enrollment_id to tie events without doubt.",
		Tells:       []string{tellsStreams, tellsTags},
		CheckSecret: func(string) error { return errors.New("SES has no secret; name your topics in settings.topic_arns") },
		Verify:      verifySNS,
		Decode:      decodeSES,
		Sample:      sampleSES,
		Mask:        maskSES,
		Confirm:     confirmSNS,
	}
}

// maskSES hides the address that ends the subscription without further ado.
func maskSES(body []byte) []byte { return maskMembers(body, "UnsubscribeURL") }

func sampleSES(s Sampling) Sample {
	topic := "arn:aws:sns:us-east-1:000000000000:sample"
	if topics := s.Config.Settings.TopicARNs; len(topics) > 0 {
		topic = topics[0]
	}
	message := string(s.fill(`{"eventType":"Open","mail":{"messageId":"$ID","timestamp":"$AT","destination":["$TO"]},"open":{"timestamp":"$AT"}}`))
	return Sample{
		Body: s.fill(`{"Type":"Notification","MessageId":"$ID","TopicArn":` + quoted(topic) + `,"Message":` + quoted(message) +
			`,"Timestamp":"$AT","SignatureVersion":"2"}`),
		Unsigned: "only Amazon SNS can sign; publish a message to the topic, or send to success@simulator.amazonses.com",
	}
}

func decodeSES(req Request) ([]event.Event, error) {
	raw := jsontext.Value(bytes.TrimSpace(req.Body))
	o, err := readObject(raw)
	if err != nil {
		return nil, err
	}
	d := sesDecoder{record: o, base: event.Event{Provider: "ses", Channel: event.Email, Payload: raw}}
	if kind := o.text("Type"); kind != "" && o.text("MessageId") != "" {
		d.base.Payload = maskSES(raw)
		d.snsID, d.snsTime = o.text("MessageId"), o["Timestamp"]
		d.record = memberText(o, "Message")
		if kind != "Notification" || d.record.text("eventType", "notificationType") == "" {
			return d.control(kind) // about the subscription, or a message that is not of SES
		}
	}
	return d.events()
}

// memberText reads a member that is a text with a JSON object in it; nil when
// it is none.
func memberText(o object, name string) object {
	m, err := readObject(bytes.TrimSpace([]byte(o.text(name))))
	if err != nil {
		return nil
	}
	return m
}

// sesDecoder reads one message.
type sesDecoder struct {
	base    event.Event
	record  object
	snsID   string         // empty for a record without SNS around it
	snsTime jsontext.Value // when SNS published it
}

func (d sesDecoder) control(kind string) ([]event.Event, error) {
	e := d.base
	e.Kind, e.Control = kind, true
	e.ProviderEventID = d.snsID
	e.IdentityParts = []string{"ses", kind, d.snsID}
	if err := setTime(&e, firstTold(d.snsTime)); err != nil {
		return nil, err
	}
	if err := e.Check(); err != nil {
		return nil, fmt.Errorf("%.80q: %w", kind, err)
	}
	return []event.Event{e}, nil
}

func (d sesDecoder) events() ([]event.Event, error) {
	kind := d.record.text("eventType", "notificationType")
	if kind == "" {
		return nil, errNoKind
	}
	mail := memberObject(d.record, "mail")
	detail := memberObject(d.record, sesDetail(kind))
	e := d.base
	e.Kind = kind
	e.Type, e.Bounce = sesType(kind, detail)
	e.Control = e.Type == ""
	e.ProviderEventID = d.snsID
	e.ProviderMessageID = mail.text("messageId")
	if e.Type == event.Clicked {
		e.URL = detail.text("link")
	}
	tags := sesTags(mail)
	if err := setMetadata(&e, fieldsObject(tags)); err != nil {
		return nil, err
	}
	e.Stream, e.Tags = tags["ses:configuration-set"], namedTags(tags)
	at := firstTold(detail["timestamp"], d.snsTime)
	switch kind {
	case "Send", "Reject", "Rendering Failure", "RenderingFailure": // which have no time of their own
		at = firstTold(detail["timestamp"], mail["timestamp"], d.snsTime)
	}
	if err := setTime(&e, at); err != nil {
		return nil, fmt.Errorf("%.80q: %w", kind, err)
	}
	recipients := sesRecipients(kind, detail)
	if len(recipients) == 0 {
		recipients = []string{soleOf(texts(mail["destination"]))}
	}
	if len(recipients) > maxRecipients {
		return nil, fmt.Errorf("%.80q: more than %d recipients", kind, maxRecipients)
	}
	events := make([]event.Event, 0, len(recipients))
	for _, address := range recipients {
		one := e
		one.Email = bareAddress(address)
		one.IdentityParts = []string{"ses", kind, d.snsID, event.NormalAddress(one.Email)}
		if d.snsID == "" {
			one.IdentityParts = append(one.IdentityParts, e.ProviderMessageID, timeText(at), detail.text("feedbackId"), e.URL,
				detail.text("ipAddress"), detail.text("userAgent"), strconv.Itoa(len(recipients)))
		}
		if err := one.Check(); err != nil {
			return nil, fmt.Errorf("%.80q: %w", kind, err)
		}
		events = append(events, one)
	}
	return events, nil
}

// maxRecipients bounds the events of one record, each of which keeps the whole
// of it as its payload. SES takes 50 recipients for a mail.
const maxRecipients = 100

// sesDetail names the member that has an event's own object.
func sesDetail(kind string) string {
	switch kind {
	case "Rendering Failure", "RenderingFailure":
		return "failure"
	case "DeliveryDelay":
		return "deliveryDelay"
	}
	return strings.ToLower(kind)
}

func sesType(kind string, detail object) (event.Type, event.Bounce) {
	switch kind {
	case "Send":
		return event.Sent, ""
	case "Delivery":
		return event.Delivered, ""
	case "Bounce":
		if detail.text("bounceType") == "Permanent" {
			return event.Bounced, event.Hard
		}
		return event.Bounced, event.Soft // Transient, Undetermined
	case "Complaint":
		if detail.text("complaintFeedbackType") == "not-spam" { // somebody took a mail out of the spam folder
			return "", ""
		}
		return event.Complained, ""
	case "Reject":
		return event.Dropped, ""
	case "Open":
		return event.Opened, ""
	case "Click":
		return event.Clicked, ""
	case "Rendering Failure", "RenderingFailure":
		return event.Failed, ""
	case "DeliveryDelay":
		return event.Deferred, ""
	case "Subscription":
		return sesSubscription(memberObject(detail, "newTopicPreferences"), memberObject(detail, "oldTopicPreferences")), ""
	}
	return "", "" // mail to us, or new
}

// sesSubscription tells which way somebody's preferences went. Who leaves any
// topic has unsubscribed: mail that is not wanted is the worse mistake.
func sesSubscription(now, before object) event.Type {
	all, told := now.flag("unsubscribeAll")
	if all {
		return event.Unsubscribed
	}
	was := sesTopics(before)
	joined := false
	for topic, status := range sesTopics(now) {
		switch {
		case status == was[topic]:
		case strings.EqualFold(status, "OptOut"):
			return event.Unsubscribed
		case strings.EqualFold(status, "OptIn"):
			joined = true
		}
	}
	if left, _ := before.flag("unsubscribeAll"); joined || left && told {
		return event.Resubscribed
	}
	return ""
}

func sesTopics(preferences object) map[string]string {
	topics := map[string]string{}
	items, err := readItems(preferences["topicSubscriptionStatus"])
	if err != nil {
		return topics
	}
	for _, item := range items {
		if o, err := readObject(item); err == nil {
			topics[o.text("topicName")] = o.text("subscriptionStatus")
		}
	}
	return topics
}

// sesRecipients are those that a record lists.
func sesRecipients(kind string, detail object) []string {
	var name string
	switch kind {
	case "Delivery":
		return texts(detail["recipients"])
	case "Bounce":
		name = "bouncedRecipients"
	case "Complaint":
		name = "complainedRecipients"
	case "DeliveryDelay":
		name = "delayedRecipients"
	default: // about the message
		return nil
	}
	items, err := readItems(detail[name])
	if err != nil {
		return nil
	}
	var list []string
	for _, item := range items {
		if o, err := readObject(item); err == nil && o.text("emailAddress") != "" {
			list = append(list, o.text("emailAddress"))
		}
	}
	return list
}

// sesTags reads the tags that a mail was sent with: a list of values for each
// name, of which the first counts. Feedback notifications have them in the
// mail's own header only, where headers are included.
func sesTags(mail object) map[string]string {
	fields := map[string]string{}
	if tags, err := readObject(mail["tags"]); err == nil {
		for name, v := range tags {
			if values := texts(v); len(values) > 0 {
				fields[name] = values[0]
			}
		}
		return fields
	}
	headers, err := readItems(mail["headers"])
	if err != nil {
		return nil
	}
	for _, header := range headers {
		o, err := readObject(header)
		if err != nil || !strings.EqualFold(o.text("name"), "X-SES-MESSAGE-TAGS") {
			continue
		}
		for pair := range strings.SplitSeq(o.text("value"), ",") {
			if name, value, ok := strings.Cut(pair, "="); ok {
				fields[strings.TrimSpace(name)] = strings.TrimSpace(value)
			}
		}
	}
	return fields
}
