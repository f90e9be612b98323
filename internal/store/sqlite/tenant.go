package sqlite

import (
	"context"
	"errors"

	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// CreateTenant makes a tenant; a Conflict when the name is taken.
func (s *Store) CreateTenant(ctx context.Context, name string) (store.Tenant, error) {
	n := store.Tenant{UID: row.NewID(), Name: name}
	err := s.write(ctx, live, "create tenant", func(t *tx) error {
		n.CreatedAt = t.now
		_, err := t.one(`INSERT INTO tenant (uid, name, created_at) VALUES (?1, ?2, ?3) RETURNING id`,
			[]any{n.UID[:], name, row.US(t.now)}, &n.ID)
		if errors.Is(err, sqlite3.CONSTRAINT_UNIQUE) {
			return fault.New(fault.Conflict, "there is a tenant %q already", name)
		}
		return err
	})
	return n, err
}
