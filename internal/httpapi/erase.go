package httpapi

import (
	"context"
	"net/http"
	"time"

	"tallyhook/internal/campaign"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

type eraseContactInput struct {
	Body struct {
		Email       string `json:"email,omitempty" maxLength:"320" example:"ada@example.com"`
		LinkedInURL string `json:"linkedin_url,omitempty" maxLength:"2048" example:"https://www.linkedin.com/in/ada"`
		ContactID   string `json:"contact_id,omitempty" maxLength:"1024" doc:"The customer's own id of the contact." example:"crm-1815"`
	}
}

type erasureView struct {
	ID          string    `json:"id" format:"uuid"`
	Status      string    `json:"status" enum:"running,done"`
	Enrollments int64     `json:"enrollments" doc:"Enrollments that are nobody's by now."`
	Events      int64     `json:"events" doc:"Events that nothing personal is left of."`
	Letters     int64     `json:"letters" doc:"Unreadable bodies that named the contact and were emptied."`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

func viewErasure(e store.Erasure) erasureView {
	return erasureView{
		ID: e.ID.String(), Status: e.Status, Enrollments: e.Enrollments, Events: e.Events, Letters: e.Letters,
		CreatedAt: e.CreatedAt.UTC(), UpdatedAt: e.UpdatedAt.UTC(),
	}
}

func (s *server) eraseContact(ctx context.Context, in *eraseContactInput) (*withStatus[erasureView], error) {
	c := store.Contact{Email: in.Body.Email, LinkedInURL: in.Body.LinkedInURL, ContactID: in.Body.ContactID}
	if c == (store.Contact{}) {
		return nil, fault.BadInput(fault.Field{Location: "body", Message: "names nobody: give email, linkedin_url or contact_id"})
	}
	named := campaign.Enrollment{Email: c.Email, LinkedInURL: c.LinkedInURL, ContactID: c.ContactID}
	if err := named.Validate("body"); err != nil {
		return nil, err
	}
	e, err := s.Erasures.StartErasure(ctx, tenant(ctx), c, caller(ctx).Actor())
	if err != nil {
		return nil, err
	}
	return &withStatus[erasureView]{
		Status: http.StatusAccepted, Location: "/api/contacts/erasures/" + e.ID.String(), Body: Data[erasureView]{viewErasure(e)},
	}, nil
}

func (s *server) getErasure(ctx context.Context, in *IDParam) (*one[erasureView], error) {
	id, err := parseID("erasure", in.ID)
	if err != nil {
		return nil, err
	}
	e, err := s.Erasures.Erasure(ctx, tenant(ctx), id)
	if err != nil {
		return nil, err
	}
	return reply(viewErasure(e)), nil
}
