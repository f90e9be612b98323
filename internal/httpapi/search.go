package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

type searchInput struct {
	PageParams
	State        string    `query:"state" enum:"applied,orphaned,dead,ignored"`
	Provider     string    `query:"provider" maxLength:"64"`
	SourceID     string    `query:"source_id"`
	EventType    eventType `query:"event_type"`
	Email        string    `query:"email" maxLength:"320"`
	EnrollmentID string    `query:"enrollment_id"`
	MessageID    string    `query:"message_id" maxLength:"1024" doc:"The provider's message id."`
	Since        instant   `query:"since" doc:"By the event's own time, inclusive."`
	Until        instant   `query:"until" doc:"Exclusive."`
}

func (s *server) searchEvents(ctx context.Context, in *searchInput) (*many[EventView], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	source, err := queryID("query.source_id", in.SourceID)
	if err != nil {
		return nil, err
	}
	enrollment, err := queryID("query.enrollment_id", in.EnrollmentID)
	if err != nil {
		return nil, err
	}
	if err := period(in.Since, in.Until); err != nil {
		return nil, err
	}
	rows, next, err := s.Events.Events(ctx, tenant(ctx), store.EventFilter{
		State: event.State(in.State), Provider: in.Provider, Source: source, Type: event.Type(in.EventType), Email: in.Email,
		Enrollment: enrollment, MessageID: in.MessageID, Since: in.Since.Time, Until: in.Until.Time,
	}, p)
	if err != nil {
		return nil, err
	}
	return replyList(rows, next, viewEvent), nil
}

type enrollmentEventsInput struct {
	IDParam
	PageParams
}

func (s *server) enrollmentEvents(ctx context.Context, in *enrollmentEventsInput) (*many[EventView], error) {
	id, err := parseID("enrollment", in.ID)
	if err != nil {
		return nil, err
	}
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	if _, err := s.Enrollments.Enrollment(ctx, tenant(ctx), id); err != nil {
		return nil, err
	}
	rows, next, err := s.Events.Events(ctx, tenant(ctx), store.EventFilter{Enrollment: id}, p)
	if err != nil {
		return nil, err
	}
	return replyList(rows, next, viewEvent), nil
}

// eventDetail is one event with everything that is known of it.
type eventDetail struct {
	EventView
	Payload  anyJSON      `json:"payload" doc:"The event as it was submitted."`
	Timeline []momentView `json:"timeline" nullable:"false" doc:"What happened to it, in order."`
}

type momentView struct {
	At     time.Time `json:"at"`
	What   string    `json:"what" example:"parked"`
	Detail string    `json:"detail"`
}

func (s *server) getEvent(ctx context.Context, in *IDParam) (*one[eventDetail], error) {
	id, err := parseID("event", in.ID)
	if err != nil {
		return nil, err
	}
	rec, err := s.Events.Event(ctx, tenant(ctx), id)
	if err != nil {
		return nil, err
	}
	moments, err := s.Events.Timeline(ctx, tenant(ctx), id)
	if err != nil {
		return nil, err
	}
	d := eventDetail{EventView: viewEvent(rec), Payload: rec.Payload, Timeline: make([]momentView, len(moments))}
	for i, m := range moments {
		d.Timeline[i] = momentView{m.At.UTC(), m.What, m.Detail}
	}
	return reply(d), nil
}

type assignInput struct {
	IDParam
	Body struct {
		EnrollmentID string `json:"enrollment_id" format:"uuid"`
	}
}

func (s *server) assignEvent(ctx context.Context, in *assignInput) (*one[EventView], error) {
	id, err := parseID("event", in.ID)
	if err != nil {
		return nil, err
	}
	enrollment, err := uuid.Parse(in.Body.EnrollmentID)
	if err != nil {
		return nil, fault.BadInput(fault.Field{Location: "body.enrollment_id", Message: "is not a UUID", Value: in.Body.EnrollmentID})
	}
	if _, err := s.Events.Assign(ctx, tenant(ctx), id, enrollment, caller(ctx).Actor()); err != nil {
		return nil, err
	}
	rec, err := s.Events.Event(ctx, tenant(ctx), id)
	if err != nil {
		return nil, err
	}
	return reply(viewEvent(rec)), nil
}
