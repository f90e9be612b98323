package provider

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// setTime gives an event the time of a vendor's member. No time told leaves
// OccurredAt zero and OccurredAtEstimated true: ingest takes the receipt time.
// A time that is told and cannot be read is an error, never an estimate: a
// vendor's new format must show as dead letters, not as wrong history.
func setTime(e *event.Event, v jsontext.Value) error {
	t, told, err := parseTime(v)
	if err != nil {
		return err
	}
	e.OccurredAt, e.OccurredAtEstimated = t, !told
	return nil
}

// parseTime reads the forms that vendors send: a number above 1e11 is
// milliseconds, any other seconds, both may have a fraction and may come in
// quotes; ISO 8601 with any number of fraction digits, and without a zone it
// is UTC; the form of a mail's header. The result is UTC and truncated to microseconds, which every store
// keeps. told is false for null, "" and the year 1 (.NET's unset time).
func parseTime(v jsontext.Value) (t time.Time, told bool, err error) {
	var s string
	switch v.Kind() {
	case 0, 'n':
		return time.Time{}, false, nil
	case '0':
		s = string(v)
	case '"':
		b, err := jsontext.AppendUnquote(nil, v)
		if err != nil {
			return time.Time{}, false, fmt.Errorf("read time: %w", err)
		}
		s = strings.TrimSpace(string(b))
	default:
		return time.Time{}, false, fmt.Errorf("the event's time is a JSON %s, not a number or text", v.Kind())
	}
	if s == "" {
		return time.Time{}, false, nil
	}
	t, ok := parseEpoch(s)
	if !ok {
		t, ok = parseISO(s)
	}
	if !ok {
		return time.Time{}, false, fmt.Errorf("the event's time %.40q has no known form", s)
	}
	t = t.UTC()
	if t.Year() == 1 {
		return time.Time{}, false, nil
	}
	return t.Truncate(time.Microsecond), true, nil
}

// parseEpoch works on the digits: a float64 of today's milliseconds with a
// fraction has no exact microseconds left.
func parseEpoch(s string) (time.Time, bool) {
	const msFrom = 100_000_000_000 // as seconds: the year 5138; as ms: 1973
	if strings.ContainsAny(s, "eE") {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || f < 0 || f > 1e17 {
			return time.Time{}, false
		}
		s = strconv.FormatFloat(f, 'f', -1, 64)
	}
	whole, fraction, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	billionths := int64(0)
	if fraction != "" {
		if len(fraction) > 9 {
			fraction = fraction[:9]
		}
		u, err := strconv.ParseUint(fraction+strings.Repeat("0", 9-len(fraction)), 10, 32)
		if err != nil {
			return time.Time{}, false
		}
		billionths = int64(u)
	}
	if n > msFrom {
		return time.Unix(n/1000, n%1000*int64(time.Millisecond)+billionths/1000), true
	}
	return time.Unix(n, billionths), true
}

func parseISO(s string) (time.Time, bool) {
	for _, layout := range []string{
		time.RFC3339, // takes any fraction
		"2006-01-02T15:04:05Z0700",
		"2006-01-02T15:04:05",
		"2006-01-02 15:04:05Z07:00",
		"2006-01-02 15:04:05 Z0700",
		"2006-01-02T15:04:05Z07",
		"2006-01-02 15:04:05Z07", // PostgreSQL's own form, in some of Resend's members
		"2006-01-02 15:04:05",
		time.RFC1123Z, // the form of a mail's header
		time.RFC1123,
	} {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
