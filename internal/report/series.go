package report

import (
	"fmt"
	"time"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// The values of Query.Bucket.
const (
	bucketHour  = "hour"
	bucketDay   = "day"
	bucketWeek  = "week"
	bucketMonth = "month"
)

// maxPoints bounds a time series.
const maxPoints = 10_000

// series counts events by buckets of the local calendar, from the first to
// the last that has any, those without between them included. Every point has
// the same keys. Days are as long as they are: 23 to 25 hours where clocks
// change; an hour that occurs twice is two points.
func series(tallies []store.Tally, q Query, keys []string) ([]Point, error) {
	cal := calendar{loc: q.location(), bucket: q.Bucket}
	counts := map[time.Time]*count{} // by start, in UTC so that equal times are equal keys
	var first, last time.Time
	for _, t := range tallies {
		start := cal.start(t.Bucket)
		if counts[start] == nil {
			counts[start] = &count{totals: map[string]int64{}}
		}
		counts[start].event(t)
		if first.IsZero() || start.Before(first) {
			first = start
		}
		if start.After(last) {
			last = start
		}
	}
	points := []Point{}
	if first.IsZero() {
		return points, nil
	}
	for at := first; !at.After(last); at = cal.next(at) {
		if len(points) == maxPoints {
			return nil, fault.BadInput(fault.Field{
				Location: "query.bucket",
				Message:  fmt.Sprintf("is too small: more than %d points; take a larger bucket or a shorter time", maxPoints),
			})
		}
		p := Point{Start: at.In(cal.loc), Totals: make(map[string]int64, len(keys))}
		for _, k := range keys {
			p.Totals[k] = 0
			if c := counts[at]; c != nil {
				p.Totals[k] = c.totals[k]
			}
		}
		points = append(points, p)
	}
	return points, nil
}

// calendar finds the buckets of a time zone. Starts are in UTC.
type calendar struct {
	loc    *time.Location
	bucket string
}

// start is the start of the bucket that a time is in.
func (c calendar) start(t time.Time) time.Time {
	if c.bucket == bucketHour {
		return c.hour(t)
	}
	return c.midnight(c.civil(t))
}

// next is the start of the bucket after the one that starts at t.
func (c calendar) next(t time.Time) time.Time {
	if c.bucket == bucketHour {
		next := c.hour(t.Add(time.Hour))
		if _, change := t.In(c.loc).ZoneBounds(); change.After(t) && change.Before(next) {
			return change.UTC()
		}
		return next
	}
	day := c.civil(t)
	switch c.bucket {
	case bucketWeek:
		day = day.AddDate(0, 0, 7)
	case bucketMonth:
		day = day.AddDate(0, 1, 0)
	default:
		day = day.AddDate(0, 0, 1)
	}
	return c.midnight(day)
}

// hour is the start of the local hour, no earlier than the last change of the
// clocks: after a change by half an hour the rest of the hour is a bucket of
// its own.
func (c calendar) hour(t time.Time) time.Time {
	local := t.In(c.loc)
	_, offset := local.Zone()
	shift := time.Duration(offset) * time.Second
	start := t.UTC().Add(shift).Truncate(time.Hour).Add(-shift)
	if change, _ := local.ZoneBounds(); change.After(start) {
		return change.UTC()
	}
	return start
}

// civil is the first day of the bucket that a time is in, as a date without a
// place: midnight in UTC.
func (c calendar) civil(t time.Time) time.Time {
	y, m, d := t.In(c.loc).Date()
	switch c.bucket {
	case bucketWeek: // from Monday, as in ISO 8601
		weekday := (int(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Weekday()) + 6) % 7
		d -= weekday
	case bucketMonth:
		d = 1
	}
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// midnight is the moment at which a civil day begins in the place. Where
// clocks are put forward at midnight that is one o'clock; where midnight
// occurs twice it is the first; a day that was left out altogether (Samoa,
// 2011-12-30) begins and ends with the next one.
func (c calendar) midnight(day time.Time) time.Time {
	y, m, d := day.Date()
	t := time.Date(y, m, d, 0, 0, 0, 0, c.loc)
	start, end := t.ZoneBounds()
	_, offset := t.Zone()
	switch shown := t.UTC().Add(time.Duration(offset) * time.Second); {
	case shown.Before(day): // there is no such midnight, and t lies before the gap
		return end.UTC()
	case shown.After(day): // or behind it
		return start.UTC()
	}
	if !start.IsZero() {
		_, before := start.Add(-time.Nanosecond).Zone()
		if first := t.Add(time.Duration(offset-before) * time.Second); first.Before(start) && first.Before(t) {
			return first.UTC()
		}
	}
	return t.UTC()
}
