package provider_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

// sample is one item of a vendor's webhook. In it stand $I for what makes it an
// event of its own (digits), $M for the message (digits), $A for the address, and $T
// for its time, a JSON value.
type sample struct {
	item string
	// batch puts items into one body; nil: the vendor sends one in each.
	batch func(items []string) string
	// noMessage, noAddress: the events have none.
	noMessage, noAddress bool
}

func array(items []string) string { return "[" + strings.Join(items, ",\r\n") + "]\r\n" }

func within(before, after string) func(items []string) string {
	return func(items []string) string { return before + strings.Join(items, ",") + after }
}

// samples are all vendors', from the fields that their documents name.
func samples() map[string]sample {
	return map[string]sample{
		"generic": {item: `{"event_type":"opened","channel":"email","provider_event_id":"$I","provider_message_id":"$M","email":"$A","timestamp":$T}`, batch: array},
		"lemlist": {item: `{"_id":"act_$I","type":"emailsOpened","createdAt":$T,"leadEmail":"$A","emailId":"$M"}`, batch: array},
		"hubspot": {
			item:  `{"eventId":100,"portalId":1,"occurredAt":$T,"attemptNumber":0,"subscriptionType":"contact.creation","objectId":$I}`,
			batch: array, noMessage: true, noAddress: true,
		},
		"postmark": {item: `{"RecordType":"Bounce","ID":$I,"Type":"HardBounce","MessageID":"$M","Email":"$A","BouncedAt":$T}`},
		"sendgrid": {item: `{"event":"open","email":"$A","timestamp":$T,"sg_event_id":"$I","sg_message_id":"$M.filter1.2"}`, batch: array},
		"mailgun": {
			item: `{"signature":{"timestamp":"1","token":"t","signature":"s"},"event-data":{"event":"opened","id":"$I","timestamp":$T,"recipient":"$A","message":{"headers":{"message-id":"$M"}}}}`,
		},
		"ses": {
			item: `{"Type":"Notification","MessageId":"$I","Timestamp":"2026-01-01T00:00:00Z",` +
				`"Message":"{\"eventType\":\"Open\",\"mail\":{\"messageId\":\"$M\",\"destination\":[\"$A\"]},\"open\":{\"timestamp\":$Q}}"}`,
		},
		"resend":    {item: `{"type":"email.opened","created_at":$T,"data":{"email_id":"$M","to":["$A"],"id":"$I"}}`},
		"brevo":     {item: `{"event":"click","email":"$A","message-id":"<$M>","ts_epoch":$T,"link":"https://e.example/$I"}`, batch: array},
		"smartlead": {item: `{"event_type":"EMAIL_OPEN","event_timestamp":$T,"event_id":$I,"sl_lead_email":"$A","sent_message":{"message_id":"<$M>"}}`, batch: array},
		"instantly": {item: `{"event_type":"email_opened","timestamp":$T,"workspace":"w","lead_email":"$A","email_id":"$M","step":"$I"}`, batch: array},
		"phantombuster": {
			item:  `{\"profileUrl\":\"https://l.example/in/$I\",\"email\":\"$A\",\"timestamp\":$Q}`,
			batch: within(`{"agentId":"1","containerId":"2","resultObject":"[`, `]"}`), noMessage: true,
		},
		"heygen": {item: `{"event_type":"avatar_video.success","event_id":"$I","created_at":$T,"event_data":{"video_id":"$M"}}`, noAddress: true},
		"calendly": {
			item: `{"event":"invitee.created","created_at":$T,"payload":{"uri":"https://c.example/$I","email":"$A"}}`, noMessage: true,
		},
		"mailersend": {item: `{"type":"activity.opened","created_at":$T,"data":{"id":"$I","email":{"message":{"id":"$M"},"recipient":{"email":"$A"}}}}`},
		"mailjet":    {item: `{"event":"open","time":$T,"MessageID":$M,"email":"$A","mj_contact_id":$I}`, batch: array},
		"mandrill":   {item: `{"event":"open","ts":$T,"ip":"$I","_id":"$M","msg":{"_id":"$M","email":"$A"}}`, batch: array},
		"sparkpost":  {item: `{"msys":{"track_event":{"type":"open","event_id":"$I","timestamp":$T,"transmission_id":$M,"rcpt_to":"$A"}}}`, batch: array},
		"mailtrap":   {item: `{"event":"open","event_id":"$I","timestamp":$T,"message_id":"$M","email":"$A"}`, batch: within(`{"events":[`, `]}`)},
	}
}

// like is one item with its marks filled in.
type like struct{ id, message, address, time string }

func (s sample) text(l like) string {
	if l.time == "" {
		l.time = `"2026-05-06T07:26:07Z"`
	}
	quoted := strings.ReplaceAll(l.time, `"`, `\"`)
	return strings.NewReplacer("$I", l.id, "$M", l.message, "$A", l.address, "$T", l.time, "$Q", quoted).Replace(s.item)
}

// decodeSamples decodes items, in one body where the vendor has batches.
func decodeSamples(t *testing.T, name string, items ...string) []event.Event {
	t.Helper()
	s := samples()[name]
	bodies := items
	if s.batch != nil {
		bodies = []string{s.batch(items)}
	}
	var all []event.Event
	for _, body := range bodies {
		req := request(asPosted(name, []byte(body)), nil)
		req.Settings.Agents = map[string]provider.Agent{"1": {EventType: event.ConnectionSent}}
		got, err := provider.ByName(name).Decode(req)
		if err != nil {
			t.Fatalf("%s: decode %.400s: %v", name, body, err)
		}
		all = append(all, got...)
	}
	if len(all) != len(items) {
		t.Fatalf("%s: got %d events of %d items", name, len(all), len(items))
	}
	return all
}

func identities(events []event.Event) map[event.Hash]bool {
	seen := map[event.Hash]bool{}
	for i := range events {
		seen[events[i].Identity()] = true
	}
	return seen
}

// TestItems holds every vendor's items against what is true of all events.
func TestItems(t *testing.T) {
	t.Parallel()
	known := samples()
	for _, p := range provider.All() {
		s, ok := known[p.Name]
		if !ok {
			t.Errorf("%s has no sample", p.Name)
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			t.Run("Identity", func(t *testing.T) { t.Parallel(); sampleIdentity(t, p.Name, s) })
			t.Run("Digits", func(t *testing.T) { t.Parallel(); sampleDigits(t, p.Name, s) })
			t.Run("Addresses", func(t *testing.T) { t.Parallel(); sampleAddresses(t, p.Name, s) })
			t.Run("Times", func(t *testing.T) { t.Parallel(); sampleTimes(t, p.Name, s) })
		})
	}
}

// sampleIdentity: 46 copies are one event, which SendGrid was seen to send; a
// batch that comes again with one item more has one new event.
func sampleIdentity(t *testing.T, name string, s sample) {
	items := make([]string, 46)
	for i := range items {
		items[i] = s.text(like{id: "1", message: "5", address: "ada@x.example"})
	}
	if got := len(identities(decodeSamples(t, name, items...))); got != 1 {
		t.Errorf("46 copies: got %d events, want 1", got)
	}
	batch := []string{items[0], s.text(like{id: "2", message: "5", address: "ada@x.example"})}
	first := identities(decodeSamples(t, name, batch...))
	again := identities(decodeSamples(t, name, append(slices.Clone(batch), s.text(like{id: "3", message: "5", address: "ada@x.example"}))...))
	if len(first) != 2 || len(again) != 3 {
		t.Errorf("got %d events, then %d, want 2 and 3", len(first), len(again))
	}
	for id := range first {
		if !again[id] {
			t.Error("an item that comes again is another event")
		}
	}
}

// sampleDigits: ids beyond 2^53 keep their last digit.
func sampleDigits(t *testing.T, name string, s sample) {
	const one, two = "9007199254740992", "9007199254740993"
	events := decodeSamples(t, name, s.text(like{id: one, message: one, address: "ada@x.example"}), s.text(like{id: two, message: one, address: "ada@x.example"}))
	if got := len(identities(events)); got != 2 {
		t.Errorf("ids that differ in the last digit: got %d events, want 2", got)
	}
	if got := decodeSamples(t, name, s.text(like{id: "1", message: two, address: "ada@x.example"}))[0].ProviderMessageID; !s.noMessage && got != two {
		t.Errorf("got message %s, want %s", got, two)
	}
}

// sampleAddresses: the name is taken off, the rest stays as it was sent but
// that case makes no other event.
func sampleAddresses(t *testing.T, name string, s sample) {
	if s.noAddress {
		return
	}
	decode := func(address string) *event.Event {
		return &decodeSamples(t, name, s.text(like{id: "1", message: "5", address: address}))[0]
	}
	for sent, want := range map[string]string{
		"ada@x.example":                 "ada@x.example",
		"ADA@X.Example":                 "ada@x.example",
		"Ada <ada@x.example>":           "ada@x.example",
		"Lovelace, Ada <ada@x.example>": "ada@x.example",
		"ada+news=a@x.example":          "ada+news=a@x.example",
		"o'hara@x.example":              "o'hara@x.example",
		"jürgen@bücher.example":         "jürgen@bücher.example",
		"用户@例子.example":                 "用户@例子.example",
	} {
		e := decode(sent)
		if got := event.NormalAddress(e.Email); got != want || !event.ValidAddress(e.Email) {
			t.Errorf("%s: got %q, want %q", sent, e.Email, want)
		}
		if strings.ContainsAny(e.Email, "<>") && name != "generic" { // which keeps what was submitted
			t.Errorf("%s: got %q, want no name", sent, e.Email)
		}
	}
	if decode("ada@x.example").Identity() != decode("ADA@X.example").Identity() {
		t.Error("another case of the address: another event")
	}
}

// sampleTimes: each form is the same moment; none, null and "" are no time; a
// time that cannot be read fails the body.
func sampleTimes(t *testing.T, name string, s sample) {
	decode := func(at string) *event.Event {
		return &decodeSamples(t, name, s.text(like{id: "1", message: "5", address: "ada@x.example", time: at}))[0]
	}
	const want = "2026-05-06 07:26:07 +0000 UTC"
	forms := []string{`"2026-05-06T07:26:07Z"`, `"2026-05-06T09:26:07.0000000+02:00"`}
	if name != "generic" { // whose form is ours
		forms = append(forms, `1778052367`, `1778052367000`, `"1778052367"`, `1778052367.0`, `1.778052367e9`, `"2026-05-06T09:26:07+0200"`, `"2026-05-06 07:26:07"`,
			`"2026-05-06T07:26:07"`, `"2026-05-06 09:26:07.000000+02"`, `"Wed, 06 May 2026 07:26:07 +0000"`)
	}
	for _, form := range forms {
		if got := decode(form); fmt.Sprint(got.OccurredAt) != want || got.OccurredAtEstimated {
			t.Errorf("%s: got %v, want %s", form, got.OccurredAt, want)
		}
	}
	if name == "ses" || name == "generic" { // SNS has a time besides; a text that is no time is refused
		return
	}
	for _, none := range []string{`null`, `""`} {
		if got := decode(none); !got.OccurredAtEstimated || !got.OccurredAt.IsZero() {
			t.Errorf("%s: got %v, want none", none, got.OccurredAt)
		}
	}
}
