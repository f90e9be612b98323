// Package demo plays a campaign against a running server: a few hundred
// contacts, mail and LinkedIn over simulated days, told by three vendors with
// bodies shaped, signed and authenticated as theirs are.
//
// Guarantees: it is a client like any other, and uses nothing but HTTP; what
// it makes is named "demo", and nothing else is touched; the same number of
// start plays the same story; Stop returns within seconds and leaves no
// goroutine.
package demo

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Options say where and how to play.
type Options struct {
	URL     string // of the server
	Key     string // an admin key
	ShowKey string // what the commands shown at the end have as the key; "YOUR_API_KEY" when empty
	Out     io.Writer
	Logger  *slog.Logger
	Speed   float64       // 1 (or 0): the play takes about 3.5 minutes; 2 plays it in half of that
	Tick    time.Duration // between lines of numbers; 0: a second
	People  int           // 0: 360, for 15 to 30 events a second at speed 1
}

const usualPeople = 360

// length is how long the play takes at speed 1, before it goes on live.
const length = 210 * time.Second

func (o Options) withDefaults() Options {
	if o.Speed <= 0 {
		o.Speed = 1
	}
	if o.Tick <= 0 {
		o.Tick = time.Second
	}
	if o.People <= 0 {
		o.People = usualPeople
	}
	if o.ShowKey == "" {
		o.ShowKey = "YOUR_API_KEY"
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Play is one play under way.
type Play struct {
	cancel context.CancelFunc
	done   chan struct{}

	o      Options
	client *client
	screen *screen
	tally  tally
	stage  stage
	script *script
	agenda agenda
	began  time.Time    // when simulated time was zero
	now    atomic.Int64 // simulated time, in nanoseconds
	start  time.Time    // what the vendors' clocks showed then

	strangers  int
	live       int    // people who came after the play
	earlyShare *share // of the people who come live
}

// Start begins to play and returns at once. The play goes on until Stop, or
// until ctx ends.
func Start(ctx context.Context, o Options) *Play {
	o = o.withDefaults()
	ctx, cancel := context.WithCancel(ctx)
	p := &Play{
		cancel: cancel, done: make(chan struct{}), o: o,
		screen: newScreen(o.Out, time.Duration(float64(4*time.Second)/o.Speed)),
	}
	p.client = newClient(o, p.screen.notice)
	go func() {
		defer close(p.done)
		defer p.client.close()
		defer cancel()
		p.run(ctx)
	}()
	return p
}

// Done is closed when the play is over.
func (p *Play) Done() <-chan struct{} { return p.done }

// Stop ends the play, and returns when nothing of it runs any more.
func (p *Play) Stop() {
	p.cancel()
	<-p.done
}

func (p *Play) run(ctx context.Context) {
	p.explain()
	if err := p.setUp(ctx); err != nil {
		p.trouble(ctx, err)
		return
	}
	var lines sync.WaitGroup
	ticking, stop := context.WithCancel(ctx)
	lines.Go(func() { p.tick(ticking) })
	p.play(ctx)
	stop()
	lines.Wait()
	p.farewell(ctx)
}

// play works the agenda until ctx ends.
func (p *Play) play(ctx context.Context) {
	p.began, p.start = time.Now(), time.Now().Add(-span)
	p.plan()
	for ctx.Err() == nil {
		e := p.agenda.next()
		late := time.Since(p.began) - p.real(e.at)
		if late > 3*time.Second { // after an outage the play goes on where it was, with no rush
			p.began = p.began.Add(late)
		}
		if !sleep(ctx, -late) {
			return
		}
		p.now.Store(int64(e.at))
		p.trouble(ctx, e.run(ctx, e.at))
	}
}

// real is how long simulated time takes.
func (p *Play) real(simulated time.Duration) time.Duration {
	return time.Duration(float64(simulated) * float64(length) / float64(span) / p.o.Speed)
}

// wait is the simulated time that takes so long at speed 1.
func wait(d time.Duration) time.Duration {
	return time.Duration(float64(d) * float64(span) / float64(length))
}

// clock is what the vendors' clocks show. After the play they show ours.
func (p *Play) clock(at time.Duration) time.Time {
	if at < span {
		return p.start.Add(at)
	}
	return time.Now()
}

// share picks so many of a hundred.
type share struct{ percent, picked, all float64 }

func (s *share) wants() bool { return s.picked < s.all*s.percent/100 }

// early is the part of events that come before their enrollment, in percent.
const early = 15

// plan writes the whole play into the agenda.
func (p *Play) plan() {
	rnd := p.script.rnd
	type life struct {
		who   *person
		all   []happening
		start time.Duration
	}
	lives := make([]life, p.o.People)
	total := 0
	for i := range lives {
		// A third comes on the first two days, the rest until the thirteenth.
		start := between(rnd, 2*time.Hour, 2*day)
		if i%3 != 0 {
			start = between(rnd, 2*day, 12*day)
		}
		if i < p.o.People/8 {
			start = between(rnd, time.Hour, 14*time.Hour)
		}
		who := p.script.crowd.person(i, rnd)
		lives[i] = life{who, p.script.timeline(who, start), start}
		total += tellings(lives[i].all)
	}
	p.earlyShare = &share{percent: early, all: float64(total)}
	var bulk []*person
	for _, i := range rnd.Perm(len(lives)) {
		l := lives[i]
		switch {
		case p.earlyShare.wants():
			p.comeEarly(l.who, l.all)
		case l.start < 14*time.Hour:
			bulk = append(bulk, l.who)
			p.schedule(l.all)
		default:
			p.agenda.add(l.start-wait(300*time.Millisecond), p.enrolling(l.who))
			p.schedule(l.all)
		}
	}
	p.agenda.add(0, func(ctx context.Context, _ time.Duration) error { return p.enrollAll(ctx, bulk) })
	p.agenda.add(wait(4*time.Second), p.comeStranger)
	p.agenda.add(span, p.goLive)
}

// tellings counts what a vendor tells.
func tellings(all []happening) int {
	n := 0
	for i := range all {
		if all[i].what != mailOut {
			n++
		}
	}
	return n
}

func (p *Play) schedule(all []happening) {
	for i := range all {
		h := &all[i]
		p.agenda.add(h.at, func(ctx context.Context, at time.Duration) error { return p.happen(ctx, h, at) })
	}
}

// comeEarly has somebody enrolled some seconds after the first events.
func (p *Play) comeEarly(who *person, all []happening) {
	p.schedule(all)
	at := all[0].at + between(p.script.rnd, wait(6*time.Second), wait(14*time.Second))
	p.agenda.add(at, p.enrolling(who))
	for i := range all {
		if all[i].at < at && all[i].what != mailOut {
			p.earlyShare.picked++
		}
	}
}

func (p *Play) comeStranger(ctx context.Context, at time.Duration) error {
	p.strangers++
	h := p.script.stranger(p.strangers, at)
	pause := between(p.script.rnd, wait(time.Second), wait(4*time.Second)) // about 2 percent of all events
	pause = time.Duration(float64(pause) * usualPeople / float64(p.o.People))
	if at >= span {
		pause *= 8 // so much quieter it is when live
	}
	p.agenda.add(at+pause, p.comeStranger)
	return p.happen(ctx, &h, at)
}

func (p *Play) goLive(ctx context.Context, at time.Duration) error {
	p.screen.say(true, "The %d days are over. New people keep coming, now at the time of your clock.", int(span/day))
	return p.comeLive(ctx, at)
}

// comeLive adds one more person, and the next after some seconds.
func (p *Play) comeLive(_ context.Context, at time.Duration) error {
	rnd := p.script.rnd
	who := p.script.crowd.person(p.o.People+p.live, rnd)
	p.live++
	start := at + between(rnd, wait(time.Second), wait(3*time.Second))
	all := p.script.timeline(who, start)
	p.earlyShare.all += float64(tellings(all))
	if p.earlyShare.wants() {
		p.comeEarly(who, all)
	} else {
		p.agenda.add(at, p.enrolling(who))
		p.schedule(all)
	}
	p.agenda.add(at+between(rnd, wait(3*time.Second), wait(6*time.Second)), p.comeLive)
	return nil
}

func (p *Play) enrolling(who *person) func(context.Context, time.Duration) error {
	return func(ctx context.Context, _ time.Duration) error { return p.enroll(ctx, who) }
}

// happen tells one thing as its vendor does, and now and then tells it again
// some seconds later, as vendors do whose first answer got lost.
func (p *Play) happen(ctx context.Context, h *happening, at time.Duration) error {
	if h.what == mailOut {
		return p.refer(ctx, h.who, ref{"postmark", "message", h.mail.id})
	}
	w, err := p.script.body(h, p.clock(at))
	if err != nil {
		return err
	}
	got, err := p.tell(ctx, w)
	if err != nil {
		return err
	}
	if !h.stranger && got.Orphaned > 0 {
		h.who.waiting += got.Orphaned
	}
	p.remark(h, got)
	if chance(p.script.rnd, 5) {
		later := at + between(p.script.rnd, wait(time.Second), wait(4*time.Second))
		p.agenda.add(later, func(ctx context.Context, _ time.Duration) error {
			got, err := p.tell(ctx, w)
			if err == nil && got.Duplicate > 0 && p.script.posts%4 == 0 {
				p.screen.say(false, "%s sent %s twice: it counts once", vendor(h.source), aboutOf(h))
			}
			return err
		})
	}
	return nil
}

func (p *Play) tell(ctx context.Context, w post) (counts, error) {
	got, err := p.client.send(ctx, p.stage.hooks[w.source], w)
	if err == nil {
		p.tally.add(got)
	}
	return got, err
}

// agenda is what is to be done, by simulated time. It is never empty once the
// play is planned: strangers keep coming.
type agenda struct {
	entries []entry
	seq     int
}

type entry struct {
	at  time.Duration
	seq int // in the order of adding, for what falls on one moment
	run func(ctx context.Context, at time.Duration) error
}

func (e entry) before(o entry) bool { return e.at < o.at || (e.at == o.at && e.seq < o.seq) }

func (a *agenda) add(at time.Duration, run func(context.Context, time.Duration) error) {
	a.seq++
	a.entries = append(a.entries, entry{max(at, 0), a.seq, run})
	for i := len(a.entries) - 1; i > 0; {
		up := (i - 1) / 2
		if !a.entries[i].before(a.entries[up]) {
			break
		}
		a.entries[i], a.entries[up] = a.entries[up], a.entries[i]
		i = up
	}
}

func (a *agenda) next() entry {
	first, last := a.entries[0], len(a.entries)-1
	a.entries[0] = a.entries[last]
	a.entries[last] = entry{} // let go of what it holds
	a.entries = a.entries[:last]
	for i := 0; ; {
		least := i
		for _, c := range []int{2*i + 1, 2*i + 2} {
			if c < last && a.entries[c].before(a.entries[least]) {
				least = c
			}
		}
		if least == i {
			return first
		}
		a.entries[i], a.entries[least] = a.entries[least], a.entries[i]
		i = least
	}
}
