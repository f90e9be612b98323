package provider_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeSES(f *testing.F) { fuzzDecode(f, "ses") }

// FuzzVerifySES: no body verifies that the topic's key has not signed, and no
// certificate is asked for at another address than SNS's.
func FuzzVerifySES(f *testing.F) {
	for _, path := range jsonFiles(f, "testdata/payloads/ses") {
		f.Add(read(f, path))
	}
	p := provider.ByName("ses")
	f.Fuzz(func(t *testing.T, body []byte) {
		cfg := provider.Config{Certificate: func(address string) ([]byte, error) {
			if provider.CheckCertificateURL(address) != nil {
				t.Fatalf("asked for %q", address)
			}
			return nil, errors.New("none")
		}}
		if p.Verify(time.Unix(0, 0), cfg, request(body, nil)) == nil {
			t.Fatal("verified without a key")
		}
		p.Confirm(provider.Config{Settings: provider.Settings{TopicARNs: []string{snsTopic}}}, request(body, nil))
	})
}

// sesMessage is an SES record in SNS's envelope, not signed.
func sesMessage(t *testing.T, record string) []byte {
	t.Helper()
	text, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(`{"Type":"Notification","MessageId":"sns-1","TopicArn":"` + snsTopic + `","Message":` + string(text) +
		`,"Timestamp":"2026-05-06T07:26:09.500Z"}`)
}

// TestDecodeSESRecipients bounds what one record can become.
func TestDecodeSESRecipients(t *testing.T) {
	t.Parallel()
	record := func(n int) []byte {
		return []byte(`{"eventType":"Bounce","mail":{"messageId":"m"},"bounce":{"bouncedRecipients":[` + strings.Repeat(`{"emailAddress":"a@x.example"},`, n-1) +
			`{"emailAddress":"b@x.example"}]}}`)
	}
	if got, err := provider.ByName("ses").Decode(request(record(100), nil)); err != nil || len(got) != 100 {
		t.Errorf("100 recipients: got %d events, %v", len(got), err)
	}
	if got, err := provider.ByName("ses").Decode(request(record(101), nil)); err == nil {
		t.Errorf("101 recipients: got %d events and no error", len(got))
	}
}

func TestDecodeSESTypes(t *testing.T) {
	t.Parallel()
	table := map[string]mapped{
		"Send": {want: event.Sent}, "Delivery": {want: event.Delivered}, "Bounce": {want: event.Bounced, bounce: event.Hard},
		"Complaint": {want: event.Complained}, "Reject": {want: event.Dropped}, "Open": {want: event.Opened}, "Click": {want: event.Clicked},
		"Rendering Failure": {want: event.Failed}, "RenderingFailure": {want: event.Failed}, "DeliveryDelay": {want: event.Deferred}, "Subscription": {want: event.Unsubscribed},
		"Received": {}, "AmazonSnsSubscriptionSucceeded": {}, "SomethingNew": {},
	}
	record := func(member string) func(kind string) string {
		return func(kind string) string {
			return `{"` + member + `":"` + kind + `","mail":{"messageId":"m","timestamp":"2026-05-06T07:26:00Z","destination":["a@x.example"]},
				"bounce":{"bounceType":"Permanent"},"subscription":{"newTopicPreferences":{"unsubscribeAll":true}}}`
		}
	}
	mapsTypes(t, "ses", table, func(kind string) []byte { return sesMessage(t, record("eventType")(kind)) })
	for kind, tt := range table {
		e := decodeOne(t, "ses", []byte(record("notificationType")(kind)), nil) // as an identity's notifications say, and raw
		if e.Type != tt.want || e.Kind != kind || e.ProviderEventID != "" || e.ProviderMessageID != "m" {
			t.Errorf("%s: got type %q, id %q, message %q", kind, e.Type, e.ProviderEventID, e.ProviderMessageID)
		}
	}
}

func TestDecodeSESSubscriptions(t *testing.T) {
	t.Parallel()
	topics := func(all bool, status string) string {
		return fmt.Sprintf(`{"unsubscribeAll":%v,"topicSubscriptionStatus":[{"topicName":"other","subscriptionStatus":"OptIn"},{"topicName":"news","subscriptionStatus":%q}]}`, all, status)
	}
	for name, tt := range map[string]struct {
		now, before string
		want        event.Type
	}{
		"All":         {topics(true, "OptIn"), topics(false, "OptIn"), event.Unsubscribed},
		"OneTopic":    {topics(false, "OptOut"), topics(false, "OptIn"), event.Unsubscribed},
		"Back":        {topics(false, "OptIn"), topics(false, "OptOut"), event.Resubscribed},
		"BackFromAll": {topics(false, "OptOut"), topics(true, "OptOut"), event.Resubscribed},
		"NoChange":    {topics(false, "OptIn"), topics(false, "OptIn"), ""},
		"NothingTold": {"null", "null", ""},
		"NoBefore":    {topics(false, "OptOut"), "null", event.Unsubscribed},
	} {
		e := decodeOne(t, "ses", sesMessage(t, `{"eventType":"Subscription","mail":{"destination":["a@x.example"]},"subscription":{"newTopicPreferences":`+
			tt.now+`,"oldTopicPreferences":`+tt.before+`}}`), nil)
		if e.Type != tt.want {
			t.Errorf("%s: got %q, want %q", name, e.Type, tt.want)
		}
	}
}

func TestDecodeSESDetails(t *testing.T) {
	t.Parallel()
	const id = "0198c0de-0000-7000-8000-00000000cafe"
	for name, mail := range map[string]string{
		"Tags":   `"tags":{"enrollment_id":["` + id + `"],"step":["3"]}`,
		"Header": `"headers":[{"name":"x-ses-message-tags","value":"campaign=1, enrollment_id=` + id + `, step=3"}]`,
	} {
		e := decodeOne(t, "ses", sesMessage(t, `{"eventType":"Send","mail":{`+mail+`}}`), nil)
		if e.EnrollmentID != id || e.StepNumber != 3 {
			t.Errorf("%s: got enrollment %q, step %d", name, e.EnrollmentID, e.StepNumber)
		}
	}
	soft := decodeOne(t, "ses", sesMessage(t, `{"eventType":"Bounce","mail":{},"bounce":{"bounceType":"Undetermined"}}`), nil)
	if soft.Bounce != event.Soft || soft.Email != "" || soft.OccurredAt.Format(time.RFC3339) != "2026-05-06T07:26:09Z" {
		t.Errorf("got %q for %q at %v", soft.Bounce, soft.Email, soft.OccurredAt)
	}
	kind := decodeOne(t, "ses", sesMessage(t, `{"eventType":"Complaint","mail":{},"complaint":{"complaintFeedbackType":"not-spam"}}`), nil)
	if !kind.Control {
		t.Errorf("who took a mail out of the spam folder has complained: %q", kind.Type)
	}
	masked := decodeOne(t, "ses", []byte(strings.Replace(string(sesMessage(t, `{"eventType":"Send","mail":{}}`)), `"Type"`,
		`"UnsubscribeURL":"https://sns.eu-west-1.amazonaws.com/?s3cr3t","Type"`, 1)), nil)
	if bytes.Contains(masked.Payload, []byte("s3cr3t")) {
		t.Error("the payload shows how to end the subscription")
	}
}

func TestIdentitySES(t *testing.T) {
	t.Parallel()
	two := `{"eventType":"Bounce","mail":{"messageId":"m"},"bounce":{"bounceType":"Permanent","timestamp":"2026-05-06T07:26:07Z","bouncedRecipients":` +
		`[{"emailAddress":"a@x.example"},{"emailAddress":"b@x.example"}]}}`
	events, err := provider.ByName("ses").Decode(request(sesMessage(t, two), nil))
	if err != nil || len(events) != 2 || events[0].Identity() == events[1].Identity() {
		t.Fatalf("two recipients: got %d events, %v", len(events), err)
	}
	newIn(t, "ses", string(sesMessage(t, two)), string(sesMessage(t, strings.Replace(two, `"b@x`, `"c@x`, 1))), 1)
	one := string(sesMessage(t, `{"eventType":"Open","mail":{"messageId":"m","destination":["a@x.example"]},"open":{"timestamp":"2026-05-06T07:26:07Z"}}`))
	identifies(t, "ses", one, [][2]string{{"07:26:09.500Z", "07:26:39.500Z"}, {"a@x", "A@x"}}, [][2]string{{"sns-1", "sns-2"}})
	identifies(t, "ses", `{"eventType":"Open","mail":{"messageId":"m1","destination":["a@x.example"]},"open":{"timestamp":"2026-05-06T07:26:07Z","ipAddress":"1"}}`,
		nil, [][2]string{{"m1", "m2"}, {"a@x", "b@x"}, {"07:26:07Z", "07:26:08Z"}, {`"1"`, `"2"`}})
}

func TestVerifySES(t *testing.T) {
	t.Parallel()
	s, stranger := newSNS(t), newSNS(t)
	confirmation := map[string]string{"Type": "SubscriptionConfirmation", "Token": "t", "SubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription"}
	good := s.sign(t, nil)
	change := func(from, to string) []byte { return bytes.Replace(good, []byte(from), []byte(to), 1) }
	for name, tt := range map[string]struct {
		body   []byte
		topics []string
		get    func(string) ([]byte, error)
		want   error
	}{
		"Version2":         {body: good},
		"Version1":         {body: s.sign(t, map[string]string{"SignatureVersion": "1"})},
		"Subject":          {body: s.sign(t, map[string]string{"Subject": "Hello", "Message": "a\nb"})},
		"Confirmation":     {body: s.sign(t, confirmation)},
		"Topic":            {body: good, topics: []string{"arn:aws:sns:eu-west-1:123456789012:other", snsTopic}},
		"OtherTopic":       {body: good, topics: []string{"arn:aws:sns:eu-west-1:123456789012:other"}, want: provider.ErrTopic},
		"TopicByPrefix":    {body: good, topics: []string{snsTopic[:len(snsTopic)-1]}, want: provider.ErrTopic},
		"Message":          {body: change(`"{}"`, `"{ }"`), want: provider.ErrMismatch},
		"MessageId":        {body: change("000000000001", "000000000002"), want: provider.ErrMismatch},
		"Version3":         {body: s.sign(t, map[string]string{"SignatureVersion": "3"}), want: provider.ErrMalformed},
		"SignatureNo64":    {body: change(`"Signature":"`, `"Signature":"!`), want: provider.ErrMalformed},
		"OtherKey":         {body: stranger.sign(t, nil), want: provider.ErrMismatch},
		"NotFetched":       {body: good, get: func(string) ([]byte, error) { return nil, errors.New("timeout") }, want: provider.ErrUnavailable},
		"NoCertificate":    {body: good, get: func(string) ([]byte, error) { return []byte("<html>"), nil }, want: provider.ErrMalformed},
		"HTTP":             {body: s.sign(t, map[string]string{"SigningCertURL": "http://sns.eu-west-1.amazonaws.com/a.pem"}), want: provider.ErrMalformed},
		"OtherHost":        {body: s.sign(t, map[string]string{"SigningCertURL": "https://sns.eu-west-1.amazonaws.com.evil.example/a.pem"}), want: provider.ErrMalformed},
		"TypeUnknown":      {body: s.sign(t, map[string]string{"Type": "Other"}), want: provider.ErrMissing},
		"NoSignature":      {body: change(`"Signature"`, `"Sign"`), want: provider.ErrMissing},
		"NoAddress":        {body: change(`"SigningCertURL"`, `"SigningCertUrl"`), want: provider.ErrMissing},
		"MessageNoText":    {body: change(`"Message":"{}"`, `"Message":{}`), want: provider.ErrMissing},
		"RawDelivery":      {body: []byte(`{"eventType":"Send"}`), want: provider.ErrMissing},
		"TwoTypes":         {body: change(`"Type":"Notification"`, `"Type":"Notification","Type":"Notification"`), want: provider.ErrMalformed},
		"NotJSON":          {body: []byte("Type=Notification"), want: provider.ErrMalformed},
		"ChinaCertificate": {body: s.sign(t, map[string]string{"SigningCertURL": "https://sns.cn-north-1.amazonaws.com.cn/a.pem"})},
	} {
		cfg := provider.Config{Certificate: s.certificate, Settings: provider.Settings{TopicARNs: tt.topics}}
		if tt.get != nil {
			cfg.Certificate = tt.get
		}
		asked := len(s.asked)
		got := provider.ByName("ses").Verify(time.Unix(0, 0), cfg, request(tt.body, nil))
		if !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
		if refused := errors.Is(tt.want, provider.ErrTopic) || errors.Is(tt.want, provider.ErrMissing); refused && len(s.asked) != asked {
			t.Errorf("%s: the certificate was asked for", name)
		}
	}
	if err := provider.ByName("ses").Verify(time.Unix(0, 0), provider.Config{}, request(good, nil)); !errors.Is(err, provider.ErrUnavailable) {
		t.Errorf("nothing may be fetched: got %v", err)
	}
	if provider.ByName("ses").CheckSecret("a") == nil {
		t.Error("a secret that nothing is checked with is taken")
	}
}

func TestConfirmSES(t *testing.T) {
	t.Parallel()
	const good = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=" + snsTopic + "&Token=t"
	for name, tt := range map[string]struct {
		kind, topic, address string
		topics               []string
		want                 bool
	}{
		"Right":        {"SubscriptionConfirmation", snsTopic, good, []string{snsTopic}, true},
		"NotAsked":     {"SubscriptionConfirmation", snsTopic, good, nil, false},
		"OtherTopic":   {"SubscriptionConfirmation", snsTopic, good, []string{snsTopic + "2"}, false},
		"End":          {"UnsubscribeConfirmation", snsTopic, good, []string{snsTopic}, false},
		"Notification": {"Notification", snsTopic, good, []string{snsTopic}, false},
		"OtherHost":    {"SubscriptionConfirmation", snsTopic, strings.Replace(good, ".com/", ".com.evil.example/", 1), []string{snsTopic}, false},
		"Credentials":  {"SubscriptionConfirmation", snsTopic, strings.Replace(good, "//sns", "//evil.example@sns", 1), []string{snsTopic}, false},
		"HTTP":         {"SubscriptionConfirmation", snsTopic, strings.Replace(good, "https", "http", 1), []string{snsTopic}, false},
		"Port":         {"SubscriptionConfirmation", snsTopic, strings.Replace(good, ".com/", ".com:6379/", 1), []string{snsTopic}, false},
		"OtherAction":  {"SubscriptionConfirmation", snsTopic, strings.Replace(good, "ConfirmSubscription", "DeleteTopic", 1), []string{snsTopic}, false},
		"OtherInside":  {"SubscriptionConfirmation", snsTopic, strings.Replace(good, ":mail", ":evil", 1), []string{snsTopic}, false},
	} {
		body, err := json.Marshal(map[string]string{"Type": tt.kind, "TopicArn": tt.topic, "SubscribeURL": tt.address})
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		if tt.want {
			want = tt.address
		}
		cfg := provider.Config{Settings: provider.Settings{TopicARNs: tt.topics}}
		if got := provider.ByName("ses").Confirm(cfg, request(body, nil)); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	for _, arn := range []string{"", "mail", "arn:aws:sqs:eu-west-1:123456789012:mail", snsTopic + ":sub", snsTopic + "\n"} {
		if (provider.Settings{TopicARNs: []string{arn}}).Check() == nil {
			t.Errorf("topic %q is taken", arn)
		}
	}
	if err := (provider.Settings{TopicARNs: []string{snsTopic, "arn:aws-cn:sns:cn-north-1:123456789012:mail.fifo"}}).Check(); err != nil {
		t.Error(err)
	}
}
