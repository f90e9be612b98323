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
	// CreateKey fails when the hash is stored already.
	CreateKey(ctx context.Context, k store.Key) error
	// KeyByHash answers revoked and expired keys too.
	KeyByHash(ctx context.Context, hash [32]byte) (store.Key, error)
	// Keys lists revoked keys too.
	Keys(ctx context.Context, tenant int64, p store.Page) ([]store.Key, int64, error)
	// AllKeys lists the keys of all tenants that are not revoked, oldest first:
	// at most n after a row number, and the number to go on after; 0: no more.
	AllKeys(ctx context.Context, after int64, n int) ([]store.Key, int64, error)
	// RevokeKey answers NotFound for a key that is revoked already.
	RevokeKey(ctx context.Context, tenant int64, id uuid.UUID, at time.Time) error
	// CountKeys counts the admin keys that are neither revoked nor expired.
	CountKeys(ctx context.Context) (int64, error)
	// TouchKeys moves LastUsedAt forward, never back; an unknown id is passed over.
	TouchKeys(ctx context.Context, used map[uuid.UUID]time.Time) error

	CreateSource(ctx context.Context, s store.Source) error
	// SourceByToken finds a source by a former token too, also for a while after
	// that has ended, and says so.
	SourceByToken(ctx context.Context, hash [32]byte) (store.Source, error)
	SourceByID(ctx context.Context, id uuid.UUID) (store.Source, error)
	Source(ctx context.Context, tenant int64, id uuid.UUID) (store.Source, error)
	// Sources lists those that are not deleted.
	Sources(ctx context.Context, tenant int64, p store.Page) ([]store.Source, int64, error)
	// AllSources lists those of all tenants that are not deleted, as AllKeys does.
	AllSources(ctx context.Context, after int64, n int) ([]store.Source, int64, error)
	// FormerTokens lists those of all tenants that have not ended, as AllKeys does.
	FormerTokens(ctx context.Context, after int64, n int) ([]store.FormerToken, int64, error)
	// UpdateSource writes Name, Sealed and TokenHash of a source that is not
	// deleted, and nothing else: the counts move meanwhile. A Conflict says that
	// Sealed or TokenHash are no longer as they were. A token that is replaced
	// works until ends, older ones no longer than that.
	UpdateSource(ctx context.Context, was, s store.Source, ends time.Time) error
	DeleteSource(ctx context.Context, tenant int64, id uuid.UUID, at time.Time) error

	Setting(ctx context.Context, name string) ([]byte, error)
	PutSetting(ctx context.Context, name string, value []byte) error
	Audit(ctx context.Context, a store.Audit) error
}
