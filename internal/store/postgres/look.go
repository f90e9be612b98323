package postgres

import (
	"bytes"
	"context"
	"slices"

	"github.com/google/uuid"

	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// look is the second look. An event and the enrollment it belongs to may be
// committed at the same moment, neither seeing the other. So everybody who
// leaves an event without an enrollment, and everybody who adds a match key,
// looks once more after the commit, in a transaction of its own: whoever was
// the last to commit sees the other. What fails here, or a crash before it,
// costs time only: the retry schedule, and the recheck of a burial, find the
// event later.
func (s *Store) look(ctx context.Context, first *tx) {
	// The commit stands: that its caller has gone away must not leave the event waiting.
	_, err := s.once(context.WithoutCancel(ctx), func(t *tx) error {
		works := make([]*store.Work, 0, len(first.unmatched))
		seen := map[int64]bool{}
		for _, w := range first.unmatched {
			works = append(works, &store.Work{Event: w.Event, Seq: w.Seq, By: store.ByAdoption})
			seen[w.Seq] = true
		}
		missed, err := t.missed(first.added)
		if err != nil {
			return err
		}
		for _, w := range missed {
			if !seen[w.Seq] {
				works = append(works, w)
			}
		}
		if len(works) == 0 {
			return nil
		}
		l := store.NewLookup(works)
		if err := t.Lookup(l); err != nil {
			return err
		}
		l.Decide()
		var found []tenantSeq
		for _, w := range works {
			if w.Decision.Enrollment != uuid.Nil || w.Enrolls() {
				found = append(found, tenantSeq{w.Event.Tenant, w.Seq})
			}
		}
		_, err = t.adoptSeqs(found)
		return err
	})
	if err != nil && s.opt.Missed != nil {
		s.opt.Missed(s.fail("look once more", err))
	}
}

// missed reads what waits for the keys, as many events as an adoption takes in.
func (t *tx) missed(added map[store.TenantKey]int64) ([]*store.Work, error) {
	if len(added) == 0 {
		return nil, nil
	}
	refs := make([]store.TenantKey, 0, len(added))
	for r := range added {
		refs = append(refs, r)
	}
	slices.SortFunc(refs, func(a, b store.TenantKey) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	tenants, hashes := keyColumns(refs)
	var seqs []tenantSeq
	err := t.query(`SELECT DISTINCT w.tenant_id, w.event_seq FROM unnest($1::bigint[], $2::bytea[], $3::bigint[]) AS b(tenant_id, key, until)
		CROSS JOIN LATERAL (SELECT tenant_id, event_seq FROM waiting_key WHERE tenant_id = b.tenant_id AND key = b.key AND event_seq <= b.until
			ORDER BY event_seq LIMIT $4) w
		LIMIT $4`, func(sc row.Scanner) error {
		var s tenantSeq
		err := sc.Scan(&s.tenant, &s.seq)
		seqs = append(seqs, s)
		return err
	}, tenants, hashes, column(refs, func(r store.TenantKey) int64 { return added[r] }), store.AdoptLimit)
	if err != nil {
		return nil, err
	}
	return t.read(seqs, store.ByAdoption)
}
