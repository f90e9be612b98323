package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"tallyhook/internal/testenv"
)

// TestSubscription: a topic that the settings name is confirmed by itself, and
// nothing else is called. While AWS cannot be reached, SNS is told to try again.
func TestSubscription(t *testing.T) {
	t.Parallel()
	cloud := newAWS(t)
	server := testenv.Start(t, testenv.Options{Env: append(cloud.env(), "LOG_LEVEL=error")})
	c := server.Client("")
	named := vendor{settings: map[string]any{"topic_arns": []string{awsTopic}}}.source(c, "ses")
	open := vendor{}.source(c, "ses")
	const address = "https://" + awsHost + "/?Action=ConfirmSubscription"
	confirmation := func(id, topic string) []byte {
		return cloud.message(map[string]string{
			"Type": "SubscriptionConfirmation", "MessageId": id, "TopicArn": topic, "Message": "Visit the SubscribeURL.", "Token": "own",
			"SubscribeURL": address + "&TopicArn=" + topic + "&Token=own",
		})
	}

	cloud.setDown(true)
	a := c.Post(http.StatusServiceUnavailable, named.Path, confirmation("sub-1", awsTopic))
	if a.Header.Get("Retry-After") == "" || cloud.calls(address) != 0 {
		t.Errorf("while AWS is down: Retry-After %q, %d confirmations", a.Header.Get("Retry-After"), cloud.calls(address))
	}
	if rows := c.Get("/api/sources/" + named.ID + "/rejections").At("data").List(); len(rows) != 1 || rows[0].At("status").Int() != 503 {
		t.Errorf("the source has %d rejections, want one with 503", len(rows))
	}
	cloud.setDown(false)

	other := cloud.message(map[string]string{"SigningCertURL": "https://" + awsHost + "/2-own.pem", "MessageId": "n-1", "Message": `{"eventType":"Send","mail":{}}`})
	if got := c.Post(http.StatusOK, named.Path, other).At("data.orphaned").Int(); got != 1 {
		t.Errorf("with another certificate: %d orphaned, want 1", got)
	}
	moved := cloud.message(map[string]string{"SigningCertURL": "https://" + awsHost + "/moved.pem"})
	c.Post(http.StatusServiceUnavailable, named.Path, moved)
	if cloud.calls(awsCertificate) != 1 { // that of the first message, while it was down
		t.Error("a redirection was followed")
	}

	for _, body := range [][]byte{
		cloud.message(map[string]string{"SigningCertURL": "https://" + awsHost + ".evil.example/2-own.pem"}),
		confirmation("sub-2", "arn:aws:sns:eu-west-1:210987654321:mail"), // somebody else's
	} {
		c.Post(http.StatusUnauthorized, named.Path, body)
	}
	confirm := strings.Replace(string(confirmation("sub-3", awsTopic)), "SimpleNotificationService-own.pem", "2-own.pem", 1) // not signed
	if got := c.Post(http.StatusOK, open.Path, confirm).At("data.ignored").Int(); got != 1 || cloud.calls(address) != 0 {
		t.Errorf("without topic_arns: %d ignored, %d confirmations", got, cloud.calls(address))
	}
	if got := c.Post(http.StatusOK, named.Path, confirm).At("data.ignored").Int(); got != 1 || cloud.calls(address) != 1 {
		t.Errorf("with topic_arns: %d ignored, %d confirmations, want 1 and 1", got, cloud.calls(address))
	}
	balanced(t, c)
}

// TestAccept: of an account that sends more than outreach, only what the
// settings name is taken; the rest is kept and has no effect.
func TestAccept(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{Env: []string{"RETRY_SCHEDULE=1h", "LOG_LEVEL=warn"}})
	c := server.Client("")
	instance := c.NewInstance("Outreach", nil)
	c.Post(http.StatusCreated, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": "ada@example.com"})
	source := vendor{settings: map[string]any{
		"accept": map[string]any{"streams": []string{"outreach"}, "tags": []string{"spring", "autumn"}}, "on_unmatched": "ignore",
	}}.source(c, "postmark")
	n := 0
	outcome := func(record, stream, tag, email string) string {
		t.Helper()
		n++
		counts := c.Post(http.StatusOK, source.Path, map[string]any{
			"RecordType": record, "MessageID": fmt.Sprint("m-", n), "MessageStream": stream, "Tag": tag, "Recipient": email,
			"ReceivedAt": "2026-11-20T09:30:00Z", "BouncedAt": "2026-11-20T09:30:00Z", "Type": "SpamComplaint",
		}).At("data")
		for _, name := range []string{"applied", "ignored", "orphaned", "duplicate", "dead"} {
			if counts.At(name).Int() == 1 {
				return name
			}
		}
		return fmt.Sprint(counts.Map())
	}
	want := func(got, want, what string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	want(outcome("Open", "outreach", "spring", "ada@example.com"), "applied", "stream and tag")
	want(outcome("Open", "outreach", "summer", "ada@example.com"), "ignored", "another tag")
	want(outcome("Open", "outreach", "", "ada@example.com"), "ignored", "no tag")
	want(outcome("SpamComplaint", "transactional", "spring", "ada@example.com"), "ignored", "another stream")
	if rows := c.Rows("/api/suppressions"); len(rows) != 0 {
		t.Errorf("what is not taken has suppressed %d addresses", len(rows))
	}

	// What is taken and belongs nowhere is ignored for good, but for what it
	// says of the address.
	want(outcome("SpamComplaint", "outreach", "spring", "alan@example.com"), "ignored", "nobody's")
	if rows := c.Rows("/api/suppressions"); len(rows) != 1 || rows[0].At("email").Text() != "alan@example.com" {
		t.Errorf("%d addresses are suppressed, want one", len(rows))
	}
	a := c.Post(http.StatusCreated, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": "alan@example.com"})
	if got := a.At("data.adopted").Int(); got != 0 {
		t.Errorf("the enrollment took %d events in, want 0", got)
	}

	c.Do(http.StatusOK, http.MethodPatch, "/api/sources/"+source.ID, map[string]any{"settings": map[string]any{"on_unmatched": "park"}})
	want(outcome("Open", "transactional", "", "grace@example.com"), "orphaned", "with other settings")
	c.Do(http.StatusBadRequest, http.MethodPatch, "/api/sources/"+source.ID, map[string]any{"settings": map[string]any{"accept": map[string]any{"campaigns": []string{"c"}}}})
	balanced(t, c)
}
