package demo

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func testScript() *script {
	s := newScript(1, "salt", "Demo campaign 2026-11-24 1")
	s.instance = "0190aaaa-0000-7000-8000-000000000001"
	s.lemSecret = "the hook's secret"
	return s
}

// TestBodiesDecode holds every body against the adapter that will read it.
func TestBodiesDecode(t *testing.T) {
	t.Parallel()
	const postmarkMail, lemlistMail, linkedIn, generic = 1, 2, 3, 4
	at := time.Date(2026, 11, 10, 9, 30, 12, 345_000_000, time.UTC)
	tests := map[string]struct {
		what    what
		from    int
		machine bool
		want    event.Event // the parts that are looked at
	}{
		"Delivery":     {delivered, postmarkMail, false, event.Event{Type: event.Delivered}},
		"Open":         {opened, postmarkMail, false, event.Event{Type: event.Opened}},
		"ProxyOpen":    {opened, postmarkMail, true, event.Event{Type: event.Opened}},
		"Click":        {clicked, postmarkMail, false, event.Event{Type: event.Clicked, URL: "https://tallyhook-demo.example/pricing"}},
		"HardBounce":   {bouncedHard, postmarkMail, false, event.Event{Type: event.Bounced, Bounce: event.Hard}},
		"SoftBounce":   {bouncedSoft, postmarkMail, false, event.Event{Type: event.Bounced, Bounce: event.Soft}},
		"Complaint":    {complained, postmarkMail, false, event.Event{Type: event.Complained}},
		"AfterBounce":  {suppressedBounce, postmarkMail, false, event.Event{Type: event.Bounced, Bounce: event.Hard}},
		"AfterSpam":    {suppressedSpam, postmarkMail, false, event.Event{Type: event.Complained}},
		"Unsubscribed": {unsubscribed, postmarkMail, false, event.Event{Type: event.Unsubscribed}},
		"Resubscribed": {resubscribed, postmarkMail, false, event.Event{Type: event.Resubscribed}},

		"LemSent":       {lemSent, lemlistMail, false, event.Event{Type: event.Sent}},
		"LemOpened":     {lemOpened, lemlistMail, false, event.Event{Type: event.Opened, Machine: event.MachineNo}},
		"LemBotOpened":  {lemOpened, lemlistMail, true, event.Event{Type: event.Opened, Machine: event.MachineYes}},
		"LemClicked":    {lemClicked, lemlistMail, false, event.Event{Type: event.Clicked, Machine: event.MachineNo, URL: "https://tallyhook-demo.example/pricing"}},
		"LemReplied":    {lemReplied, lemlistMail, false, event.Event{Type: event.Replied}},
		"LemInterested": {lemInterested, lemlistMail, false, event.Event{Control: true}},
		"LemContacted":  {lemContacted, linkedIn, false, event.Event{Control: true}},
		"Visited":       {visited, linkedIn, false, event.Event{Type: event.ProfileVisited, Channel: event.LinkedIn}},
		"Invited":       {invited, linkedIn, false, event.Event{Type: event.ConnectionSent, Channel: event.LinkedIn}},
		"Accepted":      {inviteAccepted, linkedIn, false, event.Event{Type: event.ConnectionAccepted, Channel: event.LinkedIn}},
		"Message":       {messageSent, linkedIn, false, event.Event{Type: event.MessageSent, Channel: event.LinkedIn}},
		"Read":          {messageRead, linkedIn, false, event.Event{Type: event.MessageRead, Channel: event.LinkedIn}},
		"Answered":      {messageReplied, linkedIn, false, event.Event{Type: event.MessageReplied, Channel: event.LinkedIn}},

		"Replied": {replied, generic, false, event.Event{Type: event.Replied}},
		"Meeting": {meetingBooked, generic, false, event.Event{Type: event.MeetingBooked, Channel: event.Meeting}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := testScript()
			who := s.crowd.person(3, s.rnd)
			who.enrollment = "0190bbbb-0000-7000-8000-000000000002"
			h := &happening{what: tt.what, who: who, step: 4, machine: tt.machine, link: links()[0], text: "Yes."}
			want := tt.want
			if want.Channel == "" {
				want.Channel = event.Email
			}
			want.OccurredAt, want.Email = at, who.email
			switch tt.from {
			case postmarkMail:
				h.source, h.mail = postmarkSource, s.newMail(4, false)
				want.Provider, want.ProviderMessageID, want.StepNumber = "postmark", h.mail.id, 4
				if tt.want.Type == event.Unsubscribed || tt.want.Type == event.Resubscribed || tt.what == suppressedBounce || tt.what == suppressedSpam {
					want.OccurredAt = at.Truncate(time.Second) // all that ChangedAt tells
				}
			case lemlistMail, linkedIn:
				h.source = lemlistSource
				want.Provider, want.LeadID, want.Campaign, want.StepNumber = "lemlist", who.lead, s.lemCampaign, 4
				if tt.from == lemlistMail {
					h.mail = s.newMail(4, true)
					want.ProviderMessageID = h.mail.id
				} else if tt.what != lemContacted {
					want.Email = ""
				}
			case generic:
				h.source = genericSource
				want.Provider = "generic"
				if tt.what == meetingBooked {
					want.EnrollmentID = who.enrollment
				} else {
					want.StepNumber = 4
				}
			}
			w, err := s.body(h, at)
			if err != nil {
				t.Fatal(err)
			}
			got, err := provider.ByName(want.Provider).Decode(provider.Request{Header: http.Header{}, Body: w.body})
			if err != nil || len(got) != 1 {
				t.Fatalf("decode: %d events, %v; body %s", len(got), err, w.body)
			}
			g := got[0]
			seen := event.Event{
				Provider: g.Provider, Type: g.Type, Control: g.Control, Channel: g.Channel, Email: g.Email, Campaign: g.Campaign,
				ProviderMessageID: g.ProviderMessageID, LeadID: g.LeadID, EnrollmentID: g.EnrollmentID, StepNumber: g.StepNumber,
				Bounce: g.Bounce, Machine: g.Machine, URL: g.URL, OccurredAt: g.OccurredAt,
			}
			if d := cmp.Diff(want, seen); d != "" {
				t.Errorf("event (-want +got):\n%s\nbody %s", d, w.body)
			}
		})
	}
}

func TestRequestsVerify(t *testing.T) {
	t.Parallel()
	now := time.Now()
	generic := provider.ByName("generic")
	secret, err := generic.MakeSecret()
	if err != nil {
		t.Fatal(err)
	}
	s := testScript()
	who := s.crowd.person(1, s.rnd)
	reply, err := s.body(&happening{source: genericSource, what: replied, who: who, text: "Yes."}, now)
	if err != nil {
		t.Fatal(err)
	}
	stamp := strconv.FormatInt(now.Unix(), 10)
	signed := http.Header{}
	signed.Set("Webhook-Id", reply.id)
	signed.Set("Webhook-Timestamp", stamp)
	signed.Set("Webhook-Signature", signature(secret, reply.id, stamp, reply.body))

	mail, err := s.body(&happening{source: postmarkSource, what: opened, who: who, mail: s.newMail(1, false)}, now)
	if err != nil {
		t.Fatal(err)
	}
	const pair = "postmark:pass word"
	visit, err := s.body(&happening{source: lemlistSource, what: visited, who: who, step: 2}, now)
	if err != nil {
		t.Fatal(err)
	}

	tests := map[string]struct {
		provider string
		cfg      provider.Config
		req      provider.Request
	}{
		"Generic":  {"generic", provider.Config{Secrets: []string{secret}}, provider.Request{Header: signed, Body: reply.body}},
		"Postmark": {"postmark", provider.Config{Settings: provider.Settings{BasicAuth: pair}}, provider.Request{Header: http.Header{"Authorization": {basicAuth(pair)}}, Body: mail.body}},
		"Lemlist":  {"lemlist", provider.Config{Secrets: []string{s.lemSecret}}, provider.Request{Header: http.Header{}, Body: visit.body}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := provider.ByName(tt.provider).Verify(now, tt.cfg, tt.req); err != nil {
				t.Errorf("verify: %v", err)
			}
		})
	}
}

// TestPeopleDiffer covers what keeps events unambiguous: no address comes
// twice, neither in one start nor in a later one.
func TestPeopleDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for number := 1; number <= 15; number++ {
		s := newScript(number, "salt"+strconv.Itoa(number), "x")
		for i := range 700 {
			who := s.crowd.person(i, s.rnd)
			at := strconv.Itoa(number) + "/" + strconv.Itoa(i)
			for _, key := range []string{who.email, who.lead, who.profile, who.contactID} {
				if other, ok := seen[key]; ok {
					t.Fatalf("%s is of %s and of %s", key, other, at)
				}
				seen[key] = at
			}
			if !event.ValidAddress(who.email) {
				t.Fatalf("%q is no address", who.email)
			}
		}
	}
}

func TestScriptIsTheSameAgain(t *testing.T) {
	t.Parallel()
	play := func() (all []happening) {
		s := testScript()
		for i := range 30 {
			all = append(all, s.timeline(s.crowd.person(i, s.rnd), time.Hour)...)
		}
		return all
	}
	a, b := play(), play()
	if len(a) != len(b) {
		t.Fatalf("%d happenings, then %d", len(a), len(b))
	}
	for i := range a {
		if a[i].at != b[i].at || a[i].what != b[i].what || a[i].who.email != b[i].who.email {
			t.Fatalf("happening %d differs", i)
		}
	}
}

func TestAgendaKeepsOrder(t *testing.T) {
	t.Parallel()
	s := testScript()
	var a agenda
	for range 500 {
		a.add(between(s.rnd, 0, 50), nil)
	}
	last := entry{}
	for range 500 {
		e := a.next()
		if e.before(last) {
			t.Fatalf("%v/%d after %v/%d", e.at, e.seq, last.at, last.seq)
		}
		last = e
	}
}
