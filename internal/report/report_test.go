package report_test

import (
	"context"
	"errors"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/report"
	"tallyhook/internal/store"
)

// fact is one enrollment's events of a kind, from which both kinds of rows follow.
type fact struct {
	who       int
	typ       event.Type
	qualifier string
	step      int
	machine   event.Machine
	provider  string
	variant   string
	at        time.Time
	count     int64
}

func id(n int) uuid.UUID { return uuid.NewSHA1(uuid.Nil, []byte(strconv.Itoa(n))) }

func numbers(facts ...fact) (n store.Numbers) {
	for _, f := range facts {
		n.Tallies = append(n.Tallies, store.Tally{
			Bucket: f.at.Truncate(store.BucketSize), Type: f.typ, Qualifier: f.qualifier, Step: f.step, Machine: f.machine,
			Provider: f.provider, Variant: f.variant, Count: max(f.count, 1),
		})
		n.Uniques = append(n.Uniques, store.UniqueRow{
			Enrollment: id(f.who), Type: f.typ, Qualifier: f.qualifier, Step: f.step, Machine: f.machine,
			Provider: f.provider, Variant: f.variant, Count: max(f.count, 1), FirstAt: f.at,
		})
	}
	return n
}

func build(t testing.TB, q report.Query, facts ...fact) report.Performance {
	t.Helper()
	p, err := report.Build(campaign.Instance{}, nil, numbers(facts...), q)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func moment(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

func place(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func stages(p report.Performance) (counts []int64) {
	for _, s := range p.Funnel {
		counts = append(counts, s.Count)
	}
	return counts
}

// A campaign of five on postmark: what an analyst would count by hand.
func TestGolden(t *testing.T) {
	t.Parallel()
	day1, day3 := moment("2026-11-24T10:07:00Z"), moment("2026-11-26T09:00:00Z")
	pm := func(who int, typ event.Type, step int, at time.Time, count int64) fact {
		return fact{who: who, typ: typ, step: step, provider: "postmark", at: at, count: count}
	}
	var facts []fact
	for who := 1; who <= 4; who++ {
		facts = append(facts, pm(who, event.Delivered, 1, day1, 1))
	}
	hard := pm(5, event.Bounced, 1, day1, 1)
	hard.qualifier = "hard"
	scanner := pm(1, event.Opened, 1, day1, 7)
	scanner.machine = event.MachineYes
	facts = append(facts, hard, scanner, pm(2, event.Opened, 1, day1, 2), pm(3, event.Opened, 1, day3, 1),
		pm(3, event.Clicked, 1, day3, 4), pm(4, event.Replied, 2, day3, 1))
	n := numbers(facts...)
	n.Status = map[string]int64{"active": 3, "completed": 1, "bounced": 1}
	in := campaign.Instance{ID: id(0), Name: "autumn"}
	steps := []campaign.Step{{Number: 1}, {Number: 1, Variant: "b"}, {Number: 2}, {Number: 3}}
	got, err := report.Build(in, steps, n, report.Query{GroupBy: "provider"})
	if err != nil {
		t.Fatal(err)
	}

	keys := func(delivered, opened, clicked, replied, bounced int64) map[string]int64 {
		return map[string]int64{
			"sent": 0, "delivered": delivered, "opened": opened, "clicked": clicked, "replied": replied,
			"bounced": bounced, "bounced_hard": bounced, "bounced_soft": 0, "unsubscribed": 0, "complained": 0,
		}
	}
	rate := func(percent float64, n, d int64, of string) report.Rate {
		return report.Rate{Value: &percent, Numerator: n, Denominator: d, Of: of}
	}
	const (
		sent    = "enrollments that anything was sent to, on any channel"
		mailed  = "enrollments that a message was sent to"
		arrived = "enrollments that a message was delivered to; where the provider tells no deliveries, that one was sent to without a bounce"
	)
	want := report.Performance{
		Instance: in,
		Totals:   keys(4, 10, 4, 1, 1),
		Uniques:  keys(4, 3, 1, 1, 1),
		Human:    report.Clicks{Opened: 3, Clicked: 4},
		Machine:  report.Clicks{Opened: 7},
		Rates: map[string]report.Rate{
			"delivery_rate":          rate(80, 4, 5, mailed),
			"bounce_rate":            rate(20, 1, 5, mailed),
			"open_rate":              rate(50, 2, 4, arrived),
			"click_rate":             rate(25, 1, 4, arrived),
			"click_to_open_rate":     rate(50, 1, 2, "enrollments with a message opened or clicked by a person"),
			"reply_rate":             rate(20, 1, 5, sent),
			"unsubscribe_rate":       rate(0, 0, 4, arrived),
			"complaint_rate":         rate(0, 0, 4, arrived),
			"connection_accept_rate": {Of: "enrollments that were invited to connect"},
			"meeting_rate":           rate(0, 0, 5, sent),
		},
		Funnel: []report.Stage{
			{Name: "sent", Count: 5}, {Name: "delivered", Count: 4}, {Name: "opened", Count: 3}, {Name: "clicked", Count: 2}, {Name: "replied", Count: 1},
		},
		TimeSeries: []report.Point{
			{Start: moment("2026-11-24T00:00:00Z"), Totals: keys(4, 9, 0, 0, 1)},
			{Start: moment("2026-11-25T00:00:00Z"), Totals: keys(0, 0, 0, 0, 0)},
			{Start: moment("2026-11-26T00:00:00Z"), Totals: keys(0, 1, 4, 1, 0)},
		},
		Steps: []report.Group{
			{Key: "1", Totals: keys(4, 10, 4, 0, 1), Uniques: keys(4, 3, 1, 0, 1)},
			{Key: "2", Totals: keys(0, 0, 0, 1, 0), Uniques: keys(0, 0, 0, 1, 0)},
			{Key: "3", Totals: keys(0, 0, 0, 0, 0), Uniques: keys(0, 0, 0, 0, 0)},
		},
		EnrollmentStatus: map[string]int64{"active": 3, "completed": 1, "bounced": 1, "unsubscribed": 0, "complained": 0},
		Groups:           []report.Group{{Key: "postmark", Totals: keys(4, 10, 4, 1, 1), Uniques: keys(4, 3, 1, 1, 1)}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestEmpty(t *testing.T) {
	t.Parallel()
	p := build(t, report.Query{})
	if p.TimeSeries == nil || len(p.TimeSeries) != 0 || len(p.Steps) != 0 || len(p.EnrollmentStatus) != 5 || len(p.Totals) != 10 || len(p.Uniques) != 10 {
		t.Errorf("got %+v", p)
	}
	for name, r := range p.Rates {
		if r.Value != nil || r.Denominator != 0 || r.Of == "" {
			t.Errorf("%s: got %+v", name, r)
		}
	}
	if d := cmp.Diff([]int64{0, 0, 0, 0, 0}, stages(p)); d != "" {
		t.Error(d)
	}
}

func TestFunnelImplies(t *testing.T) {
	t.Parallel()
	// How many of the five stages one such fact alone proves.
	want := map[event.Type]int{
		event.Sent: 1, event.Bounced: 1, event.ConnectionSent: 1, event.MessageSent: 1, event.VoiceMessageSent: 1,
		event.Delivered: 2, event.Complained: 2, event.Unsubscribed: 2, event.Autoresponded: 2,
		event.ConnectionAccepted: 2, event.ConnectionRejected: 2,
		event.Opened: 3, event.MessageRead: 3, event.Clicked: 4, event.Replied: 5, event.MessageReplied: 5,
	}
	reached := func(f fact) (n int) {
		f.at = moment("2026-11-24T10:00:00Z")
		for _, s := range build(t, report.Query{}, f).Funnel {
			n += int(s.Count)
		}
		return n
	}
	for _, typ := range event.Types() {
		if got := reached(fact{typ: typ}); got != want[typ] {
			t.Errorf("%s: got %d stages, want %d", typ, got, want[typ])
		}
	}
	for name, tt := range map[string]struct {
		f    fact
		want int
	}{
		"MachineOpen":       {fact{typ: event.Opened, machine: event.MachineYes}, 2},
		"MachineClick":      {fact{typ: event.Clicked, machine: event.MachineYes}, 2},
		"HumanOpen":         {fact{typ: event.Opened, machine: event.MachineNo}, 3},
		"ManualUnsubscribe": {fact{typ: event.Unsubscribed, provider: "manual"}, 0},
		"HardBounce":        {fact{typ: event.Bounced, qualifier: "hard"}, 1},
	} {
		if got := reached(tt.f); got != tt.want {
			t.Errorf("%s: got %d stages, want %d", name, got, tt.want)
		}
	}
}

// lemlist tells no deliveries: its open rate is of those sent to, less the
// bounced, not of those who opened.
func TestRatesWithoutDeliveries(t *testing.T) {
	t.Parallel()
	at := moment("2026-11-24T10:00:00Z")
	var facts []fact
	for who := range 10 {
		facts = append(facts, fact{who: who, typ: event.Sent, provider: "lemlist", at: at})
	}
	facts = append(facts, fact{who: 0, typ: event.Bounced, provider: "lemlist", at: at},
		fact{who: 1, typ: event.Opened, provider: "lemlist", at: at}, fact{who: 2, typ: event.Opened, provider: "lemlist", at: at},
		fact{who: 3, typ: event.Opened, machine: event.MachineYes, provider: "lemlist", at: at},
		fact{who: 4, typ: event.Unsubscribed, provider: "manual", at: at})
	p := build(t, report.Query{}, facts...)
	open := p.Rates["open_rate"]
	if open.Numerator != 2 || open.Denominator != 9 || *open.Value != 22.22 {
		t.Errorf("got %+v, %v", open, *open.Value)
	}
	if d := cmp.Diff([]int64{10, 3, 2, 0, 0}, stages(p)); d != "" { // the funnel shows what is proved
		t.Error(d)
	}
	// Once the provider tells one delivery, silence means something.
	facts = append(facts, fact{who: 1, typ: event.Delivered, provider: "lemlist", at: at})
	if open = build(t, report.Query{}, facts...).Rates["open_rate"]; open.Numerator != 2 || open.Denominator != 3 || *open.Value != 66.67 {
		t.Errorf("got %+v, %v", open, *open.Value)
	}
}

func TestLinkedInRates(t *testing.T) {
	t.Parallel()
	at := moment("2026-11-24T10:00:00Z")
	p := build(t, report.Query{},
		fact{who: 1, typ: event.ConnectionSent, at: at}, fact{who: 2, typ: event.ConnectionSent, at: at},
		fact{who: 3, typ: event.ConnectionAccepted, at: at}, fact{who: 3, typ: event.MessageReplied, at: at})
	for name, want := range map[string][2]int64{"connection_accept_rate": {1, 3}, "reply_rate": {1, 3}, "open_rate": {0, 0}, "delivery_rate": {0, 0}} {
		if r := p.Rates[name]; r.Numerator != want[0] || r.Denominator != want[1] {
			t.Errorf("%s: got %+v", name, r)
		}
	}
}

func TestSeries(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		place, bucket string
		at            []string
		want          []string // starts, local
	}{
		"DayUTC":       {"UTC", "", []string{"2026-03-01T23:59:00Z", "2026-03-02T00:00:00Z"}, []string{"2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"}},
		"DayLocal":     {"Europe/Berlin", "day", []string{"2026-03-01T23:30:00Z"}, []string{"2026-03-02T00:00:00+01:00"}},
		"DaySpring":    {"Europe/Berlin", "day", []string{"2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z"}, []string{"2026-03-28T00:00:00+01:00", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"}},
		"DayAutumn":    {"America/New_York", "day", []string{"2026-10-31T12:00:00Z", "2026-11-02T12:00:00Z"}, []string{"2026-10-31T00:00:00-04:00", "2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00"}},
		"NoMidnight":   {"America/Santiago", "day", []string{"2025-09-06T12:00:00Z", "2025-09-08T12:00:00Z"}, []string{"2025-09-06T00:00:00-04:00", "2025-09-07T01:00:00-03:00", "2025-09-08T00:00:00-03:00"}},
		"NoMidnight2":  {"Africa/Cairo", "day", []string{"2003-04-24T12:00:00Z", "2003-04-26T12:00:00Z"}, []string{"2003-04-24T00:00:00+02:00", "2003-04-25T01:00:00+03:00", "2003-04-26T00:00:00+03:00"}},
		"TwoMidnight2": {"Antarctica/Casey", "day", []string{"2020-03-07T06:00:00Z", "2020-03-09T06:00:00Z"}, []string{"2020-03-07T00:00:00+11:00", "2020-03-08T00:00:00+11:00", "2020-03-09T00:00:00+08:00"}},
		"TwoMidnight":  {"America/Havana", "day", []string{"2025-11-01T12:00:00Z", "2025-11-03T12:00:00Z"}, []string{"2025-11-01T00:00:00-04:00", "2025-11-02T00:00:00-04:00", "2025-11-03T00:00:00-05:00"}},
		"NoDay":        {"Pacific/Apia", "day", []string{"2011-12-29T12:00:00-10:00", "2012-01-01T12:00:00+14:00"}, []string{"2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00"}},
		"HourTwice":    {"Europe/Berlin", "hour", []string{"2026-10-25T00:15:00Z", "2026-10-25T02:00:00Z"}, []string{"2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"}},
		"HourGone":     {"Europe/Berlin", "hour", []string{"2026-03-29T00:15:00Z", "2026-03-29T01:45:00Z"}, []string{"2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"}},
		"HourIndia":    {"Asia/Kolkata", "hour", []string{"2026-03-29T00:15:00Z", "2026-03-29T00:45:00Z"}, []string{"2026-03-29T05:00:00+05:30", "2026-03-29T06:00:00+05:30"}},
		"HalfHour":     {"Australia/Lord_Howe", "hour", []string{"2026-04-04T14:00:00Z", "2026-04-04T16:00:00Z"}, []string{"2026-04-05T01:00:00+11:00", "2026-04-05T01:30:00+10:30", "2026-04-05T02:00:00+10:30"}},
		"OddMinute":    {"America/St_Johns", "hour", []string{"2006-04-02T03:30:00Z", "2006-04-02T04:30:00Z"}, []string{"2006-04-02T00:00:00-03:30", "2006-04-02T01:01:00-02:30", "2006-04-02T02:00:00-02:30"}},
		"WeekISO":      {"Europe/Berlin", "week", []string{"2026-11-29T22:30:00Z", "2026-11-29T23:30:00Z"}, []string{"2026-11-23T00:00:00+01:00", "2026-11-30T00:00:00+01:00"}},
		"WeekYear":     {"UTC", "week", []string{"2026-01-01T00:00:00Z"}, []string{"2025-12-29T00:00:00Z"}},
		"Month":        {"America/New_York", "month", []string{"2026-11-01T03:00:00Z", "2027-01-31T12:00:00Z"}, []string{"2026-10-01T00:00:00-04:00", "2026-11-01T00:00:00-04:00", "2026-12-01T00:00:00-05:00", "2027-01-01T00:00:00-05:00"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var facts []fact
			for _, at := range tt.at {
				facts = append(facts, fact{typ: event.Sent, at: moment(at)})
			}
			p := build(t, report.Query{Bucket: tt.bucket, Location: place(t, tt.place)}, facts...)
			var got []string
			for _, pt := range p.TimeSeries {
				got = append(got, pt.Start.Format(time.RFC3339))
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// A counter that an assignment by hand has taken back to 0 is no event.
func TestZeroCounter(t *testing.T) {
	t.Parallel()
	n := numbers(fact{typ: event.Sent, step: 9, at: moment("2026-11-24T10:00:00Z")}, fact{typ: event.Sent, step: 1, at: moment("2026-11-25T10:00:00Z")})
	n.Tallies[0].Count, n.Uniques = 0, nil
	p, err := report.Build(campaign.Instance{}, nil, n, report.Query{})
	if err != nil || len(p.TimeSeries) != 1 || len(p.Steps) != 1 || p.Totals["sent"] != 1 || n.Tallies[0].Step != 9 {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestSeriesIsBounded(t *testing.T) {
	t.Parallel()
	n := numbers(fact{typ: event.Sent, at: moment("2025-01-01T00:00:00Z")}, fact{typ: event.Sent, at: moment("2026-11-01T00:00:00Z")})
	_, err := report.Build(campaign.Instance{}, nil, n, report.Query{Bucket: "hour"})
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "larger bucket") {
		t.Errorf("got %v", err)
	}
	if _, err = report.Build(campaign.Instance{}, nil, n, report.Query{}); err != nil {
		t.Error(err)
	}
}

func TestGroups(t *testing.T) {
	t.Parallel()
	at := moment("2026-11-24T10:00:00Z")
	steps := []campaign.Step{{Number: 10, Variant: "b"}, {Number: 2, Variant: "a"}}
	n := numbers(fact{who: 1, typ: event.Sent, step: 11, at: at, variant: "c"}, fact{who: 1, typ: event.Opened, at: at, provider: "lemlist"},
		fact{who: 1, typ: event.Opened, at: at.Add(time.Hour), step: 2, provider: "postmark"})
	for by, want := range map[string][]string{
		"": nil, "step": {"", "2", "10", "11"}, "variant": {"", "a", "b", "c"}, "provider": {"", "lemlist", "postmark"},
	} {
		p, err := report.Build(campaign.Instance{}, steps, n, report.Query{GroupBy: by})
		if err != nil {
			t.Fatal(err)
		}
		var got, numbered []string
		for _, g := range p.Groups {
			got = append(got, g.Key)
		}
		for _, g := range p.Steps {
			numbered = append(numbered, g.Key)
		}
		if d := cmp.Diff(want, got) + cmp.Diff([]string{"2", "10", "11"}, numbered); d != "" {
			t.Errorf("%q: %s", by, d)
		}
		if p.Totals["opened"] != 2 || p.Uniques["opened"] != 1 {
			t.Errorf("got %v, %v", p.Totals, p.Uniques)
		}
	}
}

func TestQueryChecks(t *testing.T) {
	t.Parallel()
	at := moment("2026-11-24T10:00:00Z")
	for name, tt := range map[string]struct {
		q    report.Query
		want []string
	}{
		"Bucket":  {report.Query{Bucket: "minute"}, []string{"query.bucket"}},
		"GroupBy": {report.Query{GroupBy: "email"}, []string{"query.group_by"}},
		"Equal":   {report.Query{Since: at, Until: at}, []string{"query.since"}},
		"Swapped": {report.Query{Since: at, Until: at.Add(-1)}, []string{"query.since"}},
		"All":     {report.Query{Since: at, Until: at, Bucket: "x", GroupBy: "y"}, []string{"query.bucket", "query.group_by", "query.since"}},
		"Fine":    {report.Query{Since: at, Until: at.Add(1), Bucket: "week", GroupBy: "step"}, nil},
	} {
		_, err := report.New(&fake{}).Performance(t.Context(), 1, uuid.Nil, tt.q)
		var got []string
		if e, ok := errors.AsType[*fault.Error](err); ok && e.Kind == fault.Invalid {
			for _, f := range e.Fields {
				got = append(got, f.Location)
			}
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

type fake struct {
	instance, template, numbers error
	since, until                time.Time
}

func (f *fake) Instance(_ context.Context, tenant int64, id uuid.UUID) (campaign.Instance, error) {
	return campaign.Instance{ID: id, Tenant: tenant, TemplateID: uuid.Max}, f.instance
}

func (f *fake) Template(_ context.Context, _ int64, id uuid.UUID) (campaign.Template, error) {
	if f.template != nil {
		return campaign.Template{}, f.template
	}
	return campaign.Template{ID: id, Steps: []campaign.Step{{Number: 4}}}, nil
}

func (f *fake) Numbers(_ context.Context, _ int64, _ uuid.UUID, since, until time.Time) (store.Numbers, error) {
	f.since, f.until = since, until
	return store.Numbers{}, f.numbers
}

func (f *fake) Balance(context.Context) (store.Balance, error) {
	return store.Balance{Difference: 3}, f.numbers
}

func TestPerformance(t *testing.T) {
	t.Parallel()
	f := &fake{}
	q := report.Query{Since: moment("2026-11-24T10:07:00+01:00"), Until: moment("2026-11-24T10:31:00Z")}
	p, err := report.New(f).Performance(t.Context(), 7, id(1), q)
	if err != nil || p.Instance.ID != id(1) || p.Instance.Tenant != 7 || len(p.Steps) != 1 || p.Steps[0].Key != "4" {
		t.Errorf("got %+v, %v", p, err)
	}
	if !f.since.Equal(moment("2026-11-24T09:00:00Z")) || !f.until.Equal(moment("2026-11-24T10:45:00Z")) {
		t.Errorf("got %v to %v", f.since, f.until)
	}
	if _, err = report.New(f).Performance(t.Context(), 7, id(1), report.Query{}); err != nil || !f.since.IsZero() || !f.until.IsZero() {
		t.Errorf("got %v to %v, %v", f.since, f.until, err)
	}
	gone, down := fault.New(fault.NotFound, "gone"), fault.New(fault.Unavailable, "down")
	for name, tt := range map[string]struct {
		f    fake
		want error
	}{
		"NoInstance":      {fake{instance: gone}, gone},
		"TemplateDeleted": {fake{template: gone}, nil},
		"TemplateDown":    {fake{template: down}, down},
		"NumbersDown":     {fake{numbers: down}, down},
	} {
		if _, err := report.New(&tt.f).Performance(t.Context(), 1, id(1), report.Query{}); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if b, err := report.New(f).Balance(t.Context()); err != nil || b.Difference != 3 {
		t.Errorf("got %+v, %v", b, err)
	}
	if _, err := report.New(&fake{numbers: down}).Balance(t.Context()); !errors.Is(err, down) {
		t.Errorf("got %v", err)
	}
}

func drawFacts(t *rapid.T) []fact {
	start := moment("2026-10-20T00:00:00Z") // with the change of clocks inside
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) fact {
		return fact{
			who: rapid.IntRange(0, 8).Draw(t, "who"), typ: rapid.SampledFrom(event.Types()).Draw(t, "type"),
			qualifier: rapid.SampledFrom([]string{"", "hard", "soft", "void"}).Draw(t, "qualifier"), step: rapid.IntRange(0, 3).Draw(t, "step"),
			machine:  rapid.SampledFrom([]event.Machine{event.MachineUnknown, event.MachineYes, event.MachineNo}).Draw(t, "machine"),
			provider: rapid.SampledFrom([]string{"", "lemlist", "postmark", "manual"}).Draw(t, "provider"),
			variant:  rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "variant"),
			at:       start.Add(time.Duration(rapid.IntRange(0, 20*24*4).Draw(t, "at")) * 15 * time.Minute),
			count:    rapid.Int64Range(1, 5).Draw(t, "count"),
		}
	}), 0, 60).Draw(t, "facts")
}

func drawQuery(t *rapid.T, places []*time.Location) report.Query {
	return report.Query{
		Bucket:   rapid.SampledFrom([]string{"", "hour", "day", "week", "month"}).Draw(t, "bucket"),
		GroupBy:  rapid.SampledFrom([]string{"step", "variant", "provider"}).Draw(t, "group_by"),
		Location: rapid.SampledFrom(places).Draw(t, "location"),
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	var places []*time.Location
	for _, name := range []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Havana"} {
		places = append(places, place(t, name))
	}
	rapid.Check(t, func(t *rapid.T) {
		facts, q := drawFacts(t), drawQuery(t, places)
		n := numbers(facts...)
		p, err := report.Build(campaign.Instance{}, nil, n, q)
		if err != nil {
			t.Fatal(err)
		}

		sums := map[string]int64{}
		for i, pt := range p.TimeSeries {
			if i > 0 && !pt.Start.After(p.TimeSeries[i-1].Start) {
				t.Fatalf("point %d does not follow the one before", i)
			}
			if len(pt.Totals) != len(p.Totals) {
				t.Fatalf("point %d has other keys", i)
			}
			for k, v := range pt.Totals {
				sums[k] += v
			}
		}
		grouped := map[string]int64{}
		for _, g := range p.Groups {
			for k, v := range g.Totals {
				grouped[k] += v
			}
			for k, v := range g.Uniques {
				if v > p.Uniques[k] {
					t.Fatalf("%s: more in group %q than in all", k, g.Key)
				}
			}
		}
		for k, v := range p.Totals {
			if sums[k] != v && len(p.TimeSeries) > 0 {
				t.Fatalf("%s: series sum %d, total %d", k, sums[k], v)
			}
			if grouped[k] != v && len(p.Groups) > 0 {
				t.Fatalf("%s: groups sum %d, total %d", k, grouped[k], v)
			}
			if p.Uniques[k] > v {
				t.Fatalf("%s: %d uniques of %d events", k, p.Uniques[k], v)
			}
		}
		if p.Totals["bounced"] != p.Totals["bounced_hard"]+p.Totals["bounced_soft"] {
			t.Fatal("the halves of bounced are not bounced")
		}
		if p.Human.Opened+p.Machine.Opened != p.Totals["opened"] || p.Human.Clicked+p.Machine.Clicked != p.Totals["clicked"] {
			t.Fatal("human and machine are not all")
		}
		for i := 1; i < len(p.Funnel); i++ {
			if p.Funnel[i].Count > p.Funnel[i-1].Count {
				t.Fatalf("the funnel widens: %v", p.Funnel)
			}
		}
		for name, r := range p.Rates {
			if r.Numerator > r.Denominator || (r.Value == nil) != (r.Denominator == 0) {
				t.Fatalf("%s: %+v", name, r)
			}
			if r.Value != nil && rounded(r.Numerator, r.Denominator) != *r.Value {
				t.Fatalf("%s: got %v, want %v", name, *r.Value, rounded(r.Numerator, r.Denominator))
			}
		}

		shuffled := numbers(rapid.Permutation(facts).Draw(t, "order")...)
		slices.Reverse(shuffled.Uniques)
		again, err := report.Build(campaign.Instance{}, nil, shuffled, q)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(p, again); d != "" {
			t.Fatal(d)
		}
	})
}

// rounded does it with exact fractions: half away from zero.
func rounded(n, of int64) float64 {
	v, err := strconv.ParseFloat(big.NewRat(n*100, of).FloatString(2), 64)
	if err != nil {
		panic(err)
	}
	return v
}
