package access

import (
	"context"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/store"
)

// Store is what access needs of the SQL store. A method that names one row
// answers a fault of kind NotFound only after it has read that there is none;
// whatever else goes wrong must not look like absence.
type Store interface {
	// CreateKey fails when the hash is stored already, and is Forbidden when the
	// tenant may have no more.
	CreateKey(ctx context.Context, k store.Key, traces ...store.Trace) error
	// RotateKey is a Conflict when the old key was replaced before.
	RotateKey(ctx context.Context, old uuid.UUID, k store.Key, until time.Time, traces ...store.Trace) error
	// KeyByID answers revoked and expired keys too.
	KeyByID(ctx context.Context, tenant int64, id uuid.UUID) (store.Key, error)
	// KeyByHash answers revoked and expired keys too.
	KeyByHash(ctx context.Context, hash [32]byte) (store.Key, error)
	// Keys lists revoked keys too.
	Keys(ctx context.Context, tenant int64, p store.Page) ([]store.Key, int64, error)
	// AllKeys lists the keys that are not revoked, of all tenants that are not
	// suspended, oldest first: at most n after a row number, and the number to
	// go on after; 0: no more.
	AllKeys(ctx context.Context, after int64, n int) ([]store.Key, int64, error)
	// RevokeKey answers NotFound for a key that is revoked already.
	RevokeKey(ctx context.Context, tenant int64, id uuid.UUID, at time.Time, traces ...store.Trace) error
	// CountKeys counts the default tenant's admin keys that are neither revoked
	// nor expired.
	CountKeys(ctx context.Context) (int64, error)
	// TouchKeys moves LastUsedAt forward, never back; an unknown id is passed over.
	TouchKeys(ctx context.Context, used map[uuid.UUID]time.Time) error

	// CreateSource is Forbidden when the tenant may have no more.
	CreateSource(ctx context.Context, s store.Source, traces ...store.Trace) error
	// SourceByToken finds a source by a former token too, also for a while after
	// that has ended, and says so.
	SourceByToken(ctx context.Context, hash [32]byte) (store.Source, error)
	SourceByID(ctx context.Context, id uuid.UUID) (store.Source, error)
	Source(ctx context.Context, tenant int64, id uuid.UUID) (store.Source, error)
	// Sources lists those that are not deleted.
	Sources(ctx context.Context, tenant int64, p store.Page) ([]store.Source, int64, error)
	// AllSources lists those that are not deleted, as AllKeys does.
	AllSources(ctx context.Context, after int64, n int) ([]store.Source, int64, error)
	// FormerTokens lists those of all tenants that have not ended, as AllKeys does.
	FormerTokens(ctx context.Context, after int64, n int) ([]store.FormerToken, int64, error)
	// UpdateSource writes Name, Sealed and TokenHash of a source that is not
	// deleted, and nothing else: the counts move meanwhile. A Conflict says that
	// Sealed or TokenHash are no longer as they were. A token that is replaced
	// works until ends, older ones no longer than that.
	UpdateSource(ctx context.Context, was, s store.Source, ends time.Time, traces ...store.Trace) error
	DeleteSource(ctx context.Context, tenant int64, id uuid.UUID, at time.Time, traces ...store.Trace) error

	// CreateTenant makes its first key with it. A name that is taken is a Conflict.
	CreateTenant(ctx context.Context, n store.Tenant, first store.Key, traces ...store.Trace) (store.Tenant, error)
	Tenant(ctx context.Context, id int64) (store.Tenant, error)
	TenantByUID(ctx context.Context, uid uuid.UUID) (store.Tenant, error)
	Tenants(ctx context.Context, p store.Page) ([]store.Tenant, int64, error)
	// UpdateTenant writes Name and Limits.
	UpdateTenant(ctx context.Context, n store.Tenant, traces ...store.Trace) error
	// SuspendTenant lifts it with the zero time; a Conflict when it stands so.
	SuspendTenant(ctx context.Context, uid uuid.UUID, at time.Time, traces ...store.Trace) error

	Setting(ctx context.Context, name string) ([]byte, error)
	PutSetting(ctx context.Context, name string, value []byte) error
	AuditLog(ctx context.Context, tenant int64, f store.AuditFilter, p store.Page) ([]store.Audit, int64, error)
	// Recall is NotFound when the key is new, a Conflict when it came with
	// another request.
	Recall(ctx context.Context, tenant int64, idem store.Idempotency) (resource uuid.UUID, sealed []byte, err error)
	ForgetAnswers(ctx context.Context, before time.Time) error
}
