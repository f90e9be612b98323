package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// TestStory is what Tallyhook is for, told once from the outside: events come
// before their enrollment, and in the end every one of them is accounted for.
func TestStory(t *testing.T) {
	t.Parallel()
	o := testenv.Options{Dir: t.TempDir(), Env: []string{"RETRY_SCHEDULE=50ms,50ms", "LOG_LEVEL=warn"}}
	server := testenv.Start(t, o)
	s := &story{T: t, c: server.Client(""), ada: "ada@example.com"}

	s.instance = s.c.NewInstance("Welcome", map[string]string{"lemlist": "cam_1"})
	s.lemlist = s.c.NewSource("lemlist", "")

	s.theEventComesEarly()
	s.itIsBuriedAfterItsAttempts()
	s.theEnrollmentComesAndTakesItIn()
	s.aWebhookThatIsSentAgainIsADuplicate()
	s.referencesTakeInWhatNamesThem()
	s.oneDeadLetterIsReplayed()
	s.manyDeadLettersAreReplayed()
	s.aDeadLetterIsSetAsideAndTakenBack()
	s.whoUnsubscribesIsSuppressed()
	s.thePerformanceCountsAllOfIt()
	before := s.everything()

	if code := server.Stop(2 * time.Minute); code != 0 {
		t.Fatalf("exit code %d, want 0", code)
	}
	server = testenv.Start(t, o)
	s.c = server.Client("")
	if after := s.everything(); after != before {
		t.Errorf("after the restart:\n%s\nbefore it:\n%s", after, before)
	}
	balanced(t, s.c)
}

type story struct {
	*testing.T
	c          *testenv.Client
	instance   string
	lemlist    testenv.Source
	ada        string
	enrollment string // Ada's
	early      string // id of the event that came before it
}

// activity posts a lemlist webhook and gives the counts of its answer.
func (s *story) activity(id, kind, email string) testenv.Value {
	s.Helper()
	return s.c.Post(http.StatusOK, s.lemlist.Path, map[string]any{
		"_id": id, "type": kind, "createdAt": "2026-11-20T09:30:00.000Z", "leadEmail": email, "campaignId": "cam_1", "sequenceStep": 1,
	}).At("data")
}

// find gives the one event of an address.
func (s *story) find(email string) testenv.Value {
	s.Helper()
	rows := s.c.Rows("/api/events?email=" + email)
	if len(rows) != 1 {
		s.Fatalf("a search for %s finds %d events, want 1", email, len(rows))
	}
	return rows[0]
}

func (s *story) event(id string) testenv.Value { return s.c.Get("/api/events/" + id).At("data") }

// timeline names what happened to an event, in order.
func (s *story) timeline(id string) string {
	s.Helper()
	var names []string
	for _, m := range s.event(id).At("timeline").List() {
		names = append(names, m.At("what").Text())
	}
	return strings.Join(names, " ")
}

func (s *story) enroll(body map[string]any) testenv.Value {
	s.Helper()
	return s.c.Post(http.StatusCreated, "/api/campaigns/instances/"+s.instance+"/enrollments", body).At("data")
}

// letter gives the dead letter of an event, as soon as there is one.
func (s *story) letter(email string) testenv.Value {
	s.Helper()
	var rows []testenv.Value
	testenv.Eventually(s, time.Minute, "the event of "+email+" is a dead letter", func() bool {
		rows = s.c.Rows("/api/admin/dlq?status=dead&email=" + email)
		return len(rows) == 1
	})
	return rows[0]
}

func (s *story) theEventComesEarly() {
	s.Helper()
	counts := s.activity("act_1", "emailsOpened", s.ada)
	if counts.At("received").Int() != 1 || counts.At("orphaned").Int() != 1 {
		s.Fatalf("the webhook's counts: %v", counts.Map())
	}
	e := s.find(s.ada)
	s.early = e.At("id").Text()
	if got := e.At("state").Text(); got != "orphaned" && got != "dead" { // the schedule is short
		s.Errorf("the early event is %s, want orphaned", got)
	}
	if got := s.timeline(s.early); !strings.HasPrefix(got, "received parked") {
		s.Errorf("timeline %q, want it to begin with: received parked", got)
	}
}

func (s *story) itIsBuriedAfterItsAttempts() {
	s.Helper()
	l := s.letter(s.ada)
	if l.At("reason").Text() != "no_enrollment" || l.At("attempts").Int() != 2 || l.At("event.id").Text() != s.early {
		s.Errorf("the dead letter: %v", l.Map())
	}
	e := s.event(s.early)
	if e.At("state").Text() != "dead" || e.At("attempts").Int() != 2 {
		s.Errorf("the event is %s after %d attempts, want dead after 2", e.At("state").Text(), e.At("attempts").Int())
	}
	if got, want := s.timeline(s.early), "received parked attempt attempt buried"; got != want {
		s.Errorf("timeline %q, want %q", got, want)
	}
}

func (s *story) theEnrollmentComesAndTakesItIn() {
	s.Helper()
	e := s.enroll(map[string]any{"email": s.ada})
	s.enrollment = e.At("id").Text()
	if e.At("adopted").Int() != 1 {
		s.Errorf("adopted %d, want 1, out of the dead letters", e.At("adopted").Int())
	}
	got := s.event(s.early)
	if got.At("state").Text() != "applied" || got.At("enrollment_id").Text() != s.enrollment {
		s.Errorf("the early event is %s to %s", got.At("state").Text(), got.At("enrollment_id").Text())
	}
	if line := s.timeline(s.early); !strings.HasSuffix(line, "adopted") {
		s.Errorf("timeline %q, want it to end with: adopted", line)
	}
	if n := len(s.c.Rows("/api/admin/dlq?status=dead")); n != 0 {
		s.Errorf("%d dead letters are left, want 0", n)
	}

	// The usual case: the event waits for a moment, not for days.
	s.activity("act_2", "emailsSent", "bob@example.com")
	if n := s.enroll(map[string]any{"email": "bob@example.com"}).At("adopted").Int(); n != 1 {
		s.Errorf("Bob's enrollment adopted %d, want 1", n)
	}
	// And when the enrollment is there first, the event is applied at once.
	if n := s.activity("act_3", "emailsReplied", "bob@example.com").At("applied").Int(); n != 1 {
		s.Errorf("applied %d, want 1", n)
	}
	a := s.c.Post(http.StatusConflict, "/api/campaigns/instances/"+s.instance+"/enrollments", map[string]any{"email": s.ada})
	if a.At("enrollment_id").Text() != s.enrollment {
		s.Errorf("the conflict names %q, want the enrollment that exists, %s", a.At("enrollment_id").Text(), s.enrollment)
	}
}

func (s *story) aWebhookThatIsSentAgainIsADuplicate() {
	s.Helper()
	if n := s.activity("act_1", "emailsOpened", s.ada).At("duplicate").Int(); n != 1 {
		s.Errorf("duplicate %d, want 1", n)
	}
	e := map[string]any{"event_type": "clicked", "channel": "email", "email": s.ada, "provider_event_id": "click-1", "url": "https://example.com"}
	first := s.c.Post(http.StatusCreated, "/api/events", e)
	again := s.c.Post(http.StatusOK, "/api/events", e)
	if again.At("duplicate").Text() != "true" || again.At("data.id").Text() != first.At("data.id").Text() {
		s.Errorf("the second time: %s", again.Body)
	}
	if n := s.event(s.early).At("duplicates").Int(); n != 1 {
		s.Errorf("the early event has %d duplicates, want 1", n)
	}
}

func (s *story) referencesTakeInWhatNamesThem() {
	s.Helper()
	a := s.c.Post(http.StatusAccepted, "/api/events", map[string]any{
		"event_type": "delivered", "channel": "email", "provider": "postmark", "provider_message_id": "message-1",
	})
	if a.At("message").Text() != "Event queued for retry" || a.At("retryable").Text() != "true" {
		s.Errorf("the answer for an orphan: %s", a.Body)
	}
	added := s.c.Post(http.StatusOK, "/api/campaigns/enrollments/"+s.enrollment+"/refs", map[string]any{
		"refs": []any{map[string]any{"provider": "postmark", "kind": "message", "value": "message-1"}},
	})
	if n := added.At("data.adopted").Int(); n != 1 {
		s.Errorf("the reference adopted %d, want 1: %s", n, added.Body)
	}
	if got := s.event(a.At("data.id").Text()).At("state").Text(); got != "applied" {
		s.Errorf("the event of the message is %s, want applied", got)
	}
}

func (s *story) oneDeadLetterIsReplayed() {
	s.Helper()
	s.activity("act_4", "emailsOpened", "carol@example.com")
	id := s.letter("carol@example.com").At("id").Text()
	out := s.c.Post(http.StatusOK, "/api/admin/dlq/"+id+"/replay", nil).At("data.outcome").Text()
	if out != "orphaned" && out != "dead" {
		s.Errorf("a replay without an enrollment is %s", out)
	}
	// It waits again, is buried again, and is found by whoever looks for it.
	s.letter("carol@example.com")
	if n := s.enroll(map[string]any{"email": "carol@example.com"}).At("adopted").Int(); n != 1 {
		s.Errorf("Carol's enrollment adopted %d, want 1", n)
	}

	// A letter whose event was applied meanwhile counts nothing twice.
	if out := s.c.Post(http.StatusOK, "/api/admin/dlq/"+id+"/replay", nil).At("data.outcome").Text(); out != "duplicate" {
		s.Errorf("the replay of what was applied is %s, want duplicate", out)
	}
}

func (s *story) manyDeadLettersAreReplayed() {
	s.Helper()
	var ids []any
	for i := range 5 {
		s.activity(fmt.Sprintf("act_many_%d", i), "emailsSent", fmt.Sprintf("many%d@example.com", i))
	}
	for i := range 5 {
		ids = append(ids, s.letter(fmt.Sprintf("many%d@example.com", i)).At("id").Text())
	}
	dry := s.c.Post(http.StatusOK, "/api/admin/dlq/replay", map[string]any{"filter": map[string]any{"reason": "no_enrollment"}, "dry_run": true})
	if n := dry.At("data.matched").Int(); n != 5 {
		s.Errorf("a dry run matches %d, want 5", n)
	}
	started := s.c.Post(http.StatusAccepted, "/api/admin/dlq/replay", map[string]any{"ids": ids})
	path := "/api/admin/dlq/replays/" + started.At("data.replay_id").Text()
	var r testenv.Value
	testenv.Eventually(s, time.Minute, "the replay is done", func() bool {
		r = s.c.Get(path).At("data")
		return r.At("status").Text() == "done"
	})
	if r.At("matched").Int() != 5 || r.At("orphaned").Int()+r.At("dead").Int() != 5 {
		s.Errorf("the replay's progress: %v", r.Map())
	}
	for i := range 5 {
		email := fmt.Sprintf("many%d@example.com", i)
		if n := s.enroll(map[string]any{"email": email}).At("adopted").Int(); n != 1 {
			s.Errorf("the enrollment of %s adopted %d, want 1", email, n)
		}
	}
}

func (s *story) aDeadLetterIsSetAsideAndTakenBack() {
	s.Helper()
	s.activity("act_5", "emailsOpened", "dave@example.com")
	id := s.letter("dave@example.com").At("id").Text()
	if got := s.c.Post(http.StatusOK, "/api/admin/dlq/"+id+"/ignore", nil).At("data.status").Text(); got != "ignored" {
		s.Errorf("the letter set aside is %s", got)
	}
	// What a person has set aside is not adopted behind their back.
	if n := s.enroll(map[string]any{"email": "dave@example.com"}).At("adopted").Int(); n != 0 {
		s.Errorf("the enrollment adopted %d that were set aside", n)
	}
	if got := s.c.Post(http.StatusOK, "/api/admin/dlq/"+id+"/restore", nil).At("data.status").Text(); got != "replayed" {
		s.Errorf("the letter taken back is %s, but its enrollment is there", got)
	}
	if got := s.c.Post(http.StatusOK, "/api/admin/dlq/"+id+"/replay", nil).At("data.outcome").Text(); got != "duplicate" {
		s.Errorf("its replay is %s, want duplicate: it is applied already", got)
	}
}

func (s *story) whoUnsubscribesIsSuppressed() {
	s.Helper()
	s.activity("act_6", "emailsUnsubscribed", "bob@example.com")
	if got := s.c.Get("/api/suppressions/bob@example.com").At("data.reason").Text(); got != "unsubscribed" {
		s.Errorf("Bob is suppressed for %q", got)
	}
	a := s.c.Post(http.StatusOK, "/api/campaigns/enrollments/"+s.enrollment+"/unsubscribe", nil)
	if a.At("data.status").Text() != "unsubscribed" {
		s.Errorf("Ada is %s after she was unsubscribed by hand", a.At("data.status").Text())
	}
	// An address that nobody is enrolled with is suppressed too.
	s.activity("act_7", "emailsUnsubscribed", "eve@example.com")
	s.letter("eve@example.com")
	if n := len(s.c.Rows("/api/suppressions")); n != 3 {
		s.Errorf("%d addresses are suppressed, want 3", n)
	}
}

func (s *story) thePerformanceCountsAllOfIt() {
	s.Helper()
	p := s.c.Get("/api/campaigns/instances/" + s.instance + "/performance").At("data")
	for path, want := range map[string]int64{
		"totals.sent": 6, "uniques.sent": 6, "totals.opened": 3, "uniques.opened": 3, "totals.clicked": 1, "totals.delivered": 1,
		"totals.replied": 1, "totals.unsubscribed": 2, "enrollment_status.unsubscribed": 2, "enrollment_status.active": 7,
	} {
		if got := p.At(path).Int(); got != want {
			s.Errorf("performance, %s: got %d, want %d", path, got, want)
		}
	}
}

// everything is all that can be read, as one text.
func (s *story) everything() string {
	s.Helper()
	var b strings.Builder
	for _, path := range []string{
		"/api/events?limit=1000", "/api/campaigns/instances/" + s.instance + "/enrollments", "/api/campaigns/templates",
		"/api/campaigns/instances", "/api/suppressions", "/api/admin/dlq", "/api/admin/dlq/stats", "/api/admin/balance", "/api/sources",
		"/api/campaigns/instances/" + s.instance + "/performance", "/api/events/" + s.early,
	} {
		fmt.Fprintf(&b, "%s %s\n", path, s.c.Get(path).Body)
	}
	return b.String()
}
