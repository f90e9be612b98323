package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// InstanceView is an instance on the wire.
type InstanceView struct {
	ID                string            `json:"id" format:"uuid"`
	TemplateID        string            `json:"template_id" format:"uuid"`
	Name              string            `json:"name"`
	Status            string            `json:"status" enum:"draft,active,paused,completed"`
	Settings          Object            `json:"settings"`
	ProviderCampaigns map[string]string `json:"provider_campaigns"`
	CreatedAt         time.Time         `json:"created_at"`
	UpdatedAt         time.Time         `json:"updated_at"`
	StartedAt         *time.Time        `json:"started_at"`
	CompletedAt       *time.Time        `json:"completed_at"`
}

func viewInstance(i campaign.Instance) InstanceView {
	return InstanceView{
		ID: i.ID.String(), TemplateID: i.TemplateID.String(), Name: i.Name, Status: string(i.Status), Settings: i.Settings,
		ProviderCampaigns: i.ProviderCampaigns, CreatedAt: i.CreatedAt.UTC(), UpdatedAt: i.UpdatedAt.UTC(),
		StartedAt: optionalTime(i.StartedAt), CompletedAt: optionalTime(i.CompletedAt),
	}
}

// patchedInstance is an instance with the events that its newly mapped
// campaigns took in.
type patchedInstance struct {
	InstanceView
	Adopted  int   `json:"adopted" doc:"Waiting events taken in by this change."`
	Adopting int64 `json:"adopting" doc:"Waiting events that follow at once."`
}

type instanceBody struct {
	TemplateID        string            `json:"template_id" format:"uuid"`
	Name              string            `json:"name" minLength:"1" maxLength:"255" example:"Welcome, November"`
	Settings          Object            `json:"settings,omitempty"`
	ProviderCampaigns map[string]string `json:"provider_campaigns,omitempty" doc:"A provider's name to its campaign id, so that its events find this instance." example:"{\"lemlist\":\"cam_1\"}"`
}

type createInstanceInput struct {
	IdempotencyParam
	Body instanceBody
}

func (s *server) createInstance(ctx context.Context, in *createInstanceInput) (*created[InstanceView], error) {
	template, err := uuid.Parse(in.Body.TemplateID)
	if err != nil {
		return nil, fault.BadInput(fault.Field{Location: "body.template_id", Message: "is not a UUID", Value: in.Body.TemplateID})
	}
	i := campaign.Instance{
		Tenant: tenant(ctx), TemplateID: template, Name: in.Body.Name, Status: campaign.Draft,
		Settings: in.Body.Settings, ProviderCampaigns: in.Body.ProviderCampaigns,
	}
	if err := i.Validate("body"); err != nil {
		return nil, err
	}
	i, err = s.Campaigns.CreateInstance(ctx, i, idempotency(ctx, in.IdempotencyKey))
	if err != nil {
		return nil, err
	}
	return replyCreated("/api/campaigns/instances/"+i.ID.String(), viewInstance(i)), nil
}

type listInstancesInput struct {
	PageParams
	Status     string `query:"status" enum:"draft,active,paused,completed"`
	TemplateID string `query:"template_id"`
}

func (s *server) listInstances(ctx context.Context, in *listInstancesInput) (*many[InstanceView], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	template, err := queryID("query.template_id", in.TemplateID)
	if err != nil {
		return nil, err
	}
	rows, next, err := s.Campaigns.Instances(ctx, tenant(ctx), store.InstanceFilter{Status: in.Status, Template: template}, p)
	if err != nil {
		return nil, err
	}
	return replyList(rows, next, viewInstance), nil
}

func (s *server) getInstance(ctx context.Context, in *IDParam) (*one[InstanceView], error) {
	id, err := parseID("instance", in.ID)
	if err != nil {
		return nil, err
	}
	i, err := s.Campaigns.Instance(ctx, tenant(ctx), id)
	if err != nil {
		return nil, err
	}
	return reply(viewInstance(i)), nil
}

type patchInstanceInput struct {
	IDParam
	Body struct {
		Name              *string           `json:"name,omitempty" minLength:"1" maxLength:"255"`
		Status            *string           `json:"status,omitempty" enum:"draft,active,paused,completed" doc:"draft to active, active to paused or completed, paused to active or completed."`
		Settings          Object            `json:"settings,omitempty"`
		ProviderCampaigns map[string]string `json:"provider_campaigns,omitempty" doc:"Replaces the whole map."`
	}
}

func (s *server) patchInstance(ctx context.Context, in *patchInstanceInput) (*one[patchedInstance], error) {
	id, err := parseID("instance", in.ID)
	if err != nil {
		return nil, err
	}
	// Only the parts that are given are checked: the name stands in for itself.
	probe := campaign.Instance{Name: "x", Status: campaign.Draft, Settings: in.Body.Settings, ProviderCampaigns: in.Body.ProviderCampaigns}
	if in.Body.Name != nil {
		probe.Name = *in.Body.Name
	}
	if err := probe.Validate("body"); err != nil {
		return nil, err
	}
	i, adopted, err := s.Campaigns.PatchInstance(ctx, tenant(ctx), id, store.InstancePatch{
		Name: in.Body.Name, Status: in.Body.Status, Settings: in.Body.Settings, ProviderCampaigns: in.Body.ProviderCampaigns,
	})
	if err != nil {
		return nil, err
	}
	return reply(patchedInstance{viewInstance(i), adopted.Adopted, adopted.Adopting}), nil
}
