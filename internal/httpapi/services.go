// Package httpapi is the edge: routes, layers and handlers. It turns HTTP into
// calls of the use-cases and fault kinds into status codes, and holds no rule
// of its own.
package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/ingest"
	"tallyhook/internal/provider"
	"tallyhook/internal/report"
	"tallyhook/internal/store"
)

// The edge declares what it needs of the inside; internal/app wires it.
// Every method that takes a tenant sees that tenant's rows only; what belongs
// to another is a fault of kind NotFound.

// Campaigns are templates and instances.
type Campaigns interface {
	CreateTemplate(ctx context.Context, t campaign.Template, idem store.Idempotency) (campaign.Template, error)
	Template(ctx context.Context, tenant int64, id uuid.UUID) (campaign.Template, error)
	Templates(ctx context.Context, tenant int64, p store.Page) (rows []campaign.Template, next int64, err error)
	ReplaceTemplate(ctx context.Context, t campaign.Template) (campaign.Template, error)
	DeleteTemplate(ctx context.Context, tenant int64, id uuid.UUID, actor string) error

	CreateInstance(ctx context.Context, i campaign.Instance, idem store.Idempotency) (campaign.Instance, error)
	Instance(ctx context.Context, tenant int64, id uuid.UUID) (campaign.Instance, error)
	Instances(ctx context.Context, tenant int64, f store.InstanceFilter, p store.Page) (rows []campaign.Instance, next int64, err error)
	PatchInstance(ctx context.Context, tenant int64, id uuid.UUID, patch store.InstancePatch) (campaign.Instance, store.Enrolled, error)
}

// Enrollments are contacts in instances.
type Enrollments interface {
	// Enroll takes any number of contacts, a result for each. With one contact
	// and an Idempotency it answers the first request's result again.
	Enroll(ctx context.Context, tenant int64, instance uuid.UUID, in []campaign.Enrollment, merge bool, idem store.Idempotency) ([]store.Enrolled, error)
	Enrollment(ctx context.Context, tenant int64, id uuid.UUID) (campaign.Enrollment, error)
	Enrollments(ctx context.Context, tenant int64, instance uuid.UUID, f store.EnrollmentFilter, p store.Page) (rows []campaign.Enrollment, next int64, err error)
	PatchEnrollment(ctx context.Context, tenant int64, id uuid.UUID, patch store.EnrollmentPatch) (campaign.Enrollment, store.Enrolled, error)
	AddRefs(ctx context.Context, tenant int64, id uuid.UUID, refs []event.Ref) (store.Enrolled, error)
}

// Events are stored events.
type Events interface {
	Events(ctx context.Context, tenant int64, f store.EventFilter, p store.Page) (rows []store.Record, next int64, err error)
	Event(ctx context.Context, tenant int64, id uuid.UUID) (store.Record, error)
	Timeline(ctx context.Context, tenant int64, id uuid.UUID) ([]store.Moment, error)
	Assign(ctx context.Context, tenant int64, eventID, enrollment uuid.UUID, actor string) (store.Result, error)
}

// Acceptor makes events durable and says what became of each.
type Acceptor interface {
	Accept(ctx context.Context, events []event.Event) ([]store.Result, error)
}

// Receiver takes a webhook the whole way: source, verify, decode, accept.
type Receiver interface {
	Receive(ctx context.Context, token string, req provider.Request) (ingest.Receipt, error)
	// SignedBy authenticates a request to the API that is signed for a source of
	// provider generic in place of an API key.
	SignedBy(ctx context.Context, source uuid.UUID, req provider.Request) (access.Opened, error)
	// Try sends a sample of a source's provider the way of a webhook.
	Try(ctx context.Context, source uuid.UUID, url string) (ingest.Trial, error)
}

// Suppressions are addresses that must not be written to.
type Suppressions interface {
	Suppressions(ctx context.Context, tenant int64, since time.Time, p store.Page) (rows []campaign.Suppression, next int64, err error)
	Suppression(ctx context.Context, tenant int64, email string) (campaign.Suppression, error)
	PutSuppression(ctx context.Context, tenant int64, email, actor string) (campaign.Suppression, error)
	DeleteSuppression(ctx context.Context, tenant int64, email, actor string) error
}

// Erasures take what is personal of a contact out of everything.
type Erasures interface {
	StartErasure(ctx context.Context, tenant int64, c store.Contact, actor string) (store.Erasure, error)
	Erasure(ctx context.Context, tenant int64, id uuid.UUID) (store.Erasure, error)
}

// Letters are dead letters.
type Letters interface {
	Letters(ctx context.Context, tenant int64, f store.LetterFilter, p store.Page) (rows []store.Letter, next int64, err error)
	Letter(ctx context.Context, tenant int64, id uuid.UUID) (store.Letter, error)
	LetterStats(ctx context.Context, tenant int64) (store.LetterStats, error)
	Replay(ctx context.Context, tenant int64, id uuid.UUID, actor string) (store.Result, error)
	Ignore(ctx context.Context, tenant int64, id uuid.UUID, actor string) (store.Letter, error)
	Restore(ctx context.Context, tenant int64, id uuid.UUID, actor string) (store.Letter, error)
	// StartReplay matches by ids, or by filter when ids is nil; a dry run only counts.
	StartReplay(ctx context.Context, tenant int64, ids []uuid.UUID, f store.LetterFilter, dryRun bool, actor string) (store.Replay, error)
	ReplayProgress(ctx context.Context, tenant int64, id uuid.UUID) (store.Replay, error)
	CancelReplay(ctx context.Context, tenant int64, id uuid.UUID, actor string) (store.Replay, error)
}

// Access are keys, sources, tenants and the audit log.
type Access interface {
	// Authenticate finds the principal of an API key.
	Authenticate(ctx context.Context, key string) (access.Principal, error)
	// KnownKey and KnownSource tell from memory alone whether it was there at
	// the last look.
	KnownKey(key string) bool
	KnownSource(id uuid.UUID) bool
	MakeKey(ctx context.Context, by access.Principal, in access.KeyInput) (k store.Key, plain string, err error)
	RotateKey(ctx context.Context, by access.Principal, id uuid.UUID, in access.KeyRotation) (k, old store.Key, plain string, err error)
	Keys(ctx context.Context, tenant int64, p store.Page) (rows []store.Key, next int64, err error)
	RevokeKey(ctx context.Context, by access.Principal, id uuid.UUID) error

	CreateSource(ctx context.Context, by access.Principal, in access.SourceInput) (access.CreatedSource, error)
	Sources(ctx context.Context, tenant int64, p store.Page) (rows []access.SourceView, next int64, err error)
	Source(ctx context.Context, tenant int64, id uuid.UUID) (access.SourceView, error)
	PatchSource(ctx context.Context, by access.Principal, id uuid.UUID, patch access.SourcePatch) (access.SourceView, error)
	DeleteSource(ctx context.Context, by access.Principal, id uuid.UUID) error
	RotateSecret(ctx context.Context, by access.Principal, id uuid.UUID, secret string, grace time.Duration) (access.Rotated, error)
	RotateURL(ctx context.Context, by access.Principal, id uuid.UUID, grace time.Duration) (access.Rotated, error)
	// Rejections are the recent refused requests of a source, newest first.
	Rejections(ctx context.Context, tenant int64, id uuid.UUID) ([]access.Rejection, error)

	// Tenants are for the operator: whoever calls these has been asked for it.
	CreateTenant(ctx context.Context, by access.Principal, in access.TenantInput) (n store.Tenant, plain string, err error)
	Tenants(ctx context.Context, p store.Page) (rows []store.Tenant, next int64, err error)
	Tenant(ctx context.Context, uid uuid.UUID) (store.Tenant, error)
	PatchTenant(ctx context.Context, by access.Principal, uid uuid.UUID, patch access.TenantPatch) (store.Tenant, error)
	SuspendTenant(ctx context.Context, by access.Principal, uid uuid.UUID) (store.Tenant, error)
	ResumeTenant(ctx context.Context, by access.Principal, uid uuid.UUID) (store.Tenant, error)

	AuditLog(ctx context.Context, tenant int64, f store.AuditFilter, p store.Page) (rows []store.Audit, next int64, err error)
}

// Reports are numbers made from counters and facts.
type Reports interface {
	Performance(ctx context.Context, tenant int64, instance uuid.UUID, q report.Query) (report.Performance, error)
	Balance(ctx context.Context) (store.Balance, error)
}

// Health is what /health shows. It must cost O(1) and change nothing.
type Health interface {
	Health(ctx context.Context) HealthReport
	Ready() bool
}

// HealthReport is the state of the whole and of each component.
type HealthReport struct {
	Status     string // healthy, degraded, unhealthy
	Version    string
	Components map[string]map[string]any // database, redis, queue; each has "status"
}
