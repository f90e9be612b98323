package sqlite

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
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
	var results []store.Result
	if _, waiting := s.index.oldest(); waiting >= maxWaiting {
		return nil, &fault.Error{
			Kind: fault.Unavailable, Op: "commit events", Msg: "the index is behind; events are held back until it has caught up", RetryAfter: time.Second,
		}
	}
	err := s.write(ctx, live, "commit events", func(t *tx) error {
		var last int64
		if _, err := t.one(lastSQL, nil, &last); err != nil {
			return err
		}
		works := make([]*store.Work, len(events))
		all := make([]store.Work, len(events))
		for i := range events {
			w := &all[i]
			w.Event, w.Seq, w.Fresh, w.By, w.Bury, w.BuryDetail = &events[i], last+1+int64(i), true, store.ByLive, bury, detail
			w.Date(t.now, t.s.opt.Horizon)
			works[i] = w
		}
		admitted, err := t.takeNonces(works)
		if err != nil {
			return err
		}
		first, err := t.identify(admitted, last)
		if err != nil {
			return err
		}
		if err := t.mark(first); err != nil {
			return err
		}
		if err := t.process(first); err != nil {
			return err
		}
		if len(first) < len(admitted) {
			if err := t.meet(admitted); err != nil {
				return err
			}
		}
		if err := t.touchSources(admitted); err != nil {
			return err
		}
		results = make([]store.Result, len(works))
		for i, w := range works {
			results[i] = w.Result
		}
		return nil
	})
	return results, err
}

// lastSQL is the highest number that was given: of an event that is there or
// was removed.
const lastSQL = `SELECT max((SELECT coalesce(max(seq), 0) FROM event), (SELECT coalesce(max(seq), 0) FROM retired))`

// meet tells the events that were not the first of their identity what they met.
func (t *tx) meet(works []*store.Work) error {
	type meeting struct{ mine, met int64 }
	var rows []meeting
	bySeq := make(map[int64]*store.Work)
	for _, w := range works {
		if w.Met != 0 {
			rows = append(rows, meeting{w.Seq, w.Met})
			bySeq[w.Seq] = w
		}
	}
	m := store.NewMeetings()
	err := t.query(`SELECT b.ord, e.seq, e.id, e.state, e.reason, e.detail, e.enrollment_id, 0 FROM b_seq(?1) b CROSS JOIN event e ON e.seq = b.seq
		UNION ALL SELECT b.ord, r.seq, r.id, r.state, '', '', r.enrollment_id, 1 FROM b_seq(?1) b CROSS JOIN retired r ON r.seq = b.seq`, func(sc row.Scanner) error {
		var mine, seq int64
		var id, enrollment []byte
		var r store.Result
		if err := sc.Scan(&mine, &seq, &id, &r.State, &r.Reason, &r.Detail, &enrollment, &r.Retired); err != nil {
			return err
		}
		r.ID, r.Enrollment = row.ID(id), row.ID(enrollment)
		m.Meet(bySeq[mine], seq, r)
		return nil
	}, bind(rows, func(c sqlite3.Context, m *meeting, col int) {
		switch col {
		case 0:
			c.ResultInt64(m.mine)
		case 2:
			c.ResultInt64(m.met)
		}
	}))
	if err != nil || len(m.Duplicates) == 0 {
		return err
	}
	// A commit of unknown outcome that is repeated counts no delivery twice.
	counted := make(map[uuid.UUID]bool, len(m.Duplicates))
	if err := t.query(`INSERT INTO duplicate (id, tenant_id) SELECT id, tenant_id FROM b_id(?1) WHERE true ON CONFLICT DO NOTHING RETURNING id`,
		func(sc row.Scanner) error {
			var id []byte
			err := sc.Scan(&id)
			counted[row.ID(id)] = true
			return err
		}, bind(m.Duplicates, func(c sqlite3.Context, p **store.Work, col int) {
			switch w := *p; col {
			case 0:
				c.ResultInt64(w.Event.Tenant)
			case 1:
				c.ResultBlob(w.Event.ID[:])
			}
		})); err != nil {
		return err
	}
	m.Count(counted)
	if len(m.Repeats) == 0 {
		return t.writeLedgers(m.Effects) // of those whose events are removed by now
	}
	if _, err := t.exec(`UPDATE event SET duplicates = duplicates + b.n, last_duplicate_at = max(last_duplicate_at, b.at) FROM b_dup(?1) b
		WHERE event.seq = b.seq AND event.tenant_id = b.tenant_id`, bind(m.Repeats, func(c sqlite3.Context, p **store.Repeat, col int) {
		r := *p
		switch col {
		case 0:
			c.ResultInt64(r.Seq)
		case 1:
			c.ResultInt64(r.Tenant)
		case 2:
			c.ResultInt64(r.N)
		case 3:
			c.ResultInt64(row.US(r.At))
		}
	})); err != nil {
		return err
	}
	return t.writeLedgers(m.Effects)
}

// CommitBody keeps an authentic body that could not be read as a dead letter.
// The same body of the same source again is the same letter. It was received
// when the letter says so, else now.
func (s *Store) CommitBody(ctx context.Context, l store.Letter) (store.Result, error) {
	res := store.Result{ID: l.ID, Outcome: event.OutcomeDead, State: event.Dead, Reason: l.Reason, Detail: l.Error}
	err := s.write(ctx, live, "keep body", func(t *tx) error {
		key := event.HashOf("body", l.SourceID.String(), string(l.Body))
		received := l.FirstReceivedAt
		if received.IsZero() {
			received = t.now
		}
		n, err := t.exec(`INSERT INTO dead_letter (id, tenant_id, source_id, provider, reason, error, status, attempts, first_received_at, last_attempt_at, body_key, body, headers)
			VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'dead', 0, ?7, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING`,
			l.ID[:], l.Tenant, row.Blob(l.SourceID), l.Provider, l.Reason, l.Error, row.US(received), key[:], l.Body, row.EncodeHeaders(l.Headers))
		if err != nil {
			return err
		}
		if n == 0 {
			var id []byte
			if _, err := t.one(`SELECT id FROM dead_letter WHERE body_key = ?1`, []any{key[:]}, &id); err != nil {
				return err
			}
			if res.ID = row.ID(id); res.ID != l.ID { // else a commit of unknown outcome is repeated
				res.Outcome = event.OutcomeDuplicate
			}
			return nil
		}
		if _, err := t.exec(`UPDATE source SET received = received + 1, last_received_at = max(last_received_at, ?3) WHERE id = ?1 AND tenant_id = ?2`,
			l.SourceID[:], l.Tenant, row.US(received)); err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO ledger (tenant_id, undecodable) VALUES (?1, 1)
			ON CONFLICT DO UPDATE SET undecodable = undecodable + 1`, l.Tenant)
		return err
	})
	return res, err
}

// ForgetDuplicates forgets which deliveries before a moment were counted as
// duplicates, n of them at most: it is past the time at which a commit of
// unknown outcome may be repeated. more is false when none is left.
func (s *Store) ForgetDuplicates(ctx context.Context, before time.Time, n int) (more bool, err error) {
	err = s.write(ctx, bulk, "forget duplicates", func(t *tx) error {
		limit := store.FirstIDAt(before)
		done, err := t.exec(`DELETE FROM duplicate WHERE id IN (SELECT id FROM duplicate WHERE id < ?1 ORDER BY id LIMIT ?2)`, limit[:], n)
		more = done == int64(n)
		return err
	})
	return more, err
}
