package httpapi

import (
	"context"
	"time"

	"tallyhook/internal/fault"
	"tallyhook/internal/report"
)

type performanceView struct {
	Instance         InstanceView        `json:"instance"`
	Totals           map[string]int64    `json:"totals" doc:"Events by type."`
	Uniques          map[string]int64    `json:"uniques" doc:"Enrollments by type."`
	Human            clicksView          `json:"human" doc:"Opens and clicks of people."`
	Machine          clicksView          `json:"machine" doc:"Opens and clicks of programs."`
	Rates            map[string]rateView `json:"rates"`
	Funnel           []stageView         `json:"funnel" nullable:"false" doc:"Enrollments that came at least this far; a later stage implies the earlier ones."`
	TimeSeries       []pointView         `json:"time_series" nullable:"false" doc:"By the events' own time."`
	Steps            []groupView         `json:"steps" nullable:"false"`
	EnrollmentStatus map[string]int64    `json:"enrollment_status"`
	Groups           []groupView         `json:"groups,omitempty" doc:"By group_by."`
}

type clicksView struct {
	Opened  int64 `json:"opened"`
	Clicked int64 `json:"clicked"`
}

type rateView struct {
	Value       *float64 `json:"value" doc:"Percent with two decimals; null where it is undefined."`
	Numerator   int64    `json:"numerator"`
	Denominator int64    `json:"denominator"`
	Of          string   `json:"of" doc:"What the denominator counts."`
}

type stageView struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
}

type pointView struct {
	Start  time.Time        `json:"start"`
	Totals map[string]int64 `json:"totals"`
}

type groupView struct {
	Key     string           `json:"key"`
	Totals  map[string]int64 `json:"totals"`
	Uniques map[string]int64 `json:"uniques"`
}

func viewPerformance(p report.Performance) performanceView {
	v := performanceView{
		Instance: viewInstance(p.Instance), Totals: p.Totals, Uniques: p.Uniques, Human: clicksView(p.Human), Machine: clicksView(p.Machine),
		Rates: map[string]rateView{}, Funnel: make([]stageView, len(p.Funnel)), TimeSeries: make([]pointView, len(p.TimeSeries)),
		Steps: viewGroups(p.Steps), EnrollmentStatus: p.EnrollmentStatus, Groups: viewGroups(p.Groups),
	}
	for name, r := range p.Rates {
		v.Rates[name] = rateView(r)
	}
	for i, st := range p.Funnel {
		v.Funnel[i] = stageView(st)
	}
	for i, pt := range p.TimeSeries {
		v.TimeSeries[i] = pointView(pt) // with the offset of the time zone that was asked for
	}
	return v
}

func viewGroups(in []report.Group) []groupView {
	out := make([]groupView, len(in))
	for i, g := range in {
		out[i] = groupView(g)
	}
	return out
}

type performanceInput struct {
	IDParam
	Since    instant `query:"since" doc:"By the events' own time, inclusive."`
	Until    instant `query:"until" doc:"Exclusive."`
	Bucket   string  `query:"bucket" enum:"hour,day,week,month" doc:"Of the time series; day when absent."`
	Timezone string  `query:"timezone" maxLength:"64" doc:"IANA name; UTC when absent." example:"Europe/Berlin"`
	GroupBy  string  `query:"group_by" enum:"step,variant,provider"`
	Infer    bool    `query:"infer_machine" doc:"Also take for a program's the opens and clicks within two seconds of the delivery, where the provider does not say who it was. It changes the report alone, never an event or a status."`
}

func (s *server) performance(ctx context.Context, in *performanceInput) (*one[performanceView], error) {
	id, err := parseID("instance", in.ID)
	if err != nil {
		return nil, err
	}
	if err := period(in.Since, in.Until); err != nil {
		return nil, err
	}
	q := report.Query{Since: in.Since.Time, Until: in.Until.Time, Bucket: in.Bucket, GroupBy: in.GroupBy, InferMachine: in.Infer}
	if in.Timezone != "" {
		loc, err := time.LoadLocation(in.Timezone)
		if err != nil || in.Timezone == "Local" {
			return nil, fault.BadInput(fault.Field{
				Location: "query.timezone", Message: "is not the IANA name of a time zone, such as Europe/Berlin", Value: in.Timezone,
			})
		}
		q.Location = loc
	}
	p, err := s.Reports.Performance(ctx, tenant(ctx), id, q)
	if err != nil {
		return nil, err
	}
	return reply(viewPerformance(p)), nil
}
