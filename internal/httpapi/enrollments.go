package httpapi

import (
	"context"
	"net/http"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

type refBody struct {
	Provider string `json:"provider" minLength:"1" maxLength:"1024" example:"postmark"`
	Kind     string `json:"kind" enum:"message,action,lead" example:"message"`
	Value    string `json:"value" minLength:"1" maxLength:"1024" example:"0a1b2c3d@example.com"`
}

func refsOf(in []refBody) []event.Ref {
	refs := make([]event.Ref, len(in))
	for i, r := range in {
		refs[i] = event.Ref{Provider: r.Provider, Kind: event.RefKind(r.Kind), Value: r.Value}
	}
	return refs
}

// EnrollmentView is an enrollment on the wire.
type EnrollmentView struct {
	ID          string    `json:"id" format:"uuid"`
	InstanceID  string    `json:"instance_id" format:"uuid"`
	ContactID   *string   `json:"contact_id"`
	Email       *string   `json:"email"`
	LinkedInURL *string   `json:"linkedin_url"`
	Refs        []refBody `json:"refs" nullable:"false"`
	Metadata    Object    `json:"metadata"`
	Status      string    `json:"status" enum:"complained,unsubscribed,bounced,completed,active"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

func viewEnrollment(e campaign.Enrollment) EnrollmentView {
	v := EnrollmentView{
		ID: e.ID.String(), InstanceID: e.InstanceID.String(), ContactID: optional(e.ContactID), Email: optional(e.Email),
		LinkedInURL: optional(e.LinkedInURL), Refs: make([]refBody, len(e.Refs)), Metadata: e.Metadata,
		Status: string(e.Status), CreatedAt: e.CreatedAt.UTC(), UpdatedAt: e.UpdatedAt.UTC(),
	}
	for i, r := range e.Refs {
		v.Refs[i] = refBody{Provider: r.Provider, Kind: string(r.Kind), Value: r.Value}
	}
	return v
}

// enrolledView is an enrollment with the events that a change made it take in.
type enrolledView struct {
	EnrollmentView
	Adopted  int   `json:"adopted" doc:"Waiting events taken in, in the same transaction."`
	Adopting int64 `json:"adopting" doc:"Waiting events that follow at once."`
	Merged   bool  `json:"merged,omitzero" doc:"The contact was enrolled already; the references were added to it."`
}

type enrollmentBody struct {
	ContactID   string    `json:"contact_id,omitempty" maxLength:"1024" doc:"The customer's own id of the contact." example:"crm-1815"`
	Email       string    `json:"email,omitempty" maxLength:"320" example:"ada@example.com"`
	LinkedInURL string    `json:"linkedin_url,omitempty" maxLength:"2048" example:"https://www.linkedin.com/in/ada"`
	Refs        []refBody `json:"refs,omitempty" maxItems:"100" doc:"Provider ids that this enrollment owns."`
	Metadata    Object    `json:"metadata,omitempty"`
	OnConflict  string    `json:"on_conflict,omitempty" enum:"error,merge" doc:"merge adds the references to an enrollment that exists; otherwise 409."`
}

func (b *enrollmentBody) enrollment(tenant int64, instance uuid.UUID) campaign.Enrollment {
	return campaign.Enrollment{
		Tenant: tenant, InstanceID: instance, ContactID: b.ContactID, Email: b.Email, LinkedInURL: b.LinkedInURL,
		Refs: refsOf(b.Refs), Metadata: b.Metadata, Status: campaign.StatusActive,
	}
}

type createEnrollmentInput struct {
	IDParam
	IdempotencyParam
	Body enrollmentBody
}

func (s *server) createEnrollment(ctx context.Context, in *createEnrollmentInput) (*withStatus[enrolledView], error) {
	instance, err := parseID("instance", in.ID)
	if err != nil {
		return nil, err
	}
	e := in.Body.enrollment(tenant(ctx), instance)
	if err := e.Validate("body"); err != nil {
		return nil, err
	}
	results, err := s.Enrollments.Enroll(ctx, tenant(ctx), instance, []campaign.Enrollment{e},
		in.Body.OnConflict == "merge", idempotency(ctx, in.IdempotencyKey))
	switch {
	case err != nil:
		return nil, err
	case len(results) != 1:
		return nil, fault.New(fault.Internal, "enroll answered %d results for one contact", len(results))
	case results[0].Err != nil:
		return nil, results[0].Err
	}
	got := results[0]
	if got.Conflict && !got.Merged {
		p := newProblem(http.StatusConflict, "the contact is enrolled already, as "+got.ID.String()+
			`; send "on_conflict": "merge" to add the references to it`)
		p.EnrollmentID = got.ID.String()
		return nil, p
	}
	e, err = s.Enrollments.Enrollment(ctx, tenant(ctx), got.ID)
	if err != nil {
		return nil, err
	}
	out := &withStatus[enrolledView]{
		Status: http.StatusCreated, Location: enrollmentPath(got.ID),
		Body: Data[enrolledView]{enrolledView{viewEnrollment(e), got.Adopted, got.Adopting, got.Merged}},
	}
	if got.Merged {
		out.Status = http.StatusOK
	}
	return out, nil
}

func enrollmentPath(id uuid.UUID) string { return "/api/campaigns/enrollments/" + id.String() }

type listEnrollmentsInput struct {
	IDParam
	PageParams
	Status string `query:"status" enum:"complained,unsubscribed,bounced,completed,active"`
	Email  string `query:"email" maxLength:"320"`
}

func (s *server) listEnrollments(ctx context.Context, in *listEnrollmentsInput) (*many[EnrollmentView], error) {
	instance, err := parseID("instance", in.ID)
	if err != nil {
		return nil, err
	}
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	if _, err := s.Campaigns.Instance(ctx, tenant(ctx), instance); err != nil {
		return nil, err
	}
	rows, next, err := s.Enrollments.Enrollments(ctx, tenant(ctx), instance, store.EnrollmentFilter{Status: in.Status, Email: in.Email}, p)
	if err != nil {
		return nil, err
	}
	return replyList(rows, next, viewEnrollment), nil
}

func (s *server) getEnrollment(ctx context.Context, in *IDParam) (*one[EnrollmentView], error) {
	id, err := parseID("enrollment", in.ID)
	if err != nil {
		return nil, err
	}
	e, err := s.Enrollments.Enrollment(ctx, tenant(ctx), id)
	if err != nil {
		return nil, err
	}
	return reply(viewEnrollment(e)), nil
}

type patchEnrollmentInput struct {
	IDParam
	Body struct {
		Status      *string `json:"status,omitempty" doc:"unsubscribed, or active to take an unsubscription back. Stored as an event by hand." example:"unsubscribed"`
		Email       *string `json:"email,omitempty" maxLength:"320"`
		LinkedInURL *string `json:"linkedin_url,omitempty" maxLength:"2048"`
		ContactID   *string `json:"contact_id,omitempty" maxLength:"1024"`
		Metadata    Object  `json:"metadata,omitempty"`
	}
}

func (s *server) patchEnrollment(ctx context.Context, in *patchEnrollmentInput) (*one[enrolledView], error) {
	id, err := parseID("enrollment", in.ID)
	if err != nil {
		return nil, err
	}
	b := &in.Body
	to := campaign.Status("")
	if b.Status != nil {
		to = campaign.Status(*b.Status)
		if to != campaign.StatusUnsubscribed && to != campaign.StatusActive {
			return nil, fault.BadInput(fault.Field{
				Location: "body.status", Message: "must be unsubscribed or active; every other status follows from events", Value: *b.Status,
			})
		}
	}
	// Only the parts that are given are checked: the contact id stands in.
	probe := campaign.Enrollment{ContactID: "x", Metadata: b.Metadata}
	patch := store.EnrollmentPatch{ContactID: b.ContactID, Email: b.Email, LinkedInURL: b.LinkedInURL, Metadata: b.Metadata}
	for _, part := range []struct{ from, to *string }{{b.ContactID, &probe.ContactID}, {b.Email, &probe.Email}, {b.LinkedInURL, &probe.LinkedInURL}} {
		if part.from != nil && *part.from != "" {
			*part.to = *part.from
		}
	}
	if err := probe.Validate("body"); err != nil {
		return nil, err
	}
	e, err := s.Enrollments.Enrollment(ctx, tenant(ctx), id)
	if err != nil {
		return nil, err
	}
	if to == campaign.StatusActive {
		if err := mayResume(e.Status); err != nil {
			return nil, err
		}
	}
	var got store.Enrolled
	if patch.ContactID != nil || patch.Email != nil || patch.LinkedInURL != nil || patch.Metadata != nil {
		if e, got, err = s.Enrollments.PatchEnrollment(ctx, tenant(ctx), id, patch); err != nil {
			return nil, err
		}
	}
	if to != "" {
		if e, err = s.setStatus(ctx, e, to); err != nil {
			return nil, err
		}
	}
	return reply(enrolledView{EnrollmentView: viewEnrollment(e), Adopted: got.Adopted, Adopting: got.Adopting}), nil
}

// mayResume tells whether taking an unsubscription back could make the
// enrollment active at all. Nothing is stored for what cannot.
func mayResume(now campaign.Status) error {
	switch now {
	case campaign.StatusComplained, campaign.StatusBounced, campaign.StatusCompleted:
		return fault.New(fault.Conflict, "the enrollment is %s, which a person cannot take back; only an unsubscription can be", now)
	case campaign.StatusActive, campaign.StatusUnsubscribed:
		return nil
	}
	return nil
}

// setStatus stores a person's change of status as an event, so that the order
// of events does not matter for it either.
func (s *server) setStatus(ctx context.Context, e campaign.Enrollment, to campaign.Status) (campaign.Enrollment, error) {
	if to == campaign.StatusActive && e.Status == campaign.StatusActive {
		return e, nil
	}
	what := event.Unsubscribed
	if to == campaign.StatusActive {
		what = event.Resubscribed
	}
	act, err := s.manualEvent(ctx, e, what)
	if err != nil {
		return e, err
	}
	if _, err := s.Acceptor.Accept(ctx, []event.Event{act}); err != nil {
		return e, err
	}
	e, err = s.Enrollments.Enrollment(ctx, tenant(ctx), e.ID)
	if err != nil {
		return e, err
	}
	if to == campaign.StatusActive && e.Status != campaign.StatusActive {
		if e.Status == campaign.StatusUnsubscribed {
			return e, fault.New(fault.Conflict, "the enrollment stays unsubscribed: an unsubscription is later than this change")
		}
		return e, fault.New(fault.Conflict, "the unsubscription is taken back, but the enrollment is %s for another reason", e.Status)
	}
	return e, nil
}

// manualEvent is a person's own act. Each is an event of its own: its identity
// is its id.
func (s *server) manualEvent(ctx context.Context, e campaign.Enrollment, what event.Type) (event.Event, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return event.Event{}, fault.Wrap(fault.Internal, "make event id", err)
	}
	now := s.clock()
	payload, err := jsonv2.Marshal(manualPayload{Source: "manual", EventType: string(what), Actor: caller(ctx).Actor(), EnrollmentID: e.ID.String()})
	if err != nil {
		return event.Event{}, fault.Wrap(fault.Internal, "write manual event", err)
	}
	return event.Event{
		ID: id, Tenant: tenant(ctx), Scope: "manual", Provider: "manual", Kind: "manual", ReceivedAt: now, OccurredAt: now,
		Type: what, Channel: event.Email, EnrollmentID: e.ID.String(), Email: e.Email, Payload: payload,
		IdentityParts: []string{"manual", id.String()},
	}, nil
}

type manualPayload struct {
	Source       string `json:"source"`
	EventType    string `json:"event_type"`
	Actor        string `json:"actor"`
	EnrollmentID string `json:"enrollment_id"`
}

func (s *server) unsubscribe(ctx context.Context, id string) (campaign.Enrollment, error) {
	u, err := parseID("enrollment", id)
	if err != nil {
		return campaign.Enrollment{}, err
	}
	e, err := s.Enrollments.Enrollment(ctx, tenant(ctx), u)
	if err != nil {
		return e, err
	}
	return s.setStatus(ctx, e, campaign.StatusUnsubscribed)
}

func (s *server) unsubscribeEnrollment(ctx context.Context, in *IDParam) (*one[EnrollmentView], error) {
	e, err := s.unsubscribe(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return reply(viewEnrollment(e)), nil
}

func (s *server) deleteEnrollment(ctx context.Context, in *IDParam) (*nothing, error) {
	if _, err := s.unsubscribe(ctx, in.ID); err != nil {
		return nil, err
	}
	return &nothing{}, nil
}

type addRefsInput struct {
	IDParam
	Body struct {
		Refs []refBody `json:"refs" minItems:"1" maxItems:"100" nullable:"false"`
	}
}

func (s *server) addRefs(ctx context.Context, in *addRefsInput) (*one[enrolledView], error) {
	id, err := parseID("enrollment", in.ID)
	if err != nil {
		return nil, err
	}
	refs := refsOf(in.Body.Refs)
	if err := campaign.ValidRefs("body", refs); err != nil {
		return nil, err
	}
	got, err := s.Enrollments.AddRefs(ctx, tenant(ctx), id, refs)
	if err != nil {
		return nil, err
	}
	e, err := s.Enrollments.Enrollment(ctx, tenant(ctx), id)
	if err != nil {
		return nil, err
	}
	return reply(enrolledView{EnrollmentView: viewEnrollment(e), Adopted: got.Adopted, Adopting: got.Adopting}), nil
}
