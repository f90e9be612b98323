package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/store"
)

// limitsBody are what a tenant may do and have, beside the limits of its keys
// and sources.
type limitsBody struct {
	RequestsPerSecond int `json:"requests_per_second,omitempty" minimum:"0" maximum:"1000000" doc:"With all its API keys together, of each replica; 429 beyond."`
	WebhooksPerSecond int `json:"webhooks_per_second,omitempty" minimum:"0" maximum:"1000000" doc:"Over all its sources together, of each replica; beyond, the vendor is told to send again."`
	MaxKeys           int `json:"max_keys,omitempty" minimum:"0" maximum:"1000000" doc:"API keys that are neither revoked, expired nor replaced; 403 beyond."`
	MaxSources        int `json:"max_sources,omitempty" minimum:"0" maximum:"1000000" doc:"Sources; 403 beyond."`
	MaxInstances      int `json:"max_instances,omitempty" minimum:"0" maximum:"1000000" doc:"Campaign instances that are not completed; 403 beyond."`
}

// tenantRecord is a tenant on the wire.
type tenantRecord struct {
	ID          string     `json:"id" format:"uuid"`
	Name        string     `json:"name"`
	Status      string     `json:"status" enum:"active,suspended"`
	Limits      limitsBody `json:"limits" doc:"What is absent or 0 has no limit."`
	CreatedAt   time.Time  `json:"created_at"`
	SuspendedAt *time.Time `json:"suspended_at"`
}

func viewTenant(n store.Tenant) tenantRecord {
	status := "active"
	if !n.SuspendedAt.IsZero() {
		status = "suspended"
	}
	return tenantRecord{n.UID.String(), n.Name, status, limitsBody(n.Limits), n.CreatedAt.UTC(), optionalTime(n.SuspendedAt)}
}

// createdTenant is a new tenant with its first key.
type createdTenant struct {
	tenantRecord
	APIKey string `json:"api_key" doc:"Its first admin key. It is shown again only to the same request with the same Idempotency-Key, within a day."`
}

type createTenantInput struct {
	IdempotencyParam
	Body struct {
		Name   string     `json:"name" minLength:"1" maxLength:"255" example:"Acme"`
		Limits limitsBody `json:"limits,omitzero"`
	}
}

func (s *server) createTenant(ctx context.Context, in *createTenantInput) (*created[createdTenant], error) {
	n, plain, err := s.Access.CreateTenant(ctx, caller(ctx), access.TenantInput{
		Name: in.Body.Name, Limits: store.Limits(in.Body.Limits), Idempotency: idempotency(ctx, in.IdempotencyKey),
	})
	if err != nil {
		return nil, err
	}
	return replyCreated("/api/admin/tenants/"+n.UID.String(), createdTenant{viewTenant(n), plain}), nil
}

func (s *server) listTenants(ctx context.Context, in *struct{ PageParams }) (*many[tenantRecord], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	rows, next, err := s.Access.Tenants(ctx, p)
	if err != nil {
		return nil, err
	}
	return replyList(rows, next, viewTenant), nil
}

func (s *server) getTenant(ctx context.Context, in *IDParam) (*one[tenantRecord], error) {
	return s.withTenant(in.ID, func(id uuid.UUID) (store.Tenant, error) { return s.Access.Tenant(ctx, id) })
}

func (s *server) withTenant(text string, do func(uuid.UUID) (store.Tenant, error)) (*one[tenantRecord], error) {
	id, err := parseID("tenant", text)
	if err != nil {
		return nil, err
	}
	n, err := do(id)
	if err != nil {
		return nil, err
	}
	return reply(viewTenant(n)), nil
}

type patchTenantInput struct {
	IDParam
	Body struct {
		Name   *string     `json:"name,omitempty" minLength:"1" maxLength:"255"`
		Limits *limitsBody `json:"limits,omitempty" doc:"Replaces all limits. What there is beyond a lower one stays."`
	}
}

func (s *server) patchTenant(ctx context.Context, in *patchTenantInput) (*one[tenantRecord], error) {
	patch := access.TenantPatch{Name: in.Body.Name}
	if in.Body.Limits != nil {
		limits := store.Limits(*in.Body.Limits)
		patch.Limits = &limits
	}
	return s.withTenant(in.ID, func(id uuid.UUID) (store.Tenant, error) { return s.Access.PatchTenant(ctx, caller(ctx), id, patch) })
}

func (s *server) suspendTenant(ctx context.Context, in *IDParam) (*one[tenantRecord], error) {
	return s.withTenant(in.ID, func(id uuid.UUID) (store.Tenant, error) { return s.Access.SuspendTenant(ctx, caller(ctx), id) })
}

func (s *server) resumeTenant(ctx context.Context, in *IDParam) (*one[tenantRecord], error) {
	return s.withTenant(in.ID, func(id uuid.UUID) (store.Tenant, error) { return s.Access.ResumeTenant(ctx, caller(ctx), id) })
}
