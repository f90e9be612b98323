package provider

import (
	"fmt"
	"maps"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// sparkpost (Bird) posts an array of events, each wrapped as
// {"msys": {"<class>": {...}}} (https://developers.sparkpost.com/api/webhooks/).
// A ping has an empty msys and is no event.
//
// Authentication: SparkPost signs nothing. Basic credentials, an OAuth token or
// headers of one's own can be set. A source's secret of the form user:password is
// required as Basic credentials; headers with the settings.
//
// Retries (same page): a batch that is not answered 200 is tried again for 8
// hours, then thrown away; 10 seconds timeout.
//
// Identity: "event_id", which is unique; without one, the fields. The header
// X-MessageSystems-Batch-ID names the batch, and a batch is not deduped as a
// whole.
//
// Message: the transmission is what the sender of a mail gets to know. It may
// have several recipients; message_id is the one mail's and kept as the action.
//
// initial_open loads at the top of a mail, before anybody reads: where it is the
// only one told, a program may have made it. It is marked as machine-made.
func sparkpost() *Provider {
	return &Provider{
		Name:   "sparkpost",
		Number: 18,
		Title:  "SparkPost",
		Scheme: "the URL's token; optionally Basic credentials or headers",
		Events: []string{
			"injection", "delivery", "delay", "bounce", "out_of_band", "policy_rejection", "generation_failure",
			"generation_rejection", "open", "initial_open", "amp_open", "amp_initial_open", "click", "amp_click",
			"spam_complaint", "list_unsubscribe", "link_unsubscribe",
		},
		Setup: "In SparkPost open Configuration, Webhooks, Create webhook, paste the source's URL and choose the message, " +
			"engagement, generation and unsubscribe events. If the source has a secret user:password, choose Basic auth and " +
			"enter both. Send with recipient metadata {\"enrollment_id\": ...} to tie events without doubt.",
		Tells:       []string{tellsTags, tellsCampaigns},
		CheckSecret: checkUserPassword,
		Verify:      verifyPostmark, // Basic credentials
		Decode:      decodeSparkpost,
		Sample:      sampleSparkpost,
	}
}

func sampleSparkpost(s Sampling) Sample {
	return s.authorized(s.fill(`[{"msys":{"track_event":{"type":"open","event_id":"$N","timestamp":"$UNIX","transmission_id":"$N","rcpt_to":"$TO"}}}]`))
}

func decodeSparkpost(req Request) ([]event.Event, error) {
	items, err := readItems(req.Body)
	if err != nil {
		return nil, err
	}
	var events []event.Event
	for i, raw := range items {
		got, err := sparkpostItem(raw)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i, err)
		}
		events = append(events, got...)
	}
	return events, nil
}

// sparkpostItem reads the one event of an item; more than one would not be lost.
func sparkpostItem(raw jsontext.Value) ([]event.Event, error) {
	o, err := readObject(raw)
	if err != nil {
		return nil, err
	}
	msys, err := readObject(o["msys"])
	if err != nil {
		return nil, fmt.Errorf("msys: %w", err)
	}
	classes := make([]jsontext.Value, 0, len(msys))
	for _, class := range slices.Sorted(maps.Keys(msys)) {
		classes = append(classes, msys[class])
	}
	events, err := decodeEach("sparkpost", classes, sparkpostEvent)
	if err != nil {
		return nil, err
	}
	if len(events) == 1 {
		events[0].Payload = raw
	}
	return events, nil
}

func sparkpostEvent(e *event.Event, o object) error {
	e.Kind = o.text("type")
	class := o.text("bounce_class")
	e.Type, e.Bounce = sparkpostType(e.Kind, class)
	e.ProviderEventID = o.text("event_id")
	e.ProviderMessageID = o.text("transmission_id")
	e.ActionID = o.text("message_id")
	e.Email = bareAddress(o.text("rcpt_to", "raw_rcpt_to"))
	e.Campaign = o.text("campaign_id")
	if e.Type == event.Clicked {
		e.URL = o.text("target_link_url")
	}
	if e.Kind == "initial_open" || e.Kind == "amp_initial_open" {
		e.Machine = event.MachineYes
	}
	if err := setMetadata(e, o.nested("rcpt_meta")); err != nil {
		return err
	}
	e.Tags = texts(o["rcpt_tags"])
	if e.EnrollmentID == "" {
		e.EnrollmentID = taggedID(o["rcpt_tags"])
	}
	at := firstTold(o["timestamp"])
	if e.ProviderEventID == "" {
		e.IdentityParts = []string{
			"sparkpost", e.Kind, class, e.ProviderMessageID, e.ActionID, event.NormalAddress(e.Email), timeText(at), e.URL,
			o.text("num_retries"), o.text("ip_address"), o.text("user_agent"),
		}
	}
	return setTime(e, at)
}

func sparkpostType(kind, class string) (event.Type, event.Bounce) {
	switch kind {
	case "injection":
		return event.Queued, ""
	case "delivery":
		return event.Delivered, ""
	case "delay":
		return event.Deferred, ""
	case "bounce", "out_of_band":
		return sparkpostBounce(class)
	case "policy_rejection", "generation_rejection":
		return event.Dropped, ""
	case "generation_failure":
		return event.Failed, ""
	case "open", "initial_open", "amp_open", "amp_initial_open":
		return event.Opened, ""
	case "click", "amp_click":
		return event.Clicked, ""
	case "spam_complaint":
		return event.Complained, ""
	case "list_unsubscribe", "link_unsubscribe":
		return event.Unsubscribed, ""
	}
	return "", "" // relays, text messages, A/B tests, ingests
}

// sparkpostBounce maps the classes of
// https://support.sparkpost.com/docs/deliverability/bounce-classification-codes.
func sparkpostBounce(class string) (event.Type, event.Bounce) {
	switch class {
	case "10", "30": // the recipient does not exist
		return event.Bounced, event.Hard
	case "25", "26": // held back by SparkPost's own policy
		return event.Dropped, ""
	case "60", "100": // an answering machine, a challenge
		return event.Autoresponded, ""
	case "80": // a request to subscribe is not proof enough to lift anything
		return "", ""
	case "90":
		return event.Unsubscribed, ""
	}
	return event.Bounced, event.Soft // undetermined, soft, blocked, or new: hard is never guessed
}
