package sqlite

import (
	"context"
	"slices"

	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Retire does the next step of removing what is old: it looks at n events from
// where the last step ended, then at bodies and identities. A pass ends when
// More is false; the next one begins with the oldest again.
func (s *Store) Retire(ctx context.Context, r store.Retention, n int) (store.Retired, error) {
	var done store.Retired
	err := s.write(ctx, bulk, "remove old events", func(t *tx) error {
		done = store.Retired{}
		after := s.retiring.Load()
		records, last, more, err := t.oldEvents(r, after, n)
		if err != nil {
			return err
		}
		if err := t.retire(records); err != nil {
			return err
		}
		if done.Events = int64(len(records)); more {
			done.More = true
			t.after = append(t.after, func() { s.retiring.Store(last) })
			return nil
		}
		t.after = append(t.after, func() { s.retiring.Store(0) })
		if done.Bodies, err = t.retireBodies(r, n); err != nil {
			return err
		}
		forgotten, err := t.forgetIdentities(r, n)
		done.More = done.Bodies == int64(n) || forgotten == n
		return err
	})
	return done, err
}

// oldEvents reads, of the next n events, those that are old and settled. more
// is false when the last of them is young, or there are no further ones: the
// numbers go by receipt, but for what was in a spool meanwhile.
func (t *tx) oldEvents(r store.Retention, after int64, n int) (records []store.Record, last int64, more bool, err error) {
	seen, lastReceived := 0, int64(0)
	before := row.US(r.Events)
	err = t.query(`SELECT seq, received_at FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2`, func(sc row.Scanner) error {
		seen++
		return sc.Scan(&last, &lastReceived)
	}, after, n)
	if err != nil || seen == 0 {
		return nil, after, false, err
	}
	err = t.query(`SELECT `+lightColumns+` FROM event e WHERE e.seq > ?1 AND e.seq <= ?2 AND e.received_at < ?3 AND (e.state IN ('applied', 'ignored')
		OR (e.state = 'dead' AND EXISTS (SELECT 1 FROM dead_letter d WHERE d.event_seq = e.seq AND d.status = 'ignored')))`, func(sc row.Scanner) error {
		records = append(records, store.Record{})
		return row.ScanEvent(sc, &records[len(records)-1])
	}, after, last, before)
	return records, last, seen == n && lastReceived < before, err
}

// retire removes events; what they were counted in stays.
func (t *tx) retire(records []store.Record) error {
	if len(records) == 0 {
		return nil
	}
	x, gone := store.NewEffects(), store.NewEffects()
	seqs := make([]tenantSeq, len(records))
	works := make([]*store.Work, len(records))
	var refs []seqKey
	for i := range records {
		r := &records[i]
		seqs[i], works[i] = tenantSeq{r.Tenant, r.Seq}, store.WorkOf(r, "")
		x.Retire(r, gone)
		for _, ref := range searchRefs(r.Tenant, r.Email, r.ProviderMessageID, r.Enrollment) {
			refs = append(refs, seqKey{r.Tenant, slices.Clone(ref.key[:]), r.Seq})
		}
	}
	if _, err := t.exec(`INSERT INTO retired (seq, id, tenant_id, identity, state, enrollment_id, received_at)
		SELECT e.seq, e.id, e.tenant_id, e.identity, e.state, e.enrollment_id, e.received_at FROM b_seq(?1) b
		CROSS JOIN event e ON e.seq = b.seq AND e.tenant_id = b.tenant_id`, bind(seqs, tenantSeqColumn)); err != nil {
		return err
	}
	if err := t.archive(gone); err != nil {
		return err
	}
	if _, err := t.exec(`DELETE FROM event_search WHERE (generation, tenant_id, key, event_seq) IN (
		SELECT (SELECT min(g.id) FROM generation g WHERE g.last_seq >= b.seq), b.tenant_id, b.key, b.seq FROM b_key(?1) b
		UNION ALL SELECT 0, b.tenant_id, b.key, b.seq FROM b_key(?1) b)`, bind(refs, keyColumn)); err != nil {
		return err
	}
	if _, err := t.exec(`DELETE FROM waiting_key WHERE (tenant_id, key, event_seq) IN (SELECT tenant_id, key, seq FROM b_key(?1))`,
		bind(waitingOf(works), keyColumn)); err != nil {
		return err
	}
	for _, q := range []string{
		`DELETE FROM timeline WHERE event_seq IN (SELECT seq FROM b_seq(?1))`,
		`DELETE FROM dead_letter WHERE (tenant_id, event_seq) IN (SELECT tenant_id, seq FROM b_seq(?1))`,
		`DELETE FROM event WHERE (tenant_id, seq) IN (SELECT tenant_id, seq FROM b_seq(?1))`,
	} {
		if _, err := t.exec(q, bind(seqs, tenantSeqColumn)); err != nil {
			return err
		}
	}
	return t.writeLedgers(x)
}

// archive notes which part of counters and facts has no events any more.
func (t *tx) archive(gone *store.Effects) error {
	if len(gone.Counters) == 0 {
		return nil
	}
	counters := make([]counterRow, 0, len(gone.Counters))
	for k, n := range gone.Counters {
		counters = append(counters, counterRow{k, n})
	}
	if _, err := t.exec(`UPDATE counter SET archived = archived + b.count FROM b_counter(?1) b
		WHERE counter.tenant_id = b.tenant_id AND counter.instance_id = b.instance_id AND counter.bucket = b.bucket AND counter.type = b.type AND counter.qualifier = b.qualifier
		AND counter.step = b.step AND counter.machine = b.machine AND counter.provider = b.provider AND counter.variant = b.variant`,
		bind(counters, counterColumn)); err != nil {
		return err
	}
	facts := make([]factRow, 0, len(gone.Facts))
	for k, v := range gone.Facts {
		facts = append(facts, factRow{k, v})
	}
	_, err := t.exec(`UPDATE fact SET archived = archived + b.count,
		archived_first = CASE archived WHEN 0 THEN b.first_at ELSE min(archived_first, b.first_at) END,
		archived_last = CASE archived WHEN 0 THEN b.last_at ELSE max(archived_last, b.last_at) END FROM b_fact(?1) b
		WHERE fact.tenant_id = b.tenant_id AND fact.instance_id = b.instance_id AND fact.enrollment_id = b.enrollment_id AND fact.type = b.type AND fact.qualifier = b.qualifier
		AND fact.step = b.step AND fact.machine = b.machine AND fact.provider = b.provider AND fact.variant = b.variant`,
		bind(facts, factColumn))
	return err
}

// retireBodies removes old bodies that could not be read and that a person
// has set aside or replayed.
func (t *tx) retireBodies(r store.Retention, n int) (int64, error) {
	x := store.NewEffects()
	removed := int64(0)
	err := t.query(`DELETE FROM dead_letter WHERE seq IN (SELECT seq FROM dead_letter WHERE event_seq IS NULL AND status IN ('ignored', 'replayed')
		AND first_received_at < ?1 ORDER BY seq LIMIT ?2) RETURNING tenant_id`, func(sc row.Scanner) error {
		var tenant int64
		err := sc.Scan(&tenant)
		x.Ledger(tenant).Undecodable--
		removed++
		return err
	}, row.US(r.Events), n)
	if err != nil {
		return 0, err
	}
	t.changed = t.changed || removed > 0
	return removed, t.writeLedgers(x)
}

// forgetIdentities forgets the identities of events that were removed, n at
// most, but for those whose generation is not written yet, and the last of all:
// its number is the mark from which on numbers are given.
func (t *tx) forgetIdentities(r store.Retention, n int) (int, error) {
	type entry struct {
		seqKey
		generation int64
	}
	var entries []entry
	err := t.query(`SELECT r.seq, r.tenant_id, r.identity, (SELECT min(g.id) FROM generation g WHERE g.last_seq >= r.seq) FROM retired r
		WHERE r.received_at < ?1 AND r.seq <= (SELECT coalesce(max(last_seq), 0) FROM generation) AND r.seq < (`+lastSQL+`)
		ORDER BY r.received_at LIMIT ?2`, func(sc row.Scanner) error {
		var e entry
		err := sc.Scan(&e.seq, &e.tenant, &e.key, &e.generation)
		entries = append(entries, e)
		return err
	}, row.US(r.Identities), n)
	if err != nil || len(entries) == 0 {
		return 0, err
	}
	column := func(c sqlite3.Context, e *entry, col int) {
		switch col {
		case 0:
			c.ResultInt64(e.generation)
		case 1:
			c.ResultInt64(e.tenant)
		case 2:
			c.ResultBlob(e.key)
		case 3:
			c.ResultInt64(e.seq)
		}
	}
	if _, err := t.exec(`DELETE FROM identity WHERE (generation, tenant_id, key) IN (SELECT generation, tenant_id, key FROM b_identity(?1))`, bind(entries, column)); err != nil {
		return 0, err
	}
	_, err = t.exec(`DELETE FROM retired WHERE (tenant_id, seq) IN (SELECT tenant_id, seq FROM b_identity(?1))`, bind(entries, column))
	return len(entries), err
}
