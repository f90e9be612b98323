// Package report makes numbers out of counters and facts: how a campaign
// performs, and whether every event is accounted for. It reads, and changes
// nothing.
package report

import (
	"time"

	"tallyhook/internal/campaign"
)

// Query narrows a performance report. The zero value reports everything by day in UTC.
type Query struct {
	Since, Until time.Time      // event time; zero: open
	Bucket       string         // hour, day (default), week, month
	Location     *time.Location // nil: UTC
	GroupBy      string         // "", step, variant, provider
	InferMachine bool           // take opens and clicks right after the delivery for a program's: see infer
}

// Performance is a campaign instance in numbers.
type Performance struct {
	Instance         campaign.Instance
	Totals           map[string]int64 // events by type, every canonical type that occurs plus the core ones
	Uniques          map[string]int64 // enrollments by type
	Human            Clicks
	Machine          Clicks
	Rates            map[string]Rate
	Funnel           []Stage
	TimeSeries       []Point
	Steps            []Group
	EnrollmentStatus map[string]int64
	Groups           []Group // by Query.GroupBy
}

// Clicks are opens and clicks of one kind of reader, in events.
type Clicks struct{ Opened, Clicked int64 }

// Rate is a percentage with two decimals; nil Value where it is undefined.
type Rate struct {
	Value       *float64
	Numerator   int64
	Denominator int64
	Of          string // what the denominator counts
}

// Stage is one stage of the funnel, in enrollments; a later stage implies the earlier ones.
type Stage struct {
	Name  string
	Count int64
}

// Point is one bucket of the time series.
type Point struct {
	Start  time.Time
	Totals map[string]int64
}

// Group are the numbers of one step, variant or provider.
type Group struct {
	Key     string
	Totals  map[string]int64
	Uniques map[string]int64
}
