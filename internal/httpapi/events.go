package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/ingest"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
)

// EventBody is what a caller may submit. It only describes: event.Decode reads
// the bytes, and a test holds the two together.
type EventBody struct {
	EventType         eventType   `json:"event_type" example:"opened"`
	Channel           channelName `json:"channel" example:"email"`
	Timestamp         string      `json:"timestamp,omitempty" format:"date-time" doc:"When it happened; the time of receipt when absent." example:"2026-11-24T10:00:00Z"`
	OccurredAt        string      `json:"occurred_at,omitempty" format:"date-time" doc:"The same field as timestamp."`
	Provider          string      `json:"provider,omitempty" maxLength:"64" doc:"Who it was sent with; api when absent." example:"postmark"`
	ProviderEventID   string      `json:"provider_event_id,omitempty" maxLength:"1024" doc:"The provider's id of the event. The same id and type again is a duplicate."`
	ProviderMessageID string      `json:"provider_message_id,omitempty" maxLength:"1024" doc:"One of the ways to find the enrollment."`
	EnrollmentID      string      `json:"enrollment_id,omitempty" format:"uuid" doc:"The surest way to find the enrollment."`
	Email             string      `json:"email,omitempty" maxLength:"320" doc:"One of the ways to find the enrollment." example:"ada@example.com"`
	Campaign          string      `json:"campaign,omitempty" maxLength:"1024" doc:"The provider's campaign id." example:"cam_1"`
	StepNumber        int         `json:"step_number,omitempty" minimum:"1" maximum:"1000" example:"2"`
	Bounce            string      `json:"bounce,omitempty" enum:"hard,soft" doc:"With bounced only; soft when absent."`
	Machine           *bool       `json:"machine,omitempty" doc:"Whether a program opened or clicked; absent when unknown."`
	URL               string      `json:"url,omitempty" format:"uri" doc:"What was clicked."`
	Metadata          Object      `json:"metadata,omitempty"`
}

// postedView is the answer for one event.
type postedView struct {
	Data      EventView `json:"data"`
	Duplicate bool      `json:"duplicate,omitzero"`
	Message   string    `json:"message,omitempty"`
	Retryable *bool     `json:"retryable,omitempty"`
}

// countsView are the outcomes of several events.
type countsView struct {
	Received  int `json:"received" doc:"Events taken in: the sum of the outcomes."`
	Applied   int `json:"applied"`
	Duplicate int `json:"duplicate"`
	Orphaned  int `json:"orphaned"`
	Ignored   int `json:"ignored"`
	Dead      int `json:"dead"`
	Spooled   int `json:"spooled"`
}

func viewCounts(c ingest.Counts) countsView { return countsView(c) }

type arrayView struct {
	Received  int         `json:"received" doc:"Events taken in: the sum of the outcomes. Rejected items are not among them."`
	Applied   int         `json:"applied"`
	Duplicate int         `json:"duplicate"`
	Orphaned  int         `json:"orphaned"`
	Ignored   int         `json:"ignored"`
	Dead      int         `json:"dead"`
	Spooled   int         `json:"spooled"`
	Rejected  int         `json:"rejected" doc:"Items that are no event; results says why."`
	Results   []arrayItem `json:"results" nullable:"false"`
}

type arrayItem struct {
	Index   int    `json:"index"`
	Outcome string `json:"outcome" enum:"applied,duplicate,orphaned,ignored,dead,spooled,rejected"`
	ID      string `json:"id,omitempty" format:"uuid"`
	Error   string `json:"error,omitempty"`
}

func describePostEvents(m *mount, op *huma.Operation) {
	one := m.schema(EventBody{})
	most := event.MaxArray
	sample := map[string]any{
		"event_type": "opened", "channel": "email", "timestamp": "2026-11-24T10:00:00Z", "provider": "postmark",
		"provider_event_id": "evt-1", "email": "ada@example.com", "step_number": 2,
	}
	op.RequestBody = &huma.RequestBody{
		Required:    true,
		Description: "One event, or an array of up to 1,000. At least one of enrollment_id, provider_message_id and email is needed to find the enrollment.",
		Content: map[string]*huma.MediaType{"application/json": {
			Schema:  &huma.Schema{OneOf: []*huma.Schema{one, {Type: huma.TypeArray, Items: one, MaxItems: &most}}},
			Example: sample,
		}},
	}
	m.answer(op, http.StatusCreated, "The event was applied to its enrollment.", postedView{})
	m.answer(op, http.StatusOK, "One event: it was seen before, or is kept without being counted. An array: the outcome of each item.", postedView{})
	m.answer(op, http.StatusAccepted, "The event waits for its enrollment. An array: at least one does.", postedView{})
	array := m.schema(Data[arrayView]{})
	for _, code := range []string{"200", "202"} {
		media := op.Responses[code].Content["application/json"]
		media.Schema = &huma.Schema{OneOf: []*huma.Schema{media.Schema, array}}
	}
	delete(op.Responses, "409")
}

// postEvents takes one event or an array. This is the hot path: the bytes are
// read once, by event.Decode.
func (s *server) postEvents(w http.ResponseWriter, r *http.Request) {
	if err := onlyQuery(r); err != nil {
		s.refuse(w, r, err)
		return
	}
	body := callOf(r.Context()).body
	if len(body) == 0 {
		s.refuse(w, r, fault.BadInput(fault.Field{Location: "body", Message: "is required: one event, or an array of events"}))
		return
	}
	if event.IsArray(body) {
		s.postArray(w, r, body)
		return
	}
	e, ferr := event.Decode(body, "body", event.Strict)
	if ferr != nil {
		s.refuse(w, r, ferr)
		return
	}
	ctx := r.Context()
	if err := s.complete(ctx, &e); err != nil {
		s.refuse(w, r, err)
		return
	}
	if callOf(ctx).signed != nil {
		e.Signed(provider.SignedID(s.providerRequest(r))) // a retry keeps it, as on /webhooks
	}
	results, err := s.Acceptor.Accept(ctx, []event.Event{e})
	if err == nil && len(results) != 1 {
		err = fault.New(fault.Internal, "accept answered %d results for one event", len(results))
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.answerOne(w, r, e, results[0])
}

// complete adds to a decoded event what the request says about it.
func (s *server) complete(ctx context.Context, e *event.Event) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fault.Wrap(fault.Internal, "make event id", err)
	}
	c := callOf(ctx)
	e.ID, e.Tenant, e.ReceivedAt, e.Kind = id, c.who.Tenant, s.clock(), string(e.Type)
	switch {
	case c.signed != nil:
		e.SourceID, e.Scope = c.signed.ID, c.signed.ID.String()
		if e.Provider == "" {
			e.Provider = "generic"
		}
	default:
		if e.Provider == "" {
			e.Provider = "api"
		}
		e.Scope = "api:" + e.Provider
	}
	if e.OccurredAtEstimated {
		e.OccurredAt = e.ReceivedAt
	}
	return nil
}

func (s *server) answerOne(w http.ResponseWriter, r *http.Request, e event.Event, res store.Result) {
	view := postedView{Data: s.viewAccepted(r.Context(), e, res)}
	status := http.StatusCreated
	switch res.Outcome {
	case event.OutcomeApplied:
		w.Header().Set("Location", "/api/events/"+res.ID.String())
	case event.OutcomeDuplicate:
		status, view.Duplicate = http.StatusOK, true
	case event.OutcomeOrphaned:
		status, view.Message, view.Retryable = http.StatusAccepted, "Event queued for retry", new(true)
	case event.OutcomeIgnored:
		status, view.Message, view.Retryable = http.StatusOK, "Event kept, not counted", new(false)
	case event.OutcomeDead:
		status, view.Message, view.Retryable = http.StatusAccepted, "Event kept as a dead letter", new(false)
	case event.OutcomeSpooled:
		status, view.Message, view.Retryable = http.StatusAccepted, "Event kept until the database is back", new(true)
	}
	s.write(w, r, status, view)
}

// viewAccepted shows an event that was just accepted. It is read back where
// the result alone does not say enough; a read that fails takes nothing back
// from what is durable already.
func (s *server) viewAccepted(ctx context.Context, e event.Event, res store.Result) EventView {
	own := store.Record{
		Event: e, State: res.State, Reason: res.Reason, Detail: res.Detail, Enrollment: res.Enrollment, NextAttemptAt: res.NextAttemptAt,
	}
	own.ID = res.ID
	if res.Outcome != event.OutcomeDuplicate {
		return viewEvent(own)
	}
	if rec, err := s.Events.Event(ctx, e.Tenant, res.ID); err == nil {
		return viewEvent(rec)
	}
	return viewEvent(own)
}

func (s *server) postArray(w http.ResponseWriter, r *http.Request, body []byte) {
	ctx := r.Context()
	items, ferr := event.DecodeArray(body, "body", event.Strict)
	if ferr != nil {
		s.refuse(w, r, ferr)
		return
	}
	view := arrayView{Results: make([]arrayItem, len(items))}
	events := make([]event.Event, 0, len(items))
	indexes := make([]int, 0, len(items))
	for i := range items {
		view.Results[i].Index = i
		if items[i].Err != nil {
			view.Rejected++
			view.Results[i].Outcome, view.Results[i].Error = "rejected", fieldsText(items[i].Err)
			continue
		}
		if err := s.complete(ctx, &items[i].Event); err != nil {
			s.refuse(w, r, err)
			return
		}
		events = append(events, items[i].Event)
		indexes = append(indexes, i)
	}
	var counts ingest.Counts
	if len(events) > 0 {
		results, err := s.Acceptor.Accept(ctx, events)
		if err == nil && len(results) != len(events) {
			err = fault.New(fault.Internal, "accept answered %d results for %d events", len(results), len(events))
		}
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		for j, res := range results {
			counts.Add(res)
			item := &view.Results[indexes[j]]
			item.Outcome, item.ID = string(res.Outcome), res.ID.String()
		}
	}
	view.Received, view.Applied, view.Duplicate, view.Orphaned = counts.Received, counts.Applied, counts.Duplicate, counts.Orphaned
	view.Ignored, view.Dead, view.Spooled = counts.Ignored, counts.Dead, counts.Spooled
	status := http.StatusOK
	if counts.Orphaned+counts.Spooled > 0 {
		status = http.StatusAccepted
	}
	s.write(w, r, status, Data[arrayView]{view})
}

// EventView is an event on the wire.
type EventView struct {
	ID                  string     `json:"id" format:"uuid"`
	SourceID            *string    `json:"source_id" format:"uuid" doc:"null for an event submitted with an API key."`
	Provider            string     `json:"provider"`
	ProviderEventID     *string    `json:"provider_event_id"`
	ProviderMessageID   *string    `json:"provider_message_id"`
	EventType           *string    `json:"event_type" doc:"null for a provider's event that is no outreach event; it is ignored."`
	Channel             *string    `json:"channel"`
	Email               *string    `json:"email"`
	Campaign            *string    `json:"campaign"`
	StepNumber          *int       `json:"step_number"`
	OccurredAt          time.Time  `json:"occurred_at"`
	OccurredAtEstimated bool       `json:"occurred_at_estimated" doc:"The payload had no time; the time of receipt was taken."`
	ReceivedAt          time.Time  `json:"received_at"`
	State               string     `json:"state" enum:"applied,orphaned,dead,ignored,spooled"`
	Reason              string     `json:"reason,omitempty" doc:"Why it is orphaned or dead."`
	Detail              string     `json:"detail,omitempty" doc:"The same for a human."`
	EnrollmentID        *string    `json:"enrollment_id" format:"uuid"`
	Duplicates          int64      `json:"duplicates" doc:"How often it was received again."`
	Attempts            int        `json:"attempts" doc:"Retries spent waiting for its enrollment."`
	NextAttemptAt       *time.Time `json:"next_attempt_at"`
	Bounce              string     `json:"bounce,omitempty" enum:"hard,soft"`
	Machine             *bool      `json:"machine,omitempty" doc:"Absent when unknown."`
	URL                 string     `json:"url,omitempty"`
	Metadata            Object     `json:"metadata"`
}

func viewEvent(r store.Record) EventView {
	v := EventView{
		ID: r.ID.String(), SourceID: optionalID(r.SourceID), Provider: r.Provider,
		ProviderEventID: optional(r.ProviderEventID), ProviderMessageID: optional(r.ProviderMessageID),
		EventType: optional(string(r.Type)), Channel: optional(string(r.Channel)), Email: optional(r.Email),
		Campaign: optional(r.Campaign), StepNumber: optional(r.StepNumber), OccurredAt: r.OccurredAt.UTC(),
		OccurredAtEstimated: r.OccurredAtEstimated, ReceivedAt: r.ReceivedAt.UTC(), State: string(r.State),
		EnrollmentID: optionalID(r.Enrollment), Duplicates: r.Duplicates, Attempts: r.Attempts,
		NextAttemptAt: optionalTime(r.NextAttemptAt), Bounce: string(r.Bounce), URL: r.URL, Metadata: r.Metadata,
	}
	if r.State == event.Orphaned || r.State == event.Dead {
		v.Reason, v.Detail = r.Reason, r.Detail
	}
	switch r.Machine {
	case event.MachineYes:
		v.Machine = new(true)
	case event.MachineNo:
		v.Machine = new(false)
	case event.MachineUnknown:
	}
	return v
}
