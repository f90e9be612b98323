package postgres

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"

	"tallyhook/internal/campaign"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Retire does the next step of removing what is old: it looks at n events from
// where the last step ended, then at bodies and identities. A pass ends when
// More is false; the next one begins with the oldest again. One replica at a
// time does a step; to the others it seems that there is nothing to do.
func (s *Store) Retire(ctx context.Context, r store.Retention, n int) (store.Retired, error) {
	var done store.Retired
	after := s.retiring.Load()
	next := int64(0)
	err := s.write(ctx, "remove old events", func(t *tx) error {
		done, next = store.Retired{}, 0
		var mine bool
		if _, err := t.one(`SELECT pg_try_advisory_xact_lock($1)`, []any{lockNumber("retention", 0, nil)}, &mine); err != nil || !mine {
			return err
		}
		records, last, more, err := t.oldEvents(r, after, n)
		if err != nil {
			return err
		}
		if err := t.retire(records); err != nil {
			return err
		}
		if done.Events = int64(len(records)); more {
			done.More, next = true, last
			return nil
		}
		if done.Bodies, err = t.retireBodies(r, n); err != nil {
			return err
		}
		forgotten, err := t.exec(`WITH old AS (SELECT seq, tenant_id, identity FROM retired WHERE received_at < $1 ORDER BY received_at LIMIT $2),
			gone AS (DELETE FROM identity i USING old WHERE i.tenant_id = old.tenant_id AND i.key = old.identity AND i.event_seq = old.seq)
			DELETE FROM retired r USING old WHERE r.seq = old.seq AND r.tenant_id = old.tenant_id`, row.US(r.Identities), n)
		done.More = done.Bodies == int64(n) || forgotten == int64(n)
		return err
	})
	if err == nil {
		s.retiring.Store(next)
	}
	return done, err
}

// oldEvents locks and reads, of the next n events, those that are old and
// settled. more is false when the last of them is young, or there are no
// further ones: the numbers go by receipt, but for what was in a spool meanwhile.
func (t *tx) oldEvents(r store.Retention, after int64, n int) (records []store.Record, last int64, more bool, err error) {
	seen, lastReceived := 0, int64(0)
	before := row.US(r.Events)
	var tenants, seqs []int64
	err = t.query(`SELECT tenant_id, seq, received_at FROM event WHERE seq > $1 ORDER BY seq LIMIT $2`, func(sc row.Scanner) error {
		seen++
		var tenant int64
		err := sc.Scan(&tenant, &last, &lastReceived)
		if lastReceived < before {
			tenants, seqs = append(tenants, tenant), append(seqs, last)
		}
		return err
	}, after, n)
	if err != nil || len(seqs) == 0 {
		return nil, last, false, err
	}
	var mine []int64
	if err = t.query(`SELECT e.seq FROM unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id) JOIN event e ON e.seq = b.seq AND e.tenant_id = b.tenant_id
		ORDER BY e.seq FOR UPDATE OF e SKIP LOCKED`, func(sc row.Scanner) error {
		var seq int64
		err := sc.Scan(&seq)
		mine = append(mine, seq)
		return err
	}, seqs, tenants); err != nil {
		return nil, last, false, err
	}
	err = t.query(`SELECT `+lightColumns+` FROM event e WHERE e.seq = ANY ($1::bigint[]) AND e.tenant_id = ANY ($2::bigint[]) AND (e.state IN ('applied', 'ignored')
		OR (e.state = 'dead' AND EXISTS (SELECT 1 FROM dead_letter d WHERE d.event_seq = e.seq AND d.tenant_id = e.tenant_id AND d.status = 'ignored')))`, func(sc row.Scanner) error {
		records = append(records, store.Record{})
		return row.ScanEvent(sc, &records[len(records)-1])
	}, mine, tenants)
	return records, last, seen == n && lastReceived < before, err
}

// retire removes events, which are locked; what they were counted in stays.
func (t *tx) retire(records []store.Record) error {
	if len(records) == 0 {
		return nil
	}
	x, gone := store.NewEffects(), store.NewEffects()
	works := make([]*store.Work, len(records))
	var refs []searchEntry
	for i := range records {
		r := &records[i]
		works[i] = store.WorkOf(r, "")
		x.Retire(r, gone)
		for _, ref := range searchRefs(r.Tenant, r.Email, r.ProviderMessageID, r.Enrollment) {
			refs = append(refs, searchEntry{ref, r.Seq})
		}
	}
	bySeq(works)
	seqs, tenants := column(works, seqOf), column(works, tenantOf)
	t.later(`INSERT INTO retired (seq, id, tenant_id, identity, state, enrollment_id, received_at)
		SELECT e.seq, e.id, e.tenant_id, e.identity, e.state, e.enrollment_id, e.received_at
		FROM unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id) JOIN event e ON e.seq = b.seq AND e.tenant_id = b.tenant_id`, seqs, tenants)
	t.later(`DELETE FROM event_search s USING unnest($1::bigint[], $2::bytea[], $3::bigint[]) AS b(tenant_id, key, seq)
		WHERE s.tenant_id = b.tenant_id AND s.key = b.key AND s.event_seq = b.seq`,
		column(refs, func(e searchEntry) int64 { return e.tenant }), column(refs, func(e searchEntry) []byte { return e.key[:] }),
		column(refs, func(e searchEntry) int64 { return e.seq }))
	t.later(`DELETE FROM waiting_key w USING unnest($1::bigint[], $2::bytea[], $3::bigint[]) AS b(tenant_id, key, seq)
		WHERE w.tenant_id = b.tenant_id AND w.key = b.key AND w.event_seq = b.seq`, waitingOf(works)...)
	for _, q := range []string{
		`DELETE FROM timeline m USING unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id) WHERE m.event_seq = b.seq AND m.tenant_id = b.tenant_id`,
		`DELETE FROM dead_letter d USING unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id) WHERE d.event_seq = b.seq AND d.tenant_id = b.tenant_id`,
		`DELETE FROM event e USING unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id) WHERE e.seq = b.seq AND e.tenant_id = b.tenant_id`,
	} {
		t.later(q, seqs, tenants)
	}
	t.archive(gone)
	t.sums.AddSums(x)
	return t.flush()
}

// archive notes which part of counters and facts has no events any more. Of a
// counter's rows, one for each slot, the transaction's own takes the note.
func (t *tx) archive(gone *store.Effects) {
	if len(gone.Counters) == 0 {
		return
	}
	facts := slices.SortedFunc(maps.Keys(gone.Facts), func(a, b store.FactRow) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), bytes.Compare(a.Instance[:], b.Instance[:]),
			bytes.Compare(a.Enrollment[:], b.Enrollment[:]), compareKeys(a.Key, b.Key))
	})
	key := factKeys(facts, func(r store.FactRow) campaign.FactKey { return r.Key })
	sum := func(field func(store.FactSum) int64) []int64 {
		return column(facts, func(r store.FactRow) int64 { return field(gone.Facts[r]) })
	}
	t.later(`UPDATE fact f SET archived = f.archived + b.count,
		archived_first = CASE f.archived WHEN 0 THEN b.first_at ELSE least(f.archived_first, b.first_at) END,
		archived_last = CASE f.archived WHEN 0 THEN b.last_at ELSE greatest(f.archived_last, b.last_at) END
		FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::text[], $5::text[], $6::bigint[], $7::int[], $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[])
			AS b(tenant_id, instance_id, enrollment_id, type, qualifier, step, machine, provider, variant, count, first_at, last_at)
		WHERE f.tenant_id = b.tenant_id AND f.instance_id = b.instance_id AND f.enrollment_id = b.enrollment_id AND f.type = b.type AND f.qualifier = b.qualifier
		AND f.step = b.step AND f.machine = b.machine AND f.provider = b.provider AND f.variant = b.variant`,
		column(facts, func(r store.FactRow) int64 { return r.Tenant }), column(facts, func(r store.FactRow) []byte { return r.Instance[:] }),
		column(facts, func(r store.FactRow) []byte { return r.Enrollment[:] }),
		key.typ, key.qualifier, key.step, key.machine, key.provider, key.variant,
		sum(func(s store.FactSum) int64 { return s.Count }), sum(func(s store.FactSum) int64 { return row.US(s.First) }),
		sum(func(s store.FactSum) int64 { return row.US(s.Last) }))
	counters := slices.SortedFunc(maps.Keys(gone.Counters), func(a, b store.CounterRow) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), bytes.Compare(a.Instance[:], b.Instance[:]), cmp.Compare(a.Bucket, b.Bucket), compareKeys(a.Key, b.Key))
	})
	key = factKeys(counters, func(r store.CounterRow) campaign.FactKey { return r.Key })
	t.later(`INSERT INTO counter (slot, tenant_id, instance_id, bucket, type, qualifier, step, machine, provider, variant, count, archived)
		SELECT $1::int, tenant_id, instance_id, bucket, type, qualifier, step, machine, provider, variant, 0, archived
		FROM unnest($2::bigint[], $3::bytea[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::int[], $9::text[], $10::text[], $11::bigint[])
			AS b(tenant_id, instance_id, bucket, type, qualifier, step, machine, provider, variant, archived)
		ON CONFLICT (slot, tenant_id, instance_id, bucket, type, qualifier, step, machine, provider, variant) DO UPDATE SET archived = counter.archived + excluded.archived`,
		t.slot,
		column(counters, func(r store.CounterRow) int64 { return r.Tenant }),
		column(counters, func(r store.CounterRow) []byte { return r.Instance[:] }),
		column(counters, func(r store.CounterRow) int64 { return r.Bucket }),
		key.typ, key.qualifier, key.step, key.machine, key.provider, key.variant,
		column(counters, func(r store.CounterRow) int64 { return gone.Counters[r] }))
}

// retireBodies removes old bodies that could not be read and that a person
// has set aside or replayed.
func (t *tx) retireBodies(r store.Retention, n int) (removed int64, err error) {
	err = t.query(`DELETE FROM dead_letter WHERE seq IN (SELECT seq FROM dead_letter WHERE event_seq IS NULL AND status IN ('ignored', 'replayed')
		AND first_received_at < $1 ORDER BY seq LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING tenant_id`, func(sc row.Scanner) error {
		var tenant int64
		err := sc.Scan(&tenant)
		t.sums.Ledger(tenant).Undecodable--
		removed++
		return err
	}, row.US(r.Events), n)
	return removed, err
}
