package sqlite

import (
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Unlock gives the store the key that the tombstones of erased contacts are
// made with. It must be called before the first event is committed.
func (s *Store) Unlock(t store.Tombstones) { s.tombs = t }

func (s *Store) loadErased(ctx context.Context) error {
	var any bool
	err := s.read(ctx, "look for erased contacts", `SELECT EXISTS (SELECT 1 FROM erased)`, func(sc row.Scanner) error { return sc.Scan(&any) })
	s.erasing.Store(any)
	return err
}

// StartErasure notes that a contact is to be erased, and at once takes its
// enrollments and its place on the suppression list out of the clear: from now
// on nothing new of it is kept. NextErasure does the rest, also after a restart.
func (s *Store) StartErasure(ctx context.Context, tenant int64, c store.Contact, actor string) (store.Erasure, error) {
	e := store.Erasure{ID: row.NewID(), Status: "running"}
	err := s.write(ctx, live, "start erasure", func(t *tx) error {
		task := store.NewEraseTask(c)
		n, err := t.eraseContact(tenant, &task)
		if err != nil {
			return err
		}
		e.Enrollments, e.CreatedAt, e.UpdatedAt = n, t.now, t.now
		raw, err := row.EncodeTask(&task)
		if err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO erasure (id, tenant_id, status, task, phase, item, after_seq, enrollments, created_at, updated_at)
			VALUES (?1, ?2, 'running', ?3, ?4, 0, 0, ?5, ?6, ?6)`, e.ID[:], tenant, raw, store.ErasePhaseEvents, n, row.US(t.now)); err != nil {
			return err
		}
		t.either = append(t.either, func() { s.erasing.Store(true) })
		return t.Audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "contact.erase", Subject: e.ID.String()})
	})
	return e, err
}

// Erasure reads how far an erasure is.
func (s *Store) Erasure(ctx context.Context, tenant int64, id uuid.UUID) (store.Erasure, error) {
	e := store.Erasure{ID: id}
	found := false
	err := s.read(ctx, "read erasure", `SELECT status, enrollments, events, letters, created_at, updated_at FROM erasure WHERE id = ?1 AND tenant_id = ?2`,
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
// suppression list out of the clear, and writes the tombstones. The task
// gains what it finds. It may be repeated; n is how many enrollments it changed.
func (t *tx) eraseContact(tenant int64, task *store.EraseTask) (n int64, err error) {
	if err := t.findContact(tenant, task); err != nil {
		return 0, err
	}
	keys := task.Keys()
	for _, id := range task.Enrollments {
		var owned []event.Hash
		err := t.query(`SELECT key FROM match_key WHERE enrollment_id = ?1 AND tenant_id = ?2`, func(sc row.Scanner) error {
			var key []byte
			err := sc.Scan(&key)
			owned = append(owned, event.Hash(key))
			return err
		}, id[:], tenant)
		if err != nil {
			return 0, err
		}
		keys = append(keys, owned...)
		for _, k := range owned {
			if err := t.disown(tenant, k, id); err != nil {
				return 0, err
			}
		}
		done, err := t.exec(`UPDATE enrollment SET contact_key = NULL, address_key = NULL, profile_key = NULL, contact_id = '', email = '', linkedin_url = '', metadata = NULL, updated_at = ?3
			WHERE id = ?1 AND tenant_id = ?2 AND (email <> '' OR linkedin_url <> '' OR contact_id <> '' OR metadata IS NOT NULL)`, id[:], tenant, row.US(t.now))
		if err != nil {
			return 0, err
		}
		n += done
		if _, err := t.exec(`DELETE FROM idempotency WHERE resource = ?1 AND tenant_id = ?2`, id[:], tenant); err != nil {
			return 0, err
		}
	}
	marks := make([]store.Mark, len(keys))
	for i, k := range keys {
		marks[i] = store.Mark{Tenant: tenant, Key: t.s.tombs.Of(tenant, k)}
	}
	if _, err := t.exec(`INSERT INTO erased (tenant_id, key, at) SELECT tenant_id, key, ?2 FROM b_key(?1) WHERE true ON CONFLICT DO NOTHING`,
		bind(marks, markColumn), row.US(t.now)); err != nil {
		return 0, err
	}
	for _, a := range task.Emails {
		if err := t.hideSuppression(tenant, a); err != nil {
			return 0, err
		}
	}
	return n, nil
}

func markColumn(c sqlite3.Context, m *store.Mark, col int) {
	switch col {
	case 0:
		c.ResultInt64(m.Tenant)
	case 1:
		c.ResultBlob(m.Key[:])
	case 2:
		c.ResultInt64(m.At)
	}
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
	contacts, profiles := task.ContactKeys()
	for _, k := range contacts {
		if err := t.query(`SELECT e.id, e.email FROM instance i CROSS JOIN enrollment e ON e.instance_id = i.id AND e.contact_key = ?2
			WHERE i.tenant_id = ?1`, include, tenant, k[:]); err != nil {
			return err
		}
	}
	for _, k := range profiles {
		if err := t.query(`SELECT e.id, e.email FROM instance i CROSS JOIN enrollment e ON e.instance_id = i.id AND e.profile_key = ?2
			WHERE i.tenant_id = ?1`, include, tenant, k[:]); err != nil {
			return err
		}
	}
	for _, a := range slices.Clone(task.Emails) {
		k := event.AddressKey(a)
		if err := t.query(`SELECT e.id, e.email FROM match_key m CROSS JOIN enrollment e ON e.id = m.enrollment_id AND e.tenant_id = m.tenant_id
			WHERE m.tenant_id = ?1 AND m.key = ?2`, include, tenant, k[:]); err != nil {
			return err
		}
	}
	return nil
}

// hideSuppression puts an address on the list by its tombstone, with the times
// that it was there with in clear: who has had himself erased is not written to.
func (t *tx) hideSuppression(tenant int64, email string) error {
	plain := event.AddressKey(email)
	hidden := t.s.tombs.Of(tenant, plain)
	if _, err := t.exec(`INSERT INTO suppression (tenant_id, address_key, email, unsubscribed_at, resubscribed_at, complained_at, bounced_at, manual_at, removed_at, updated_at)
		SELECT ?1, ?3, '', coalesce(max(unsubscribed_at), 0), coalesce(max(resubscribed_at), 0), coalesce(max(complained_at), 0), coalesce(max(bounced_at), 0), ?4, coalesce(max(removed_at), 0), ?4
		FROM suppression WHERE tenant_id = ?1 AND address_key = ?2
		ON CONFLICT (tenant_id, address_key) DO UPDATE SET unsubscribed_at = max(unsubscribed_at, excluded.unsubscribed_at),
		resubscribed_at = max(resubscribed_at, excluded.resubscribed_at), complained_at = max(complained_at, excluded.complained_at),
		bounced_at = max(bounced_at, excluded.bounced_at), removed_at = max(removed_at, excluded.removed_at), manual_at = ?4, updated_at = ?4`,
		tenant, plain[:], hidden[:], row.US(t.now)); err != nil {
		return err
	}
	_, err := t.exec(`DELETE FROM suppression WHERE tenant_id = ?1 AND address_key = ?2`, tenant, plain[:])
	return err
}

// erasedSQL gives which of the marks are those of erased contacts.
const erasedSQL = `SELECT b.seq FROM b_key(?1) b CROSS JOIN erased e ON e.tenant_id = b.tenant_id AND e.key = b.key`

// mark finds the new events whose contact is erased and takes what is personal
// out of them. Their identities have been taken.
func (t *tx) mark(works []*store.Work) error {
	if !t.s.erasing.Load() || len(works) == 0 {
		return nil
	}
	marks := t.s.tombs.Marks(works)
	return t.query(erasedSQL, func(sc row.Scanner) error {
		var at int64
		if err := sc.Scan(&at); err != nil {
			return err
		}
		if w := works[at]; !w.Erase {
			t.s.tombs.Erase(w)
		}
		return nil
	}, bind(marks, markColumn))
}

// Erased implements store.Steps.
func (t *tx) Erased(keys []store.TenantKey) (map[store.TenantKey]bool, error) {
	if !t.s.erasing.Load() {
		return nil, nil //nolint:nilnil // none is erased
	}
	marks := make([]store.Mark, len(keys))
	for i, k := range keys {
		marks[i] = store.Mark{Tenant: k.Tenant, Key: t.s.tombs.Of(k.Tenant, k.Key), At: int64(i)}
	}
	gone := map[store.TenantKey]bool{}
	err := t.query(erasedSQL, func(sc row.Scanner) error {
		var at int64
		err := sc.Scan(&at)
		gone[keys[at]] = true
		return err
	}, bind(marks, markColumn))
	return gone, err
}

// erased tells whether any of a tenant's keys is that of an erased contact.
func (t *tx) erased(tenant int64, keys []event.Hash) (bool, error) {
	if !t.s.erasing.Load() {
		return false, nil
	}
	marks := make([]store.Mark, len(keys))
	for i, k := range keys {
		marks[i] = store.Mark{Tenant: tenant, Key: t.s.tombs.Of(tenant, k)}
	}
	var one int
	return t.one(`SELECT 1 FROM b_key(?1) b CROSS JOIN erased e ON e.tenant_id = b.tenant_id AND e.key = b.key LIMIT 1`,
		[]any{bind(marks, markColumn)}, &one)
}

// erasure is one on its way.
type erasure struct {
	seq, tenant int64
	phase, item int
	after       int64
	task        store.EraseTask
}

// NextErasure does the next step of the oldest erasure that runs: at most n
// events or bodies in a turn of its own. more is false when there is nothing
// to do, or what is left has to wait for readers of the database.
func (s *Store) NextErasure(ctx context.Context, n int) (more bool, err error) {
	s.index.turn.Lock() // references in memory are taken out too
	defer s.index.turn.Unlock()
	var e erasure
	found := false
	err = s.read(ctx, "next erasure", `SELECT seq, tenant_id, task, phase, item, after_seq FROM erasure WHERE status = 'running' ORDER BY seq LIMIT 1`,
		func(sc row.Scanner) (err error) {
			found = true
			var raw []byte
			if err := sc.Scan(&e.seq, &e.tenant, &raw, &e.phase, &e.item, &e.after); err != nil {
				return err
			}
			e.task, err = row.DecodeTask(raw)
			return err
		})
	if err != nil || !found {
		return false, err
	}
	switch e.phase {
	case store.ErasePhaseEvents:
		return true, s.eraseEvents(ctx, &e, n)
	case store.ErasePhaseBodies:
		return true, s.eraseBodies(ctx, &e, min(n, store.EraseBodies))
	}
	if err := s.truncateLog(ctx); err != nil {
		if errors.Is(err, errBusy) {
			return false, nil
		}
		return false, err
	}
	return true, s.write(ctx, bulk, "end erasure", func(t *tx) error {
		_, err := t.exec(`UPDATE erasure SET status = 'done', updated_at = ?3 WHERE seq = ?1 AND tenant_id = ?2`, e.seq, e.tenant, row.US(t.now))
		return err
	})
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

const (
	erasedRefSQL = `SELECT event_seq FROM event_search WHERE generation IN (SELECT id FROM generation UNION ALL SELECT 0) AND tenant_id = ?1 AND key = ?2 AND event_seq > ?3
		UNION SELECT seq FROM b_seq(?4) WHERE seq > ?3 ORDER BY 1 LIMIT ?5`
	erasureAtSQL = `UPDATE erasure SET phase = ?3, item = ?4, after_seq = ?5, events = events + ?6, letters = letters + ?7, updated_at = ?8 WHERE seq = ?1 AND tenant_id = ?2`
)

// eraseEvents takes the contact out of the next events of a reference. They
// are looked for by a reader, and once more in the turn when there seem to be
// no more: an event may have been committed and not be in the index yet.
func (s *Store) eraseEvents(ctx context.Context, e *erasure, n int) error {
	r, address, ok := e.ref()
	var seqs []tenantSeq
	take := func(sc row.Scanner) error {
		ts := tenantSeq{tenant: e.tenant}
		err := sc.Scan(&ts.seq)
		seqs = append(seqs, ts)
		return err
	}
	args := func() []any { return []any{e.tenant, r.key[:], e.after, bind(s.index.young(r), tenantSeqColumn), n} }
	if ok {
		if err := s.read(ctx, "find events to erase", erasedRefSQL, take, args()...); err != nil {
			return err
		}
	}
	return s.write(ctx, bulk, "erase events", func(t *tx) error {
		phase, item, after, done := e.phase, e.item, int64(0), 0
		if ok && len(seqs) == 0 {
			if err := t.query(erasedRefSQL, take, args()...); err != nil {
				return err
			}
		}
		switch {
		case !ok:
			phase, item = store.ErasePhaseBodies, 0
		case len(seqs) == 0:
			item++
		default:
			after = seqs[len(seqs)-1].seq
			gone, err := t.eraseRecords(&e.task, seqs)
			if err != nil {
				return err
			}
			done = len(gone)
			if address {
				if err := t.forget(r, gone); err != nil {
					return err
				}
			}
		}
		_, err := t.exec(erasureAtSQL, e.seq, e.tenant, phase, item, after, done, 0, row.US(t.now))
		return err
	})
}

// eraseRecords takes the contact out of those of the events that are its own.
// The ones that wait are ignored from now on, through the processor.
func (t *tx) eraseRecords(task *store.EraseTask, seqs []tenantSeq) ([]tenantSeq, error) {
	var records []store.Record
	err := t.query(`SELECT `+lightColumns+` FROM b_seq(?1) b CROSS JOIN event e ON e.seq = b.seq AND e.tenant_id = b.tenant_id
		WHERE `+row.Personal+` OR e.payload <> x'7b7d'`, func(sc row.Scanner) error {
		var r store.Record
		if err := row.ScanEvent(sc, &r); err != nil {
			return err
		}
		if task.Concerns(&r) {
			records = append(records, r)
		}
		return nil
	}, bind(seqs, tenantSeqColumn))
	if err != nil || len(records) == 0 {
		return nil, err
	}
	waiting := store.EraseWorks(records)
	if err := t.process(waiting); err != nil {
		return nil, err
	}
	if len(waiting) > 0 {
		if _, err := t.exec(`UPDATE dead_letter SET status = 'ignored', reason = ?2, error = '' WHERE (tenant_id, event_seq) IN (SELECT tenant_id, seq FROM b_seq(?1))`,
			bind(waiting, seqColumn), store.ReasonErased); err != nil {
			return nil, err
		}
	}
	entries := make([]store.Entry, len(records))
	gone := make([]tenantSeq, len(records))
	for i := range records {
		r := &records[i]
		r.Event = task.Strip(r.Event)
		gone[i] = tenantSeq{r.Tenant, r.Seq}
		entries[i] = store.Entry{Tenant: r.Tenant, Seq: r.Seq, Moment: store.ErasedAt(t.now)}
	}
	if _, err := t.exec(`UPDATE event SET email = '', url = '', lead_id = '', action_id = '', provider_event_id = b.provider_event_id,
		provider_message_id = b.provider_message_id, campaign = b.campaign, claimed_enrollment = b.claimed_enrollment, metadata = b.metadata, payload = b.payload
		FROM b_bare(?1) b WHERE event.seq = b.seq AND event.tenant_id = b.tenant_id`, bind(records, func(c sqlite3.Context, r *store.Record, col int) {
		switch col {
		case 0:
			c.ResultInt64(r.Seq)
		case 1:
			c.ResultInt64(r.Tenant)
		case 2:
			c.ResultText(r.ProviderEventID)
		case 3:
			c.ResultText(r.ProviderMessageID)
		case 4:
			c.ResultText(r.Campaign)
		case 5:
			c.ResultText(r.EnrollmentID)
		case 6:
			if len(r.Metadata) > 0 {
				c.ResultBlob(r.Metadata)
			}
		case 7:
			c.ResultBlob(r.Payload)
		}
	})); err != nil {
		return nil, err
	}
	return gone, t.Remember(entries)
}

// forget takes events out of what a reference leads to, on disk and in memory.
// The caller has the index to himself.
func (t *tx) forget(r searchRef, gone []tenantSeq) error {
	if len(gone) == 0 {
		return nil
	}
	if _, err := t.exec(`DELETE FROM event_search WHERE generation IN (SELECT id FROM generation UNION ALL SELECT 0) AND tenant_id = ?1 AND key = ?2
		AND event_seq IN (SELECT seq FROM b_seq(?3))`, r.tenant, r.key[:], bind(gone, tenantSeqColumn)); err != nil {
		return err
	}
	is := make(map[int64]bool, len(gone))
	for _, ts := range gone {
		is[ts.seq] = true
	}
	t.after = append(t.after, func() {
		x := &t.s.index
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, s := range append(slices.Clone(x.full), x.active) {
			if len(s.search[r]) == 0 {
				continue
			}
			s.search[r] = slices.DeleteFunc(s.search[r], func(seq int64) bool { return is[seq] })
			if len(s.search[r]) == 0 {
				delete(s.search, r)
			}
			if x.run != nil && x.run.from == s {
				x.run = nil // is begun anew, without them
			}
		}
	})
	return nil
}

// eraseBodies looks through the next dead letters without an event for the
// contact, and empties those that name it. After the last of them nothing of
// the contact is needed any more.
func (s *Store) eraseBodies(ctx context.Context, e *erasure, n int) error {
	after := e.after
	var found []tenantSeq
	read := 0
	err := s.read(ctx, "find bodies to erase", `SELECT seq, body, headers FROM dead_letter WHERE tenant_id = ?1 AND event_seq IS NULL AND seq > ?2 ORDER BY seq LIMIT ?3`,
		func(sc row.Scanner) error {
			var body, headers []byte
			if err := sc.Scan(&after, &body, &headers); err != nil {
				return err
			}
			read++
			if e.task.In(body) || e.task.In(headers) {
				found = append(found, tenantSeq{e.tenant, after})
			}
			return nil
		}, e.tenant, e.after, n)
	if err != nil {
		return err
	}
	return s.write(ctx, bulk, "erase bodies", func(t *tx) error {
		if len(found) > 0 {
			if _, err := t.exec(`UPDATE dead_letter SET body = x'', headers = x'', error = ?2, status = CASE status WHEN 'replayed' THEN status ELSE 'ignored' END
				WHERE (tenant_id, seq) IN (SELECT tenant_id, seq FROM b_seq(?1))`, bind(found, tenantSeqColumn), store.ReasonErased); err != nil {
				return err
			}
		}
		phase := e.phase
		if read < n {
			free, err := t.eraseFilters(e)
			if err != nil {
				return err
			}
			if !free {
				return fault.New(fault.Unavailable, "a bulk replay of the contact's dead letters is still running")
			}
			phase = store.ErasePhaseFiles
			if _, err := t.exec(`UPDATE erasure SET task = x'' WHERE seq = ?1 AND tenant_id = ?2`, e.seq, e.tenant); err != nil {
				return err
			}
		}
		_, err := t.exec(erasureAtSQL, e.seq, e.tenant, phase, 0, after, 0, len(found), row.US(t.now))
		return err
	})
}

// eraseFilters empties the filters of bulk replays that name the contact;
// free is false while one of them runs.
func (t *tx) eraseFilters(e *erasure) (free bool, err error) {
	free = true
	var ids []uuid.UUID
	err = t.query(`SELECT id, status, filter FROM replay WHERE tenant_id = ?1`, func(sc row.Scanner) error {
		var id, filter []byte
		var status string
		if err := sc.Scan(&id, &status, &filter); err != nil {
			return err
		}
		if e.task.In(filter) {
			free = free && status != "running"
			ids = append(ids, row.ID(id))
		}
		return nil
	}, e.tenant)
	if err != nil || !free || len(ids) == 0 {
		return free, err
	}
	_, err = t.exec(`UPDATE replay SET filter = '{}' WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM b_id(?1))`, bindIDs(e.tenant, ids))
	return free, err
}

var errBusy = errors.New("readers hold the log of the database")

// truncateLog writes the log back and empties it: it holds pages as they were
// before. It does not wait for readers longer than a live request may.
func (s *Store) truncateLog(ctx context.Context) error {
	if err := s.turn.acquire(ctx, bulk); err != nil {
		return fault.Wrap(fault.Unavailable, "truncate log", err)
	}
	defer s.turn.release()
	if _, err := s.conn.ExecContext(ctx, "PRAGMA busy_timeout(20)"); err != nil {
		return s.fail("truncate log", err)
	}
	var busy, frames, written int
	err := s.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &written)
	_, back := s.conn.ExecContext(context.WithoutCancel(ctx), "PRAGMA busy_timeout(5000)")
	if err == nil && busy != 0 {
		err = errBusy
	}
	if err = errors.Join(err, back); errors.Is(err, errBusy) {
		return err
	}
	return s.fail("truncate log", err)
}
