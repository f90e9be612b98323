package sqlite

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Enroll enrolls contacts in an instance; each takes in, in the same
// transaction, the events that waited for it. A contact that is enrolled
// already is a conflict with the existing id, or, with merge, gains the
// references. Results come in the order of the contacts.
func (s *Store) Enroll(ctx context.Context, tenant int64, instance uuid.UUID, in []campaign.Enrollment, merge bool, idem store.Idempotency) ([]store.Enrolled, error) {
	results := make([]store.Enrolled, 0, len(in))
	p := live
	if len(in) > 1 {
		p = bulk
	}
	for start := 0; start < len(in); start += store.EnrollChunk {
		part := in[start:min(start+store.EnrollChunk, len(in))]
		var done []store.Enrolled
		err := s.write(ctx, p, "enroll", func(t *tx) error {
			done = done[:0]
			if err := t.openInstance(tenant, instance); err != nil {
				return err
			}
			for i := range part {
				d, err := t.enroll(tenant, instance, &part[i], merge, idem)
				if err != nil {
					return err
				}
				done = append(done, d)
			}
			return nil
		})
		if err != nil && len(in) > 1 && fault.Is(err, fault.Data) {
			// One contact that the database refuses must not fail its neighbours.
			done, err = s.enrollAlone(ctx, tenant, instance, part, merge)
		}
		if err != nil {
			if len(in) == 1 || start == 0 {
				return results, err
			}
			for range in[start:] {
				results = append(results, store.Enrolled{Err: err})
			}
			return results, nil
		}
		results = append(results, done...)
	}
	return results, nil
}

func (s *Store) enrollAlone(ctx context.Context, tenant int64, instance uuid.UUID, part []campaign.Enrollment, merge bool) ([]store.Enrolled, error) {
	all := make([]store.Enrolled, len(part))
	for i := range part {
		err := s.write(ctx, bulk, "enroll", func(t *tx) error {
			err := t.openInstance(tenant, instance)
			if err == nil {
				all[i], err = t.enroll(tenant, instance, &part[i], merge, store.Idempotency{})
			}
			return err
		})
		if err != nil {
			if !fault.Is(err, fault.Data) {
				return nil, err
			}
			all[i] = store.Enrolled{Err: err}
		}
	}
	return all, nil
}

func (t *tx) openInstance(tenant int64, id uuid.UUID) error {
	var status campaign.InstanceStatus
	ok, err := t.one(`SELECT status FROM instance WHERE id = ?1 AND tenant_id = ?2`, []any{id[:], tenant}, &status)
	if err != nil {
		return err
	}
	if !ok {
		return row.NoInstance(id)
	}
	if status == campaign.Completed {
		return fault.New(fault.Conflict, "the instance is completed and takes no more enrollments")
	}
	return nil
}

func (t *tx) enroll(tenant int64, instance uuid.UUID, e *campaign.Enrollment, merge bool, idem store.Idempotency) (store.Enrolled, error) {
	id, note, done, err := t.Idempotent(tenant, idem)
	if err != nil {
		return store.Enrolled{}, err
	}
	if done {
		d := store.Enrolled{ID: id}
		if _, err := fmt.Sscanf(note, "%d %d", &d.Adopted, &d.Adopting); err != nil {
			return d, fmt.Errorf("read idempotency note: %w", err)
		}
		return d, nil
	}
	contact, address, profile := contactKeys(e)
	existing, err := t.enrolledAs(tenant, instance, contact, address, profile)
	if err != nil {
		return store.Enrolled{}, err
	}
	if existing != uuid.Nil {
		if !merge {
			return store.Enrolled{ID: existing, Conflict: true}, nil
		}
		d, err := t.addRefs(tenant, existing, instance, e.Refs)
		d.Merged = true
		return d, err
	}
	if gone, err := t.erased(tenant, store.EnrollKeys(e)); err != nil {
		return store.Enrolled{}, err
	} else if gone {
		return store.Enrolled{Err: store.ErrErased()}, nil
	}
	d := store.Enrolled{ID: row.NewID()}
	if _, err := t.exec(`INSERT INTO enrollment (id, tenant_id, instance_id, contact_key, address_key, profile_key, contact_id, email, linkedin_url, metadata, status, created_at, updated_at)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 'active', ?11, ?11)`,
		d.ID[:], tenant, instance[:], contact, address, profile, e.ContactID, e.Email, e.LinkedInURL, e.Metadata, row.US(t.now)); err != nil {
		return d, err
	}
	rows := refRows(tenant, d.ID, instance, e.Refs)
	if e.Email != "" {
		rows = append(rows, refRow{tenant, event.AddressKey(e.Email), d.ID, instance, event.Ref{Kind: "address"}})
	}
	if err := t.ownKeys(rows); err != nil {
		return d, err
	}
	d.Adopted, d.Adopting, err = t.adopt(tenantKeysOf(rows))
	if err != nil {
		return d, err
	}
	return d, t.KeepIdempotent(tenant, idem, d.ID, fmt.Sprintf("%d %d", d.Adopted, d.Adopting))
}

// contactKeys are the columns that make a contact unique in an instance; nil where not told.
func contactKeys(e *campaign.Enrollment) (contact, address, profile any) {
	if e.ContactID != "" {
		h := event.HashOf("contact", e.ContactID)
		contact = h[:]
	}
	if e.Email != "" {
		h := event.AddressKey(e.Email)
		address = h[:]
	}
	if e.LinkedInURL != "" {
		h := event.HashOf("profile", campaign.NormalProfile(e.LinkedInURL))
		profile = h[:]
	}
	return contact, address, profile
}

func (t *tx) enrolledAs(tenant int64, instance uuid.UUID, contact, address, profile any) (uuid.UUID, error) {
	var id []byte
	_, err := t.one(`SELECT id FROM enrollment WHERE instance_id = ?1 AND tenant_id = ?5 AND contact_key = ?2
		UNION ALL SELECT id FROM enrollment WHERE instance_id = ?1 AND tenant_id = ?5 AND address_key = ?3
		UNION ALL SELECT id FROM enrollment WHERE instance_id = ?1 AND tenant_id = ?5 AND profile_key = ?4 LIMIT 1`,
		[]any{instance[:], contact, address, profile, tenant}, &id)
	return row.ID(id), err
}

type refRow struct {
	tenant     int64
	key        event.Hash
	enrollment uuid.UUID
	instance   uuid.UUID
	ref        event.Ref
}

func refRows(tenant int64, id, instance uuid.UUID, refs []event.Ref) []refRow {
	rows := make([]refRow, 0, len(refs)+1)
	seen := make(map[event.Hash]bool, len(refs))
	for _, r := range refs {
		k := r.Key().Hash
		if !seen[k] {
			seen[k] = true
			rows = append(rows, refRow{tenant, k, id, instance, r})
		}
	}
	return rows
}

func tenantKeysOf(rows []refRow) []store.TenantKey {
	keys := make([]store.TenantKey, len(rows))
	for i, r := range rows {
		keys[i] = store.TenantKey{Tenant: r.tenant, Key: r.key}
	}
	return keys
}

func (t *tx) ownKeys(rows []refRow) error {
	if len(rows) == 0 {
		return nil
	}
	// The first two owners of a key have nth 0 and 1, all further ones 2.
	_, err := t.exec(`INSERT INTO match_key (tenant_id, key, nth, enrollment_id, instance_id, provider, kind, value)
		SELECT b.tenant_id, b.key, CASE
			WHEN NOT EXISTS (SELECT 1 FROM match_key m WHERE m.tenant_id = b.tenant_id AND m.key = b.key AND m.nth = 0) THEN 0
			WHEN NOT EXISTS (SELECT 1 FROM match_key m WHERE m.tenant_id = b.tenant_id AND m.key = b.key AND m.nth = 1) THEN 1
			ELSE 2 END, b.enrollment_id, b.instance_id, b.provider, b.kind, b.value
		FROM b_ref(?1) b WHERE NOT EXISTS (SELECT 1 FROM match_key m WHERE m.tenant_id = b.tenant_id AND m.key = b.key
			AND m.nth IN (0, 1, 2) AND m.enrollment_id = b.enrollment_id)`,
		bind(rows, func(c sqlite3.Context, r *refRow, col int) {
			switch col {
			case 0:
				c.ResultInt64(r.tenant)
			case 1:
				c.ResultBlob(r.key[:])
			case 2:
				c.ResultBlob(r.enrollment[:])
			case 3:
				c.ResultBlob(r.instance[:])
			case 4:
				c.ResultText(r.ref.Provider)
			case 5:
				c.ResultText(string(r.ref.Kind))
			case 6:
				c.ResultText(r.ref.Value)
			}
		}))
	return err
}

func (t *tx) addRefs(tenant int64, id, instance uuid.UUID, refs []event.Ref) (store.Enrolled, error) {
	d := store.Enrolled{ID: id}
	rows := refRows(tenant, id, instance, refs)
	if err := t.ownKeys(rows); err != nil {
		return d, err
	}
	var err error
	d.Adopted, d.Adopting, err = t.adopt(tenantKeysOf(rows))
	return d, err
}

// AddRefs gives an enrollment more references and takes in what waited for them.
func (s *Store) AddRefs(ctx context.Context, tenant int64, id uuid.UUID, refs []event.Ref) (store.Enrolled, error) {
	var d store.Enrolled
	err := s.write(ctx, live, "add references", func(t *tx) error {
		var instance []byte
		ok, err := t.one(`SELECT instance_id FROM enrollment WHERE id = ?1 AND tenant_id = ?2`, []any{id[:], tenant}, &instance)
		if err != nil {
			return err
		}
		if !ok {
			return row.NoEnrollment(id)
		}
		if gone, err := t.erased(tenant, []event.Hash{event.EnrollmentKey(id)}); err != nil {
			return err
		} else if gone {
			return store.ErrErased()
		}
		d, err = t.addRefs(tenant, id, row.ID(instance), refs)
		return err
	})
	return d, err
}

// Enrollment reads one enrollment of a tenant with its references.
func (s *Store) Enrollment(ctx context.Context, tenant int64, id uuid.UUID) (campaign.Enrollment, error) {
	var e campaign.Enrollment
	found := false
	err := s.read(ctx, "read enrollment", `SELECT `+row.EnrollmentColumns+` FROM enrollment WHERE id = ?1 AND tenant_id = ?2`, func(sc row.Scanner) error {
		found = true
		_, err := row.ScanEnrollment(sc, &e)
		return err
	}, id[:], tenant)
	if err != nil {
		return e, err
	}
	if !found {
		return e, row.NoEnrollment(id)
	}
	return e, s.refs(ctx, tenant, map[uuid.UUID]*campaign.Enrollment{id: &e})
}

func (s *Store) refs(ctx context.Context, tenant int64, of map[uuid.UUID]*campaign.Enrollment) error {
	ids := make([]uuid.UUID, 0, len(of))
	for id := range of {
		ids = append(ids, id)
	}
	return s.read(ctx, "read references", `SELECT m.enrollment_id, m.provider, m.kind, m.value FROM b_id(?1) b
		CROSS JOIN match_key m ON m.enrollment_id = b.id AND m.tenant_id = b.tenant_id
		WHERE m.kind <> 'address' ORDER BY m.provider, m.kind, m.value`, func(sc row.Scanner) error {
		var id []byte
		var r event.Ref
		if err := sc.Scan(&id, &r.Provider, &r.Kind, &r.Value); err != nil {
			return err
		}
		e := of[row.ID(id)]
		e.Refs = append(e.Refs, r)
		return nil
	}, bind(ids, func(c sqlite3.Context, id *uuid.UUID, col int) {
		switch col {
		case 0:
			c.ResultInt64(tenant)
		case 1:
			c.ResultBlob(id[:])
		}
	}))
}

// Enrollments lists an instance's enrollments, newest first.
func (s *Store) Enrollments(ctx context.Context, tenant int64, instance uuid.UUID, f store.EnrollmentFilter, p store.Page) ([]campaign.Enrollment, int64, error) {
	if _, err := s.Instance(ctx, tenant, instance); err != nil {
		return nil, 0, err
	}
	var address any
	if f.Email != "" {
		h := event.AddressKey(f.Email)
		address = h[:]
	}
	var rows []campaign.Enrollment
	var seqs []int64
	err := s.read(ctx, "list enrollments", `SELECT `+row.EnrollmentColumns+` FROM enrollment
		WHERE instance_id = ?1 AND tenant_id = ?2 AND (?3 = 0 OR seq < ?3) AND (?4 = '' OR status = ?4) AND (?5 IS NULL OR address_key = ?5)
		ORDER BY seq DESC LIMIT ?6`, func(sc row.Scanner) error {
		var e campaign.Enrollment
		seq, err := row.ScanEnrollment(sc, &e)
		rows, seqs = append(rows, e), append(seqs, seq)
		return err
	}, instance[:], tenant, p.After, f.Status, address, p.Limit+1)
	if err != nil {
		return nil, 0, err
	}
	rows, next := row.Page(rows, seqs, p.Limit)
	of := make(map[uuid.UUID]*campaign.Enrollment, len(rows))
	for i := range rows {
		of[rows[i].ID] = &rows[i]
	}
	return rows, next, s.refs(ctx, tenant, of)
}

// PatchEnrollment changes who an enrollment is about. A new address takes in
// what waited for it; events that were tied before stay.
func (s *Store) PatchEnrollment(ctx context.Context, tenant int64, id uuid.UUID, patch store.EnrollmentPatch) (campaign.Enrollment, store.Enrolled, error) {
	var d store.Enrolled
	err := s.write(ctx, live, "change enrollment", func(t *tx) error {
		var e campaign.Enrollment
		found := false
		err := t.query(`SELECT `+row.EnrollmentColumns+` FROM enrollment WHERE id = ?1 AND tenant_id = ?2`, func(sc row.Scanner) error {
			found = true
			_, err := row.ScanEnrollment(sc, &e)
			return err
		}, id[:], tenant)
		if err != nil {
			return err
		}
		if !found {
			return row.NoEnrollment(id)
		}
		before := e.Email
		if patch.ContactID != nil {
			e.ContactID = *patch.ContactID
		}
		if patch.Email != nil {
			e.Email = *patch.Email
		}
		if patch.LinkedInURL != nil {
			e.LinkedInURL = *patch.LinkedInURL
		}
		if patch.Metadata != nil {
			e.Metadata = patch.Metadata
		}
		if gone, err := t.erased(tenant, append(store.EnrollKeys(&e), event.EnrollmentKey(id))); err != nil {
			return err
		} else if gone {
			return store.ErrErased()
		}
		if f := e.Validate("body"); f != nil {
			return f
		}
		contact, address, profile := contactKeys(&e)
		_, err = t.exec(`UPDATE enrollment SET contact_key = ?3, address_key = ?4, profile_key = ?5, contact_id = ?6, email = ?7, linkedin_url = ?8, metadata = ?9, updated_at = ?10
			WHERE id = ?1 AND tenant_id = ?2`, id[:], tenant, contact, address, profile, e.ContactID, e.Email, e.LinkedInURL, e.Metadata, row.US(t.now))
		if errors.Is(err, sqlite3.CONSTRAINT_UNIQUE) {
			return fault.New(fault.Conflict, "another enrollment of the instance has this contact")
		}
		if err != nil || event.NormalAddress(before) == event.NormalAddress(e.Email) {
			return err
		}
		return t.readdress(&e, before, &d)
	})
	if err != nil {
		return campaign.Enrollment{}, d, err
	}
	e, err := s.Enrollment(ctx, tenant, id)
	return e, d, err
}

// readdress moves an enrollment's address key. What waits for the new address
// may belong here now; what waits for the old one may be ambiguous no longer.
func (t *tx) readdress(e *campaign.Enrollment, from string, d *store.Enrolled) error {
	var keys []store.TenantKey
	if from != "" {
		old := event.AddressKey(from)
		if err := t.disown(e.Tenant, old, e.ID); err != nil {
			return err
		}
		keys = append(keys, store.TenantKey{Tenant: e.Tenant, Key: old})
	}
	if e.Email != "" {
		k := event.AddressKey(e.Email)
		if err := t.ownKeys([]refRow{{e.Tenant, k, e.ID, e.InstanceID, event.Ref{Kind: "address"}}}); err != nil {
			return err
		}
		keys = append(keys, store.TenantKey{Tenant: e.Tenant, Key: k})
	}
	var err error
	d.Adopted, d.Adopting, err = t.adopt(keys)
	return err
}

// disown takes a key from an enrollment; a further owner moves up into its place.
func (t *tx) disown(tenant int64, key event.Hash, enrollment uuid.UUID) error {
	var nth int
	found := false
	if err := t.query(`DELETE FROM match_key WHERE tenant_id = ?1 AND key = ?2 AND nth IN (0, 1, 2) AND enrollment_id = ?3 RETURNING nth`,
		func(sc row.Scanner) error {
			found = true
			return sc.Scan(&nth)
		}, tenant, key[:], enrollment[:]); err != nil || !found {
		return err
	}
	for ; nth < 2; nth++ {
		if _, err := t.exec(`UPDATE match_key SET nth = ?3 WHERE tenant_id = ?1 AND key = ?2 AND nth = ?3 + 1
			AND enrollment_id = (SELECT min(enrollment_id) FROM match_key WHERE tenant_id = ?1 AND key = ?2 AND nth = ?3 + 1)`,
			tenant, key[:], nth); err != nil {
			return err
		}
	}
	return nil
}
