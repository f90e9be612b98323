package postgres

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Commit makes new events durable and settles each, all in one transaction.
// Results come in the order of the events. An error means that nothing was
// stored, or, when the commit itself failed, that it is not known: the same
// events, with the same ids, may then be committed again and are no
// duplicates of themselves.
func (s *Store) Commit(ctx context.Context, events []event.Event) ([]store.Result, error) {
	return s.commit(ctx, events, "", "")
}

// CommitDead stores events straight as dead letters, for those that cannot be
// processed. Only what identifies them and their payload must be storable.
func (s *Store) CommitDead(ctx context.Context, events []event.Event, reason, detail string) ([]store.Result, error) {
	return s.commit(ctx, events, reason, detail)
}

func (s *Store) commit(ctx context.Context, events []event.Event, bury, detail string) ([]store.Result, error) {
	results := make([]store.Result, len(events))
	err := s.write(ctx, "commit events", func(t *tx) error {
		works := make([]*store.Work, len(events))
		all := make([]store.Work, len(events)) // anew for each try
		for i := range events {
			w := &all[i]
			w.Event, w.Identity, w.Fresh, w.By, w.Bury, w.BuryDetail = &events[i], events[i].Identity(), true, store.ByLive, bury, detail
			w.Date(t.now, t.s.opt.Horizon)
			works[i] = w
		}
		admitted, err := t.takeNonces(works)
		if err != nil {
			return err
		}
		if err := t.accept(admitted); err != nil {
			return err
		}
		for i, w := range works {
			results[i] = w.Result
			if !w.Again && !w.Result.Refused {
				t.bring(w.Event.Tenant, w.Event.SourceID, w.Event.ReceivedAt)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// IndexNext does nothing: every index is written with its event.
func (s *Store) IndexNext(context.Context, int) (more bool, err error) { return false, nil }

type identityKey struct {
	tenant int64
	hash   event.Hash
}

func identityOf(w *store.Work) identityKey { return identityKey{w.Event.Tenant, w.Identity} }

// accept tells the first events of an identity from the others and settles
// the first ones.
func (t *tx) accept(works []*store.Work) error {
	leaders := make(map[identityKey]*store.Work, len(works)) // the first of each in this batch
	var own []*store.Work
	for _, w := range works {
		if k := identityOf(w); leaders[k] == nil {
			leaders[k] = w
			own = append(own, w)
		}
	}
	first, met, err := t.identify(own)
	if err != nil {
		return err
	}
	m := store.NewMeetings()
	stored := map[identityKey]store.Result{}
	if len(met) > 0 {
		if err := t.meet(met, m, stored); err != nil {
			return err
		}
	}
	// The twins of a batch meet what their leader has met, or the leader itself.
	var twins []*store.Work
	for _, w := range works {
		k := identityOf(w)
		if leaders[k] == w {
			continue
		}
		if r, ok := stored[k]; ok {
			m.Meet(w, r.Seq, r)
		} else {
			twins = append(twins, w)
		}
	}
	if err := t.repeat(m); err != nil {
		return err
	}
	if err := t.process(first); err != nil {
		return err
	}
	if len(twins) > 0 {
		m := store.NewMeetings()
		for _, w := range twins {
			l := leaders[identityOf(w)]
			m.Meet(w, l.Seq, store.Result{
				ID: l.Event.ID, State: l.To, Reason: l.Decision.Reason, Detail: l.Decision.Detail, Enrollment: l.Enrollment(),
			})
		}
		return t.repeat(m)
	}
	return nil
}

// identify claims identities, by key, as everybody does: two batches that share
// some wait for each other at the first of them and never in a circle. It
// numbers the events whose identity is new, in the order of the batch, and
// takes what is personal out of those whose contact is erased.
func (t *tx) identify(works []*store.Work) (first, met []*store.Work, err error) {
	if len(works) == 0 {
		return nil, nil, nil
	}
	by := make(map[identityKey]*store.Work, len(works))
	for _, w := range works {
		by[identityOf(w)] = w
	}
	t.ask(`WITH numbered AS MATERIALIZED (
			SELECT tenant_id, key, nextval('event_seq_seq') AS seq FROM unnest($1::bigint[], $2::bytea[]) AS b(tenant_id, key))
		INSERT INTO identity (tenant_id, key, event_seq) SELECT tenant_id, key, seq FROM numbered ORDER BY tenant_id, key
		ON CONFLICT DO NOTHING RETURNING tenant_id, key, event_seq`, func(sc row.Scanner) error {
		var k identityKey
		var key []byte
		var seq int64
		if err := sc.Scan(&k.tenant, &key, &seq); err != nil {
			return err
		}
		k.hash = event.Hash(key)
		by[k].Seq = seq
		return nil
	}, column(works, tenantOf), column(works, func(w *store.Work) []byte { return w.Identity[:] }))
	erasing := t.askErased(works)
	if err := t.flush(); err != nil {
		return nil, nil, err
	}
	for _, w := range works {
		if w.Seq != 0 {
			first = append(first, w)
		} else {
			met = append(met, w)
		}
	}
	return first, met, t.mark(first, erasing)
}

// meet reads what the events have met, in a statement of its own, which sees
// what was committed while identify waited. stored keeps it for their twins.
func (t *tx) meet(met []*store.Work, m *store.Meetings, stored map[identityKey]store.Result) error {
	found := func(sc row.Scanner) error {
		var ord int
		var id, enrollment []byte
		var r store.Result
		if err := sc.Scan(&ord, &r.Seq, &id, &r.State, &r.Reason, &r.Detail, &enrollment, &r.Retired); err != nil {
			return err
		}
		w := met[ord-1]
		r.ID, r.Enrollment = row.ID(id), row.ID(enrollment)
		stored[identityOf(w)] = r
		w.Met = r.Seq
		m.Meet(w, r.Seq, r)
		return nil
	}
	keys := column(met, func(w *store.Work) []byte { return w.Identity[:] })
	// Locked against retention: a duplicate is counted on a row that stays.
	if err := t.query(`SELECT b.ord, e.seq, e.id, e.state, e.reason, e.detail, e.enrollment_id, false
		FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS b(tenant_id, key, ord)
		JOIN identity i ON i.tenant_id = b.tenant_id AND i.key = b.key
		JOIN event e ON e.seq = i.event_seq AND e.tenant_id = i.tenant_id ORDER BY e.seq FOR KEY SHARE OF e`, found, column(met, tenantOf), keys); err != nil {
		return err
	}
	missing := func(w *store.Work) bool { return w.Met == 0 }
	if !slices.ContainsFunc(met, missing) {
		return nil
	}
	if err := t.query(`SELECT b.ord, r.seq, r.id, r.state, '', '', r.enrollment_id, true
		FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS b(tenant_id, key, ord)
		JOIN identity i ON i.tenant_id = b.tenant_id AND i.key = b.key
		JOIN retired r ON r.seq = i.event_seq AND r.tenant_id = i.tenant_id`, found, column(met, tenantOf), keys); err != nil {
		return err
	}
	if slices.ContainsFunc(met, missing) { // forgotten in this moment: it is a new one
		return errChanged
	}
	return nil
}

// repeat counts duplicates on the events that they met, by number. A commit of
// unknown outcome that is repeated counts no delivery twice.
func (t *tx) repeat(m *store.Meetings) error {
	if len(m.Duplicates) == 0 {
		return nil
	}
	counted := make(map[uuid.UUID]bool, len(m.Duplicates))
	if err := t.query(`INSERT INTO duplicate (id, tenant_id) SELECT id, tenant_id FROM unnest($1::bytea[], $2::bigint[]) AS b(id, tenant_id) ORDER BY id
		ON CONFLICT DO NOTHING RETURNING id`, func(sc row.Scanner) error {
		var id []byte
		err := sc.Scan(&id)
		counted[row.ID(id)] = true
		return err
	}, column(m.Duplicates, func(w *store.Work) []byte { return w.Event.ID[:] }), column(m.Duplicates, tenantOf)); err != nil {
		return err
	}
	m.Count(counted)
	t.sums.AddSums(m.Effects)
	if len(m.Repeats) == 0 {
		return nil
	}
	rows := slices.SortedFunc(slices.Values(m.Repeats), func(a, b *store.Repeat) int { return cmp.Compare(a.Seq, b.Seq) })
	t.later(`UPDATE event e SET duplicates = e.duplicates + b.n, last_duplicate_at = greatest(e.last_duplicate_at, b.at)
		FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS b(seq, tenant_id, n, at)
		WHERE e.seq = b.seq AND e.tenant_id = b.tenant_id`,
		column(rows, func(r *store.Repeat) int64 { return r.Seq }), column(rows, func(r *store.Repeat) int64 { return r.Tenant }),
		column(rows, func(r *store.Repeat) int64 { return r.N }), column(rows, func(r *store.Repeat) int64 { return row.US(r.At) }))
	return nil
}

// ForgetDuplicates forgets which deliveries before a moment were counted as
// duplicates, n of them at most: it is past the time at which a commit of
// unknown outcome may be repeated. more is false when none is left.
func (s *Store) ForgetDuplicates(ctx context.Context, before time.Time, n int) (more bool, err error) {
	err = s.write(ctx, "forget duplicates", func(t *tx) error {
		limit := store.FirstIDAt(before)
		done, err := t.exec(`DELETE FROM duplicate WHERE id IN (SELECT id FROM duplicate WHERE id < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)`, limit[:], n)
		more = done == int64(n)
		return err
	})
	return more, err
}

// CommitBody keeps an authentic body that could not be read as a dead letter.
// The same body of the same source again is the same letter. It was received
// when the letter says so, else now.
func (s *Store) CommitBody(ctx context.Context, l store.Letter) (store.Result, error) {
	var res store.Result
	err := s.write(ctx, "keep body", func(t *tx) error {
		res = store.Result{ID: l.ID, Outcome: event.OutcomeDead, State: event.Dead, Reason: l.Reason, Detail: l.Error}
		received := l.FirstReceivedAt
		if received.IsZero() {
			received = t.now
		}
		key := event.HashOf("body", l.SourceID.String(), string(l.Body))
		n, err := t.exec(`INSERT INTO dead_letter (id, tenant_id, source_id, provider, reason, error, status, attempts, first_received_at, last_attempt_at, body_key, body, headers)
			VALUES ($1, $2, $3, $4, $5, $6, 'dead', 0, $7, $7, $8, $9, $10) ON CONFLICT (body_key) DO NOTHING`,
			l.ID[:], l.Tenant, row.Blob(l.SourceID), l.Provider, l.Reason, l.Error, row.US(received), key[:], bytes.Clone(l.Body), row.EncodeHeaders(l.Headers))
		if err != nil {
			return err
		}
		if n == 0 {
			var id []byte
			if _, err := t.one(`SELECT id FROM dead_letter WHERE body_key = $1 AND tenant_id = $2`, []any{key[:], l.Tenant}, &id); err != nil {
				return err
			}
			if res.ID = row.ID(id); res.ID != l.ID { // else a commit of unknown outcome is repeated
				res.Outcome = event.OutcomeDuplicate
			}
			return nil
		}
		t.bring(l.Tenant, l.SourceID, received)
		t.sums.Ledger(l.Tenant).Undecodable++
		return nil
	})
	return res, err
}
