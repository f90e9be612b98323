package postgres

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Unlock gives the store the key that the tombstones of erased contacts are
// made with. It must be called before the first event is committed.
func (s *Store) Unlock(t store.Tombstones) { s.tombs = t }

// StartErasure notes that a contact is to be erased, and at once takes its
// enrollments and its place on the suppression list out of the clear: what
// begins to be committed from now on keeps nothing of it. NextErasure does the
// rest, on whichever replica, also after a restart.
func (s *Store) StartErasure(ctx context.Context, tenant int64, c store.Contact, actor string) (store.Erasure, error) {
	e := store.Erasure{ID: row.NewID(), Status: "running"}
	err := s.write(ctx, "start erasure", func(t *tx) error {
		task := store.NewEraseTask(c)
		n, _, err := t.eraseContact(tenant, &task)
		if err != nil {
			return err
		}
		e.Enrollments, e.CreatedAt, e.UpdatedAt = n, t.now, t.now
		raw, err := row.EncodeTask(&task)
		if err != nil {
			return err
		}
		t.later(`INSERT INTO erasure (id, tenant_id, status, task, phase, item, after_seq, since_xid, enrollments, created_at, updated_at)
			VALUES ($1, $2, 'running', $3, $4, 0, 0, 0, $5, $6, $6)`, e.ID[:], tenant, raw, store.ErasePhaseContact, n, row.US(t.now))
		return t.Audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "contact.erase", Subject: e.ID.String()})
	})
	return e, err
}

// Erasure reads how far an erasure is.
func (s *Store) Erasure(ctx context.Context, tenant int64, id uuid.UUID) (store.Erasure, error) {
	e := store.Erasure{ID: id}
	found := false
	err := s.read(ctx, "read erasure", `SELECT status, enrollments, events, letters, created_at, updated_at FROM erasure WHERE id = $1 AND tenant_id = $2`,
		func(sc row.Scanner) error {
			found = true
			return row.ScanErasure(sc, &e)
		}, id[:], tenant)
	if err == nil && !found {
		err = row.NoErasure(id)
	}
	return e, err
}

// eraseContact takes the contact's enrollments and its place on the
// suppression list out of the clear, and writes the tombstones. The task gains
// what it finds. It may be repeated: n is how many enrollments it changed, and
// fresh tells whether it wrote a tombstone that was not there.
func (t *tx) eraseContact(tenant int64, task *store.EraseTask) (n int64, fresh bool, err error) {
	t.lockKeys(tenant, task.Keys())
	if err := t.findContact(tenant, task); err != nil {
		return 0, false, err
	}
	keys := task.Keys()
	type owner struct {
		key event.Hash
		id  uuid.UUID
	}
	var owners []owner
	ids := column(task.Enrollments, func(id uuid.UUID) []byte { return id[:] })
	if err := t.query(`SELECT key, enrollment_id FROM match_key WHERE enrollment_id = ANY ($1::bytea[]) AND tenant_id = $2`, func(sc row.Scanner) error {
		var key, id []byte
		err := sc.Scan(&key, &id)
		owners = append(owners, owner{event.Hash(key), row.ID(id)})
		return err
	}, ids, tenant); err != nil {
		return 0, false, err
	}
	// Whoever enrolls by events holds all of somebody's keys at once: they are
	// locked together, in their order, and not after one another.
	late := &tooLate{}
	for _, o := range owners {
		if k := (store.TenantKey{Tenant: tenant, Key: o.key}); !t.locked[k] {
			late.keys = append(late.keys, k)
		}
	}
	if len(late.keys) > 0 {
		for _, k := range keys {
			late.keys = append(late.keys, store.TenantKey{Tenant: tenant, Key: k})
		}
		return 0, false, late
	}
	for _, o := range owners {
		keys = append(keys, o.key)
		if err := t.disown(tenant, o.key, o.id); err != nil {
			return 0, false, err
		}
	}
	t.later(`DELETE FROM idempotency WHERE resource = ANY ($1::bytea[]) AND tenant_id = $2`, ids, tenant)
	n, err = t.exec(`UPDATE enrollment SET contact_key = NULL, address_key = NULL, profile_key = NULL, contact_id = '', email = '', linkedin_url = '', metadata = NULL, updated_at = $3
		WHERE id IN (SELECT id FROM enrollment WHERE id = ANY ($1::bytea[]) AND tenant_id = $2
			AND (email <> '' OR linkedin_url <> '' OR contact_id <> '' OR metadata IS NOT NULL) ORDER BY id FOR UPDATE)`, ids, tenant, row.US(t.now))
	if err != nil {
		return 0, false, err
	}
	stones := column(keys, func(k event.Hash) []byte {
		h := t.s.tombs.Of(tenant, k)
		return h[:]
	})
	added, err := t.exec(`INSERT INTO erased (tenant_id, key, at) SELECT DISTINCT $1::bigint, key, $3::bigint FROM unnest($2::bytea[]) AS b(key) ORDER BY key ON CONFLICT DO NOTHING`,
		tenant, stones, row.US(t.now))
	if err != nil {
		return 0, false, err
	}
	for _, a := range task.Emails {
		t.hideSuppression(tenant, a)
	}
	return n, added > 0, t.flush()
}

// findContact adds the enrollments that the task's names lead to, their
// addresses, and the enrollments of those.
func (t *tx) findContact(tenant int64, task *store.EraseTask) error {
	include := func(sc row.Scanner) error {
		var id []byte
		var email string
		if err := sc.Scan(&id, &email); err != nil {
			return err
		}
		task.Include(row.ID(id), email)
		return nil
	}
	raw := func(keys []event.Hash) [][]byte { return column(keys, func(k event.Hash) []byte { return k[:] }) }
	contacts, profiles := task.ContactKeys()
	if len(contacts) > 0 {
		t.ask(`SELECT e.id, e.email FROM instance i JOIN enrollment e ON e.instance_id = i.id AND e.contact_key = ANY ($2::bytea[]) WHERE i.tenant_id = $1`,
			include, tenant, raw(contacts))
	}
	if len(profiles) > 0 {
		t.ask(`SELECT e.id, e.email FROM instance i JOIN enrollment e ON e.instance_id = i.id AND e.profile_key = ANY ($2::bytea[]) WHERE i.tenant_id = $1`,
			include, tenant, raw(profiles))
	}
	if err := t.flush(); err != nil {
		return err
	}
	addresses := column(task.Emails, event.AddressKey)
	if len(addresses) == 0 {
		return nil
	}
	return t.query(`SELECT e.id, e.email FROM match_key m JOIN enrollment e ON e.id = m.enrollment_id AND e.tenant_id = m.tenant_id
		WHERE m.tenant_id = $1 AND m.key = ANY ($2::bytea[])`, include, tenant, raw(addresses))
}

// hideSuppression puts an address on the list by its tombstone, with the times
// that it was there with in clear: who has had himself erased is not written to.
func (t *tx) hideSuppression(tenant int64, email string) {
	plain := event.AddressKey(email)
	hidden := t.s.tombs.Of(tenant, plain)
	t.later(`INSERT INTO suppression (tenant_id, address_key, email, unsubscribed_at, resubscribed_at, complained_at, bounced_at, manual_at, removed_at, updated_at)
		SELECT $1::bigint, $3::bytea, '', coalesce(max(unsubscribed_at), 0), coalesce(max(resubscribed_at), 0), coalesce(max(complained_at), 0), coalesce(max(bounced_at), 0), $4::bigint, coalesce(max(removed_at), 0), $4::bigint
		FROM suppression WHERE tenant_id = $1 AND address_key = $2
		ON CONFLICT (tenant_id, address_key) DO UPDATE SET unsubscribed_at = greatest(suppression.unsubscribed_at, excluded.unsubscribed_at),
		resubscribed_at = greatest(suppression.resubscribed_at, excluded.resubscribed_at), complained_at = greatest(suppression.complained_at, excluded.complained_at),
		bounced_at = greatest(suppression.bounced_at, excluded.bounced_at), removed_at = greatest(suppression.removed_at, excluded.removed_at),
		manual_at = excluded.manual_at, updated_at = excluded.updated_at`, tenant, plain[:], hidden[:], row.US(t.now))
	t.later(`DELETE FROM suppression WHERE tenant_id = $1 AND address_key = $2`, tenant, plain[:])
}

// mark finds the new events whose contact is erased and takes what is personal
// out of them. Their identities have been taken: so the transaction has a
// number by now, and an erasure that this one does not see waits for it.
func (t *tx) mark(works []*store.Work, any map[int64]bool) error {
	works = slices.DeleteFunc(slices.Clone(works), func(w *store.Work) bool { return !any[w.Event.Tenant] })
	if len(works) == 0 {
		return nil
	}
	marks := t.s.tombs.Marks(works)
	return t.marked(marks, func(i int) {
		if w := works[marks[i].At]; !w.Erase {
			t.s.tombs.Erase(w)
		}
	})
}

// askErased asks, with the next flush, which tenants of the works have erased
// a contact at some time.
func (t *tx) askErased(works []*store.Work) map[int64]bool {
	any := map[int64]bool{}
	tenants := column(works, tenantOf)
	slices.Sort(tenants)
	t.ask(`SELECT b.tenant_id FROM unnest($1::bigint[]) AS b(tenant_id) WHERE EXISTS (SELECT 1 FROM erased e WHERE e.tenant_id = b.tenant_id)`,
		func(sc row.Scanner) error {
			var tenant int64
			err := sc.Scan(&tenant)
			any[tenant] = true
			return err
		}, slices.Compact(tenants))
	return any
}

// Erased implements store.Steps, in a statement of its own.
func (t *tx) Erased(keys []store.TenantKey) (map[store.TenantKey]bool, error) {
	gone := map[store.TenantKey]bool{}
	err := t.marked(column(keys, func(k store.TenantKey) store.Mark {
		return store.Mark{Tenant: k.Tenant, Key: t.s.tombs.Of(k.Tenant, k.Key)}
	}), func(at int) { gone[keys[at]] = true })
	return gone, err
}

// marked finds the marks that are those of erased contacts.
func (t *tx) marked(marks []store.Mark, found func(i int)) error {
	return t.query(`SELECT b.ord FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS b(tenant_id, key, ord)
		JOIN erased e ON e.tenant_id = b.tenant_id AND e.key = b.key`, func(sc row.Scanner) error {
		var ord int
		err := sc.Scan(&ord)
		if err == nil {
			found(ord - 1)
		}
		return err
	}, column(marks, func(m store.Mark) int64 { return m.Tenant }), column(marks, func(m store.Mark) []byte { return m.Key[:] }))
}

// erased tells whether any of a tenant's keys is that of an erased contact.
func (t *tx) erased(tenant int64, keys []event.Hash) (bool, error) {
	stones := column(keys, func(k event.Hash) []byte {
		h := t.s.tombs.Of(tenant, k)
		return h[:]
	})
	var one int
	return t.one(`SELECT 1 FROM erased WHERE tenant_id = $1 AND key = ANY ($2::bytea[]) LIMIT 1`, []any{tenant, stones}, &one)
}

// erasure is one on its way.
type erasure struct {
	seq, tenant int64
	phase, item int
	after       int64
	since       int64
	task        store.EraseTask

	events, letters int
}

// NextErasure does the next step of an erasure that runs and is not another
// replica's at this moment: at most n events or bodies in a transaction of its
// own. more is false when there is nothing to do, or what is left has to wait
// for transactions that began before the erasure did.
func (s *Store) NextErasure(ctx context.Context, n int) (more bool, err error) {
	err = s.write(ctx, "erase", func(t *tx) error {
		more = false
		var e erasure
		var raw []byte
		found, err := t.one(`SELECT seq, tenant_id, task, phase, item, after_seq, since_xid FROM erasure WHERE status = 'running' ORDER BY seq LIMIT 1 FOR UPDATE SKIP LOCKED`,
			nil, &e.seq, &e.tenant, &raw, &e.phase, &e.item, &e.after, &e.since)
		if err != nil || !found {
			return err
		}
		if e.task, err = row.DecodeTask(raw); err != nil {
			return err
		}
		if more, err = t.eraseNext(&e, n); err != nil || !more {
			return err
		}
		if raw, err = row.EncodeTask(&e.task); err != nil {
			return err
		}
		status := "running"
		if e.phase == store.ErasePhaseFiles { // what is left of former rows is the server's to vacuum
			raw, status = []byte{}, "done"
		}
		_, err = t.exec(`UPDATE erasure SET status = $3, task = $4, phase = $5, item = $6, after_seq = $7, since_xid = $8,
			events = events + $9, letters = letters + $10, updated_at = $11 WHERE seq = $1 AND tenant_id = $2`,
			e.seq, e.tenant, status, raw, e.phase, e.item, e.after, e.since, e.events, e.letters, row.US(t.now))
		return err
	})
	return more && err == nil, err
}

func (t *tx) eraseNext(e *erasure, n int) (more bool, err error) {
	switch e.phase {
	case store.ErasePhaseContact:
		return t.eraseStragglers(e)
	case store.ErasePhaseEvents:
		return true, t.eraseEvents(e, n)
	default:
		return true, t.eraseBodies(e, min(n, store.EraseBodies))
	}
}

// eraseStragglers waits until whoever began before the tombstones were there
// has come to an end, and looks for what they have left in clear. What it
// finds names more of the contact, and is waited for in the same way.
func (t *tx) eraseStragglers(e *erasure) (more bool, err error) {
	if e.since == 0 {
		_, err := t.one(`SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint`, nil, &e.since)
		return true, err
	}
	var oldest int64
	if _, err := t.one(`SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint`, nil, &oldest); err != nil || oldest < e.since {
		return false, err
	}
	n, fresh, err := t.eraseContact(e.tenant, &e.task)
	if err != nil {
		return false, err
	}
	if n > 0 || fresh {
		e.since = 0
		t.later(`UPDATE erasure SET enrollments = enrollments + $3 WHERE seq = $1 AND tenant_id = $2`, e.seq, e.tenant, n)
		return true, nil
	}
	e.phase = store.ErasePhaseEvents
	return true, nil
}

// ref is the reference that the erasure is at; ok is false after the last.
func (e *erasure) ref() (r searchRef, address, ok bool) {
	if e.item < len(e.task.Emails) {
		return searchRef{e.tenant, row.SearchKey("email", e.task.Emails[e.item])}, true, true
	}
	if at := e.item - len(e.task.Emails); at < len(e.task.Enrollments) {
		return enrollmentRef(e.tenant, e.task.Enrollments[at]), false, true
	}
	return r, false, false
}

// eraseEvents takes the contact out of the next events of a reference.
func (t *tx) eraseEvents(e *erasure, n int) error {
	r, address, ok := e.ref()
	if !ok {
		e.phase, e.item, e.after = store.ErasePhaseBodies, 0, 0
		return nil
	}
	var seqs []tenantSeq
	if err := t.query(`SELECT event_seq FROM event_search WHERE tenant_id = $1 AND key = $2 AND event_seq > $3 ORDER BY event_seq LIMIT $4`, func(sc row.Scanner) error {
		ts := tenantSeq{tenant: e.tenant}
		err := sc.Scan(&ts.seq)
		seqs = append(seqs, ts)
		return err
	}, e.tenant, r.key[:], e.after, n); err != nil {
		return err
	}
	if len(seqs) == 0 {
		e.item, e.after = e.item+1, 0
		return nil
	}
	e.after = seqs[len(seqs)-1].seq
	gone, err := t.eraseRecords(&e.task, seqs)
	if err != nil {
		return err
	}
	e.events = len(gone)
	if address && len(gone) > 0 {
		t.later(`DELETE FROM event_search WHERE tenant_id = $1 AND key = $2 AND event_seq = ANY ($3::bigint[])`, e.tenant, r.key[:], gone)
	}
	return nil
}

// eraseRecords takes the contact out of those of the events that are its own.
// The ones that wait are ignored from now on, through the processor.
func (t *tx) eraseRecords(task *store.EraseTask, seqs []tenantSeq) (gone []int64, err error) {
	numbers, tenants := seqColumns(seqs)
	t.later(`SELECT 1 FROM unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id)
		JOIN orphan o ON o.event_seq = b.seq AND o.tenant_id = b.tenant_id ORDER BY o.event_seq FOR UPDATE OF o`, numbers, tenants)
	t.later(`SELECT 1 FROM unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id)
		JOIN event e ON e.seq = b.seq AND e.tenant_id = b.tenant_id ORDER BY e.seq FOR NO KEY UPDATE OF e`, numbers, tenants)
	var records []store.Record
	if err := t.query(`SELECT `+lightColumns+` FROM unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id)
		JOIN event e ON e.seq = b.seq AND e.tenant_id = b.tenant_id
		WHERE `+row.Personal+` OR e.payload <> '{}'::bytea ORDER BY e.seq`, func(sc row.Scanner) error {
		var r store.Record
		if err := row.ScanEvent(sc, &r); err != nil {
			return err
		}
		if task.Concerns(&r) {
			records = append(records, r)
		}
		return nil
	}, numbers, tenants); err != nil || len(records) == 0 {
		return nil, err
	}
	waiting := store.EraseWorks(records)
	if err := t.process(waiting); err != nil {
		return nil, err
	}
	if len(waiting) > 0 {
		t.later(`UPDATE dead_letter d SET status = 'ignored', reason = $3, error = ''
			FROM unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id) WHERE d.event_seq = b.seq AND d.tenant_id = b.tenant_id`,
			column(waiting, seqOf), column(waiting, tenantOf), store.ReasonErased)
	}
	entries := make([]store.Entry, len(records))
	for i := range records {
		r := &records[i]
		r.Event = task.Strip(r.Event)
		gone = append(gone, r.Seq)
		entries[i] = store.Entry{Tenant: r.Tenant, Seq: r.Seq, Moment: store.ErasedAt(t.now)}
	}
	text := func(field func(*store.Record) string) []string {
		return column(records, func(r store.Record) string { return field(&r) })
	}
	t.later(`UPDATE event e SET email = '', url = '', lead_id = '', action_id = '', provider_event_id = b.provider_event_id,
		provider_message_id = b.provider_message_id, campaign = b.campaign, claimed_enrollment = b.claimed_enrollment, metadata = b.metadata, payload = b.payload
		FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bytea[])
			AS b(seq, tenant_id, provider_event_id, provider_message_id, campaign, claimed_enrollment, metadata, payload)
		WHERE e.seq = b.seq AND e.tenant_id = b.tenant_id`,
		gone, column(records, func(r store.Record) int64 { return r.Tenant }),
		text(func(r *store.Record) string { return r.ProviderEventID }), text(func(r *store.Record) string { return r.ProviderMessageID }),
		text(func(r *store.Record) string { return r.Campaign }), text(func(r *store.Record) string { return r.EnrollmentID }),
		column(records, func(r store.Record) []byte { return r.Metadata }), column(records, func(r store.Record) []byte { return r.Payload }))
	return gone, t.Remember(entries)
}

// eraseBodies looks through the next dead letters without an event for the
// contact, and empties those that name it. After the last of them nothing of
// the contact is needed any more.
func (t *tx) eraseBodies(e *erasure, n int) error {
	var found []int64
	read := 0
	if err := t.query(`SELECT seq, body, headers FROM dead_letter WHERE tenant_id = $1 AND event_seq IS NULL AND seq > $2 ORDER BY seq LIMIT $3`, func(sc row.Scanner) error {
		var body, headers []byte
		if err := sc.Scan(&e.after, &body, &headers); err != nil {
			return err
		}
		read++
		if e.task.In(body) || e.task.In(headers) {
			found = append(found, e.after)
		}
		return nil
	}, e.tenant, e.after, n); err != nil {
		return err
	}
	e.letters = len(found)
	if len(found) > 0 {
		t.later(`UPDATE dead_letter SET body = '', headers = '', error = $3, status = CASE status WHEN 'replayed' THEN status ELSE 'ignored' END
			WHERE seq = ANY ($1::bigint[]) AND tenant_id = $2`, found, e.tenant, store.ReasonErased)
	}
	if read == n {
		return nil
	}
	free, err := t.eraseFilters(e)
	if err == nil && !free {
		err = fault.New(fault.Unavailable, "a bulk replay of the contact's dead letters is still running")
	}
	e.phase = store.ErasePhaseFiles
	return err
}

// eraseFilters empties the filters of bulk replays that name the contact;
// free is false while one of them runs.
func (t *tx) eraseFilters(e *erasure) (free bool, err error) {
	free = true
	var ids [][]byte
	err = t.query(`SELECT id, status, filter FROM replay WHERE tenant_id = $1`, func(sc row.Scanner) error {
		var id, filter []byte
		var status string
		if err := sc.Scan(&id, &status, &filter); err != nil {
			return err
		}
		if e.task.In(filter) {
			free = free && status != "running"
			ids = append(ids, id)
		}
		return nil
	}, e.tenant)
	if err == nil && free && len(ids) > 0 {
		t.later(`UPDATE replay SET filter = $3 WHERE id = ANY ($1::bytea[]) AND tenant_id = $2`, ids, e.tenant, []byte("{}"))
	}
	return free, err
}
