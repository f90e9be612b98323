package bench

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"tallyhook/internal/event"
)

const (
	enrollments = 1000 // what the matching events belong to, in one instance
	eventBytes  = 600  // of one event
	oneOrphanIn = 20   // events
	idDigits    = 16
	vendor      = "postmark" // whose events they are; a name only
)

// Mix renders events: unique ones, most of which belong to an enrollment. It
// may be used by several goroutines.
type Mix struct {
	run      string // makes this run's ids differ from every other's
	matching []template
	orphan   template
	next     atomic.Uint64
}

// template is a rendered event with the places where its number goes.
type template struct {
	text  []byte
	marks []int
}

// NewMix makes the mix of a run. Events happened in the quarter hour before now.
func NewMix(run string, now time.Time) *Mix {
	m := &Mix{run: run}
	types := []event.Type{event.Sent, event.Delivered, event.Opened, event.Opened, event.Clicked}
	for v := range 2 * enrollments {
		i := v % enrollments
		message := ""
		if i%2 == 0 { // the others are found by their address alone
			message = m.Message(i)
		}
		at := now.Add(-time.Duration(v%900) * time.Second)
		m.matching = append(m.matching, m.template(types[(v+v/enrollments)%len(types)], message, m.Address(i), at))
	}
	m.orphan = m.template(event.Opened, strings.Repeat("#", idDigits)+"."+run+"@unknown.example",
		strings.Repeat("#", idDigits)+"."+run+"@early.example", now)
	return m
}

// Describe says what the mix is, for the report.
func (m *Mix) Describe() string {
	return fmt.Sprintf("events of %d bytes, each new; %d %% belong to one of %d enrollments of one instance "+
		"(half found by message reference, half by address), %d %% are orphans of unknown addresses; "+
		"sent, delivered, opened, clicked in one quarter hour of event time",
		eventBytes, 100-100/oneOrphanIn, enrollments, 100/oneOrphanIn)
}

// Address is the address of enrollment i.
func (m *Mix) Address(i int) string { return fmt.Sprintf("c%04d.%s@contacts.example", i, m.run) }

// Message is the message reference of enrollment i.
func (m *Mix) Message(i int) string { return fmt.Sprintf("m%04d.%s@mail.example", i, m.run) }

// template renders one event, filled up to its size. "#" stands for a digit.
func (m *Mix) template(t event.Type, message, email string, at time.Time) template {
	render := func(note string) []byte {
		type fields struct {
			Type     event.Type        `json:"event_type"`
			Channel  event.Channel     `json:"channel"`
			At       time.Time         `json:"timestamp"`
			Provider string            `json:"provider"`
			ID       string            `json:"provider_event_id"`
			Message  string            `json:"provider_message_id,omitempty"`
			Email    string            `json:"email"`
			Campaign string            `json:"campaign"`
			Step     int               `json:"step_number"`
			Metadata map[string]string `json:"metadata"`
		}
		b, err := json.Marshal(fields{
			Type: t, Channel: event.Email, At: at.UTC().Truncate(time.Second), Provider: vendor,
			ID: "evt." + m.run + "." + strings.Repeat("#", idDigits), Message: message, Email: email, Campaign: "cam_bench", Step: 2,
			Metadata: map[string]string{
				"client": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
				"geo":    "DE", "ip": "203.0.113.7", "subject": "A question about your team", "note": note,
			},
		})
		if err != nil {
			panic(err) // strings and numbers cannot fail to marshal
		}
		return b
	}
	text := render("")
	text = render(strings.Repeat("x", max(0, eventBytes-len(text))))
	tpl := template{text: text}
	for at := 0; at+idDigits <= len(text); at++ {
		if text[at] == '#' {
			tpl.marks = append(tpl.marks, at)
			at += idDigits - 1
		}
	}
	return tpl
}

// Append renders the next n events: one alone, or several as an array. asArray
// makes an array of one too.
func (m *Mix) Append(buf []byte, n int, asArray bool) []byte {
	first := m.next.Add(uint64(n)) - uint64(n) //nolint:gosec // n is a small count
	if !asArray {
		return m.appendOne(buf, first)
	}
	buf = append(buf, '[')
	for i := range n {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = m.appendOne(buf, first+uint64(i))
	}
	return append(buf, ']')
}

// AppendOrphans renders an array of n events that nothing waits for.
func (m *Mix) AppendOrphans(buf []byte, n int) []byte {
	first := m.next.Add(uint64(n)) - uint64(n) //nolint:gosec // n is a small count
	buf = append(buf, '[')
	for i := range n {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = m.orphan.append(buf, first+uint64(i))
	}
	return append(buf, ']')
}

func (m *Mix) appendOne(buf []byte, n uint64) []byte {
	if n%oneOrphanIn == oneOrphanIn-1 {
		return m.orphan.append(buf, n)
	}
	// A stride that shares no factor with the count visits every template.
	return m.matching[n*7919%uint64(len(m.matching))].append(buf, n)
}

func (t *template) append(buf []byte, n uint64) []byte {
	at := len(buf)
	buf = append(buf, t.text...)
	var number [idDigits / 2]byte
	binary.BigEndian.PutUint64(number[:], n)
	var digits [idDigits]byte
	hex.Encode(digits[:], number[:])
	for _, mark := range t.marks {
		copy(buf[at+mark:], digits[:])
	}
	return buf
}

// Samples are decoded events of the mix, for the yardstick that stores them.
func (m *Mix) Samples(n int) ([]event.Event, error) {
	samples := make([]event.Event, n)
	for i := range samples {
		e, err := event.Decode(m.Append(nil, 1, false), "body", event.Strict)
		if err != nil {
			return nil, fmt.Errorf("decode a sample: %w", err)
		}
		samples[i] = e
	}
	return samples, nil
}
