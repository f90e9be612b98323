package sqlite

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func encodeHeaders(h map[string]string) []byte {
	b, err := json.Marshal(h, json.Deterministic(true))
	if err != nil { // a map of strings that are UTF-8 always marshals; others are dropped
		return []byte("{}")
	}
	return b
}

const letterColumns = `d.seq, d.id, d.tenant_id, d.event_seq, d.source_id, d.provider, d.reason, d.error, d.status, d.attempts,
	d.first_received_at, d.last_attempt_at, d.body, d.headers`

func scanLetter(sc scanner, l *store.Letter) (eventSeq int64, err error) {
	var id, source, headers []byte
	var seq *int64
	var first, last int64
	if err := sc.Scan(&l.Seq, &id, &l.Tenant, &seq, &source, &l.Provider, &l.Reason, &l.Error, &l.Status, &l.Attempts,
		&first, &last, &l.Body, &headers); err != nil {
		return 0, err
	}
	l.ID, l.SourceID, l.FirstReceivedAt, l.LastAttemptAt = idOf(id), idOf(source), at(first), at(last)
	if len(headers) > 0 {
		if err := json.Unmarshal(headers, &l.Headers); err != nil {
			return 0, fmt.Errorf("read headers of dead letter: %w", err)
		}
	}
	if seq != nil {
		eventSeq = *seq
	}
	return eventSeq, nil
}

// letterWhere turns a filter into conditions over dead_letter d; the event's
// own fields are looked up by its number.
func letterWhere(tenant int64, f store.LetterFilter) (string, []any) {
	where := []string{"d.tenant_id = ?"}
	args := []any{tenant}
	add := func(cond string, arg any) {
		where = append(where, cond)
		args = append(args, arg)
	}
	if f.Status != "" {
		add("d.status = ?", string(f.Status))
	}
	if f.Reason != "" {
		add("d.reason = ?", f.Reason)
	}
	if f.Provider != "" {
		add("d.provider = ?", f.Provider)
	}
	if f.Type != "" {
		add("EXISTS (SELECT 1 FROM event e WHERE e.seq = d.event_seq AND e.type = ?)", string(f.Type))
	}
	if f.Email != "" {
		add("EXISTS (SELECT 1 FROM event e WHERE e.seq = d.event_seq AND lower(trim(e.email)) = ?)", event.NormalAddress(f.Email))
	}
	if !f.Since.IsZero() {
		add("d.first_received_at >= ?", us(f.Since))
	}
	if !f.Until.IsZero() {
		add("d.first_received_at < ?", us(f.Until))
	}
	return strings.Join(where, " AND "), args
}

// Letters lists a tenant's dead letters, newest first.
func (s *Store) Letters(ctx context.Context, tenant int64, f store.LetterFilter, p store.Page) ([]store.Letter, int64, error) {
	where, args := letterWhere(tenant, f)
	if p.After > 0 {
		where += " AND d.seq < ?"
		args = append(args, p.After)
	}
	rows, err := s.letters(ctx, where+" ORDER BY d.seq DESC LIMIT ?", append(args, p.Limit+1)...)
	if err != nil {
		return nil, 0, err
	}
	rows, next := cut(rows, p.Limit, func(l *store.Letter) int64 { return l.Seq })
	return rows, next, nil
}

// Letter reads one dead letter of a tenant.
func (s *Store) Letter(ctx context.Context, tenant int64, id uuid.UUID) (store.Letter, error) {
	rows, err := s.letters(ctx, "d.id = ? AND d.tenant_id = ?", id[:], tenant)
	if err != nil {
		return store.Letter{}, err
	}
	if len(rows) == 0 {
		return store.Letter{}, noLetter(id)
	}
	return rows[0], nil
}

func noLetter(id uuid.UUID) error { return fault.New(fault.NotFound, "there is no dead letter %s", id) }

func (s *Store) letters(ctx context.Context, where string, args ...any) ([]store.Letter, error) {
	var rows []store.Letter
	bySeq := map[int64]int{}
	var seqs []tenantSeq
	err := s.read(ctx, "read dead letters", `SELECT `+letterColumns+` FROM dead_letter d WHERE `+where, func(sc scanner) error {
		var l store.Letter
		seq, err := scanLetter(sc, &l)
		if err != nil {
			return err
		}
		if seq != 0 {
			bySeq[seq] = len(rows)
			seqs = append(seqs, tenantSeq{l.Tenant, seq})
		}
		rows = append(rows, l)
		return nil
	}, args...)
	if err != nil || len(seqs) == 0 {
		return rows, err
	}
	err = s.read(ctx, "read dead letters", `SELECT `+eventColumns+` FROM b_seq(?1) b CROSS JOIN event e ON e.seq = b.seq AND e.tenant_id = b.tenant_id`,
		func(sc scanner) error {
			var r store.Record
			if err := scanEvent(sc, &r); err != nil {
				return err
			}
			rows[bySeq[r.Seq]].Event = &r
			return nil
		}, bind(seqs, tenantSeqColumn))
	return rows, err
}

// LetterStats count a tenant's dead letters.
func (s *Store) LetterStats(ctx context.Context, tenant int64) (store.LetterStats, error) {
	st := store.LetterStats{
		ByStatus: map[store.LetterStatus]int64{}, ByReason: map[string]int64{}, ByProvider: map[string]int64{},
	}
	err := s.read(ctx, "dead letter stats", `SELECT status, reason, provider, count(*), min(first_received_at) FROM dead_letter
		WHERE tenant_id = ? GROUP BY status, reason, provider`, func(sc scanner) error {
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
			if o := at(oldest); st.OldestAt.IsZero() || o.Before(st.OldestAt) {
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
	err := s.read(ctx, "count dead letters", `SELECT status, count(*) FROM dead_letter GROUP BY status`, func(sc scanner) error {
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
	return s.write(ctx, live, "set dead letter", func(t *tx) error {
		n, err := t.exec(`UPDATE dead_letter SET status = ?4 WHERE id = ?1 AND tenant_id = ?2 AND status = ?3`,
			id[:], tenant, string(from), string(to))
		if err != nil {
			return err
		}
		if n == 0 {
			var now string
			if ok, err := t.one(`SELECT status FROM dead_letter WHERE id = ?1 AND tenant_id = ?2`, []any{id[:], tenant}, &now); err != nil {
				return err
			} else if !ok {
				return noLetter(id)
			}
			return fault.New(fault.Conflict, "the dead letter is %s; this is possible only while it is %s", now, from)
		}
		return t.audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "dead_letter." + string(to), Subject: id.String()})
	})
}

// ReplayLetters takes the events of dead letters through the processor again,
// in one transaction. An event that is applied already is a duplicate; one
// whose enrollment is still missing waits anew with a fresh schedule. Letters
// without an event are not touched (and have no result).
func (s *Store) ReplayLetters(ctx context.Context, tenant int64, ids []uuid.UUID) (map[uuid.UUID]store.Result, error) {
	results := map[uuid.UUID]store.Result{}
	err := s.write(ctx, bulk, "replay dead letters", func(t *tx) error {
		clear(results)
		return t.replay(tenant, ids, results)
	})
	return results, err
}

func (t *tx) replay(tenant int64, ids []uuid.UUID, results map[uuid.UUID]store.Result) error {
	letters := map[int64]uuid.UUID{}
	status := map[int64]string{}
	var seqs []tenantSeq
	err := t.query(`SELECT d.id, d.event_seq, d.status FROM b_id(?1) b CROSS JOIN dead_letter d ON d.id = b.id AND d.tenant_id = b.tenant_id
		WHERE d.event_seq IS NOT NULL`, func(sc scanner) error {
		var id []byte
		ts := tenantSeq{tenant: tenant}
		var st string
		if err := sc.Scan(&id, &ts.seq, &st); err != nil {
			return err
		}
		letters[ts.seq], status[ts.seq] = idOf(id), st
		seqs = append(seqs, ts)
		return nil
	}, bind(ids, func(c sqlite3.Context, id *uuid.UUID, col int) {
		switch col {
		case 0:
			c.ResultInt64(tenant)
		case 1:
			c.ResultBlob(id[:])
		}
	}))
	if err != nil || len(seqs) == 0 {
		return err
	}
	var works []*work
	var moments []moment
	err = t.query(`SELECT `+eventColumns+` FROM b_seq(?1) b CROSS JOIN event e ON e.seq = b.seq AND e.tenant_id = b.tenant_id`,
		func(sc scanner) error {
			var r store.Record
			if err := scanEvent(sc, &r); err != nil {
				return err
			}
			if r.State != event.Dead || status[r.Seq] == string(store.LetterIgnored) {
				// Someone was faster: an enrollment adopted it, a person assigned it.
				res := store.Result{ID: r.ID, Outcome: event.OutcomeDuplicate, State: r.State, Reason: r.Reason, Detail: r.Detail}
				if r.State == event.Orphaned {
					res.Outcome = event.OutcomeOrphaned
				}
				results[letters[r.Seq]] = res
				return nil
			}
			works = append(works, workOf(&r, byReplay))
			return nil
		}, bind(seqs, tenantSeqColumn))
	if err != nil {
		return err
	}
	if err := t.process(works); err != nil {
		return err
	}
	for _, w := range works {
		results[letters[w.seq]] = w.result
		moments = append(moments, moment{tenant, w.seq, t.now, "replayed", "from the dead letters: " + string(w.result.Outcome)})
	}
	return t.remember(moments)
}

// SettleBody notes that the body of a dead letter has been replayed.
func (s *Store) SettleBody(ctx context.Context, tenant int64, id uuid.UUID, status store.LetterStatus, reason, detail string) error {
	return s.write(ctx, bulk, "settle body", func(t *tx) error {
		_, err := t.exec(`UPDATE dead_letter SET status = ?3, reason = ?4, error = ?5, attempts = attempts + 1, last_attempt_at = ?6
			WHERE id = ?1 AND tenant_id = ?2`, id[:], tenant, string(status), reason, detail, us(t.now))
		return err
	})
}

// StartReplay notes a bulk replay of dead letters with the given ids, or,
// when ids is nil, of those a filter matches. It is carried on by NextReplay,
// also after a restart. A dry run only counts.
func (s *Store) StartReplay(ctx context.Context, tenant int64, ids []uuid.UUID, f store.LetterFilter, dryRun bool, actor string) (store.Replay, error) {
	r := store.Replay{ID: newID(), Status: "running"}
	err := s.write(ctx, bulk, "start replay", func(t *tx) error {
		r.CreatedAt, r.UpdatedAt = t.now, t.now
		sel := `SELECT d.seq FROM dead_letter d WHERE `
		var args []any
		if ids != nil {
			sel += `d.tenant_id = ? AND d.status = 'dead' AND d.id IN (SELECT id FROM b_id(?))`
			args = []any{tenant, bind(ids, func(c sqlite3.Context, id *uuid.UUID, col int) {
				switch col {
				case 0:
					c.ResultInt64(tenant)
				case 1:
					c.ResultBlob(id[:])
				}
			})}
		} else {
			f.Status = store.LetterDead
			var where string
			where, args = letterWhere(tenant, f)
			sel += where
		}
		if dryRun {
			_, err := t.one(`SELECT count(*) FROM (`+sel+`)`, args, &r.Matched)
			return err
		}
		n, err := t.exec(`INSERT INTO replay_item (tenant_id, replay_id, letter_seq) SELECT ?, ?, seq FROM (`+sel+`)`,
			append([]any{tenant, r.ID[:]}, args...)...)
		if err != nil {
			return err
		}
		r.Matched = n
		if _, err := t.exec(`INSERT INTO replay (id, tenant_id, status, matched, created_at, updated_at) VALUES (?1, ?2, 'running', ?3, ?4, ?4)`,
			r.ID[:], tenant, n, us(t.now)); err != nil {
			return err
		}
		if _, err := t.exec(`UPDATE dead_letter SET status = 'replaying' WHERE tenant_id = ?2 AND seq IN (SELECT letter_seq FROM replay_item WHERE replay_id = ?1)`,
			r.ID[:], tenant); err != nil {
			return err
		}
		return t.audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "dead_letter.replay", Subject: r.ID.String(), Detail: fmt.Sprintf("%d matched", n)})
	})
	return r, err
}

// NextReplay gives at most n letters of a running bulk replay; ok is false
// when none is running.
func (s *Store) NextReplay(ctx context.Context, n int) (b store.ReplayBatch, ok bool, err error) {
	err = s.read(ctx, "next replay", `SELECT id, tenant_id FROM replay WHERE status = 'running' ORDER BY id LIMIT 1`, func(sc scanner) error {
		var id []byte
		ok = true
		err := sc.Scan(&id, &b.Tenant)
		b.ID = idOf(id)
		return err
	})
	if err != nil || !ok {
		return b, false, err
	}
	b.Letters, err = s.letters(ctx, "d.tenant_id = ? AND d.seq IN (SELECT letter_seq FROM replay_item WHERE replay_id = ? ORDER BY letter_seq LIMIT ?)", b.Tenant, b.ID[:], n)
	return b, err == nil, err
}

// FinishReplayBatch books the outcomes of a part of a bulk replay, and ends
// the replay when nothing of it is left. Letters of the part that have no
// outcome count as skipped.
func (s *Store) FinishReplayBatch(ctx context.Context, b store.ReplayBatch, outcomes map[uuid.UUID]store.Result) error {
	return s.write(ctx, bulk, "finish replay batch", func(t *tx) error {
		var sum store.Replay
		seqs := make([]tenantSeq, 0, len(b.Letters))
		for _, l := range b.Letters {
			seqs = append(seqs, tenantSeq{l.Tenant, l.Seq})
			switch res, ok := outcomes[l.ID]; {
			case !ok:
				sum.Skipped++
			case res.Outcome == event.OutcomeApplied:
				sum.Applied++
			case res.Outcome == event.OutcomeOrphaned:
				sum.Orphaned++
			case res.Outcome == event.OutcomeDuplicate, res.Outcome == event.OutcomeIgnored:
				sum.Duplicate++
			default:
				sum.Dead++
			}
		}
		// Booked only once, whatever happened between the part and this.
		n, err := t.exec(`DELETE FROM replay_item WHERE replay_id = ?2 AND letter_seq IN (SELECT seq FROM b_seq(?1))`,
			bind(seqs, tenantSeqColumn), b.ID[:])
		if err != nil {
			return err
		}
		if n > 0 {
			if _, err := t.exec(`UPDATE replay SET applied = applied + ?3, orphaned = orphaned + ?4, duplicate = duplicate + ?5,
				dead = dead + ?6, skipped = skipped + ?7, updated_at = ?8 WHERE id = ?1 AND tenant_id = ?2`,
				b.ID[:], b.Tenant, sum.Applied, sum.Orphaned, sum.Duplicate, sum.Dead, sum.Skipped, us(t.now)); err != nil {
				return err
			}
		}
		if _, err := t.exec(`UPDATE dead_letter SET status = 'dead' WHERE status = 'replaying' AND tenant_id = ?2 AND seq IN (SELECT seq FROM b_seq(?1))`,
			bind(seqs, tenantSeqColumn), b.Tenant); err != nil {
			return err
		}
		_, err = t.exec(`UPDATE replay SET status = 'done', updated_at = ?3 WHERE id = ?1 AND tenant_id = ?2 AND status = 'running'
			AND NOT EXISTS (SELECT 1 FROM replay_item WHERE replay_id = ?1)`, b.ID[:], b.Tenant, us(t.now))
		return err
	})
}

// ReplayProgress reads how far a bulk replay is.
func (s *Store) ReplayProgress(ctx context.Context, tenant int64, id uuid.UUID) (store.Replay, error) {
	r := store.Replay{ID: id}
	found := false
	err := s.read(ctx, "read replay", `SELECT status, matched, applied, orphaned, duplicate, dead, skipped, created_at, updated_at
		FROM replay WHERE id = ?1 AND tenant_id = ?2`, func(sc scanner) error {
		found = true
		var created, updated int64
		err := sc.Scan(&r.Status, &r.Matched, &r.Applied, &r.Orphaned, &r.Duplicate, &r.Dead, &r.Skipped, &created, &updated)
		r.CreatedAt, r.UpdatedAt = at(created), at(updated)
		return err
	}, id[:], tenant)
	if err == nil && !found {
		err = fault.New(fault.NotFound, "there is no replay %s", id)
	}
	return r, err
}

// CancelReplay ends a running bulk replay; what it has not reached stays dead.
func (s *Store) CancelReplay(ctx context.Context, tenant int64, id uuid.UUID, actor string) (store.Replay, error) {
	err := s.write(ctx, live, "cancel replay", func(t *tx) error {
		n, err := t.exec(`UPDATE replay SET status = 'cancelled', updated_at = ?3,
			skipped = skipped + (SELECT count(*) FROM replay_item i WHERE i.replay_id = ?1)
			WHERE id = ?1 AND tenant_id = ?2 AND status = 'running'`, id[:], tenant, us(t.now))
		if err != nil || n == 0 {
			return err
		}
		if _, err := t.exec(`UPDATE dead_letter SET status = 'dead' WHERE status = 'replaying' AND tenant_id = ?2
			AND seq IN (SELECT letter_seq FROM replay_item WHERE replay_id = ?1)`, id[:], tenant); err != nil {
			return err
		}
		if _, err := t.exec(`DELETE FROM replay_item WHERE replay_id = ?1 AND tenant_id = ?2`, id[:], tenant); err != nil {
			return err
		}
		return t.audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "dead_letter.replay_cancel", Subject: id.String()})
	})
	if err != nil {
		return store.Replay{}, err
	}
	return s.ReplayProgress(ctx, tenant, id)
}
