package demo

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// Names of the sources, which tell those of an earlier start too.
const (
	postmarkSource = "demo-postmark"
	lemlistSource  = "demo-lemlist"
	genericSource  = "demo-generic"
)

const (
	steps = 6              // of the template
	day   = 24 * time.Hour // of the simulation
	span  = 14 * day       // simulated time of the play, before it goes on live
)

// what happened. What lemlist tells has lemlist's own name.
type what string

const (
	mailOut what = "" // nobody tells: the message's id becomes known

	delivered        what = "Delivery"
	opened           what = "Open"
	clicked          what = "Click"
	bouncedHard      what = "HardBounce"
	bouncedSoft      what = "SoftBounce"
	complained       what = "SpamComplaint"
	suppressedBounce what = "SubscriptionChange, bounce"
	suppressedSpam   what = "SubscriptionChange, spam"
	unsubscribed     what = "SubscriptionChange, by hand"
	resubscribed     what = "SubscriptionChange, back"

	lemSent        what = "emailsSent"
	lemOpened      what = "emailsOpened"
	lemClicked     what = "emailsClicked"
	lemReplied     what = "emailsReplied"
	lemContacted   what = "contacted"  // a state of the lead: ignored
	lemInterested  what = "interested" // the same
	visited        what = "linkedinVisitDone"
	invited        what = "linkedinInviteDone"
	inviteAccepted what = "linkedinInviteAccepted"
	messageSent    what = "linkedinSent"
	messageRead    what = "linkedinOpened"
	messageReplied what = "linkedinReplied"

	replied       what = "replied"
	meetingBooked what = "meeting_booked"
)

// happening is one thing that happens to one person and that one vendor tells.
type happening struct {
	at       time.Duration // since the start of the simulation
	source   string
	what     what
	who      *person
	mail     *mail // nil where it is not about one
	step     int
	first    bool // of its kind
	machine  bool // a program did it
	stops    bool // the lead leaves the sequence
	stranger bool // somebody that no campaign of ours knows
	link     string
	text     string
}

// script invents what happens. It is used by one goroutine only.
type script struct {
	crowd        *crowd
	rnd          *rand.Rand
	instance     string
	campaignName string
	lemCampaign  string
	lemSecret    string
	posts        int // webhooks made
	mails        int // messages made
}

// newScript makes the script of a start. salt makes the vendors' ids differ
// from those of any other start.
func newScript(number int, salt, name string) *script {
	crowd := newCrowd(number, salt)
	return &script{
		crowd:        crowd,
		rnd:          rand.New(rand.NewPCG(uint64(max(number, 0)), 20)), //nolint:gosec // a play, the same each time: nothing secret comes from it
		campaignName: name,
		lemCampaign:  "cam_" + crowd.id("campaign", 0),
	}
}

const never = time.Duration(1<<63 - 1)

// timeline is what happens to one person, in order of time: a mail, a visit
// and an invitation on the first day; a second mail; a message to those who
// accepted; a last mail. An answer, an unsubscription or a complaint ends it.
func (s *script) timeline(p *person, start time.Duration) []happening {
	var all []happening
	stop := s.postmarkMail(&all, p, start, 1, never)
	hard := len(all) > 1 && all[1].what == bouncedHard
	stop = min(stop, s.linkedIn(&all, p, start+between(s.rnd, 2*time.Hour, 4*time.Hour), stop))
	if at := start + between(s.rnd, 44*time.Hour, 56*time.Hour); at < stop && !hard {
		stop = min(stop, s.postmarkMail(&all, p, at, 4, stop))
	}
	if at := start + between(s.rnd, 92*time.Hour, 108*time.Hour); at < stop && !hard {
		s.lemlistMail(&all, p, at)
	}
	slices.SortStableFunc(all, func(a, b happening) int { return int(a.at/time.Millisecond - b.at/time.Millisecond) })
	return all
}

func (s *script) newMail(step int, byLem bool) *mail {
	s.mails++
	m := &mail{step: step, id: s.crowd.guid("mail", s.mails), subject: subjectOf(step)}
	if byLem {
		m.id = "eml_" + s.crowd.id("mail", s.mails)
	}
	return m
}

func subjectOf(step int) string {
	switch step {
	case 1:
		return "A question about your follow-ups"
	case 4:
		return "Re: A question about your follow-ups"
	}
	return "Shall I close the file?"
}

func links() []string {
	const base = "https://tallyhook-demo.example/"
	return []string{base + "pricing", base + "case/freight", base + "book?with=nora", base + "docs/start"}
}

func answers() []string {
	return []string{
		"Sounds good, send me two dates.", "Not now, ask again in spring.", "Who else uses it?",
		"Happy to talk on Thursday.", "Please send the details to my colleague.",
	}
}

// postmarkMail plays one mail and gives when it ended the campaign for them.
func (s *script) postmarkMail(all *[]happening, p *person, at time.Duration, step int, stop time.Duration) time.Duration {
	m := s.newMail(step, false)
	add := func(at time.Duration, w what) *happening {
		*all = append(*all, happening{at: at, source: postmarkSource, what: w, who: p, mail: m, step: step})
		return &(*all)[len(*all)-1]
	}
	add(at, mailOut).source = ""
	at += between(s.rnd, 2*time.Second, 3*time.Minute)
	switch r := s.rnd.Float64() * 100; {
	case r < 3 && step == 1:
		add(at, bouncedHard)
		add(at+time.Second, suppressedBounce)
		return never // of mail alone: LinkedIn goes on
	case r < 6:
		add(at, bouncedSoft)
		at += between(s.rnd, time.Hour, 3*time.Hour)
	}
	add(at, delivered)
	first := true
	open := func(at time.Duration, machine bool) {
		h := add(at, opened)
		h.first, h.machine = first, machine
		first = false
	}
	if p.proxied {
		open(at+between(s.rnd, time.Second, 4*time.Second), true)
	}
	if !p.reads || !chance(s.rnd, 85) {
		return never
	}
	at += between(s.rnd, 10*time.Minute, 6*time.Hour)
	open(at, false)
	for again := at; chance(s.rnd, 60); {
		again += between(s.rnd, 2*time.Minute, 9*time.Hour)
		open(again, false)
	}
	if chance(s.rnd, 18) {
		click := at + between(s.rnd, 8*time.Second, 4*time.Minute)
		add(click, clicked).link = pick(s.rnd, links())
		if chance(s.rnd, 30) {
			add(click+between(s.rnd, 20*time.Second, 3*time.Minute), clicked).link = pick(s.rnd, links())
		}
	}
	switch r := s.rnd.Float64() * 100; {
	case r < 1.2:
		at += between(s.rnd, time.Minute, time.Hour)
		add(at, complained)
		add(at+time.Second, suppressedSpam)
		return at
	case r < 5:
		at += between(s.rnd, time.Minute, 2*time.Hour)
		add(at, unsubscribed)
		if chance(s.rnd, 20) {
			add(at+between(s.rnd, 6*time.Hour, 30*time.Hour), resubscribed)
		}
		return at
	case r < 11:
		at += between(s.rnd, 30*time.Minute, 20*time.Hour)
		if at >= stop {
			return never
		}
		h := add(at, replied)
		h.source, h.text = genericSource, pick(s.rnd, answers())
		s.meeting(all, p, at, 40)
		return at
	}
	return never
}

func (s *script) lemlistMail(all *[]happening, p *person, at time.Duration) {
	m := s.newMail(steps, true)
	add := func(at time.Duration, w what) *happening {
		*all = append(*all, happening{at: at, source: lemlistSource, what: w, who: p, mail: m, step: steps})
		return &(*all)[len(*all)-1]
	}
	add(at, lemSent).first = true
	if p.proxied { // lemlist says so itself
		h := add(at+between(s.rnd, time.Second, 5*time.Second), lemOpened)
		h.machine, h.first = true, true
	}
	if !p.reads || !chance(s.rnd, 75) {
		return
	}
	at += between(s.rnd, 20*time.Minute, 8*time.Hour)
	add(at, lemOpened)
	for again := at; chance(s.rnd, 50); {
		again += between(s.rnd, 2*time.Minute, 9*time.Hour)
		add(again, lemOpened)
	}
	if chance(s.rnd, 15) {
		add(at+between(s.rnd, 10*time.Second, 2*time.Minute), lemClicked).link = pick(s.rnd, links())
	}
	if chance(s.rnd, 10) {
		at += between(s.rnd, 30*time.Minute, 10*time.Hour)
		h := add(at, lemReplied)
		h.first, h.stops, h.text = true, true, pick(s.rnd, answers())
		add(at+2*time.Second, lemInterested).stops = true
		s.meeting(all, p, at, 40)
	}
}

// linkedIn plays the steps on LinkedIn and gives when an answer ended it all.
func (s *script) linkedIn(all *[]happening, p *person, at, stop time.Duration) time.Duration {
	add := func(at time.Duration, step int, w what) *happening {
		*all = append(*all, happening{at: at, source: lemlistSource, what: w, who: p, step: step, first: true})
		return &(*all)[len(*all)-1]
	}
	if at >= stop {
		return never
	}
	add(at, 2, visited)
	if chance(s.rnd, 20) {
		add(at+time.Second, 2, lemContacted)
	}
	if at += between(s.rnd, time.Hour, 3*time.Hour); at >= stop {
		return never
	}
	add(at, 3, invited)
	if !chance(s.rnd, 52) {
		return never
	}
	at += between(s.rnd, time.Hour, 30*time.Hour)
	add(at, 3, inviteAccepted)
	if at += between(s.rnd, 2*time.Hour, 10*time.Hour); at >= stop {
		return never
	}
	add(at, 5, messageSent)
	if !chance(s.rnd, 70) {
		return never
	}
	at += between(s.rnd, 20*time.Minute, 8*time.Hour)
	add(at, 5, messageRead)
	if !chance(s.rnd, 30) {
		return never
	}
	at += between(s.rnd, 2*time.Minute, 3*time.Hour)
	h := add(at, 5, messageReplied)
	h.stops, h.text = true, pick(s.rnd, answers())
	add(at+time.Second, 5, lemInterested).stops = true
	s.meeting(all, p, at, 45)
	return at
}

func (s *script) meeting(all *[]happening, p *person, at time.Duration, percent float64) {
	if chance(s.rnd, percent) {
		at += between(s.rnd, 20*time.Minute, 20*time.Hour)
		*all = append(*all, happening{at: at, source: genericSource, what: meetingBooked, who: p})
	}
}

// stranger invents an event about somebody whom no campaign here knows: the
// same mail server and the same lemlist team serve others too.
func (s *script) stranger(i int, at time.Duration) happening {
	p := s.crowd.person(1_000_000+i, s.rnd)
	p.email = "guest" + strconv.Itoa(s.crowd.number) + "." + strconv.Itoa(i) + "@elsewhere.example"
	p.lead = "lea_" + s.crowd.id("stranger", i)
	h := happening{at: at, who: p, stranger: true, step: 1, first: true, source: postmarkSource, what: delivered}
	switch s.rnd.IntN(5) {
	case 0:
		h.what = opened
	case 1:
		h.source, h.what = lemlistSource, invited
	case 2:
		h.source, h.what = lemlistSource, messageSent
	case 3:
		h.source, h.what, h.text = genericSource, replied, "Wrong person, I think."
	}
	if h.source == postmarkSource {
		h.mail = s.newMail(1, false)
	}
	return h
}
