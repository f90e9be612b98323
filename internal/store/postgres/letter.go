package postgres

import (
	"context"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// letters adds a filter's conditions over dead_letter d; the event's own fields
// are looked up by its number.
func (c *conditions) letters(tenant int64, f store.LetterFilter) {
	c.add("d.tenant_id = ?", tenant)
	if f.Status != "" {
		c.text("d.status = ?", string(f.Status))
	}
	if f.Reason != "" {
		c.text("d.reason = ?", f.Reason)
	}
	if f.Provider != "" {
		c.text("d.provider = ?", f.Provider)
	}
	if f.Type != "" {
		c.text("EXISTS (SELECT 1 FROM event e WHERE e.seq = d.event_seq AND e.tenant_id = d.tenant_id AND e.type = ?)", string(f.Type))
	}
	if f.Email != "" {
		key := row.SearchKey("email", event.NormalAddress(f.Email))
		c.add("d.event_seq IN (SELECT event_seq FROM event_search WHERE tenant_id = ? AND key = ?)", tenant, key[:])
	}
	if !f.Since.IsZero() {
		c.add("d.first_received_at >= ?", row.US(f.Since))
	}
	if !f.Until.IsZero() {
		c.add("d.first_received_at < ?", row.US(f.Until))
	}
}

// Letters lists a tenant's dead letters, newest first.
func (s *Store) Letters(ctx context.Context, tenant int64, f store.LetterFilter, p store.Page) ([]store.Letter, int64, error) {
	var c conditions
	c.letters(tenant, f)
	c.add("d.seq < ?", before(p))
	rows, err := s.letters(ctx, c.bind(c.String()+" ORDER BY d.seq DESC LIMIT ?", p.Limit+1), c.args...)
	if err != nil {
		return nil, 0, err
	}
	rows, next := row.Cut(rows, p.Limit, func(l *store.Letter) int64 { return l.Seq })
	return rows, next, nil
}

// Letter reads one dead letter of a tenant.
func (s *Store) Letter(ctx context.Context, tenant int64, id uuid.UUID) (store.Letter, error) {
	rows, err := s.letters(ctx, "d.id = $1 AND d.tenant_id = $2", id[:], tenant)
	if err != nil {
		return store.Letter{}, err
	}
	if len(rows) == 0 {
		return store.Letter{}, row.NoLetter(id)
	}
	l := rows[0]
	if l.Event != nil { // one letter is shown whole
		whole, err := s.Event(ctx, tenant, l.Event.ID)
		if err != nil {
			return store.Letter{}, err
		}
		l.Event = &whole
	}
	return l, nil
}

// letters reads dead letters, of one tenant, with their events.
func (s *Store) letters(ctx context.Context, where string, args ...any) ([]store.Letter, error) {
	var rows []store.Letter
	bySeq := map[int64]int{}
	var tenant int64
	var seqs []int64
	err := s.read(ctx, "read dead letters", `SELECT `+row.LetterColumns+` FROM dead_letter d WHERE `+where, func(sc row.Scanner) error {
		var l store.Letter
		seq, err := row.ScanLetter(sc, &l)
		if err != nil {
			return err
		}
		if seq != 0 {
			bySeq[seq] = len(rows)
			tenant, seqs = l.Tenant, append(seqs, seq)
		}
		rows = append(rows, l)
		return nil
	}, args...)
	if err != nil || len(seqs) == 0 {
		return rows, err
	}
	err = s.read(ctx, "read dead letters", `SELECT `+lightColumns+` FROM event e WHERE e.seq = ANY ($1::bigint[]) AND e.tenant_id = $2`,
		func(sc row.Scanner) error {
			var r store.Record
			if err := row.ScanEvent(sc, &r); err != nil {
				return err
			}
			rows[bySeq[r.Seq]].Event = &r
			return nil
		}, seqs, tenant)
	return rows, err
}

// LetterStats count a tenant's dead letters.
func (s *Store) LetterStats(ctx context.Context, tenant int64) (store.LetterStats, error) {
	st := store.LetterStats{
		ByStatus: map[store.LetterStatus]int64{}, ByReason: map[string]int64{}, ByProvider: map[string]int64{},
	}
	err := s.read(ctx, "dead letter stats", `SELECT status, reason, provider, count(*), min(first_received_at) FROM dead_letter
		WHERE tenant_id = $1 GROUP BY status, reason, provider`, func(sc row.Scanner) error {
		var status store.LetterStatus
		var reason, provider string
		var n, oldest int64
		if err := sc.Scan(&status, &reason, &provider, &n, &oldest); err != nil {
			return err
		}
		st.Total += n
		st.ByStatus[status] += n
		if status == store.LetterDead {
			st.ByReason[reason] += n
			st.ByProvider[provider] += n
			if o := row.At(oldest); st.OldestAt.IsZero() || o.Before(st.OldestAt) {
				st.OldestAt = o
			}
		}
		return nil
	}, tenant)
	return st, err
}

// LetterCounts count all dead letters by status, for the metrics.
func (s *Store) LetterCounts(ctx context.Context) (map[store.LetterStatus]int64, error) {
	all := map[store.LetterStatus]int64{
		store.LetterDead: 0, store.LetterReplaying: 0, store.LetterReplayed: 0, store.LetterIgnored: 0,
	}
	err := s.read(ctx, "count dead letters", `SELECT status, count(*) FROM dead_letter GROUP BY status`, func(sc row.Scanner) error {
		var status store.LetterStatus
		var n int64
		err := sc.Scan(&status, &n)
		all[status] = n
		return err
	})
	return all, err
}

// SetLetter moves a dead letter from one status to another; Conflict when it
// is not in the first.
func (s *Store) SetLetter(ctx context.Context, tenant int64, id uuid.UUID, from, to store.LetterStatus, actor string) error {
	return s.write(ctx, "set dead letter", func(t *tx) error {
		if err := t.holdEvents(tenant, []uuid.UUID{id}); err != nil {
			return err
		}
		n, err := t.exec(`UPDATE dead_letter SET status = $4 WHERE id = $1 AND tenant_id = $2 AND status = $3`,
			id[:], tenant, string(from), string(to))
		if err != nil {
			return err
		}
		if n == 0 {
			var now string
			if ok, err := t.one(`SELECT status FROM dead_letter WHERE id = $1 AND tenant_id = $2`, []any{id[:], tenant}, &now); err != nil {
				return err
			} else if !ok {
				return row.NoLetter(id)
			}
			return fault.New(fault.Conflict, "the dead letter is %s; this is possible only while it is %s", now, from)
		}
		if from == store.LetterIgnored {
			if err := t.adoptRestored(tenant, id); err != nil {
				return err
			}
		}
		return t.Audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "dead_letter." + string(to), Subject: id.String()})
	})
}

// holdEvents keeps the events of dead letters as they are until the end of the
// transaction. Everything that moves an event and its letter locks the event
// first, in the order of their numbers, and then reads what became of both.
func (t *tx) holdEvents(tenant int64, letters []uuid.UUID) error {
	ids := make([][]byte, len(letters))
	for i := range letters {
		ids[i] = letters[i][:]
	}
	_, err := t.exec(`SELECT 1 FROM event e WHERE e.tenant_id = $1 AND e.seq IN (
		SELECT d.event_seq FROM dead_letter d WHERE d.tenant_id = $1 AND d.id = ANY ($2::bytea[])) ORDER BY e.seq FOR NO KEY UPDATE`, tenant, ids)
	return err
}

// adoptRestored ties a restored letter's event to its enrollment, if that came
// while the letter was set aside.
func (t *tx) adoptRestored(tenant int64, id uuid.UUID) error {
	var seq int64
	found, err := t.one(`SELECT event_seq FROM dead_letter WHERE id = $1 AND tenant_id = $2 AND event_seq IS NOT NULL AND reason IN ($3, $4)`,
		[]any{id[:], tenant, store.ReasonNoEnrollment, store.ReasonAmbiguous}, &seq)
	if err != nil || !found {
		return err
	}
	_, err = t.adoptSeqs([]tenantSeq{{tenant, seq}})
	return err
}

// ReplayLetters takes the events of dead letters through the processor again,
// in one transaction. An event that is applied already is a duplicate; one
// whose enrollment is still missing waits anew with a fresh schedule. Letters
// without an event are not touched (and have no result).
func (s *Store) ReplayLetters(ctx context.Context, tenant int64, ids []uuid.UUID) (map[uuid.UUID]store.Result, error) {
	results := map[uuid.UUID]store.Result{}
	err := s.write(ctx, "replay dead letters", func(t *tx) error {
		clear(results)
		return t.replay(tenant, ids, results)
	})
	return results, err
}

func (t *tx) replay(tenant int64, ids []uuid.UUID, results map[uuid.UUID]store.Result) error {
	if err := t.holdEvents(tenant, ids); err != nil {
		return err
	}
	letters := map[int64]uuid.UUID{}
	status := map[int64]store.LetterStatus{}
	var seqs []int64
	keys := make([][]byte, len(ids))
	for i := range ids {
		keys[i] = ids[i][:]
	}
	err := t.query(`SELECT d.id, d.event_seq, d.status FROM dead_letter d
		WHERE d.tenant_id = $1 AND d.id = ANY ($2::bytea[]) AND d.event_seq IS NOT NULL`, func(sc row.Scanner) error {
		var id []byte
		var seq int64
		var st store.LetterStatus
		if err := sc.Scan(&id, &seq, &st); err != nil {
			return err
		}
		letters[seq], status[seq] = row.ID(id), st
		seqs = append(seqs, seq)
		return nil
	}, tenant, keys)
	if err != nil || len(seqs) == 0 {
		return err
	}
	var works []*store.Work
	err = t.query(`SELECT `+lightColumns+` FROM event e WHERE e.seq = ANY ($1::bigint[]) AND e.tenant_id = $2 ORDER BY e.seq`,
		func(sc row.Scanner) error {
			var r store.Record
			if err := row.ScanEvent(sc, &r); err != nil {
				return err
			}
			if r.State != event.Dead || status[r.Seq] == store.LetterIgnored {
				// Someone was faster: an enrollment adopted it, a person assigned it.
				res := store.Result{ID: r.ID, Outcome: event.OutcomeDuplicate, State: r.State, Reason: r.Reason, Detail: r.Detail}
				if r.State == event.Orphaned {
					res.Outcome = event.OutcomeOrphaned
				}
				results[letters[r.Seq]] = res
				return nil
			}
			works = append(works, store.WorkOf(&r, store.ByReplay))
			return nil
		}, seqs, tenant)
	if err != nil {
		return err
	}
	if err := t.process(works); err != nil {
		return err
	}
	entries := make([]store.Entry, 0, len(works))
	for _, w := range works {
		results[letters[w.Seq]] = w.Result
		entries = append(entries, store.Entry{Tenant: tenant, Seq: w.Seq, Moment: store.Moment{
			At: t.now, What: "replayed", Detail: "from the dead letters: " + string(w.Result.Outcome),
		}})
	}
	return t.remember(entries)
}

// SettleBody notes that the body of a dead letter has been replayed.
func (s *Store) SettleBody(ctx context.Context, tenant int64, id uuid.UUID, status store.LetterStatus, reason, detail string) error {
	return s.write(ctx, "settle body", func(t *tx) error {
		_, err := t.exec(`UPDATE dead_letter SET status = $3, reason = $4, error = $5, attempts = attempts + 1, last_attempt_at = $6
			WHERE id = $1 AND tenant_id = $2 AND status IN ('dead', 'replaying')`, id[:], tenant, string(status), reason, detail, row.US(t.now))
		return err
	})
}
