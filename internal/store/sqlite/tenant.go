package sqlite

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/campaign"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// CreateTenant makes a tenant with its first key, where that has an id; a
// Conflict when the name is taken. Its number, its id where none was given, and
// its time are given here.
func (s *Store) CreateTenant(ctx context.Context, n store.Tenant, first store.Key, traces ...store.Trace) (store.Tenant, error) {
	if n.UID == uuid.Nil {
		n.UID = row.NewID()
	}
	limits, err := row.Limits(n.Limits)
	if err != nil {
		return n, fault.Wrap(fault.Internal, "create tenant", err)
	}
	err = s.write(ctx, live, "create tenant", func(t *tx) error {
		if err := store.Leave(t, n.UID, traces); err != nil {
			return err
		}
		n.CreatedAt = t.now
		_, err := t.one(`INSERT INTO tenant (uid, name, limits, created_at) VALUES (?1, ?2, ?3, ?4) RETURNING id`,
			[]any{n.UID[:], n.Name, limits, row.US(t.now)}, &n.ID)
		switch {
		case errors.Is(err, sqlite3.CONSTRAINT_UNIQUE):
			return nameTaken(n.Name)
		case err != nil:
			return err
		}
		if first.ID == uuid.Nil {
			return nil
		}
		first.Tenant = n.ID
		return t.insertKey(first)
	})
	return n, err
}

func nameTaken(name string) error {
	return fault.New(fault.Conflict, "there is a tenant %q already", name)
}

// Tenant reads a tenant by its number.
func (s *Store) Tenant(ctx context.Context, id int64) (store.Tenant, error) {
	return s.tenant(ctx, `SELECT `+row.TenantColumns+` FROM tenant WHERE id = ?1`, id)
}

// TenantByUID reads a tenant by the id that it is called by outside.
func (s *Store) TenantByUID(ctx context.Context, uid uuid.UUID) (store.Tenant, error) {
	return s.tenant(ctx, `SELECT `+row.TenantColumns+` FROM tenant WHERE uid = ?1`, uid[:])
}

func (s *Store) tenant(ctx context.Context, query string, arg any) (store.Tenant, error) {
	var n store.Tenant
	found := false
	err := s.read(ctx, "read tenant", query, func(sc row.Scanner) error {
		found = true
		return row.ScanTenant(sc, &n)
	}, arg)
	if err == nil && !found {
		err = fault.New(fault.NotFound, "there is no such tenant")
	}
	return n, err
}

// Tenants lists all tenants, newest first.
func (s *Store) Tenants(ctx context.Context, p store.Page) ([]store.Tenant, int64, error) {
	var rows []store.Tenant
	err := s.read(ctx, "list tenants", `SELECT `+row.TenantColumns+` FROM tenant WHERE (?1 = 0 OR id < ?1) ORDER BY id DESC LIMIT ?2`,
		func(sc row.Scanner) error {
			var n store.Tenant
			err := row.ScanTenant(sc, &n)
			rows = append(rows, n)
			return err
		}, p.After, p.Limit+1)
	rows, next := row.Cut(rows, p.Limit, func(n *store.Tenant) int64 { return n.ID })
	return rows, next, err
}

// UpdateTenant writes a tenant's name and limits, and nothing else.
func (s *Store) UpdateTenant(ctx context.Context, n store.Tenant, traces ...store.Trace) error {
	limits, err := row.Limits(n.Limits)
	if err != nil {
		return fault.Wrap(fault.Internal, "change tenant", err)
	}
	return s.write(ctx, live, "change tenant", func(t *tx) error {
		changed, err := t.exec(`UPDATE tenant SET name = ?2, limits = ?3 WHERE uid = ?1`, n.UID[:], n.Name, limits)
		if errors.Is(err, sqlite3.CONSTRAINT_UNIQUE) {
			return nameTaken(n.Name)
		}
		switch {
		case err != nil:
			return err
		case changed == 0:
			return fault.New(fault.NotFound, "there is no tenant %s", n.UID)
		}
		return store.Leave(t, n.UID, traces)
	})
}

// SuspendTenant notes since when nothing is taken of a tenant; the zero time
// lets it act again. One that stands so already is a Conflict.
func (s *Store) SuspendTenant(ctx context.Context, uid uuid.UUID, at time.Time, traces ...store.Trace) error {
	return s.write(ctx, live, "suspend tenant", func(t *tx) error {
		changed, err := t.exec(`UPDATE tenant SET suspended_at = ?2 WHERE uid = ?1 AND (suspended_at = 0) <> (?2 = 0)`, uid[:], row.US(at))
		switch {
		case err != nil:
			return err
		case changed == 0:
			var one int
			there, err := t.one(`SELECT 1 FROM tenant WHERE uid = ?1`, []any{uid[:]}, &one)
			switch {
			case err != nil:
				return err
			case there:
				return fault.New(fault.Conflict, "the tenant stands so already")
			}
			return fault.New(fault.NotFound, "there is no tenant %s", uid)
		}
		return store.Leave(t, uid, traces)
	})
}

// limits reads what a tenant may have.
func (t *tx) limits(tenant int64) (store.Limits, error) {
	var n store.Tenant
	if tenant == store.DefaultTenant {
		return n.Limits, nil
	}
	err := t.query(`SELECT `+row.TenantColumns+` FROM tenant WHERE id = ?1`, func(sc row.Scanner) error {
		return row.ScanTenant(sc, &n)
	}, tenant)
	return n.Limits, err
}

// room refuses one more of what a tenant may have so many of. count reads how
// many there are.
func (t *tx) room(quota string, most int, count string, args ...any) error {
	if most == 0 {
		return nil
	}
	var n int
	if _, err := t.one(count, args, &n); err != nil || n < most {
		return err
	}
	return fault.New(fault.Forbidden, "the quota %s of this tenant is used up: there are %d of %d", quota, n, most)
}

func (t *tx) roomForKey(tenant int64) error {
	l, err := t.limits(tenant)
	if err != nil {
		return err
	}
	return t.room("max_keys", l.MaxKeys, `SELECT count(*) FROM api_key
		WHERE tenant_id = ?1 AND revoked_at = 0 AND replaced_by IS NULL AND (expires_at = 0 OR expires_at > ?2)`, tenant, row.US(t.now))
}

func (t *tx) roomForSource(tenant int64) error {
	l, err := t.limits(tenant)
	if err != nil {
		return err
	}
	return t.room("max_sources", l.MaxSources, `SELECT count(*) FROM source WHERE tenant_id = ?1 AND deleted_at = 0`, tenant)
}

func (t *tx) roomForInstance(tenant int64) error {
	l, err := t.limits(tenant)
	if err != nil {
		return err
	}
	return t.room("max_instances", l.MaxInstances, `SELECT count(*) FROM instance WHERE tenant_id = ?1 AND status <> ?2`, tenant, string(campaign.Completed))
}
