package postgres

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// replayLease is how many deadlines of a transaction a replica has for a part
// of a bulk replay: its events are one transaction, its bodies are several.
const replayLease = 10

// StartReplay notes a bulk replay of the dead letters with the given ids, or,
// when ids is nil, of those that a filter matches. It costs no more than
// counting them; NextReplay and FinishReplayBatch carry it on, on whatever
// replica, also after a restart. A dry run only counts.
func (s *Store) StartReplay(ctx context.Context, tenant int64, ids []uuid.UUID, f store.LetterFilter, dryRun bool, actor string) (store.Replay, error) {
	r := store.Replay{ID: row.NewID(), Status: "running"}
	f.Status = store.LetterDead
	filter, err := json.Marshal(f)
	if err != nil {
		return r, fault.Wrap(fault.Internal, "start replay", err)
	}
	var c conditions
	c.letters(tenant, f)
	if ids != nil {
		keys := make([][]byte, len(ids))
		for i := range ids {
			keys[i] = ids[i][:]
		}
		c.add("d.id = ANY (?::bytea[])", keys)
	}
	var until int64
	// Counted by a reader: a million letters take no writer's place.
	err = s.read(ctx, "count dead letters", `SELECT count(*), coalesce(max(d.seq), 0) FROM dead_letter d WHERE `+c.String(),
		func(sc row.Scanner) error { return sc.Scan(&r.Matched, &until) }, c.args...)
	if err != nil || dryRun {
		return r, err
	}
	err = s.write(ctx, "start replay", func(t *tx) error {
		r.CreatedAt, r.UpdatedAt = t.now, t.now
		if ids != nil {
			chosen := c // a second try begins with the same arguments
			if _, err := t.exec(chosen.bind(`INSERT INTO replay_item (tenant_id, replay_id, letter_seq)
				SELECT d.tenant_id, ?::bytea, d.seq FROM dead_letter d WHERE `, r.ID[:])+chosen.String(), chosen.args...); err != nil {
				return err
			}
		}
		if _, err := t.exec(`INSERT INTO replay (id, tenant_id, status, filter, by_ids, after_seq, until_seq, matched, created_at, updated_at)
			VALUES ($1, $2, 'running', $3, $4, 0, $5, $6, $7, $7)`, r.ID[:], tenant, filter, ids != nil, until, r.Matched, row.US(t.now)); err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO replaying (tenant_id, replay_id, served_at, until) VALUES ($1, $2, 0, 0)`, tenant, r.ID[:]); err != nil {
			return err
		}
		t.tell(store.Change{Kind: store.ChangedWork})
		return t.Audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "dead_letter.replay", Subject: r.ID.String(), Detail: fmt.Sprintf("%d matched", r.Matched)})
	})
	return r, err
}

// NextReplay gives the next part, at most n letters, of a running bulk replay
// and marks them as replaying; ok is false when none is running, or others are
// at all that run. A part without letters is the end and must be finished too.
// A part is one replica's for ten deadlines of a transaction. Then another
// takes it over: of those who finish it the first is booked.
func (s *Store) NextReplay(ctx context.Context, n int) (b store.ReplayBatch, ok bool, err error) {
	var seqs []int64
	err = s.write(ctx, "next replay", func(t *tx) error {
		b, seqs = store.ReplayBatch{}, nil
		var id, filter []byte
		var byIDs bool
		var until int64
		var err error
		ok, err = t.one(`UPDATE replaying SET served_at = $1, until = $2 FROM replay r
			WHERE r.id = replaying.replay_id AND r.tenant_id = replaying.tenant_id AND r.id = (
				SELECT replay_id FROM replaying WHERE until <= $1 ORDER BY served_at, replay_id LIMIT 1 FOR UPDATE SKIP LOCKED)
			RETURNING r.id, r.tenant_id, r.filter, r.by_ids, r.until_seq`,
			[]any{row.US(t.now), row.US(t.now.Add(replayLease * s.opt.TxTimeout))}, &id, &b.Tenant, &filter, &byIDs, &until)
		if err != nil || !ok {
			return err
		}
		b.ID = row.ID(id)
		// In a statement of its own: it sees what the one who had it last booked.
		if _, err := t.one(`SELECT after_seq FROM replay WHERE id = $1 AND tenant_id = $2`, []any{id, b.Tenant}, &b.After); err != nil {
			return err
		}
		if seqs, err = t.part(b); err != nil || len(seqs) > 0 {
			return err
		}
		var f store.LetterFilter
		if err := json.Unmarshal(filter, &f); err != nil {
			return fmt.Errorf("read filter of replay: %w", err)
		}
		f.Status = "" // another replay may be at them
		var c conditions
		c.letters(b.Tenant, f)
		c.add("d.status IN ('dead', 'replaying') AND d.seq > ? AND d.seq <= ?", b.After, until)
		if byIDs {
			c.add("d.seq IN (SELECT letter_seq FROM replay_item WHERE replay_id = ? AND tenant_id = ?)", id, b.Tenant)
		}
		query := c.bind(`INSERT INTO replay_part (tenant_id, replay_id, letter_seq) SELECT d.tenant_id, ?::bytea, d.seq FROM dead_letter d WHERE `, id) +
			c.bind(c.String()+" ORDER BY d.seq LIMIT ?", n)
		if _, err := t.exec(query, c.args...); err != nil {
			return err
		}
		if seqs, err = t.part(b); err != nil {
			return err
		}
		_, err = t.exec(`UPDATE dead_letter SET status = 'replaying' WHERE status = 'dead' AND tenant_id = $1 AND seq = ANY ($2::bigint[])`, b.Tenant, seqs)
		return err
	})
	if err != nil || !ok || len(seqs) == 0 {
		return b, ok && err == nil, err
	}
	b.Letters, err = s.letters(ctx, "d.seq = ANY ($1::bigint[]) AND d.tenant_id = $2 ORDER BY d.seq", seqs, b.Tenant)
	return b, err == nil, err
}

// part reads which letters a replay is at.
func (t *tx) part(b store.ReplayBatch) ([]int64, error) {
	var seqs []int64
	err := t.query(`SELECT letter_seq FROM replay_part WHERE replay_id = $1 AND tenant_id = $2 ORDER BY letter_seq`, func(sc row.Scanner) error {
		var seq int64
		err := sc.Scan(&seq)
		seqs = append(seqs, seq)
		return err
	}, b.ID[:], b.Tenant)
	return seqs, err
}

// FinishReplayBatch books the outcomes of a part of a bulk replay, once, and
// ends the replay when the part was the last: what matched at the start and
// has no outcome by then was settled by others and counts as skipped.
func (s *Store) FinishReplayBatch(ctx context.Context, b store.ReplayBatch, outcomes map[uuid.UUID]store.Result) error {
	return s.write(ctx, "finish replay batch", func(t *tx) error {
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
		// The row of those that run is locked before the replay's own, by everyone.
		if _, err := t.exec(`SELECT 1 FROM replaying WHERE replay_id = $1 AND tenant_id = $2 FOR UPDATE`, b.ID[:], b.Tenant); err != nil {
			return err
		}
		booked, err := t.exec(`UPDATE replay SET applied = applied + $3, orphaned = orphaned + $4, duplicate = duplicate + $5,
			dead = dead + $6, updated_at = $8, after_seq = $10,
			skipped = skipped + $7 - CASE status WHEN 'cancelled' THEN $11::bigint ELSE 0 END -- which counted this part as skipped
			WHERE id = $1 AND tenant_id = $2 AND after_seq = $9`,
			b.ID[:], b.Tenant, sum.Applied, sum.Orphaned, sum.Duplicate, sum.Dead, sum.Skipped, row.US(t.now), b.After, b.Letters[len(b.Letters)-1].Seq, len(b.Letters))
		if err != nil || booked == 0 {
			return err // another replica took the part over and was faster
		}
		if _, err := t.exec(`UPDATE replaying SET until = 0 WHERE replay_id = $1 AND tenant_id = $2`, b.ID[:], b.Tenant); err != nil {
			return err
		}
		return t.endPart(b.Tenant, b.ID)
	})
}

// endPart gives back those letters of a part that are still marked as replaying.
func (t *tx) endPart(tenant int64, id uuid.UUID) error {
	if _, err := t.exec(`UPDATE dead_letter SET status = 'dead' WHERE status = 'replaying' AND tenant_id = $2
		AND seq IN (SELECT letter_seq FROM replay_part WHERE replay_id = $1 AND tenant_id = $2)`, id[:], tenant); err != nil {
		return err
	}
	_, err := t.exec(`DELETE FROM replay_part WHERE replay_id = $1 AND tenant_id = $2`, id[:], tenant)
	return err
}

// endReplay ends a replay; a part that is under way counts as skipped until it
// is booked.
func (t *tx) endReplay(tenant int64, id uuid.UUID, status string) error {
	if _, err := t.exec(`DELETE FROM replaying WHERE replay_id = $1 AND tenant_id = $2`, id[:], tenant); err != nil {
		return err
	}
	if _, err := t.exec(`UPDATE replay SET status = $3, updated_at = $4,
		skipped = greatest(skipped + part.n, matched - applied - orphaned - duplicate - dead),
		matched = greatest(matched, applied + orphaned + duplicate + dead + skipped + part.n)
		FROM (SELECT count(*) AS n FROM replay_part WHERE replay_id = $1 AND tenant_id = $2) part
		WHERE id = $1 AND tenant_id = $2 AND status = 'running'`, id[:], tenant, status, row.US(t.now)); err != nil {
		return err
	}
	if err := t.endPart(tenant, id); err != nil {
		return err
	}
	_, err := t.exec(`DELETE FROM replay_item WHERE replay_id = $1 AND tenant_id = $2`, id[:], tenant)
	return err
}

// ReplayProgress reads how far a bulk replay is.
func (s *Store) ReplayProgress(ctx context.Context, tenant int64, id uuid.UUID) (store.Replay, error) {
	r := store.Replay{ID: id}
	found := false
	err := s.read(ctx, "read replay", `SELECT status, matched, applied, orphaned, duplicate, dead, skipped, created_at, updated_at
		FROM replay WHERE id = $1 AND tenant_id = $2`, func(sc row.Scanner) error {
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
	err := s.write(ctx, "cancel replay", func(t *tx) error {
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
