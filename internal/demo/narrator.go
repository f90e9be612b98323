package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
)

// numbers is one line of them.
type numbers struct {
	day                                             string
	received, applied, adopted, duplicates, ignored int
	waiting, dead                                   string
}

// tally counts what the server answered.
type tally struct {
	mu      sync.Mutex
	sum     counts
	adopted int
}

func (t *tally) add(c counts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum.Received += c.Received
	t.sum.Applied += c.Applied
	t.sum.Duplicate += c.Duplicate
	t.sum.Orphaned += c.Orphaned
	t.sum.Ignored += c.Ignored
	t.sum.Dead += c.Dead
	t.sum.Spooled += c.Spooled
}

func (t *tally) adopt(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.adopted += n
}

func (t *tally) get() (c counts, adopted int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sum, t.adopted
}

// tick writes a line of numbers each second.
func (p *Play) tick(ctx context.Context) {
	t := time.NewTicker(p.o.Tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		sum, adopted := p.tally.get()
		p.screen.numbers(numbers{
			day: p.day(), received: sum.Received, applied: sum.Applied + adopted, adopted: adopted,
			duplicates: sum.Duplicate, ignored: sum.Ignored, waiting: p.depth(ctx), dead: p.letters(ctx),
		})
	}
}

// day is the simulated day.
func (p *Play) day() string {
	now := time.Duration(p.now.Load())
	if now >= span {
		return "live"
	}
	return fmt.Sprintf("%.1f", 1+float64(now)/float64(day))
}

// peek asks once; a line of numbers does not wait for an answer for long.
func (p *Play) peek(ctx context.Context, path string, out any) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	status, _, answer, err := p.client.try(ctx, http.MethodGet, p.client.url+path, nil,
		func(h http.Header) { h.Set("X-API-Key", p.client.key) })
	if err != nil || status != http.StatusOK {
		p.o.Logger.DebugContext(ctx, "demo cannot look", slog.String("path", path), slog.Int("status", status), slog.Any("error", err))
		return false
	}
	return jsonv2.Unmarshal(answer, out) == nil
}

const unknown = "?" // in place of a number that the server does not tell

func (p *Play) depth(ctx context.Context) string {
	var h struct {
		Components struct {
			Queue struct {
				Depth *int `json:"depth"`
			} `json:"queue"`
		} `json:"components"`
	}
	if !p.peek(ctx, "/health", &h) || h.Components.Queue.Depth == nil {
		return unknown
	}
	return strconv.Itoa(*h.Components.Queue.Depth)
}

func (p *Play) letters(ctx context.Context) string {
	var s data[struct {
		ByStatus map[string]int `json:"by_status"`
	}]
	if !p.peek(ctx, "/api/admin/dlq/stats", &s) {
		return unknown
	}
	return strconv.Itoa(s.Data.ByStatus["dead"])
}

// explain says what will be seen.
func (p *Play) explain() {
	p.screen.print(
		fmt.Sprintf("The demo: %d days of a campaign with %d people, played in %.1f minutes.",
			int(span/day), p.o.People, length.Minutes()/p.o.Speed),
		"Its events come as webhooks, as Postmark, lemlist and a script of your own (Standard Webhooks) send",
		"and sign them. A line a second says:",
		"  received    events that came in           waiting   no enrollment yet: kept, tried again",
		"  applied     counted in their campaign     adopted   of the applied: had waited for it",
		"  duplicates  sent again, counted once      ignored   kept, but not about outreach",
		"                                            dead      given up for now: /api/admin/dlq",
		"and received = applied + waiting + duplicates + ignored + dead. (What an earlier play left waiting",
		"or dead is in these two as well.) Stop it with Ctrl-C whenever you like.",
	)
}

func (p *Play) introduce(number int) {
	p.screen.print(
		fmt.Sprintf("  This is %q, its sources %s, %s and %s.", p.stage.name, postmarkSource, lemlistSource, genericSource), "")
	p.o.Logger.Info("demo begins", slog.Int("number", number), slog.String("instance", p.stage.instance))
}

// farewell sums up, and says where to look.
func (p *Play) farewell(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	sum, adopted := p.tally.get()
	lines := []string{
		"",
		fmt.Sprintf("The demo has stopped. Of %q the server has:", p.stage.name),
		fmt.Sprintf("  %d events received, %d applied (%d of them had waited), %d duplicates, %d ignored;",
			sum.Received, sum.Applied+adopted, adopted, sum.Duplicate, sum.Ignored),
		fmt.Sprintf("  %s waiting and %s dead letters, those of earlier plays included.", p.depth(ctx), p.letters(ctx)),
	}
	var perf data[struct {
		Totals map[string]int `json:"totals"`
		Status map[string]int `json:"enrollment_status"`
	}]
	if p.peek(ctx, "/api/campaigns/instances/"+p.stage.instance+"/performance", &perf) {
		people := 0
		for _, n := range perf.Data.Status {
			people += n
		}
		st := perf.Data.Status
		lines = append(lines, fmt.Sprintf("  %s: %d active, %d answered, %d bounced, %d unsubscribed, %d complained; %s.",
			plural(people, "contact"), st["active"], st["completed"], st["bounced"], st["unsubscribed"], st["complained"],
			plural(perf.Data.Totals["meeting_booked"], "meeting")))
	}
	curl := "  curl -H \"X-API-Key: " + p.o.ShowKey + "\" \\" // double quotes: it may be $API_KEY
	lines = append(lines,
		"Nothing of it is lost. Start the server again and look at the campaign and at what waits:",
		curl, "    "+p.client.url+"/api/campaigns/instances/"+p.stage.instance+"/performance",
		curl, "    '"+p.client.url+"/api/events?state=orphaned&limit=3'", "")
	p.screen.print(lines...)
}

// trouble tells what went wrong, each thing once. A play goes on without a
// part of itself, but not without its key.
func (p *Play) trouble(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	p.o.Logger.DebugContext(ctx, "demo trouble", slog.Any("error", err)) // the screen tells it
	text := err.Error()
	about := text
	if r, ok := errors.AsType[*refusal](err); ok {
		about = r.what + strconv.Itoa(r.status) // the detail may have another id each time
	}
	if errors.Is(err, errKey) {
		text += ". The demo ends here; the server goes on"
		p.cancel()
	}
	p.screen.once(about, text)
}

// remark tells of an event in a sentence, now and then.
func (p *Play) remark(h *happening, got counts) {
	who := h.who
	say := func(format string) { p.screen.say(false, format, who.name()) }
	switch {
	case h.stranger:
		if p.strangers%12 == 2 {
			say("No campaign knows %s: the event waits, until its retries are spent")
		}
	case got.Orphaned > 0 && !who.told:
		who.told = p.screen.say(false, "%s %s, but is not enrolled yet: the event waits", who.name(), didOf(h))
	case got.Applied == 0:
	case h.what == bouncedHard:
		say("%s has no such mailbox: a hard bounce, and the address is suppressed from now on")
	case h.what == complained:
		say("%s calls it spam: whatever comes later, the complaint stays")
	case h.what == unsubscribed:
		say("%s unsubscribed: a late open will not take that back")
	case h.what == resubscribed:
		say("%s subscribed again, later than the unsubscription: the address is free")
	case h.what == replied, h.what == lemReplied, h.what == messageReplied:
		say("%s answered: the enrollment is completed")
	case h.what == meetingBooked:
		say("%s booked a meeting")
	}
}

// didOf says what somebody did, or what happened to them.
func didOf(h *happening) string {
	switch h.what {
	case delivered:
		return "got a mail"
	case opened, lemOpened:
		return "opened a mail"
	case clicked, lemClicked:
		return "clicked a link"
	case bouncedHard, bouncedSoft, suppressedBounce:
		return "bounced"
	case visited:
		return "was visited on LinkedIn"
	case invited:
		return "was invited on LinkedIn"
	case inviteAccepted:
		return "accepted the invitation"
	case replied, lemReplied, messageReplied:
		return "answered"
	default:
		return "is in an event"
	}
}

// aboutOf names an event by what it is about.
func aboutOf(h *happening) string {
	switch h.what {
	case delivered:
		return "the delivery to " + h.who.name()
	case opened, lemOpened:
		return "an open of " + h.who.name()
	case clicked, lemClicked:
		return "a click of " + h.who.name()
	default:
		return "an event of " + h.who.name()
	}
}

func vendor(source string) string {
	switch source {
	case postmarkSource:
		return "Postmark"
	case lemlistSource:
		return "lemlist"
	}
	return "The script"
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + one + "s"
}

func its(n int) string {
	if n == 1 {
		return "its"
	}
	return "their"
}
