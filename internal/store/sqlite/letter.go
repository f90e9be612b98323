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
	"tallyhook/internal/store/row"
)

// letterWhere turns a filter into conditions over dead_letter d; the event's
// own fields are looked up by its number.
func (s *Store) letterWhere(tenant int64, f store.LetterFilter) (string, []any) {
	where := []string{"d.tenant_id = ?"}
	args := []any{tenant}
	add := func(cond string, arg ...any) {
		where = append(where, cond)
		args = append(args, arg...)
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
		seqs, sargs := s.searched(searchRef{tenant, row.SearchKey("email", event.NormalAddress(f.Email))})
		add("d.event_seq IN ("+seqs+")", sargs...)
	}
	if !f.Since.IsZero() {
		add("d.first_received_at >= ?", row.US(f.Since))
	}
	if !f.Until.IsZero() {
		add("d.first_received_at < ?", row.US(f.Until))
	}
	return strings.Join(where, " AND "), args
}

// Letters lists a tenant's dead letters, newest first.
func (s *Store) Letters(ctx context.Context, tenant int64, f store.LetterFilter, p store.Page) ([]store.Letter, int64, error) {
	where, args := s.letterWhere(tenant, f)
	if p.After > 0 {
		where += " AND d.seq < ?"
		args = append(args, p.After)
	}
	rows, err := s.letters(ctx, where+" ORDER BY d.seq DESC LIMIT ?", append(args, p.Limit+1)...)
	if err != nil {
		return nil, 0, err
	}
	rows, next := row.Cut(rows, p.Limit, func(l *store.Letter) int64 { return l.Seq })
	return rows, next, nil
}

// Letter reads one dead letter of a tenant.
func (s *Store) Letter(ctx context.Context, tenant int64, id uuid.UUID) (store.Letter, error) {
	rows, err := s.letters(ctx, "d.id = ? AND d.tenant_id = ?", id[:], tenant)
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

func (s *Store) letters(ctx context.Context, where string, args ...any) ([]store.Letter, error) {
	var rows []store.Letter
	bySeq := map[int64]int{}
	var seqs []tenantSeq
	err := s.read(ctx, "read dead letters", `SELECT `+row.LetterColumns+` FROM dead_letter d WHERE `+where, func(sc row.Scanner) error {
		var l store.Letter
		seq, err := row.ScanLetter(sc, &l)
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
	err = s.read(ctx, "read dead letters", `SELECT `+lightColumns+` FROM b_seq(?1) b CROSS JOIN event e ON e.seq = b.seq AND e.tenant_id = b.tenant_id`,
		func(sc row.Scanner) error {
			var r store.Record
			if err := row.ScanEvent(sc, &r); err != nil {
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
		WHERE tenant_id = ? GROUP BY status, reason, provider`, func(sc row.Scanner) error {
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
	err := s.readOn(ctx, s.probes, "count dead letters", `SELECT status, count(*) FROM dead_letter GROUP BY status`, func(sc row.Scanner) error {
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

// adoptRestored ties a restored letter's event to its enrollment, if that came
// while the letter was set aside.
func (t *tx) adoptRestored(tenant int64, id uuid.UUID) error {
	var seq int64
	found, err := t.one(`SELECT event_seq FROM dead_letter WHERE id = ?1 AND tenant_id = ?2 AND event_seq IS NOT NULL AND reason IN (?3, ?4)`,
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
		WHERE d.event_seq IS NOT NULL`, func(sc row.Scanner) error {
		var id []byte
		ts := tenantSeq{tenant: tenant}
		var st string
		if err := sc.Scan(&id, &ts.seq, &st); err != nil {
			return err
		}
		letters[ts.seq], status[ts.seq] = row.ID(id), st
		seqs = append(seqs, ts)
		return nil
	}, bindIDs(tenant, ids))
	if err != nil || len(seqs) == 0 {
		return err
	}
	var works []*store.Work
	var entries []store.Entry
	err = t.query(`SELECT `+lightColumns+` FROM b_seq(?1) b CROSS JOIN event e ON e.seq = b.seq AND e.tenant_id = b.tenant_id`,
		func(sc row.Scanner) error {
			var r store.Record
			if err := row.ScanEvent(sc, &r); err != nil {
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
			works = append(works, store.WorkOf(&r, store.ByReplay))
			return nil
		}, bind(seqs, tenantSeqColumn))
	if err != nil {
		return err
	}
	if err := t.process(works); err != nil {
		return err
	}
	for _, w := range works {
		results[letters[w.Seq]] = w.Result
		entries = append(entries, store.Entry{Tenant: tenant, Seq: w.Seq, Moment: store.Moment{At: t.now, What: "replayed", Detail: "from the dead letters: " + string(w.Result.Outcome)}})
	}
	return t.Remember(entries)
}

// SettleBody notes that the body of a dead letter has been replayed.
func (s *Store) SettleBody(ctx context.Context, tenant int64, id uuid.UUID, status store.LetterStatus, reason, detail string) error {
	return s.write(ctx, bulk, "settle body", func(t *tx) error {
		_, err := t.exec(`UPDATE dead_letter SET status = ?3, reason = ?4, error = ?5, attempts = attempts + 1, last_attempt_at = ?6
			WHERE id = ?1 AND tenant_id = ?2 AND status IN ('dead', 'replaying')`, id[:], tenant, string(status), reason, detail, row.US(t.now))
		return err
	})
}

// StartReplay notes a bulk replay of the dead letters with the given ids, or,
// when ids is nil, of those that a filter matches. It costs no more than
// counting them; NextReplay and FinishReplayBatch carry it on, also after a
// restart. A dry run only counts.
func (s *Store) StartReplay(ctx context.Context, tenant int64, ids []uuid.UUID, f store.LetterFilter, dryRun bool, actor string) (store.Replay, error) {
	r := store.Replay{ID: row.NewID(), Status: "running"}
	f.Status = store.LetterDead
	filter, err := json.Marshal(f)
	if err != nil {
		return r, fault.Wrap(fault.Internal, "start replay", err)
	}
	where, args := s.letterWhere(tenant, f)
	if ids != nil {
		where += ` AND d.id IN (SELECT id FROM b_id(?))`
		args = append(args, bindIDs(tenant, ids))
	}
	var until int64
	// Counted by a reader: a million letters must not hold up the writer.
	err = s.read(ctx, "count dead letters", `SELECT count(*), coalesce(max(d.seq), 0) FROM dead_letter d WHERE `+where,
		func(sc row.Scanner) error { return sc.Scan(&r.Matched, &until) }, args...)
	if err != nil || dryRun {
		return r, err
	}
	err = s.write(ctx, bulk, "start replay", func(t *tx) error {
		r.CreatedAt, r.UpdatedAt = t.now, t.now
		if ids != nil {
			if _, err := t.exec(`INSERT INTO replay_item (tenant_id, replay_id, letter_seq) SELECT d.tenant_id, ?, d.seq FROM dead_letter d WHERE `+where,
				append([]any{r.ID[:]}, args...)...); err != nil {
				return err
			}
		}
		if _, err := t.exec(`INSERT INTO replay (id, tenant_id, status, filter, by_ids, after_seq, until_seq, matched, created_at, updated_at)
			VALUES (?1, ?2, 'running', ?3, ?4, 0, ?5, ?6, ?7, ?7)`, r.ID[:], tenant, filter, ids != nil, until, r.Matched, row.US(t.now)); err != nil {
			return err
		}
		return t.Audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "dead_letter.replay", Subject: r.ID.String(), Detail: fmt.Sprintf("%d matched", r.Matched)})
	})
	return r, err
}

func seqsOfLetters(letters []store.Letter) []tenantSeq {
	seqs := make([]tenantSeq, len(letters))
	for i, l := range letters {
		seqs[i] = tenantSeq{l.Tenant, l.Seq}
	}
	return seqs
}

func bindIDs(tenant int64, ids []uuid.UUID) any {
	return bind(ids, func(c sqlite3.Context, id *uuid.UUID, col int) {
		switch col {
		case 0:
			c.ResultInt64(tenant)
		case 1:
			c.ResultBlob(id[:])
		}
	})
}

// NextReplay gives the next part, at most n letters, of a running bulk replay
// and marks them as replaying; ok is false when none is running. A part
// without letters is the end and must be finished too.
func (s *Store) NextReplay(ctx context.Context, n int) (b store.ReplayBatch, ok bool, err error) {
	var where string
	var args []any
	err = s.read(ctx, "next replay", `SELECT id, tenant_id, filter, by_ids, after_seq, until_seq FROM replay WHERE status = 'running' ORDER BY id LIMIT 1`,
		func(sc row.Scanner) error {
			var id, filter []byte
			var byIDs bool
			var until int64
			var f store.LetterFilter
			if err := sc.Scan(&id, &b.Tenant, &filter, &byIDs, &b.After, &until); err != nil {
				return err
			}
			if err := json.Unmarshal(filter, &f); err != nil {
				return fmt.Errorf("read filter of replay: %w", err)
			}
			ok, b.ID = true, row.ID(id)
			f.Status = "" // a crash may have left letters of this part as replaying
			where, args = s.letterWhere(b.Tenant, f)
			where += " AND d.status IN ('dead', 'replaying') AND d.seq > ? AND d.seq <= ?"
			args = append(args, b.After, until)
			if byIDs {
				where += " AND d.seq IN (SELECT letter_seq FROM replay_item WHERE replay_id = ?)"
				args = append(args, id)
			}
			return nil
		})
	if err != nil || !ok {
		return b, false, err
	}
	b.Letters, err = s.letters(ctx, where+" ORDER BY d.seq LIMIT ?", append(args, n)...)
	if err != nil || len(b.Letters) == 0 {
		return b, err == nil, err
	}
	err = s.write(ctx, bulk, "mark letters", func(t *tx) error {
		var one int
		var err error
		if ok, err = t.one(`SELECT 1 FROM replay WHERE id = ?1 AND tenant_id = ?2 AND status = 'running'`, []any{b.ID[:], b.Tenant}, &one); err != nil || !ok {
			return err // cancelled meanwhile
		}
		_, err = t.exec(`UPDATE dead_letter SET status = 'replaying' WHERE status = 'dead' AND tenant_id = ?2 AND seq IN (SELECT seq FROM b_seq(?1))`,
			bind(seqsOfLetters(b.Letters), tenantSeqColumn), b.Tenant)
		return err
	})
	return b, ok && err == nil, err
}

// FinishReplayBatch books the outcomes of a part of a bulk replay, once, and
// ends the replay when the part was the last: what matched at the start and
// has no outcome by then was settled by others and counts as skipped.
func (s *Store) FinishReplayBatch(ctx context.Context, b store.ReplayBatch, outcomes map[uuid.UUID]store.Result) error {
	return s.write(ctx, bulk, "finish replay batch", func(t *tx) error {
		if len(b.Letters) == 0 {
			return t.endReplay(b.Tenant, b.ID, "done")
		}
		var sum store.Replay
		for _, l := range b.Letters {
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
		if _, err := t.exec(`UPDATE replay SET applied = applied + ?3, orphaned = orphaned + ?4, duplicate = duplicate + ?5,
			dead = dead + ?6, updated_at = ?8, after_seq = ?10,
			skipped = skipped + ?7 - CASE status WHEN 'cancelled' THEN ?11 ELSE 0 END -- which counted this part as skipped
			WHERE id = ?1 AND tenant_id = ?2 AND after_seq = ?9`,
			b.ID[:], b.Tenant, sum.Applied, sum.Orphaned, sum.Duplicate, sum.Dead, sum.Skipped, row.US(t.now), b.After, b.Letters[len(b.Letters)-1].Seq, len(b.Letters)); err != nil {
			return err
		}
		return t.unmark(b.Tenant, seqsOfLetters(b.Letters))
	})
}

// unmarkAll gives back, at the start of a server, the letters that a crash has
// left marked; a running replay marks its next part again.
func (s *Store) unmarkAll(ctx context.Context) error {
	if !s.opt.Serve {
		return nil
	}
	return s.write(ctx, live, "unmark letters", func(t *tx) error {
		_, err := t.exec(`UPDATE dead_letter SET status = 'dead' WHERE status = 'replaying'`)
		return err
	})
}

// unmark gives letters that are still marked as replaying back.
func (t *tx) unmark(tenant int64, seqs []tenantSeq) error {
	_, err := t.exec(`UPDATE dead_letter SET status = 'dead' WHERE status = 'replaying' AND tenant_id = ?2 AND seq IN (SELECT seq FROM b_seq(?1))`,
		bind(seqs, tenantSeqColumn), tenant)
	return err
}

func (t *tx) endReplay(tenant int64, id uuid.UUID, status string) error {
	if _, err := t.exec(`UPDATE replay SET status = ?3, updated_at = ?4,
		skipped = max(skipped, matched - applied - orphaned - duplicate - dead),
		matched = max(matched, applied + orphaned + duplicate + dead + skipped)
		WHERE id = ?1 AND tenant_id = ?2 AND status = 'running'`, id[:], tenant, status, row.US(t.now)); err != nil {
		return err
	}
	_, err := t.exec(`DELETE FROM replay_item WHERE replay_id = ?1 AND tenant_id = ?2`, id[:], tenant)
	return err
}

// ReplayProgress reads how far a bulk replay is.
func (s *Store) ReplayProgress(ctx context.Context, tenant int64, id uuid.UUID) (store.Replay, error) {
	r := store.Replay{ID: id}
	found := false
	err := s.read(ctx, "read replay", `SELECT status, matched, applied, orphaned, duplicate, dead, skipped, created_at, updated_at
		FROM replay WHERE id = ?1 AND tenant_id = ?2`, func(sc row.Scanner) error {
		found = true
		var created, updated int64
		err := sc.Scan(&r.Status, &r.Matched, &r.Applied, &r.Orphaned, &r.Duplicate, &r.Dead, &r.Skipped, &created, &updated)
		r.CreatedAt, r.UpdatedAt = row.At(created), row.At(updated)
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
		if err := t.endReplay(tenant, id, "cancelled"); err != nil {
			return err
		}
		return t.Audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "dead_letter.replay_cancel", Subject: id.String()})
	})
	if err != nil {
		return store.Replay{}, err
	}
	return s.ReplayProgress(ctx, tenant, id)
}
