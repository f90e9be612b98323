package sqlite

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// CreateKey stores an API key; Forbidden when the tenant may have no more.
func (s *Store) CreateKey(ctx context.Context, k store.Key, traces ...store.Trace) error {
	return s.write(ctx, live, "create key", func(t *tx) error {
		if err := store.Leave(t, k.ID, traces); err != nil {
			return err
		}
		if err := t.roomForKey(k.Tenant); err != nil {
			return err
		}
		return t.insertKey(k)
	})
}

func (t *tx) insertKey(k store.Key) error {
	_, err := t.exec(`INSERT INTO api_key (id, tenant_id, name, hash, prefix, scopes, created_at, expires_at, last_used_at, revoked_at, allowed_ips)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0, ?9)`,
		k.ID[:], k.Tenant, k.Name, k.Hash[:], k.Prefix, strings.Join(k.Scopes, " "), row.US(k.CreatedAt), row.US(k.ExpiresAt), row.Prefixes(k.AllowedIPs))
	return err
}

// KeyByHash finds a key by the SHA-256 of its text; revoked ones too.
func (s *Store) KeyByHash(ctx context.Context, hash [32]byte) (store.Key, error) {
	var k store.Key
	found := false
	err := s.read(ctx, "find key", `SELECT `+row.KeyColumns+` FROM api_key WHERE hash = ?1`, func(sc row.Scanner) error {
		found = true
		_, err := row.ScanKey(sc, &k)
		return err
	}, hash[:])
	if err == nil && !found {
		err = fault.New(fault.NotFound, "there is no such key")
	}
	return k, err
}

// Keys lists a tenant's keys, newest first.
func (s *Store) Keys(ctx context.Context, tenant int64, p store.Page) ([]store.Key, int64, error) {
	var rows []store.Key
	var seqs []int64
	err := s.read(ctx, "list keys", `SELECT `+row.KeyColumns+` FROM api_key WHERE tenant_id = ?1 AND (?2 = 0 OR seq < ?2) ORDER BY seq DESC LIMIT ?3`,
		func(sc row.Scanner) error {
			var k store.Key
			seq, err := row.ScanKey(sc, &k)
			rows, seqs = append(rows, k), append(seqs, seq)
			return err
		}, tenant, p.After, p.Limit+1)
	rows, next := row.Page(rows, seqs, p.Limit)
	return rows, next, err
}

// AllKeys lists the keys that are not revoked, of all tenants that are not
// suspended, oldest first: at most n of those after a row number, and the
// number to go on after; 0 when there are no more.
func (s *Store) AllKeys(ctx context.Context, after int64, n int) ([]store.Key, int64, error) {
	var rows []store.Key
	var seqs []int64
	err := s.read(ctx, "list all keys", `SELECT `+row.KeyColumns+` FROM api_key WHERE revoked_at = 0 AND seq > ?1
		AND tenant_id NOT IN (SELECT id FROM tenant WHERE suspended_at > 0) ORDER BY seq LIMIT ?2`,
		func(sc row.Scanner) error {
			var k store.Key
			seq, err := row.ScanKey(sc, &k)
			rows, seqs = append(rows, k), append(seqs, seq)
			return err
		}, after, n+1)
	rows, next := row.Page(rows, seqs, n)
	return rows, next, err
}

// RevokeKey ends a key.
func (s *Store) RevokeKey(ctx context.Context, tenant int64, id uuid.UUID, when time.Time, traces ...store.Trace) error {
	return s.write(ctx, live, "revoke key", func(t *tx) error {
		n, err := t.exec(`UPDATE api_key SET revoked_at = ?3 WHERE id = ?1 AND tenant_id = ?2 AND revoked_at = 0`, id[:], tenant, row.US(when))
		if err == nil && n == 0 {
			err = fault.New(fault.NotFound, "there is no live key %s", id)
		}
		if err != nil {
			return err
		}
		return store.Leave(t, id, traces)
	})
}

// RotateKey stores a key in place of another, which ends at a time, or when it
// would have ended anyway. A Conflict when the old one has been replaced before.
func (s *Store) RotateKey(ctx context.Context, old uuid.UUID, k store.Key, until time.Time, traces ...store.Trace) error {
	return s.write(ctx, live, "rotate key", func(t *tx) error {
		if err := store.Leave(t, k.ID, traces); err != nil {
			return err
		}
		n, err := t.exec(`UPDATE api_key SET replaced_by = ?3, expires_at = CASE WHEN expires_at = 0 OR expires_at > ?4 THEN ?4 ELSE expires_at END
			WHERE id = ?1 AND tenant_id = ?2 AND revoked_at = 0 AND replaced_by IS NULL AND (expires_at = 0 OR expires_at > ?5)`,
			old[:], k.Tenant, k.ID[:], row.US(until), row.US(t.now))
		if err != nil {
			return err
		}
		if n == 0 {
			var one int
			replaced, err := t.one(`SELECT 1 FROM api_key WHERE id = ?1 AND tenant_id = ?2 AND revoked_at = 0 AND replaced_by IS NOT NULL`, []any{old[:], k.Tenant}, &one)
			switch {
			case err != nil:
				return err
			case replaced:
				return fault.New(fault.Conflict, "this API key has been rotated already: rotate the one that took its place")
			}
			return fault.New(fault.NotFound, "there is no live key %s", old)
		}
		return t.insertKey(k)
	})
}

// KeyByID reads one key of a tenant; revoked ones too.
func (s *Store) KeyByID(ctx context.Context, tenant int64, id uuid.UUID) (store.Key, error) {
	var k store.Key
	found := false
	err := s.read(ctx, "read key", `SELECT `+row.KeyColumns+` FROM api_key WHERE id = ?1 AND tenant_id = ?2`, func(sc row.Scanner) error {
		found = true
		_, err := row.ScanKey(sc, &k)
		return err
	}, id[:], tenant)
	if err == nil && !found {
		err = fault.New(fault.NotFound, "there is no such key")
	}
	return k, err
}

// NextKeyExpiry is when the first of all tenants' live keys ends; zero when
// none does. Those that were replaced end as they should.
func (s *Store) NextKeyExpiry(ctx context.Context) (time.Time, error) {
	var at int64
	err := s.read(ctx, "read key expiry", `SELECT coalesce(min(expires_at), 0) FROM api_key
		WHERE revoked_at = 0 AND replaced_by IS NULL AND expires_at > ?1`, func(sc row.Scanner) error { return sc.Scan(&at) }, row.US(s.opt.Now()))
	return row.At(at), err
}

// CountKeys counts the default tenant's admin keys that are neither revoked nor
// expired.
func (s *Store) CountKeys(ctx context.Context) (int64, error) {
	var n int64
	err := s.read(ctx, "count keys", `SELECT count(*) FROM api_key WHERE tenant_id = ?2 AND revoked_at = 0 AND (expires_at = 0 OR expires_at > ?1)
		AND ' ' || scopes || ' ' LIKE '% admin %'`, func(sc row.Scanner) error { return sc.Scan(&n) }, row.US(s.opt.Now()), store.DefaultTenant)
	return n, err
}

// TouchKeys notes when keys were last used.
func (s *Store) TouchKeys(ctx context.Context, used map[uuid.UUID]time.Time) error {
	return s.write(ctx, bulk, "touch keys", func(t *tx) error {
		for id, when := range used {
			if _, err := t.exec(`UPDATE api_key SET last_used_at = max(last_used_at, ?2) WHERE id = ?1`, id[:], row.US(when)); err != nil {
				return err
			}
		}
		return nil
	})
}

const sourceColumns = `seq, id, tenant_id, provider, name, token_hash, sealed, created_at, updated_at, deleted_at, received, last_received_at`

// CreateSource stores a source; Forbidden when the tenant may have no more.
func (s *Store) CreateSource(ctx context.Context, r store.Source, traces ...store.Trace) error {
	return s.write(ctx, live, "create source", func(t *tx) error {
		if err := store.Leave(t, r.ID, traces); err != nil {
			return err
		}
		if err := t.roomForSource(r.Tenant); err != nil {
			return err
		}
		_, err := t.exec(`INSERT INTO source (id, tenant_id, provider, name, token_hash, sealed, created_at, updated_at, deleted_at)
			VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, 0)`, r.ID[:], r.Tenant, r.Provider, r.Name, r.TokenHash[:], r.Sealed, row.US(r.CreatedAt))
		return err
	})
}

func (s *Store) source(ctx context.Context, where string, args ...any) (store.Source, error) {
	var r store.Source
	found := false
	err := s.read(ctx, "find source", `SELECT `+sourceColumns+` FROM source WHERE `+where, func(sc row.Scanner) error {
		found = true
		_, err := row.ScanSource(sc, &r)
		return err
	}, args...)
	if err == nil && !found {
		err = fault.New(fault.NotFound, "there is no such source")
	}
	return r, err
}

// SourceByToken finds a source by the SHA-256 of its URL's token, or of one
// that its URL had before; deleted sources and ended tokens too. A token only
// ever moves from the current ones to the former ones, so none is missed
// between the two reads.
func (s *Store) SourceByToken(ctx context.Context, hash [32]byte) (store.Source, error) {
	r, err := s.source(ctx, "token_hash = ?1", hash[:])
	if !fault.Is(err, fault.NotFound) {
		return r, err
	}
	var former store.FormerToken
	var tenant int64
	ferr := s.read(ctx, "find former token", `SELECT `+row.FormerColumns+`, tenant_id FROM former_token WHERE token_hash = ?1`, func(sc row.Scanner) error {
		_, err := row.ScanFormer(sc, &former, &tenant)
		return err
	}, hash[:])
	switch {
	case ferr != nil:
		return store.Source{}, ferr
	case former.EndsAt.IsZero():
		return store.Source{}, err
	}
	r, err = s.source(ctx, "id = ?1 AND tenant_id = ?2", former.Source[:], tenant)
	r.TokenEndsAt = former.EndsAt
	return r, err
}

// FormerTokens lists the former tokens of all tenants that have not ended,
// oldest first, in the way of AllKeys.
func (s *Store) FormerTokens(ctx context.Context, after int64, n int) ([]store.FormerToken, int64, error) {
	var rows []store.FormerToken
	var seqs []int64
	err := s.read(ctx, "list former tokens", `SELECT `+row.FormerColumns+` FROM former_token WHERE ends_at > ?1 AND seq > ?2 ORDER BY seq LIMIT ?3`,
		func(sc row.Scanner) error {
			var f store.FormerToken
			seq, err := row.ScanFormer(sc, &f)
			rows, seqs = append(rows, f), append(seqs, seq)
			return err
		}, row.US(s.opt.Now()), after, n+1)
	rows, next := row.Page(rows, seqs, n)
	return rows, next, err
}

// SourceByID finds a source of any tenant; deleted ones too.
func (s *Store) SourceByID(ctx context.Context, id uuid.UUID) (store.Source, error) {
	return s.source(ctx, "id = ?1", id[:])
}

// Source reads one source of a tenant that is not deleted.
func (s *Store) Source(ctx context.Context, tenant int64, id uuid.UUID) (store.Source, error) {
	return s.source(ctx, "id = ?1 AND tenant_id = ?2 AND deleted_at = 0", id[:], tenant)
}

// Sources lists a tenant's sources that are not deleted, newest first.
func (s *Store) Sources(ctx context.Context, tenant int64, p store.Page) ([]store.Source, int64, error) {
	var rows []store.Source
	var seqs []int64
	err := s.read(ctx, "list sources", `SELECT `+sourceColumns+` FROM source
		WHERE tenant_id = ?1 AND deleted_at = 0 AND (?2 = 0 OR seq < ?2) ORDER BY seq DESC LIMIT ?3`, func(sc row.Scanner) error {
		var r store.Source
		seq, err := row.ScanSource(sc, &r)
		rows, seqs = append(rows, r), append(seqs, seq)
		return err
	}, tenant, p.After, p.Limit+1)
	rows, next := row.Page(rows, seqs, p.Limit)
	return rows, next, err
}

// AllSources lists the sources that are not deleted, of all tenants that are
// not suspended, oldest first, in the way of AllKeys.
func (s *Store) AllSources(ctx context.Context, after int64, n int) ([]store.Source, int64, error) {
	var rows []store.Source
	var seqs []int64
	err := s.read(ctx, "list all sources", `SELECT `+sourceColumns+` FROM source WHERE deleted_at = 0 AND seq > ?1
		AND tenant_id NOT IN (SELECT id FROM tenant WHERE suspended_at > 0) ORDER BY seq LIMIT ?2`,
		func(sc row.Scanner) error {
			var r store.Source
			seq, err := row.ScanSource(sc, &r)
			rows, seqs = append(rows, r), append(seqs, seq)
			return err
		}, after, n+1)
	rows, next := row.Page(rows, seqs, n)
	return rows, next, err
}

// UpdateSource stores a source's name, sealed part and token anew, if it still
// is as it was read, else it answers a Conflict. When the token is another, the
// one before works until ends, and older ones no longer than that.
func (s *Store) UpdateSource(ctx context.Context, was, r store.Source, ends time.Time, traces ...store.Trace) error {
	return s.write(ctx, live, "change source", func(t *tx) error {
		n, err := t.exec(`UPDATE source SET name = ?3, sealed = ?4, token_hash = ?5, updated_at = ?6
			WHERE id = ?1 AND tenant_id = ?2 AND deleted_at = 0 AND sealed = ?7 AND token_hash = ?8`,
			r.ID[:], r.Tenant, r.Name, r.Sealed, r.TokenHash[:], row.US(t.now), was.Sealed, was.TokenHash[:])
		switch {
		case err != nil:
			return err
		case n == 0:
			return t.whyUnchanged(r)
		}
		if r.TokenHash != was.TokenHash {
			if err := t.leaveToken(was, r, ends); err != nil {
				return err
			}
		}
		return store.Leave(t, r.ID, traces)
	})
}

// leaveToken keeps the token that a source had before, until it ends.
func (t *tx) leaveToken(was, r store.Source, ends time.Time) error {
	if _, err := t.exec(`DELETE FROM former_token WHERE source_id = ?1 AND tenant_id = ?2 AND ends_at < ?3`,
		r.ID[:], r.Tenant, row.US(t.now.Add(-store.FormerTokenKept))); err != nil {
		return err
	}
	if _, err := t.exec(`UPDATE former_token SET ends_at = ?3 WHERE source_id = ?1 AND tenant_id = ?2 AND ends_at > ?3`,
		r.ID[:], r.Tenant, row.US(ends)); err != nil {
		return err
	}
	_, err := t.exec(`INSERT INTO former_token (token_hash, tenant_id, source_id, ends_at) VALUES (?1, ?2, ?3, ?4)`,
		was.TokenHash[:], r.Tenant, r.ID[:], row.US(ends))
	return err
}

// whyUnchanged tells a source that is gone from one that has been changed.
func (t *tx) whyUnchanged(r store.Source) error {
	var one int
	there, err := t.one(`SELECT 1 FROM source WHERE id = ?1 AND tenant_id = ?2 AND deleted_at = 0`, []any{r.ID[:], r.Tenant}, &one)
	switch {
	case err != nil:
		return err
	case there:
		return fault.New(fault.Conflict, "the source %s was changed meanwhile", r.ID)
	}
	return fault.New(fault.NotFound, "there is no source %s", r.ID)
}

// DeleteSource hides a source; its events stay.
func (s *Store) DeleteSource(ctx context.Context, tenant int64, id uuid.UUID, when time.Time, traces ...store.Trace) error {
	return s.write(ctx, live, "delete source", func(t *tx) error {
		n, err := t.exec(`UPDATE source SET deleted_at = ?3 WHERE id = ?1 AND tenant_id = ?2 AND deleted_at = 0`, id[:], tenant, row.US(when))
		if err == nil && n == 0 {
			err = fault.New(fault.NotFound, "there is no source %s", id)
		}
		if err != nil {
			return err
		}
		return store.Leave(t, id, traces)
	})
}

// Setting reads a value that the server keeps for itself.
func (s *Store) Setting(ctx context.Context, name string) ([]byte, error) {
	var v []byte
	found := false
	err := s.read(ctx, "read setting", `SELECT value FROM setting WHERE name = ?1`, func(sc row.Scanner) error {
		found = true
		return sc.Scan(&v)
	}, name)
	if err == nil && !found {
		err = fault.New(fault.NotFound, "there is no setting %s", name)
	}
	return v, err
}

// PutSetting stores a value that the server keeps for itself.
func (s *Store) PutSetting(ctx context.Context, name string, value []byte) error {
	return s.write(ctx, live, "write setting", func(t *tx) error {
		_, err := t.exec(`INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value`, name, value)
		return err
	})
}
