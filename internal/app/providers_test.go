package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"tallyhook/internal/provider"
	"tallyhook/internal/testenv"
)

// The ways in which an event finds its enrollment.
const (
	byEnrollment = "Enrollment" // our own id, passed back
	byMessage    = "Message"
	byLead       = "Lead"
	byCampaign   = "CampaignAndAddress"
	byAddress    = "Address"
)

// vendor is a provider, and one of its webhooks with an event in it. In the
// body stand $E for the enrollment, $M for the message, $L for the lead, $C for
// the campaign, $R for the recipient and $N for what makes it another event;
// what a story does not tell is empty.
type vendor struct {
	secret   string
	settings map[string]any
	body     string
	ways     []string // none: its events are kept as ignored
	// sign makes of the body what the vendor sends; nil: it sends it as it is.
	sign func(w webhook) (body []byte, headers []testenv.Header)
}

// webhook is what a vendor signs.
type webhook struct {
	t      *testing.T
	secret string
	url    string // as it was registered
	n      string
	body   []byte
}

// TestProviders is the story of each provider: its events come before and
// after their enrollment, and find it by every id that the provider passes back.
func TestProviders(t *testing.T) {
	t.Parallel()
	cloud := newAWS(t)
	server := testenv.Start(t, testenv.Options{Env: append(cloud.env(), "RETRY_SCHEDULE=1h", "LOG_LEVEL=warn")})
	c := server.Client("")
	campaigns := map[string]string{}
	for name := range vendors(cloud) {
		campaigns[name] = "campaign-" + name
	}
	for _, p := range provider.All() {
		if _, known := vendors(cloud)[p.Name]; !known {
			t.Errorf("%s has no story", p.Name)
		}
	}
	mapped, other := c.NewInstance("Mapped", campaigns), c.NewInstance("Other", nil)
	n := 0
	for name, v := range vendors(cloud) {
		source := v.source(c, name)
		for _, way := range append([]string{""}, v.ways...) {
			n++
			s := &providerStory{t, c, v, name, source, server.URL, mapped, other, fmt.Sprint(n)}
			if way == "" {
				s.refused()
				continue
			}
			s.findsBy(way)
		}
		if v.ways == nil {
			n++
			s := &providerStory{t, c, v, name, source, server.URL, mapped, other, fmt.Sprint(n)}
			s.counts("kept as ignored", s.post(ids{email: s.address()}), "ignored")
			s.counts("sent again", s.post(ids{email: s.address()}), "duplicate")
			if metrics := string(c.Get("/metrics").Body); !strings.Contains(metrics, `tallyhook_events_ignored_total{kind="contact.creation",provider="hubspot"} 1`) {
				t.Error("the ignored kind is not counted by its name")
			}
		}
	}
	balanced(t, c)
}

func (v vendor) source(c *testenv.Client, name string) testenv.Source {
	body := map[string]any{"provider": name, "name": name}
	if v.secret != "" {
		body["secret"] = v.secret
	}
	if v.settings != nil {
		body["settings"] = v.settings
	}
	a := c.Post(http.StatusCreated, "/api/sources", body)
	_, token, _ := strings.Cut(a.At("data.url").Text(), "/webhooks/")
	s := testenv.Source{ID: a.At("data.id").Text(), Path: "/webhooks/" + token, Secret: v.secret}
	if made := a.At("data.secret").Text(); made != "" {
		s.Secret = made
	}
	return s
}

// providerStory is one event of one provider, and the same again.
type providerStory struct {
	*testing.T
	c             *testenv.Client
	v             vendor
	name          string
	source        testenv.Source
	server        string
	mapped, other string // instances; the provider's campaign is mapped to the first
	n             string
}

// ids are what an event tells.
type ids struct{ enrollment, message, lead, campaign, email string }

func (s *providerStory) address() string { return "contact-" + s.n + "@example.com" }

func (s *providerStory) stranger() string { return "stranger-" + s.n + "@example.com" }

func (s *providerStory) send(i ids, secret string) testenv.Answer {
	s.Helper()
	body := strings.NewReplacer("$E", i.enrollment, "$M", i.message, "$L", i.lead, "$C", i.campaign, "$R", i.email, "$N", s.n).Replace(s.v.body)
	w := webhook{s.T, secret, s.server + s.source.Path, s.n, []byte(body)}
	var headers []testenv.Header
	sent := w.body
	if s.v.sign != nil {
		sent, headers = s.v.sign(w)
	}
	return s.c.Do(0, http.MethodPost, s.source.Path, sent, headers...)
}

func (s *providerStory) post(i ids) testenv.Answer {
	s.Helper()
	a := s.send(i, s.source.Secret)
	if a.Status != http.StatusOK {
		s.Fatalf("%s: status %d: %s", s.name, a.Status, a.Body)
	}
	return a
}

// counts wants the one event of an answer to have come to something.
func (s *providerStory) counts(when string, a testenv.Answer, outcome string) {
	s.Helper()
	if a.At("data.received").Int() != 1 || a.At("data."+outcome).Int() != 1 {
		s.Errorf("%s, %s: %s, want %s", s.name, when, a.Body, outcome)
	}
}

// refused: another secret opens nothing, where the provider has one.
func (s *providerStory) refused() {
	s.Helper()
	if s.v.sign == nil {
		return
	}
	if a := s.send(ids{email: s.stranger()}, wrongSecret(s.name)); a.Status != http.StatusUnauthorized {
		s.Errorf("%s: another secret: status %d, want 401: %s", s.name, a.Status, a.Body)
	}
}

func (s *providerStory) enroll(instance string, refs ...map[string]any) testenv.Answer {
	s.Helper()
	body := map[string]any{"email": s.address()}
	if refs != nil {
		body["refs"] = refs
	}
	return s.c.Post(http.StatusCreated, "/api/campaigns/instances/"+instance+"/enrollments", body)
}

// findsBy: the event is tied to its enrollment by this way alone, and counts
// once however often it is sent.
func (s *providerStory) findsBy(way string) {
	s.Helper()
	when := "by " + way
	var enrollment string
	told := ids{email: s.stranger()} // whom nobody has enrolled
	ref := func(kind, value string) map[string]any {
		return map[string]any{"provider": s.name, "kind": kind, "value": value}
	}
	switch way {
	case byEnrollment:
		enrollment = s.enroll(s.other).At("data.id").Text()
		told.enrollment = enrollment
		s.counts(when, s.post(told), "applied")
	case byMessage, byLead:
		kind, id := "message", "id-"+s.n
		if told.message = id; way == byLead {
			kind, told.message, told.lead = "lead", "", id
		}
		s.counts(when+", before its enrollment", s.post(told), "orphaned")
		a := s.enroll(s.other, ref(kind, id))
		enrollment = a.At("data.id").Text()
		if got := a.At("data.adopted").Int(); got != 1 {
			s.Errorf("%s, %s: the enrollment took %d events in, want 1", s.name, when, got)
		}
	case byCampaign:
		// The address alone would be ambiguous.
		s.enroll(s.other)
		enrollment = s.enroll(s.mapped).At("data.id").Text()
		told = ids{email: s.address(), campaign: "campaign-" + s.name}
		s.counts(when, s.post(told), "applied")
	case byAddress:
		enrollment = s.enroll(s.other).At("data.id").Text()
		told = ids{email: strings.ToUpper(s.address())}
		s.counts(when, s.post(told), "applied")
	}
	s.counts(when+", sent again", s.post(told), "duplicate")
	rows := s.c.Rows("/api/events?enrollment_id=" + enrollment)
	if len(rows) != 1 || rows[0].At("state").Text() != "applied" || rows[0].At("provider").Text() != s.name || rows[0].At("duplicates").Int() != 1 {
		s.Errorf("%s, %s: the enrollment has %d events, want this one", s.name, when, len(rows))
	}
}
