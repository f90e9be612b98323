package app_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// activity is one of lemlist's, of a lead of the campaign "cam_1".
func activity(kind, id, lead, email string) map[string]any {
	a := map[string]any{"_id": id, "type": kind, "campaignId": "cam_1", "leadId": lead, "createdAt": "2026-11-20T09:30:00.000Z"}
	if email != "" {
		a["leadEmail"] = email
	}
	return a
}

// TestToolEnrolls is the story of a team whose tool enrolls people: nobody is
// enrolled by hand, and a lemlist campaign counts from its first event, also
// from one that came before anybody had mapped the campaign.
func TestToolEnrolls(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{Env: []string{"RETRY_SCHEDULE=1h", "LOG_LEVEL=warn"}})
	c := server.Client("")
	lemlist := vendor{settings: map[string]any{"on_unmatched": "enroll"}}.source(c, "lemlist")
	counts := func(when, outcome string, activities ...any) {
		t.Helper()
		a := c.Post(http.StatusOK, lemlist.Path, activities)
		if got := a.At("data." + outcome).Int(); got != int64(len(activities)) {
			t.Errorf("%s: %s, want %d %s", when, a.Body, len(activities), outcome)
		}
	}
	counts("before the campaign is mapped", "orphaned", activity("linkedinVisitDone", "act_1", "lea_ada", ""))
	instance := c.NewInstance("Autumn", nil)
	mapped := c.Do(http.StatusOK, http.MethodPatch, "/api/campaigns/instances/"+instance, map[string]any{"provider_campaigns": map[string]any{"lemlist": "cam_1"}})
	if got := mapped.At("data.adopted").Int(); got != 1 {
		t.Errorf("mapping the campaign took %d events in, want 1", got)
	}
	people := "/api/campaigns/instances/" + instance + "/enrollments"
	if rows := c.Rows(people); len(rows) != 1 || rows[0].At("refs").List()[0].At("value").Text() != "lea_ada" {
		t.Fatalf("%d enrollments, want Ada's", len(rows))
	}

	counts("two people in one request", "applied",
		activity("emailsSent", "act_2", "lea_ada", "ada@example.com"), activity("emailsSent", "act_3", "lea_bob", "bob@example.com"),
		activity("emailsOpened", "act_4", "lea_bob", "bob@example.com"), activity("emailsReplied", "act_5", "lea_ada", "ada@example.com"))
	counts("sent again", "duplicate", activity("emailsSent", "act_3", "lea_bob", "bob@example.com"))
	counts("by the lead alone", "applied", activity("linkedinReplied", "act_6", "lea_bob", ""))
	counts("not about outreach", "ignored", activity("campaignComplete", "act_7", "lea_eve", "eve@example.com"))
	status := map[string]string{}
	for _, row := range c.Rows(people) {
		status[row.At("email").Text()] = row.At("status").Text()
	}
	if len(status) != 2 || status["ada@example.com"] != "completed" || status["bob@example.com"] != "completed" {
		t.Errorf("the people are %v, want Ada and Bob, who have answered", status)
	}
	totals := c.Get("/api/campaigns/instances/" + instance + "/performance").At("data.totals")
	if totals.At("sent").Int() != 2 || totals.At("opened").Int() != 1 || totals.At("replied").Int() != 1 || totals.At("profile_visited").Int() != 1 {
		t.Errorf("the totals are %v", totals.Map())
	}

	// The event tells that it has made the enrollment.
	var told []string
	for _, row := range c.Rows("/api/events?email=bob@example.com") {
		if row.At("provider_event_id").Text() != "act_3" {
			continue
		}
		for _, m := range c.Get("/api/events/" + row.At("id").Text()).At("data.timeline").List() {
			told = append(told, m.At("what").Text())
		}
	}
	if !slices.Contains(told, "enrolled") {
		t.Errorf("the timeline tells %q, want enrolled among it", told)
	}

	// While the instance is paused nobody new is enrolled; afterwards all are.
	patch := func(status string) testenv.Answer {
		return c.Do(http.StatusOK, http.MethodPatch, "/api/campaigns/instances/"+instance, map[string]any{"status": status})
	}
	patch("paused")
	counts("who is known", "applied", activity("emailsClicked", "act_8", "lea_bob", "bob@example.com"))
	counts("who is not", "orphaned", activity("emailsSent", "act_9", "lea_eve", "eve@example.com"))
	if got := patch("active").At("data.adopted").Int(); got != 1 {
		t.Errorf("activating the instance took %d events in, want 1", got)
	}
	if n := len(c.Rows(people)); n != 3 {
		t.Errorf("%d people are enrolled, want 3", n)
	}

	// Where no campaign is told nobody could be enrolled.
	a := c.Post(http.StatusBadRequest, "/api/sources", map[string]any{"provider": "postmark", "name": "p", "settings": map[string]any{"on_unmatched": "enroll"}})
	if fields := a.At("errors").List(); len(fields) != 1 || fields[0].At("location").Text() != "body.settings.on_unmatched" {
		t.Errorf("postmark with enroll: %s", a.Body)
	}
	balanced(t, c)
}

// TestOneTokenOnTwoReplicas: a token that came with one event on one replica
// brings no other event in on another one, and the same event is a duplicate
// there. A restart forgets none of it.
func TestOneTokenOnTwoReplicas(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	mailgun := c.client(0).NewSource("mailgun", "own-key")
	body := func(token, kind, id string) []byte {
		at := fmt.Sprint(time.Now().Unix())
		return fmt.Appendf(nil, `{"signature":{"timestamp":%q,"token":%q,"signature":%q},"event-data":{"event":%q,"id":%q,"timestamp":1778052367.5,"recipient":"ada@example.com"}}`,
			at, token, hexMAC("own-key", at, token), kind, id)
	}
	for i, token := range []string{"t-0", "t-1"} {
		here, there := c.client(i), c.client(1-i)
		id := fmt.Sprint("id-", i)
		if a := here.Post(http.StatusOK, mailgun.Path, body(token, "opened", id)); a.At("data.received").Int() != 1 || a.At("data.duplicate").Int() != 0 {
			t.Errorf("the first: %s", a.Body)
		}
		there.Post(http.StatusUnauthorized, mailgun.Path, body(token, "unsubscribed", id))
		if a := there.Post(http.StatusOK, mailgun.Path, body(token, "opened", id)); a.At("data.duplicate").Int() != 1 {
			t.Errorf("the same on the other replica: %s", a.Body)
		}
	}
	c.stop(c.replicas[1])
	c.start(c.replicas[1])
	c.client(1).Post(http.StatusUnauthorized, mailgun.Path, body("t-1", "unsubscribed", "id-1"))
	if rows := c.client(0).Rows("/api/suppressions"); len(rows) != 0 {
		t.Errorf("%d addresses are suppressed by what was refused", len(rows))
	}
	if n := len(c.client(0).Rows("/api/events")); n != 2 {
		t.Errorf("%d events are stored, want 2", n)
	}
	c.balanced()
}
