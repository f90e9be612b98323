package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// The property (law 4): status, counters, uniques, suppressions and ledger are
// a function of the set of (event, attribution). What they must be is computed
// here from the set alone, in the words of the contract and with none of the
// product's code; the store is given the set in random orders, with
// duplicates, split into random batches, while people are enrolled, references
// added, retries and bursts of dead letters happen and the store restarts.

// happening is one event of the set.
type happening struct {
	id        int
	person    int // -1: somebody who is never enrolled
	by        string
	typ       event.Type
	at        time.Duration // from the check's start; after received: a time to come
	estimated bool
	hard      bool
	step      int
	machine   event.Machine
	variant   string
	provider  string
	address   bool // the event carries the person's address
	times     int  // deliveries
}

const received = time.Hour // when every event of a check is received, from its start

type scene struct {
	people  int
	homes   []int // the instance of each person
	enrolls bool  // the tool's events tell the campaign and the address, and enroll
	set     []happening
}

func drawScene(t *rapid.T) scene {
	s := scene{people: rapid.IntRange(1, 3).Draw(t, "people")}
	for range s.people {
		s.homes = append(s.homes, rapid.IntRange(0, 1).Draw(t, "home"))
	}
	s.enrolls = rapid.Bool().Draw(t, "enrolls")
	decisive := []event.Type{
		event.Unsubscribed, event.Resubscribed, event.Unsubscribed, event.Resubscribed, event.Complained, event.Bounced,
		event.Replied, event.MessageReplied, event.Opened, event.Clicked,
	}
	n := rapid.IntRange(1, 30).Draw(t, "events")
	for id := range n {
		h := happening{
			id: id, person: rapid.IntRange(-1, s.people-1).Draw(t, "person"),
			by:        rapid.SampledFrom([]string{"message", "action", "lead", "enrollment", "address"}).Draw(t, "by"),
			typ:       rapid.OneOf(rapid.SampledFrom(decisive), rapid.SampledFrom(decisive), rapid.SampledFrom(event.Types())).Draw(t, "type"),
			at:        time.Duration(rapid.IntRange(0, 90).Draw(t, "minute")) * time.Minute,
			estimated: rapid.IntRange(0, 5).Draw(t, "estimated") == 0,
			hard:      rapid.Bool().Draw(t, "hard"),
			provider:  "lemlist",
			address:   rapid.Bool().Draw(t, "address"),
			times:     rapid.SampledFrom([]int{1, 1, 2, 3}).Draw(t, "times"),
		}
		// Mostly plain, so that several events come to the same fact.
		if rapid.IntRange(0, 3).Draw(t, "special") == 0 {
			h.step = rapid.IntRange(0, 2).Draw(t, "step")
			h.machine = rapid.SampledFrom([]event.Machine{event.MachineUnknown, event.MachineYes, event.MachineNo}).Draw(t, "machine")
			h.variant = rapid.SampledFrom([]string{"", "A"}).Draw(t, "variant")
			h.provider = rapid.SampledFrom([]string{"lemlist", "postmark"}).Draw(t, "provider")
		}
		// Of somebody who was told of by the lead alone, and is then enrolled by
		// hand with the address alone, nobody can know that it is the same one.
		h.address = h.address || s.enrolls
		s.set = append(s.set, h)
	}
	return s
}

func address(person int) string { return fmt.Sprintf("p%d@example.com", person) }

func (h happening) email() string {
	if h.address || h.by == "address" {
		return address(h.person)
	}
	return ""
}

func (h happening) occurred(start time.Time) time.Time {
	if h.estimated {
		return start.Add(received)
	}
	return start.Add(h.at)
}

// model is what must be true, by names: every line is a fact about the end.
type model map[string]string

func (m model) add(key string, n int) {
	var was int
	_, _ = fmt.Sscan(m[key], &was) // not there: 0
	m[key] = fmt.Sprint(was + n)
}

// says collects what the events about somebody or some address amount to.
type says struct {
	complained, hard, answered bool
	unsubscribed, resubscribed time.Time
}

func (s *says) hear(h happening, start time.Time) {
	at := h.occurred(start)
	switch {
	case h.typ == event.Complained:
		s.complained = true
	case h.typ == event.Bounced && h.hard:
		s.hard = true
	case h.typ == event.Replied, h.typ == event.MessageReplied:
		s.answered = true
	case h.typ == event.Unsubscribed && at.After(s.unsubscribed):
		s.unsubscribed = at
	case h.typ == event.Resubscribed && !h.estimated && h.at <= received && at.After(s.resubscribed):
		s.resubscribed = at
	}
}

func (s *says) off() bool { return !s.unsubscribed.IsZero() && !s.resubscribed.After(s.unsubscribed) }

func (s scene) expected(start time.Time) model {
	m := model{}
	status := make([]says, s.people)
	list := map[string]*says{}
	unique, deliveries, strangers := len(s.set), 0, 0
	firsts := map[string]time.Time{}
	for _, h := range s.set {
		deliveries += h.times
		if a := h.email(); a != "" {
			if list[a] == nil {
				list[a] = &says{}
			}
			list[a].hear(h, start)
		}
		if h.person < 0 {
			strangers++
			continue
		}
		status[h.person].hear(h, start)
		at := h.occurred(start)
		qualifier := ""
		switch {
		case h.typ == event.Bounced && h.hard:
			qualifier = "hard"
		case h.typ == event.Bounced:
			qualifier = "soft"
		case h.typ == event.Resubscribed && (h.estimated || h.at > received):
			qualifier = "void"
		}
		kind := fmt.Sprintf("%s/%s/%d/%d/%s/%s", h.typ, qualifier, h.step, h.machine, h.provider, h.variant)
		quarter := at.Unix() - at.Unix()%900
		m.add(fmt.Sprintf("counter %d %s %d", s.homes[h.person], kind, quarter), 1)
		fact := fmt.Sprintf("fact %d %s", h.person, kind)
		m.add(fact, 1)
		if first, ok := firsts[fact]; !ok || at.Before(first) {
			firsts[fact] = at
		}
	}
	for fact, first := range firsts {
		m[fact+" first"] = fmt.Sprint(first.UnixMicro())
	}
	counts := []map[string]int{{}, {}}
	for p := range status {
		st := "active"
		switch f := &status[p]; {
		case f.complained:
			st = "complained"
		case f.off():
			st = "unsubscribed"
		case f.hard:
			st = "bounced"
		case f.answered:
			st = "completed"
		}
		m[fmt.Sprint("status ", p)] = st
		counts[s.homes[p]][st]++
	}
	for home, c := range counts {
		for _, st := range []string{"active", "completed", "bounced", "unsubscribed", "complained"} {
			m[fmt.Sprintf("people %d %s", home, st)] = fmt.Sprint(c[st])
		}
	}
	for a, f := range list {
		switch {
		case f.complained:
			m["suppressed "+a] = "complained"
		case f.off():
			m["suppressed "+a] = "unsubscribed"
		case f.hard:
			m["suppressed "+a] = "bounced"
		}
	}
	m["ledger"] = fmt.Sprintf("received %d, duplicates %d, applied %d, without %d, ignored 0, archived 0",
		deliveries, deliveries-unique, unique-strangers, strangers)
	return m
}

// stage plays a scene in a tenant of its own, in an order of its own.
type stage struct {
	w       *World
	t       *rapid.T
	s       scene
	start   time.Time
	homes   [2]uuid.UUID
	people  []uuid.UUID // uuid.Nil while not enrolled
	first   map[int]uuid.UUID
	pending []event.Event
	heard   []int // which happening each pending event is
}

func (g *stage) refs(person int) []event.Ref {
	var refs []event.Ref
	for _, p := range []string{"lemlist", "postmark"} {
		for _, k := range []event.RefKind{event.RefMessage, event.RefAction, event.RefLead} {
			refs = append(refs, event.Ref{Provider: p, Kind: k, Value: fmt.Sprintf("%s of %d", k, person)})
		}
	}
	return refs
}

func (g *stage) enroll(person int) {
	if g.people[person] != uuid.Nil {
		return
	}
	g.flush()
	in := []campaign.Enrollment{{Email: address(person), Refs: g.refs(person)[:2]}}
	d, err := g.w.Enroll(g.w.Ctx(), g.w.Tenant, g.homes[g.s.homes[person]], in, true, store.Idempotency{})
	if err != nil {
		g.t.Fatal(err)
	}
	if d[0].Merged && !g.s.enrolls {
		g.t.Fatalf("person %d is enrolled already", person)
	}
	g.people[person] = d[0].ID
}

// toggle pauses an active instance and activates a paused one; with a campaign
// it maps that to it too.
func (g *stage) toggle(home int, mapped bool) {
	g.flush()
	ins, err := g.w.Store.Instance(g.w.Ctx(), g.w.Tenant, g.homes[home])
	if err != nil {
		g.t.Fatal(err)
	}
	to := string(campaign.Paused)
	if ins.Status == campaign.Paused {
		to = string(campaign.Active)
	}
	patch := store.InstancePatch{Status: &to}
	if mapped {
		patch.ProviderCampaigns = map[string]string{"lemlist": fmt.Sprint("cam ", home)}
	}
	if _, _, err := g.w.PatchInstance(g.w.Ctx(), g.w.Tenant, g.homes[home], patch); err != nil {
		g.t.Fatal(err)
	}
}

func (g *stage) enrich(person int) {
	g.enroll(person)
	if _, err := g.w.AddRefs(g.w.Ctx(), g.w.Tenant, g.people[person], g.refs(person)); err != nil {
		g.t.Fatal(err)
	}
}

func (g *stage) hear(h happening) {
	opts := []Option{
		From(h.provider), ID(fmt.Sprint("evt ", h.id)), Address(h.email()),
		func(e *event.Event) {
			e.StepNumber, e.Machine, e.ReceivedAt = h.step, h.machine, g.start.Add(received)
			e.OccurredAt, e.OccurredAtEstimated = h.occurred(g.start), h.estimated
			if h.typ == event.Bounced && h.hard {
				e.Bounce = event.Hard
			}
			if h.variant != "" {
				e.Metadata = []byte(`{"variant":"` + h.variant + `"}`)
			}
		},
	}
	if g.s.enrolls && h.person >= 0 {
		opts = append(opts, Enrolling(fmt.Sprint("cam ", g.s.homes[h.person])))
	}
	switch h.by {
	case "message":
		opts = append(opts, Message(fmt.Sprint("message of ", h.person)))
	case "action":
		opts = append(opts, Action(fmt.Sprint("action of ", h.person)))
	case "lead":
		opts = append(opts, Lead(fmt.Sprint("lead of ", h.person)))
	case "enrollment":
		if h.person >= 0 {
			g.enroll(h.person) // nobody can know the id before
			opts = append(opts, Of(g.people[h.person]))
		} else {
			opts = append(opts, Lead("lead of nobody"))
		}
	}
	g.pending = append(g.pending, g.w.Event(h.typ, opts...))
	g.heard = append(g.heard, h.id)
}

func (g *stage) flush() {
	if len(g.pending) == 0 {
		return
	}
	for i, r := range g.w.Put(g.pending...) {
		id, ok := g.first[g.heard[i]]
		if dup := r.Outcome == event.OutcomeDuplicate; dup != ok || (ok && id != r.ID) {
			g.t.Fatalf("event %d is %s of %s, first was %s", g.heard[i], r.Outcome, r.ID, id)
		}
		g.first[g.heard[i]] = r.ID
	}
	g.pending, g.heard = nil, nil
}

func (g *stage) play() {
	type act func()
	var acts []act
	for _, h := range g.s.set {
		for range h.times {
			acts = append(acts, func() { g.hear(h) })
		}
	}
	for p := range g.s.people {
		acts = append(acts, func() { g.enroll(p) }, func() { g.enrich(p) })
	}
	if g.s.enrolls { // each is active in the end
		for home := range g.homes {
			acts = append(acts, func() { g.toggle(home, true) }, func() { g.toggle(home, true) }, func() { g.toggle(home, false) }, func() { g.toggle(home, false) })
		}
	}
	acts = rapid.Permutation(acts).Draw(g.t, "order")
	for _, a := range acts {
		a()
		switch rapid.IntRange(0, 40).Draw(g.t, "then") {
		case 0, 1, 2, 3, 4, 5, 6, 7, 8, 9:
			g.flush()
		case 10, 11:
			g.flush()
			g.w.Clock.Advance(10 * time.Second)
			g.w.Due()
		case 12:
			g.flush()
			g.w.Spend()
		case 13:
			g.flush()
			g.w.Index()
		case 14:
			if rapid.IntRange(0, 3).Draw(g.t, "restart") == 0 {
				g.flush()
				g.w.Reopen()
			}
		}
	}
	g.flush()
	for p := range g.s.people {
		g.enrich(p)
	}
	g.w.Drain()
}

// seen reads from the store what expected says.
func (g *stage) seen() model {
	ctx, w, m := g.w.Ctx(), g.w, model{}
	who := map[uuid.UUID]int{}
	for p, id := range g.people {
		who[id] = p
		m[fmt.Sprint("status ", p)] = string(w.Status(id))
	}
	for home, ins := range g.homes {
		n, err := w.Numbers(ctx, w.Tenant, ins, time.Time{}, time.Time{})
		if err != nil {
			g.t.Fatal(err)
		}
		for _, c := range n.Tallies {
			m.add(fmt.Sprintf("counter %d %s/%s/%d/%d/%s/%s %d", home, c.Type, c.Qualifier, c.Step, c.Machine, c.Provider, c.Variant, c.Bucket.Unix()), int(c.Count))
		}
		for _, u := range n.Uniques {
			fact := fmt.Sprintf("fact %d %s/%s/%d/%d/%s/%s", who[u.Enrollment], u.Type, u.Qualifier, u.Step, u.Machine, u.Provider, u.Variant)
			m.add(fact, int(u.Count))
			m[fact+" first"] = fmt.Sprint(u.FirstAt.UnixMicro())
		}
		for st, c := range n.Status {
			m[fmt.Sprintf("people %d %s", home, st)] = fmt.Sprint(c)
		}
	}
	for p := -1; p < g.s.people; p++ {
		s, err := w.Suppression(ctx, w.Tenant, address(p))
		if err == nil {
			m["suppressed "+address(p)] = s.Reason()
		} else if !fault.Is(err, fault.NotFound) {
			g.t.Fatal(err)
		}
	}
	rows, _, err := w.Suppressions(ctx, w.Tenant, time.Time{}, store.Page{Limit: 100})
	if err != nil {
		g.t.Fatal(err)
	}
	for _, s := range rows {
		if m["suppressed "+s.Email] != s.Reason() {
			g.t.Fatalf("%s is on the list for %q, and by itself for %q", s.Email, s.Reason(), m["suppressed "+s.Email])
		}
	}
	l := w.Account(w.Tenant)
	m["ledger"] = fmt.Sprintf("received %d, duplicates %d, applied %d, without %d, ignored %d, archived %d",
		l.Received, l.Duplicates, l.Applied, l.Orphaned+l.Dead, l.Ignored, l.Archived)
	return m
}

func (m model) diff(got model) string {
	var lines []string
	for k, v := range m {
		if got[k] != v {
			lines = append(lines, fmt.Sprintf("%s: got %q, want %q", k, got[k], v))
		}
	}
	for k, v := range got {
		if _, ok := m[k]; !ok {
			lines = append(lines, fmt.Sprintf("%s: got %q, want nothing", k, v))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// fails lets a World fail a check in place of the test, so that rapid can look
// for a smaller one.
type fails struct {
	testing.TB
	rt *rapid.T
}

func (f fails) Helper()                      {}
func (f fails) Errorf(s string, args ...any) { f.rt.Errorf(s, args...) }
func (f fails) Fatalf(s string, args ...any) { f.rt.Fatalf(s, args...) }
func (f fails) Error(args ...any)            { f.rt.Error(args...) }
func (f fails) Fatal(args ...any)            { f.rt.Fatal(args...) }
func (f fails) Failed() bool                 { return f.rt.Failed() }

// OrderDoesNotMatter holds a store against the property. How many scenes it is
// shown is the flag -rapid.checks.
func OrderDoesNotMatter(t *testing.T, open Opener, change ...func(*Options)) {
	t.Helper()
	w := New(t, open, change...)
	tenants := 0
	rapid.Check(t, func(rt *rapid.T) {
		w.T = fails{t, rt}
		defer func(tenant int64) { w.T, w.Tenant = t, tenant }(w.Tenant)
		s := drawScene(rt)
		start := w.Clock.Now().Truncate(time.Second)
		want := s.expected(start)
		w.Clock.Advance(received)
		for range 2 {
			tenants++
			tenant, err := w.CreateTenant(w.Ctx(), fmt.Sprint("tenant ", tenants))
			if err != nil {
				rt.Fatal(err)
			}
			w.Tenant = tenant.ID
			g := &stage{w: w, t: rt, s: s, start: start, people: make([]uuid.UUID, s.people), first: map[int]uuid.UUID{}}
			for i := range g.homes {
				_, g.homes[i] = w.Campaign(w.Tenant, nil)
			}
			g.play()
			if d := want.diff(g.seen()); d != "" {
				rt.Fatalf("after one of the orders:\n%s", d)
			}
		}
	})
	w.Balanced()
}
