package event

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"tallyhook/internal/fault"
)

// Mode says how strictly an object is read.
type Mode bool

// Strict refuses a field that the contract does not name (an API caller's
// typo); Lenient passes over it (a webhook that was signed for us).
const (
	Strict  Mode = true
	Lenient Mode = false
)

// Item is one element of a submitted array: an event, or what is wrong with it.
type Item struct {
	Event Event
	Err   *fault.Error
}

// Decode reads one canonical event object. Every wrong field is named in the
// error, not only the first. location is the path put before field names,
// such as "body".
func Decode(raw []byte, location string, mode Mode) (Event, *fault.Error) {
	raw = bytes.TrimSpace(raw)
	d := &decoder{mode: mode, at: location}
	e := d.object(raw)
	if len(d.fields) > 0 {
		return Event{}, fault.BadInput(d.fields...)
	}
	e.Payload = raw
	return e, nil
}

// DecodeArray reads an array of at most MaxArray canonical event objects. One
// bad item does not fail the others; a body that is not an array of values
// fails as a whole.
func DecodeArray(raw []byte, location string, mode Mode) ([]Item, *fault.Error) {
	// What is wrong inside one item is found when that item is decoded.
	dec := jsontext.NewDecoder(bytes.NewReader(raw), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := dec.ReadToken(); err != nil {
		return nil, malformed(location, err)
	}
	var items []Item
	for dec.PeekKind() != ']' {
		v, err := dec.ReadValue()
		if err != nil {
			return nil, malformed(location, err)
		}
		if len(items) == MaxArray {
			return nil, fault.BadInput(fault.Field{
				Location: location, Message: fmt.Sprintf("has more than %d events; send them in several requests", MaxArray),
			})
		}
		e, ferr := Decode(v.Clone(), location+"["+strconv.Itoa(len(items))+"]", mode)
		items = append(items, Item{Event: e, Err: ferr})
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, malformed(location, err)
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, malformed(location, errors.New("data after the array"))
	}
	if len(items) == 0 {
		return nil, fault.BadInput(fault.Field{Location: location, Message: "is an empty array; send at least one event"})
	}
	return items, nil
}

// IsArray tells whether a JSON text starts as an array.
func IsArray(raw []byte) bool {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	return len(raw) > 0 && raw[0] == '['
}

func malformed(location string, err error) *fault.Error {
	msg := "is not valid JSON"
	var syn *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		msg = "has the same key twice in one object"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		msg = "is not valid JSON: it ends too early"
	case errors.As(err, &syn):
		msg = "is not valid JSON at byte " + strconv.FormatInt(syn.ByteOffset, 10)
	}
	return &fault.Error{
		Kind: fault.Invalid, Msg: location + " " + msg, Err: err,
		Fields: []fault.Field{{Location: location, Message: msg}},
	}
}

type decoder struct {
	mode   Mode
	at     string
	fields []fault.Field
}

func (d *decoder) wrong(name, message string, value any) {
	loc := d.at
	if name != "" {
		loc += "." + name
	}
	d.fields = append(d.fields, fault.Field{Location: loc, Message: message, Value: value})
}

// show bounds a value that is echoed back.
func show(v jsontext.Value) any {
	if len(v) > 120 {
		return nil
	}
	return v.Clone()
}

func (d *decoder) object(raw []byte) (e Event) {
	dec := jsontext.NewDecoder(bytes.NewReader(raw))
	if k := dec.PeekKind(); k != '{' {
		if _, err := dec.ReadValue(); err != nil {
			f := malformed(d.at, err)
			d.fields = append(d.fields, f.Fields...)
			return e
		}
		d.wrong("", "must be a JSON object", nil)
		return e
	}
	_, _ = dec.ReadToken() // PeekKind saw the brace
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			d.fields = append(d.fields, malformed(d.at, err).Fields...)
			return e
		}
		key := name.String()
		v, err := dec.ReadValue()
		if err != nil {
			d.fields = append(d.fields, malformed(d.at, err).Fields...)
			return e
		}
		d.field(&e, key, v)
	}
	if _, err := dec.ReadToken(); err != nil {
		d.fields = append(d.fields, malformed(d.at, err).Fields...)
		return e
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		d.wrong("", "is not valid JSON: data after the object", nil)
		return e
	}
	d.finish(&e)
	return e
}

func (d *decoder) field(e *Event, key string, v jsontext.Value) {
	if v.Kind() == 'n' { // null is the same as absent
		return
	}
	switch key {
	case "event_type":
		if s, ok := d.text(key, v, 64); ok {
			e.Type = Type(s)
			if !e.Type.Valid() {
				d.wrong(key, "is not one of the event types: "+join(Types()), show(v))
			}
		}
	case "channel":
		if s, ok := d.text(key, v, 64); ok {
			e.Channel = Channel(s)
			if !e.Channel.Valid() {
				d.wrong(key, "is not one of: "+join(Channels()), show(v))
			}
		}
	case "timestamp", "occurred_at":
		if s, ok := d.text(key, v, 64); ok {
			t, err := time.Parse(time.RFC3339Nano, s)
			t = t.UTC().Truncate(time.Microsecond) // as it is kept: the other field is compared with it
			switch {
			case err != nil:
				d.wrong(key, "is not an RFC 3339 time such as 2026-11-24T10:00:00Z", show(v))
			case !PlausibleTime(t):
				d.wrong(key, "must lie between the years 1971 and 2200", show(v))
			case !e.OccurredAt.IsZero() && !e.OccurredAt.Equal(t):
				d.wrong(key, "contradicts the other of timestamp and occurred_at, which are the same field", show(v))
			default:
				e.OccurredAt = t
			}
		}
	case "provider":
		if s, ok := d.text(key, v, 64); ok {
			e.Provider = strings.ToLower(s)
		}
	case "provider_event_id":
		e.ProviderEventID, _ = d.text(key, v, MaxID)
	case "provider_message_id":
		e.ProviderMessageID, _ = d.text(key, v, MaxID)
	case "campaign":
		e.Campaign, _ = d.text(key, v, MaxID)
	case "enrollment_id":
		if s, ok := d.text(key, v, 64); ok {
			id, err := uuid.Parse(s)
			if err != nil {
				d.wrong(key, "is not a UUID", show(v))
				return
			}
			e.EnrollmentID = id.String()
		}
	case "email":
		if s, ok := d.text(key, v, MaxEmail); ok {
			if !ValidAddress(s) {
				d.wrong(key, "is not an email address", show(v))
			}
			e.Email = s
		}
	case "url":
		if s, ok := d.text(key, v, MaxURL); ok {
			if u, err := url.Parse(s); err != nil || !u.IsAbs() {
				d.wrong(key, "is not an absolute URL", show(v))
			}
			e.URL = s
		}
	case "step_number":
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil || n < 1 || n > 1000 {
			d.wrong(key, "must be a whole number from 1 to 1000", show(v))
			return
		}
		e.StepNumber = int(n)
	case "bounce":
		if s, ok := d.text(key, v, 16); ok {
			e.Bounce = Bounce(s)
			if e.Bounce != Hard && e.Bounce != Soft {
				d.wrong(key, "must be hard or soft", show(v))
			}
		}
	case "machine":
		switch v.Kind() {
		case 't':
			e.Machine = MachineYes
		case 'f':
			e.Machine = MachineNo
		default:
			d.wrong(key, "must be true or false", show(v))
		}
	case "metadata":
		switch {
		case v.Kind() != '{':
			d.wrong(key, "must be a JSON object", nil)
		case len(v) > MaxMetadata:
			d.wrong(key, fmt.Sprintf("is larger than %d bytes", MaxMetadata), nil)
		case escapesNUL(v):
			d.wrong(key, "holds the character U+0000, which cannot be stored", nil)
		default:
			e.Metadata = v.Clone()
		}
	default:
		if d.mode == Strict {
			d.wrong(key, "is not a field of an event", nil)
		}
	}
}

func (d *decoder) text(key string, v jsontext.Value, limit int) (string, bool) {
	if v.Kind() != '"' {
		d.wrong(key, "must be a string", show(v))
		return "", false
	}
	b, err := jsontext.AppendUnquote(nil, v)
	if err != nil {
		d.wrong(key, "is not a valid string", nil)
		return "", false
	}
	if len(b) > limit {
		d.wrong(key, fmt.Sprintf("is longer than %d bytes", limit), nil)
		return "", false
	}
	if bytes.IndexByte(b, 0) >= 0 {
		d.wrong(key, "holds the character U+0000, which cannot be stored", nil)
		return "", false
	}
	return string(b), true
}

// escapesNUL tells whether a JSON text holds the character U+0000. In \\u0000
// the backslash is itself escaped: that is the text \u0000, which is harmless.
func escapesNUL(v []byte) bool {
	for {
		i := bytes.IndexByte(v, '\\')
		if i < 0 {
			return false
		}
		if v = v[i:]; bytes.HasPrefix(v, []byte(`\u0000`)) {
			return true
		}
		v = v[2:] // valid JSON never ends after a backslash
	}
}

// finish checks what only the whole object can tell.
func (d *decoder) finish(e *Event) {
	if e.Type == "" && !d.named("event_type") {
		d.wrong("event_type", "is required", nil)
	}
	if e.Channel == "" && !d.named("channel") {
		d.wrong("channel", "is required", nil)
	}
	if e.Bounce != "" && e.Type != Bounced && !d.named("bounce") {
		d.wrong("bounce", "only goes with the event type bounced", string(e.Bounce))
	}
	if e.Type == Bounced && e.Bounce == "" {
		e.Bounce = Soft
	}
	if e.EnrollmentID == "" {
		e.EnrollmentID = PassedBack(e.Metadata)
	}
	if len(d.fields) == 0 && e.EnrollmentID == "" && NormalID(e.ProviderMessageID) == "" && NormalAddress(e.Email) == "" {
		d.wrong("", "names no enrollment: give enrollment_id, provider_message_id or email", nil)
	}
	if e.OccurredAt.IsZero() {
		e.OccurredAtEstimated = true
	}
}

func (d *decoder) named(name string) bool {
	for _, f := range d.fields {
		if f.Location == d.at+"."+name {
			return true
		}
	}
	return false
}

// PassedBack finds our own enrollment id in metadata that a provider gives
// back: the member "tallyhook_enrollment_id", else "enrollment_id", when it is
// a UUID. Anything else under that name is the customer's own.
func PassedBack(metadata []byte) string {
	if len(metadata) == 0 || !bytes.Contains(metadata, []byte("enrollment_id")) {
		return ""
	}
	dec := jsontext.NewDecoder(bytes.NewReader(metadata))
	if dec.PeekKind() != '{' {
		return ""
	}
	_, _ = dec.ReadToken() // PeekKind saw the brace
	found := ""
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return ""
		}
		key := name.String()
		v, err := dec.ReadValue()
		if err != nil {
			return ""
		}
		if (key == "enrollment_id" || key == "tallyhook_enrollment_id") && v.Kind() == '"' {
			b, err := jsontext.AppendUnquote(nil, v)
			if err != nil {
				return ""
			}
			if id, err := uuid.ParseBytes(b); err == nil {
				if found = id.String(); key == "tallyhook_enrollment_id" {
					return found // whatever the order of the members
				}
			}
		}
	}
	return found
}

// ValidAddress is a light check: one @ with something on both sides, no
// space or control character, UTF-8 (RFC 6531 addresses pass).
func ValidAddress(s string) bool {
	a := NormalAddress(s)
	at := strings.LastIndexByte(a, '@')
	if at < 1 || at == len(a)-1 || len(a) > MaxEmail || !utf8.ValidString(a) {
		return false
	}
	return !strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// PlausibleTime keeps event times inside what every store can hold and what
// can be meant. The year 1970 is out: a time of zero is one that was not set. A
// vendor's own samples have times in 1973.
func PlausibleTime(t time.Time) bool {
	y := t.UTC().Year()
	return y > 1970 && y < 2200
}

func join[T ~string](all []T) string {
	s := make([]string, len(all))
	for i, v := range all {
		s[i] = string(v)
	}
	return strings.Join(s, ", ")
}

// Check tells what keeps a decoded provider event from being stored; the
// adapters' decoders are lenient, this is the gate they share.
func (e *Event) Check() error {
	if e.Control {
		if e.Kind == "" || len(e.Kind) > MaxID {
			return errors.New("the event's name is missing or too long")
		}
	} else if !e.Type.Valid() || !e.Channel.Valid() {
		return fmt.Errorf("event type %q on channel %q is not canonical", e.Type, e.Channel)
	}
	for _, f := range []struct {
		name, value string
		limit       int
	}{
		{"event name", e.Kind, MaxID},
		{"event id", e.ProviderEventID, MaxID},
		{"message id", e.ProviderMessageID, MaxID},
		{"action id", e.ActionID, MaxID},
		{"lead id", e.LeadID, MaxID},
		{"campaign", e.Campaign, MaxID},
		{"address", e.Email, MaxEmail},
		{"url", e.URL, MaxURL},
	} {
		switch {
		case len(f.value) > f.limit:
			return fmt.Errorf("the %s is longer than %d bytes", f.name, f.limit)
		case strings.IndexByte(f.value, 0) >= 0:
			return fmt.Errorf("the %s holds the character U+0000", f.name)
		case !utf8.ValidString(f.value):
			return fmt.Errorf("the %s is not UTF-8", f.name)
		}
	}
	if !e.OccurredAtEstimated && !PlausibleTime(e.OccurredAt) {
		return errors.New("the event's time is out of range")
	}
	if len(e.Metadata) > MaxMetadata {
		return fmt.Errorf("the metadata is larger than %d bytes", MaxMetadata)
	}
	return nil
}
