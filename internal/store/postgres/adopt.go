package postgres

import (
	"cmp"
	"context"
	"math"
	"slices"

	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

type tenantSeq struct {
	tenant int64
	seq    int64
}

func (s tenantSeq) columns() (seq, tenant int64) { return s.seq, s.tenant }

func seqColumns(seqs []tenantSeq) (numbers, tenants []int64) {
	for _, s := range seqs {
		n, t := s.columns()
		numbers, tenants = append(numbers, n), append(tenants, t)
	}
	return numbers, tenants
}

// adopt takes the events that wait for any of the keys through the processor,
// at most store.AdoptLimit of them; what is left is noted and continued at once by
// AdoptNext. The first count is how many were applied, the second how many
// are left.
func (t *tx) adopt(keys []store.TenantKey) (adopted int, left int64, err error) {
	if len(keys) == 0 {
		return 0, 0, nil
	}
	if t.added == nil {
		t.added = map[store.TenantKey]int64{}
	}
	room := max(store.AdoptLimit-t.processed, 0)
	waiting, err := t.waiting(keys, room+1)
	if err != nil {
		return 0, 0, err
	}
	taken, until := store.TakeIn(waiting, room)
	var rest []store.TenantKey
	var restAfter []int64
	for i, after := range until {
		t.added[keys[i]] = after
		if after != math.MaxInt64 { // what comes after is AdoptNext's, and in time for it
			rest, restAfter = append(rest, keys[i]), append(restAfter, after)
		}
	}
	restTenants, restKeys := keyColumns(rest)
	if len(rest) > 0 {
		t.later(`INSERT INTO adopting (tenant_id, key, after_seq, served_at) SELECT tenant_id, key, after_seq, 0
			FROM unnest($1::bigint[], $2::bytea[], $3::bigint[]) AS b(tenant_id, key, after_seq) ORDER BY tenant_id, key
			ON CONFLICT (tenant_id, key) DO UPDATE SET after_seq = least(adopting.after_seq, excluded.after_seq)`, restTenants, restKeys, restAfter)
		t.tell(store.Change{Kind: store.ChangedWork})
	}
	seqs := make([]tenantSeq, 0, len(taken))
	for seq, i := range taken {
		seqs = append(seqs, tenantSeq{keys[i].Tenant, seq})
	}
	t.processed += len(seqs)
	if adopted, err = t.adoptSeqs(seqs); err != nil {
		return adopted, 0, err
	}
	if len(rest) > 0 {
		_, err = t.one(`SELECT count(DISTINCT w.event_seq) FROM unnest($1::bigint[], $2::bytea[], $3::bigint[]) AS b(tenant_id, key, after_seq)
			JOIN waiting_key w ON w.tenant_id = b.tenant_id AND w.key = b.key AND w.event_seq > b.after_seq`,
			[]any{restTenants, restKeys, restAfter}, &left)
	}
	return adopted, left, err
}

func keyColumns(keys []store.TenantKey) (tenants []int64, hashes [][]byte) {
	return column(keys, func(k store.TenantKey) int64 { return k.Tenant }), column(keys, func(k store.TenantKey) []byte { return k.Key[:] })
}

// waiting gives, for each of the keys, the first n events that wait for it.
func (t *tx) waiting(keys []store.TenantKey, n int) ([][]int64, error) {
	all := make([][]int64, len(keys))
	tenants, hashes := keyColumns(keys)
	err := t.query(`SELECT b.ord, w.event_seq FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS b(tenant_id, key, ord)
		CROSS JOIN LATERAL (SELECT event_seq FROM waiting_key WHERE tenant_id = b.tenant_id AND key = b.key ORDER BY event_seq LIMIT $3) w
		ORDER BY b.ord, w.event_seq`, func(sc row.Scanner) error {
		var ord int
		var seq int64
		err := sc.Scan(&ord, &seq)
		if err == nil {
			all[ord-1] = append(all[ord-1], seq)
		}
		return err
	}, tenants, hashes, n)
	return all, err
}

// adoptSeqs takes waiting events through the processor and counts those that
// were applied. An event that the database refuses stays where it is and does
// not fail the others.
func (t *tx) adoptSeqs(seqs []tenantSeq) (int, error) {
	if len(t.under) > 0 {
		seqs = slices.DeleteFunc(seqs, func(s tenantSeq) bool { return t.under[s.seq] })
	}
	results, err := store.Adopt(seqs,
		func(seqs []tenantSeq) ([]*store.Work, error) { return t.load(seqs, store.ByAdoption) },
		func(works []*store.Work) error { return t.within(func() error { return t.process(works) }) }, refused)
	t.adopted = append(t.adopted, results...)
	return len(results), err
}

// load locks and reads stored events that wait (orphaned, or dead and not set
// aside by a person) for the processor: their rows in the queue, by number,
// then the dead ones, which somebody may be setting aside, and last what became
// of them.
func (t *tx) load(seqs []tenantSeq, by string) ([]*store.Work, error) {
	slices.SortFunc(seqs, func(a, b tenantSeq) int { return cmp.Compare(a.seq, b.seq) })
	numbers, tenants := seqColumns(seqs)
	t.later(`SELECT 1 FROM unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id)
		JOIN orphan o ON o.event_seq = b.seq AND o.tenant_id = b.tenant_id ORDER BY o.event_seq FOR UPDATE OF o`, numbers, tenants)
	t.later(`SELECT 1 FROM unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id)
		JOIN event e ON e.seq = b.seq AND e.tenant_id = b.tenant_id WHERE e.state = 'dead' ORDER BY e.seq FOR NO KEY UPDATE OF e`, numbers, tenants)
	return t.read(seqs, by)
}

// read is load without the lock.
func (t *tx) read(seqs []tenantSeq, by string) ([]*store.Work, error) {
	if len(seqs) == 0 {
		return nil, nil
	}
	numbers, tenants := seqColumns(seqs)
	works := make([]*store.Work, 0, len(seqs))
	err := t.query(`SELECT `+lightColumns+` FROM unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id)
		JOIN event e ON e.seq = b.seq AND e.tenant_id = b.tenant_id
		WHERE e.state = 'orphaned' OR (e.state = 'dead'
			AND NOT EXISTS (SELECT 1 FROM dead_letter d WHERE d.event_seq = e.seq AND d.tenant_id = e.tenant_id AND d.status = 'ignored'))`,
		func(sc row.Scanner) error {
			var r store.Record
			if err := row.ScanEvent(sc, &r); err != nil {
				return err
			}
			works = append(works, store.WorkOf(&r, by))
			return nil
		}, numbers, tenants)
	return works, err
}

// AdoptNext looks at buried events once more whose minute is over, n of them,
// or else continues a large adoption, n events of one key. more is false when
// nothing is left, or what is left is another replica's at this moment.
func (s *Store) AdoptNext(ctx context.Context, n int) (more bool, err error) {
	err = s.write(ctx, "adopt", func(t *tx) error {
		more = false
		took, err := t.recheck(n)
		if err == nil && !took {
			took, err = t.adoptMore(n)
		}
		if err != nil || !took {
			return err
		}
		_, err = t.one(`SELECT EXISTS (SELECT 1 FROM adopting) OR EXISTS (SELECT 1 FROM recheck WHERE due_at <= $1)`, []any{row.US(t.now)}, &more)
		return err
	})
	return more, err
}

// recheck looks at events whose burial an enrollment may have missed.
func (t *tx) recheck(n int) (took bool, err error) {
	var seqs []tenantSeq
	err = t.query(`DELETE FROM recheck r USING (SELECT event_seq FROM recheck WHERE due_at <= $1 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED) due
		WHERE r.event_seq = due.event_seq RETURNING r.tenant_id, r.event_seq`, func(sc row.Scanner) error {
		var s tenantSeq
		err := sc.Scan(&s.tenant, &s.seq)
		seqs = append(seqs, s)
		return err
	}, row.US(t.now), n)
	if err != nil || len(seqs) == 0 {
		return false, err
	}
	_, err = t.adoptSeqs(seqs)
	return true, err
}

func (t *tx) adoptMore(n int) (took bool, err error) {
	var tenant, after int64
	var key []byte
	took, err = t.one(`SELECT tenant_id, key, after_seq FROM adopting ORDER BY served_at LIMIT 1 FOR UPDATE SKIP LOCKED`, nil, &tenant, &key, &after)
	if err != nil || !took {
		return false, err
	}
	var seqs []tenantSeq
	var last int64
	err = t.query(`SELECT event_seq FROM waiting_key WHERE tenant_id = $1 AND key = $2 AND event_seq > $3 ORDER BY event_seq LIMIT $4`, func(sc row.Scanner) error {
		err := sc.Scan(&last)
		seqs = append(seqs, tenantSeq{tenant, last})
		return err
	}, tenant, key, after, n)
	if err != nil {
		return false, err
	}
	if _, err = t.adoptSeqs(seqs); err != nil {
		return false, err
	}
	if len(seqs) < n {
		t.later(`DELETE FROM adopting WHERE tenant_id = $1 AND key = $2`, tenant, key)
	} else {
		t.later(`UPDATE adopting SET after_seq = $3, served_at = $4 WHERE tenant_id = $1 AND key = $2`, tenant, key, last, row.US(t.now))
	}
	return true, nil
}
