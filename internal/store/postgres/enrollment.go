package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

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
	for start := 0; start < len(in); start += store.EnrollChunk {
		part := in[start:min(start+store.EnrollChunk, len(in))]
		done, err := s.enrollPart(ctx, tenant, instance, part, merge, idem)
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

func (s *Store) enrollPart(ctx context.Context, tenant int64, instance uuid.UUID, part []campaign.Enrollment, merge bool, idem store.Idempotency) ([]store.Enrolled, error) {
	var done []store.Enrolled
	err := s.write(ctx, "enroll", func(t *tx) error {
		done = make([]store.Enrolled, 0, len(part))
		if err := t.openInstance(tenant, instance); err != nil {
			return err
		}
		id, note, again, err := t.Idempotent(tenant, idem)
		if err != nil {
			return err
		}
		if again {
			d, err := enrolledBefore(id, note)
			done = append(done, d)
			return err
		}
		var locks []event.Hash
		for i := range part {
			locks = append(locks, locksOf(instance, &part[i])...)
		}
		t.lockKeys(tenant, locks)
		for i := range part {
			d, err := t.enroll(tenant, instance, &part[i], merge)
			if err != nil {
				return err
			}
			done = append(done, d)
		}
		if len(part) == 1 && !done[0].Conflict && !done[0].Merged && done[0].Err == nil {
			return t.KeepIdempotent(tenant, idem, done[0].ID, fmt.Sprintf("%d %d", done[0].Adopted, done[0].Adopting))
		}
		return nil
	})
	return done, err
}

// enrolledBefore is what a request with the same key was answered.
func enrolledBefore(id uuid.UUID, note string) (store.Enrolled, error) {
	d := store.Enrolled{ID: id}
	if _, err := fmt.Sscanf(note, "%d %d", &d.Adopted, &d.Adopting); err != nil {
		return d, fmt.Errorf("read idempotency note: %w", err)
	}
	return d, nil
}

func (s *Store) enrollAlone(ctx context.Context, tenant int64, instance uuid.UUID, part []campaign.Enrollment, merge bool) ([]store.Enrolled, error) {
	all := make([]store.Enrolled, len(part))
	for i := range part {
		err := s.write(ctx, "enroll", func(t *tx) error {
			t.lockKeys(tenant, locksOf(instance, &part[i]))
			var err error
			all[i], err = t.enroll(tenant, instance, &part[i], merge)
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
	ok, err := t.one(`SELECT status FROM instance WHERE id = $1 AND tenant_id = $2`, []any{id[:], tenant}, &status)
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

// enroll enrolls one contact, whose keys are locked.
func (t *tx) enroll(tenant int64, instance uuid.UUID, e *campaign.Enrollment, merge bool) (store.Enrolled, error) {
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
	t.later(`INSERT INTO enrollment (id, tenant_id, instance_id, contact_key, address_key, profile_key, contact_id, email, linkedin_url, metadata, status, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'active', $11, $11)`,
		d.ID[:], tenant, instance[:], contact, address, profile, e.ContactID, e.Email, e.LinkedInURL, e.Metadata, row.US(t.now))
	rows := refRows(tenant, d.ID, instance, e.Refs)
	if e.Email != "" {
		rows = append(rows, refRow{tenant, event.AddressKey(e.Email), d.ID, instance, event.Ref{Kind: "address"}})
	}
	t.ownKeys(rows)
	d.Adopted, d.Adopting, err = t.adopt(keysOf(rows))
	return d, err
}

// contactKeys are the columns that make a contact unique in an instance; nil where not told.
func contactKeys(e *campaign.Enrollment) (contact, address, profile []byte) {
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

// locksOf are the keys that enrolling a contact locks: those that events are
// matched by, and those that it is unique by in its instance.
func locksOf(instance uuid.UUID, e *campaign.Enrollment) []event.Hash {
	keys := make([]event.Hash, 0, 3+len(e.Refs))
	contact, _, profile := contactKeys(e)
	for _, k := range [][]byte{contact, profile} {
		if k != nil {
			keys = append(keys, event.HashOf("in instance", instance.String(), string(k)))
		}
	}
	if e.Email != "" {
		keys = append(keys, event.AddressKey(e.Email))
	}
	for _, r := range e.Refs {
		keys = append(keys, r.Key().Hash)
	}
	return keys
}

func (t *tx) enrolledAs(tenant int64, instance uuid.UUID, contact, address, profile []byte) (uuid.UUID, error) {
	var id []byte
	_, err := t.one(`SELECT id FROM enrollment WHERE instance_id = $1 AND tenant_id = $5 AND contact_key = $2::bytea
		UNION ALL SELECT id FROM enrollment WHERE instance_id = $1 AND tenant_id = $5 AND address_key = $3::bytea
		UNION ALL SELECT id FROM enrollment WHERE instance_id = $1 AND tenant_id = $5 AND profile_key = $4::bytea LIMIT 1`,
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

func keysOf(rows []refRow) []store.TenantKey {
	return column(rows, func(r refRow) store.TenantKey { return store.TenantKey{Tenant: r.tenant, Key: r.key} })
}

// ownKeys makes an enrollment an owner of keys, which are locked. The first two
// owners of a key have nth 0 and 1, all further ones 2.
func (t *tx) ownKeys(rows []refRow) {
	if len(rows) == 0 {
		return
	}
	t.later(`INSERT INTO match_key (tenant_id, key, nth, enrollment_id, instance_id, provider, kind, value)
		SELECT b.tenant_id, b.key, CASE
			WHEN NOT EXISTS (SELECT 1 FROM match_key m WHERE m.tenant_id = b.tenant_id AND m.key = b.key AND m.nth = 0) THEN 0
			WHEN NOT EXISTS (SELECT 1 FROM match_key m WHERE m.tenant_id = b.tenant_id AND m.key = b.key AND m.nth = 1) THEN 1
			ELSE 2 END, b.enrollment_id, b.instance_id, b.provider, b.kind, b.value
		FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bytea[], $5::text[], $6::text[], $7::text[])
			AS b(tenant_id, key, enrollment_id, instance_id, provider, kind, value)
		WHERE NOT EXISTS (SELECT 1 FROM match_key m WHERE m.tenant_id = b.tenant_id AND m.key = b.key
			AND m.nth IN (0, 1, 2) AND m.enrollment_id = b.enrollment_id)`,
		column(rows, func(r refRow) int64 { return r.tenant }), column(rows, func(r refRow) []byte { return r.key[:] }),
		column(rows, func(r refRow) []byte { return r.enrollment[:] }), column(rows, func(r refRow) []byte { return r.instance[:] }),
		column(rows, func(r refRow) string { return r.ref.Provider }), column(rows, func(r refRow) string { return string(r.ref.Kind) }),
		column(rows, func(r refRow) string { return r.ref.Value }))
}

func (t *tx) addRefs(tenant int64, id, instance uuid.UUID, refs []event.Ref) (store.Enrolled, error) {
	d := store.Enrolled{ID: id}
	rows := refRows(tenant, id, instance, refs)
	t.ownKeys(rows)
	var err error
	d.Adopted, d.Adopting, err = t.adopt(keysOf(rows))
	return d, err
}

// AddRefs gives an enrollment more references and takes in what waited for them.
func (s *Store) AddRefs(ctx context.Context, tenant int64, id uuid.UUID, refs []event.Ref) (store.Enrolled, error) {
	var d store.Enrolled
	err := s.write(ctx, "add references", func(t *tx) error {
		t.lockKeys(tenant, locksOf(uuid.Nil, &campaign.Enrollment{Refs: refs}))
		var instance []byte
		ok, err := t.one(`SELECT instance_id FROM enrollment WHERE id = $1 AND tenant_id = $2`, []any{id[:], tenant}, &instance)
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
	err := s.read(ctx, "read enrollment", `SELECT `+row.EnrollmentColumns+` FROM enrollment WHERE id = $1 AND tenant_id = $2`, func(sc row.Scanner) error {
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
	ids := make([][]byte, 0, len(of))
	for id := range of {
		ids = append(ids, id[:])
	}
	return s.read(ctx, "read references", `SELECT m.enrollment_id, m.provider, m.kind, m.value FROM match_key m
		WHERE m.enrollment_id = ANY ($1::bytea[]) AND m.tenant_id = $2 AND m.kind <> 'address'
		ORDER BY m.provider, m.kind, m.value`, func(sc row.Scanner) error {
		var id []byte
		var r event.Ref
		if err := sc.Scan(&id, &r.Provider, &r.Kind, &r.Value); err != nil {
			return err
		}
		e := of[row.ID(id)]
		e.Refs = append(e.Refs, r)
		return nil
	}, ids, tenant)
}

// Enrollments lists an instance's enrollments, newest first.
func (s *Store) Enrollments(ctx context.Context, tenant int64, instance uuid.UUID, f store.EnrollmentFilter, p store.Page) ([]campaign.Enrollment, int64, error) {
	if _, err := s.Instance(ctx, tenant, instance); err != nil {
		return nil, 0, err
	}
	var c conditions
	c.add("instance_id = ? AND tenant_id = ? AND seq < ?", instance[:], tenant, before(p))
	if f.Status != "" {
		c.text("status = ?", f.Status)
	}
	if f.Email != "" {
		h := event.AddressKey(f.Email)
		c.add("address_key = ?", h[:])
	}
	var rows []campaign.Enrollment
	var seqs []int64
	query := c.bind(`SELECT `+row.EnrollmentColumns+` FROM enrollment WHERE `+c.String()+` ORDER BY seq DESC LIMIT ?`, p.Limit+1)
	err := s.read(ctx, "list enrollments", query, func(sc row.Scanner) error {
		var e campaign.Enrollment
		seq, err := row.ScanEnrollment(sc, &e)
		rows, seqs = append(rows, e), append(seqs, seq)
		return err
	}, c.args...)
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
	err := s.write(ctx, "change enrollment", func(t *tx) error {
		d = store.Enrolled{}
		e, err := t.holdEnrollment(tenant, id, patch.Email)
		if err != nil {
			return err
		}
		from := e.Email
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
		_, err = t.exec(`UPDATE enrollment SET contact_key = $3, address_key = $4, profile_key = $5, contact_id = $6, email = $7, linkedin_url = $8, metadata = $9, updated_at = $10
			WHERE id = $1 AND tenant_id = $2`, id[:], tenant, contact, address, profile, e.ContactID, e.Email, e.LinkedInURL, e.Metadata, row.US(t.now))
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "23505" {
			return fault.New(fault.Conflict, "another enrollment of the instance has this contact")
		}
		if err != nil || event.NormalAddress(from) == event.NormalAddress(e.Email) {
			return err
		}
		return t.readdress(&e, from, &d)
	})
	if err != nil {
		return campaign.Enrollment{}, d, err
	}
	e, err := s.Enrollment(ctx, tenant, id)
	return e, d, err
}

// holdEnrollment locks an enrollment, and before it, as everybody does, the
// addresses it leaves and goes to.
func (t *tx) holdEnrollment(tenant int64, id uuid.UUID, to *string) (campaign.Enrollment, error) {
	var e campaign.Enrollment
	read := func(lock string) (found bool, err error) {
		err = t.query(`SELECT `+row.EnrollmentColumns+` FROM enrollment WHERE id = $1 AND tenant_id = $2`+lock, func(sc row.Scanner) error {
			found = true
			_, err := row.ScanEnrollment(sc, &e)
			return err
		}, id[:], tenant)
		return found, err
	}
	found, err := read("")
	if err != nil {
		return e, err
	}
	if !found {
		return e, row.NoEnrollment(id)
	}
	if to != nil {
		email := e.Email
		var keys []event.Hash
		for _, a := range []string{email, *to} {
			if a != "" {
				keys = append(keys, event.AddressKey(a))
			}
		}
		t.lockKeys(tenant, keys)
		if _, err := read(" FOR UPDATE"); err != nil {
			return e, err
		}
		if e.Email != email {
			return e, errChanged
		}
		return e, nil
	}
	_, err = read(" FOR UPDATE")
	return e, err
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
		t.ownKeys([]refRow{{e.Tenant, k, e.ID, e.InstanceID, event.Ref{Kind: "address"}}})
		keys = append(keys, store.TenantKey{Tenant: e.Tenant, Key: k})
	}
	var err error
	d.Adopted, d.Adopting, err = t.adopt(keys)
	return err
}

// disown takes a key, which is locked, from an enrollment; a further owner
// moves up into its place.
func (t *tx) disown(tenant int64, key event.Hash, enrollment uuid.UUID) error {
	var nth int
	found, err := t.one(`DELETE FROM match_key WHERE tenant_id = $1 AND key = $2 AND nth IN (0, 1, 2) AND enrollment_id = $3 RETURNING nth`,
		[]any{tenant, key[:], enrollment[:]}, &nth)
	if err != nil || !found {
		return err
	}
	for ; nth < 2; nth++ {
		t.later(`UPDATE match_key SET nth = $3 WHERE tenant_id = $1 AND key = $2 AND nth = $3 + 1
			AND enrollment_id = (SELECT enrollment_id FROM match_key WHERE tenant_id = $1 AND key = $2 AND nth = $3 + 1 ORDER BY enrollment_id LIMIT 1)`,
			tenant, key[:], nth)
	}
	return nil
}
