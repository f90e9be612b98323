package app_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// storm is the load of the crash test and the record of it.
type storm struct {
	t         *testing.T
	seed      uint64
	instances []string
	generic   testenv.Source
	postmark  testenv.Source
	lemlist   testenv.Source
	start     time.Time
	urls      atomic.Pointer[[]string] // of the servers; none while nobody is there
	over      chan struct{}

	mu         sync.Mutex
	contacts   []*contact
	sent       map[string]*sent // by marker
	order      []string         // markers in the order they were first sent
	deliveries []*delivery      // answered ones, to be sent again
	replays    []string
	unanswered int
	retried    int
}

// How a contact is found.
type way int

const (
	byEmail way = iota // enrolled with its address
	byRefs             // enrolled with a message and a lead, without an address
	never              // not enrolled at all
)

type contact struct {
	n        int
	way      way
	instance int
	begun    bool   // someone enrolls it
	id       string // of its enrollment, once it was answered
}

func (c *contact) email() string   { return fmt.Sprintf("c%d@storm.test", c.n) }
func (c *contact) message() string { return fmt.Sprintf("message-%d", c.n) }
func (c *contact) lead() string    { return fmt.Sprintf("lea_%d", c.n) }

// sent is one event as the sender knows it.
type sent struct {
	marker   string
	contact  *contact
	kind     string // canonical type
	bounce   string
	machine  string // "yes", "no", ""
	at       time.Time
	findable bool // names what a contact enrolled by references is found by

	attempts int    // times it was sent, answered or not
	acked    int    // times it was answered 2xx
	first    int    // answers that were not "duplicate"
	blurred  bool   // an answer's outcome for it is not known
	id       string // from an answer
}

// delivery is one request, sent as often as it takes.
type delivery struct {
	path    string
	body    []byte
	secret  string   // signed, when not empty
	id      string   // webhook-id of a signed one
	markers []string // of the events in it, "" for an item that is no event
	many    bool     // the answer is that of an array
}

func newStorm(t *testing.T, seed uint64, c *testenv.Client) *storm {
	t.Helper()
	st := &storm{t: t, seed: seed, start: time.Now().UTC().Truncate(time.Second), over: make(chan struct{}), sent: map[string]*sent{}}
	st.at(c.URL)
	for i := range 3 {
		st.instances = append(st.instances, c.NewInstance(fmt.Sprintf("storm %d", i), nil))
	}
	st.generic = c.NewSource("generic", "")
	st.postmark = c.NewSource("postmark", "storm:password")
	st.lemlist = c.NewSource("lemlist", "hook-secret")
	return st
}

// at tells where the servers are now.
func (st *storm) at(urls ...string) { st.urls.Store(&urls) }

// aim points a client at one of the servers; false when nobody is there.
func (st *storm) aim(c *testenv.Client) bool {
	urls := *st.urls.Load()
	if len(urls) == 0 {
		return false
	}
	c.URL = urls[rand.IntN(len(urls))]
	return true
}

func (st *storm) end() { close(st.over) }

// rest waits; false when the storm ended or the test failed.
func (st *storm) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-st.over:
		return false
	case <-timer.C:
		return !st.t.Failed()
	}
}

// grow adds contacts, so that each round has early and late ones.
func (st *storm) grow() {
	st.mu.Lock()
	defer st.mu.Unlock()
	random := rand.New(rand.NewPCG(st.seed, uint64(1000+len(st.contacts))))
	for range 40 {
		c := &contact{n: len(st.contacts), instance: random.IntN(len(st.instances))}
		switch p := random.IntN(10); {
		case p == 0:
			c.way = never
		case p < 4:
			c.way = byRefs
		}
		st.contacts = append(st.contacts, c)
	}
}

// acknowledged counts the events that were answered 2xx.
func (st *storm) acknowledged() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	n := 0
	for _, s := range st.sent {
		if s.acked > 0 {
			n++
		}
	}
	return n
}

func (st *storm) progress() string {
	acked := st.acknowledged()
	st.mu.Lock()
	defer st.mu.Unlock()
	enrolled := 0
	for _, c := range st.contacts {
		if c.id != "" {
			enrolled++
		}
	}
	return fmt.Sprintf("%d events sent, %d acknowledged; %d requests without an answer, %d repeated; %d of %d contacts enrolled",
		len(st.sent), acked, st.unanswered, st.retried, enrolled, len(st.contacts))
}

// work is one client. Its load is a function of the seed, its timing is not.
func (st *storm) work(n int) {
	random := rand.New(rand.NewPCG(st.seed, uint64(n+1)))
	c := testenv.NewClient(st.t, "", testenv.AdminKey)
	defer c.Close()
	for serial := 0; !st.t.Failed(); serial++ {
		select {
		case <-st.over:
			return
		default:
		}
		mark := func(i int) string { return fmt.Sprintf("w%d-%d-%d", n, serial, i) }
		switch p := random.IntN(100); {
		case st.size() == 0:
			st.rest(10 * time.Millisecond)
		case p < 30:
			st.deliver(c, random, st.single(random, mark(0)))
		case p < 45:
			st.deliver(c, random, st.array(random, mark))
		case p < 55:
			st.deliver(c, random, st.signedWebhook(random, mark))
		case p < 65:
			st.deliver(c, random, st.postmarkWebhook(random, mark(0)))
		case p < 75:
			st.deliver(c, random, st.lemlistWebhook(random, mark(0)))
		case p < 87:
			if d := st.former(random); d != nil {
				st.deliver(c, random, d)
			}
		case p < 98:
			if who := st.toEnroll(random); who != nil {
				st.enroll(c, who)
			}
		default:
			st.replayAll(c)
		}
	}
}

func (st *storm) size() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.contacts)
}

func (st *storm) pick(random *rand.Rand) *contact {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.contacts[random.IntN(len(st.contacts))]
}

// former is a delivery that was answered before.
func (st *storm) former(random *rand.Rand) *delivery {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.deliveries) == 0 {
		return nil
	}
	return st.deliveries[random.IntN(len(st.deliveries))]
}

func (st *storm) toEnroll(random *rand.Rand) *contact {
	st.mu.Lock()
	defer st.mu.Unlock()
	from := random.IntN(len(st.contacts))
	for i := range st.contacts {
		if c := st.contacts[(from+i)%len(st.contacts)]; !c.begun && c.way != never {
			c.begun = true
			return c
		}
	}
	return nil
}

// note puts a new event on the record, before it is sent.
func (st *storm) note(s *sent) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.sent[s.marker] != nil {
		st.t.Errorf("the test made the marker %s twice", s.marker)
	}
	st.sent[s.marker] = s
	st.order = append(st.order, s.marker)
}

// moment is a time in the past that no other event has.
func (st *storm) moment(random *rand.Rand) time.Time {
	return st.start.Add(-time.Duration(random.Int64N(int64(48*time.Hour/time.Microsecond))) * time.Microsecond)
}

// event makes a canonical event.
func (st *storm) event(random *rand.Rand, marker string, viaKey bool) map[string]any {
	kinds := []string{
		"sent", "delivered", "opened", "opened", "opened", "clicked", "clicked", "replied", "bounced",
		"unsubscribed", "resubscribed", "complained", "meeting_booked",
	}
	who := st.pick(random)
	s := &sent{marker: marker, contact: who, kind: kinds[random.IntN(len(kinds))], at: st.moment(random), findable: viaKey}
	e := map[string]any{
		"event_type": s.kind, "channel": "email", "timestamp": s.at.Format(time.RFC3339Nano), "provider_event_id": marker,
		"email": who.email(), "step_number": 1 + random.IntN(3), "metadata": map[string]any{"marker": marker},
	}
	if viaKey {
		e["provider"], e["provider_message_id"] = "postmark", who.message()
	}
	switch s.kind {
	case "bounced":
		s.bounce = "soft"
		if random.IntN(8) == 0 {
			s.bounce = "hard"
		}
		e["bounce"] = s.bounce
	case "opened", "clicked":
		switch random.IntN(3) {
		case 0:
			s.machine, e["machine"] = "yes", true
		case 1:
			s.machine, e["machine"] = "no", false
		}
	}
	st.note(s)
	return e
}

func (st *storm) encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		st.t.Errorf("encode: %v", err)
	}
	return b
}

func (st *storm) single(random *rand.Rand, marker string) *delivery {
	return &delivery{path: "/api/events", body: st.encode(st.event(random, marker, true)), markers: []string{marker}}
}

// array holds new events, some of them twice, and now and then no event at all.
func (st *storm) array(random *rand.Rand, mark func(int) string) *delivery {
	d := &delivery{path: "/api/campaigns/events/webhook", many: true}
	var items []any
	for i := range 2 + random.IntN(11) {
		e := st.event(random, mark(i), true)
		items, d.markers = append(items, e), append(d.markers, mark(i))
		switch random.IntN(8) {
		case 0:
			items, d.markers = append(items, e), append(d.markers, mark(i))
		case 1:
			items, d.markers = append(items, map[string]any{"event_type": "opened", "channel": "pigeon"}), append(d.markers, "")
		}
	}
	d.body = st.encode(items)
	return d
}

func (st *storm) signedWebhook(random *rand.Rand, mark func(int) string) *delivery {
	d := &delivery{path: st.generic.Path, secret: st.generic.Secret, id: "msg_" + mark(0)}
	var items []any
	for i := range 1 + random.IntN(4) {
		items, d.markers = append(items, st.event(random, mark(i), false)), append(d.markers, mark(i))
	}
	if len(items) == 1 {
		d.body = st.encode(items[0])
	} else {
		d.body = st.encode(items)
	}
	return d
}

func (st *storm) postmarkWebhook(random *rand.Rand, marker string) *delivery {
	who := st.pick(random)
	s := &sent{marker: marker, contact: who, at: st.moment(random), findable: true}
	at := s.at.Format("2006-01-02T15:04:05.0000000Z")
	body := map[string]any{
		"MessageID": who.message(), "Metadata": map[string]any{"marker": marker}, "MessageStream": "outbound", "ServerID": 23,
	}
	switch random.IntN(5) {
	case 0:
		s.kind, body["RecordType"], body["DeliveredAt"], body["Recipient"] = "delivered", "Delivery", at, who.email()
	case 1:
		s.kind, body["RecordType"], body["ReceivedAt"], body["Recipient"] = "clicked", "Click", at, who.email()
		body["OriginalLink"] = "https://example.com/" + marker
	case 2:
		s.kind, s.bounce, body["RecordType"], body["BouncedAt"], body["Email"] = "bounced", "hard", "Bounce", at, who.email()
		body["Type"], body["ID"] = "HardBounce", marker
	default:
		s.kind, body["RecordType"], body["ReceivedAt"], body["Recipient"] = "opened", "Open", at, who.email()
	}
	st.note(s)
	return &delivery{path: st.postmark.Path, body: st.encode(body), markers: []string{marker}}
}

func (st *storm) lemlistWebhook(random *rand.Rand, marker string) *delivery {
	who := st.pick(random)
	s := &sent{marker: marker, contact: who, at: st.moment(random), findable: true}
	kind := []string{"emailsSent", "emailsOpened", "emailsClicked", "emailsReplied", "emailsUnsubscribed", "emailsBounced"}[random.IntN(6)]
	s.kind = strings.ToLower(strings.TrimPrefix(kind, "emails"))
	bot := random.IntN(2) == 0
	switch s.kind {
	case "bounced":
		s.bounce = "soft"
	case "opened", "clicked":
		s.machine = map[bool]string{true: "yes", false: "no"}[bot]
	}
	st.note(s)
	return &delivery{path: st.lemlist.Path, markers: []string{marker}, body: st.encode(map[string]any{
		"_id": marker, "type": kind, "createdAt": s.at.Format(time.RFC3339Nano), "leadId": who.lead(), "leadEmail": who.email(),
		"campaignId": "cam_storm", "sequenceStep": 1 + random.IntN(3), "bot": bot, "secret": st.lemlist.Secret,
	})}
}
