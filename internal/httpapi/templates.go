package httpapi

import (
	"context"
	"time"

	"tallyhook/internal/campaign"
)

// stepBody is one step of a template on the wire.
type stepBody struct {
	Number     int         `json:"step_number" minimum:"1" maximum:"50" example:"1"`
	Channel    channelName `json:"channel" example:"email"`
	Type       string      `json:"type,omitempty" maxLength:"64" doc:"The customer's own name of the step's kind." example:"message"`
	Subject    string      `json:"subject,omitempty" maxLength:"998" example:"Hello, Ada"`
	Body       string      `json:"body,omitempty" maxLength:"65536"`
	DelayHours int         `json:"delay_hours,omitempty" minimum:"0" maximum:"720" doc:"Hours after the step before." example:"48"`
	Variant    string      `json:"variant,omitempty" maxLength:"64" doc:"Several steps of one number are variants of each other." example:"a"`
}

type templateBody struct {
	Name        string     `json:"name" minLength:"1" maxLength:"255" example:"Welcome sequence"`
	Description string     `json:"description,omitempty" maxLength:"2000"`
	Type        string     `json:"type" enum:"email,linkedin,multi_channel" example:"email"`
	PathType    string     `json:"path_type,omitempty" enum:"structured,dynamic_ai" default:"structured"`
	Settings    Object     `json:"settings,omitempty"`
	Steps       []stepBody `json:"steps,omitempty" maxItems:"200"`
}

func (b *templateBody) template(tenant int64) campaign.Template {
	t := campaign.Template{
		Tenant: tenant, Name: b.Name, Description: b.Description, Type: b.Type, PathType: b.PathType,
		Settings: b.Settings, Steps: make([]campaign.Step, len(b.Steps)),
	}
	for i, s := range b.Steps {
		t.Steps[i] = campaign.Step{
			Number: s.Number, Channel: string(s.Channel), Type: s.Type, Subject: s.Subject,
			Body: s.Body, DelayHours: s.DelayHours, Variant: s.Variant,
		}
	}
	return t
}

type templateView struct {
	ID          string     `json:"id" format:"uuid"`
	Name        string     `json:"name"`
	Description string     `json:"description"`
	Type        string     `json:"type"`
	PathType    string     `json:"path_type"`
	Settings    Object     `json:"settings"`
	Steps       []stepView `json:"steps" nullable:"false"`
	CreatedAt   time.Time  `json:"created_at"`
	UpdatedAt   time.Time  `json:"updated_at"`
}

type stepView struct {
	Number     int    `json:"step_number"`
	Channel    string `json:"channel"`
	Type       string `json:"type"`
	Subject    string `json:"subject"`
	Body       string `json:"body"`
	DelayHours int    `json:"delay_hours"`
	Variant    string `json:"variant"`
}

func viewTemplate(t campaign.Template) templateView {
	v := templateView{
		ID: t.ID.String(), Name: t.Name, Description: t.Description, Type: t.Type, PathType: t.PathType,
		Settings: t.Settings, Steps: make([]stepView, len(t.Steps)),
		CreatedAt: t.CreatedAt.UTC(), UpdatedAt: t.UpdatedAt.UTC(),
	}
	for i, s := range t.Steps {
		v.Steps[i] = stepView(s)
	}
	return v
}

type createTemplateInput struct {
	IdempotencyParam
	Body templateBody
}

func (s *server) createTemplate(ctx context.Context, in *createTemplateInput) (*created[templateView], error) {
	t := in.Body.template(tenant(ctx))
	if err := t.Validate("body"); err != nil {
		return nil, err
	}
	t, err := s.Campaigns.CreateTemplate(ctx, t, idempotency(ctx, in.IdempotencyKey))
	if err != nil {
		return nil, err
	}
	return replyCreated("/api/campaigns/templates/"+t.ID.String(), viewTemplate(t)), nil
}

func (s *server) listTemplates(ctx context.Context, in *struct{ PageParams }) (*many[templateView], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	rows, next, err := s.Campaigns.Templates(ctx, tenant(ctx), p)
	if err != nil {
		return nil, err
	}
	return replyList(rows, next, viewTemplate), nil
}

func (s *server) getTemplate(ctx context.Context, in *IDParam) (*one[templateView], error) {
	id, err := parseID("template", in.ID)
	if err != nil {
		return nil, err
	}
	t, err := s.Campaigns.Template(ctx, tenant(ctx), id)
	if err != nil {
		return nil, err
	}
	return reply(viewTemplate(t)), nil
}

type replaceTemplateInput struct {
	IDParam
	Body templateBody
}

func (s *server) replaceTemplate(ctx context.Context, in *replaceTemplateInput) (*one[templateView], error) {
	id, err := parseID("template", in.ID)
	if err != nil {
		return nil, err
	}
	t := in.Body.template(tenant(ctx))
	t.ID = id
	if err := t.Validate("body"); err != nil {
		return nil, err
	}
	if t, err = s.Campaigns.ReplaceTemplate(ctx, t); err != nil {
		return nil, err
	}
	return reply(viewTemplate(t)), nil
}

func (s *server) deleteTemplate(ctx context.Context, in *IDParam) (*nothing, error) {
	id, err := parseID("template", in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.Campaigns.DeleteTemplate(ctx, tenant(ctx), id, caller(ctx).Actor()); err != nil {
		return nil, err
	}
	return &nothing{}, nil
}
