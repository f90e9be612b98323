package sqlite

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Claim takes at most n due orphans under a lease: weighted over the routes
// and in turn over the tenants, the longest due first. A lease that runs out
// makes them claimable again and is not an attempt. Only what has been visible
// for at least overdue is taken: beside another queue that leaves it room.
func (s *Store) Claim(ctx context.Context, n int, lease, overdue time.Duration) (store.Claim, error) {
	claim := store.Claim{Token: s.tokens.Add(1)}
	err := s.write(ctx, bulk, "claim orphans", func(t *tx) error {
		claim.Events = claim.Events[:0]
		weights := 0
		for _, r := range event.Routes() {
			weights += store.Share(r)
		}
		// Two passes: each route its share, then whoever still has due work.
		for pass := range 2 {
			for _, r := range event.Routes() {
				want := n - len(claim.Events)
				if pass == 0 {
					want = min(want, max(1, n*store.Share(r)/weights))
				}
				if want <= 0 {
					break
				}
				if err := t.claimRoute(&claim, r, want, lease, overdue); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return claim, err
}

func (t *tx) claimRoute(claim *store.Claim, r event.Route, want int, lease, overdue time.Duration) error {
	// Each tenant offers its longest due; row_number deals them out in turn.
	return t.query(`UPDATE orphan SET visible_at = ?4, token = ?5 WHERE event_seq IN (
			SELECT event_seq FROM (
				SELECT o.event_seq, row_number() OVER (PARTITION BY o.tenant_id ORDER BY o.visible_at) AS turn, o.visible_at
				FROM tenant t JOIN orphan o ON o.event_seq IN (
					SELECT event_seq FROM orphan WHERE route = ?1 AND tenant_id = t.id AND visible_at <= ?2 ORDER BY visible_at LIMIT ?3))
			ORDER BY turn, visible_at LIMIT ?3)
		RETURNING event_seq, tenant_id, route, attempts`, func(sc row.Scanner) error {
		var c store.Claimed
		if err := sc.Scan(&c.Seq, &c.Tenant, &c.Route, &c.Attempts); err != nil {
			return err
		}
		claim.Events = append(claim.Events, c)
		return nil
	}, string(r), row.US(t.now.Add(-overdue)), want, row.US(t.now.Add(lease)), claim.Token)
}

// Retry runs claimed orphans through the processor: those whose enrollment is
// there are applied, the others spend an attempt, and after the last one are
// buried. Only orphans that the claim still holds are touched.
func (s *Store) Retry(ctx context.Context, claim store.Claim) ([]store.Result, error) {
	var results []store.Result
	err := s.write(ctx, bulk, "retry orphans", func(t *tx) error {
		works, err := t.load(seqsOf(claim.Events), store.ByRetry)
		if err != nil {
			return err
		}
		held, err := t.held(claim)
		if err != nil {
			return err
		}
		kept := works[:0]
		for _, w := range works {
			if h, ok := held[w.Seq]; ok && w.From == event.Orphaned {
				w.Attempts, w.Failures = h.attempts, h.failures
				kept = append(kept, w)
			}
		}
		if err := t.process(kept); err != nil {
			return err
		}
		var entries []store.Entry
		results, entries = t.rules().Tried(kept)
		return t.Remember(entries)
	})
	return results, err
}

type heldOrphan struct{ attempts, failures int }

// held reads which orphans a claim still holds and may spend an attempt of.
func (t *tx) held(claim store.Claim) (map[int64]heldOrphan, error) {
	seen := make(map[int64]int, len(claim.Events))
	for _, c := range claim.Events {
		seen[c.Seq] = c.Attempts
	}
	held := make(map[int64]heldOrphan, len(seen))
	err := t.query(`SELECT o.event_seq, o.attempts, o.failures FROM b_seq(?1) b
		CROSS JOIN orphan o ON o.event_seq = b.seq AND o.tenant_id = b.tenant_id AND (o.token = ?2 OR ?4) AND o.due_at <= ?3`,
		func(sc row.Scanner) error {
			var seq int64
			var h heldOrphan
			if err := sc.Scan(&seq, &h.attempts, &h.failures); err != nil {
				return err
			}
			if claim.External || seen[seq] == h.attempts {
				held[seq] = h
			}
			return nil
		}, bind(claim.Events, claimedColumn), claim.Token, row.US(t.now), claim.External)
	return held, err
}

func claimedColumn(c sqlite3.Context, e *store.Claimed, col int) {
	switch col {
	case 1:
		c.ResultInt64(e.Tenant)
	case 2:
		c.ResultInt64(e.Seq)
	}
}

func seqsOf(claimed []store.Claimed) []tenantSeq {
	seqs := make([]tenantSeq, len(claimed))
	for i, c := range claimed {
		seqs[i] = tenantSeq{c.Tenant, c.Seq}
	}
	return seqs
}

// Failed notes that an orphan, alone in its batch, failed for a reason of its
// own. The third time in a row it is buried as poison.
func (s *Store) Failed(ctx context.Context, claim store.Claim, detail string) ([]store.Result, error) {
	const poisonAfter = 3
	var results []store.Result
	err := s.write(ctx, bulk, "note failed orphan", func(t *tx) error {
		works, err := t.load(seqsOf(claim.Events), store.ByRetry)
		if err != nil {
			return err
		}
		held, err := t.held(claim)
		if err != nil {
			return err
		}
		for _, w := range works {
			h, ok := held[w.Seq]
			if !ok {
				continue
			}
			w.Attempts = h.attempts
			if h.failures+1 >= poisonAfter {
				w.Bury, w.BuryDetail = store.ReasonPoison, detail
				if err := t.process([]*store.Work{w}); err != nil {
					return err
				}
				w.Result.Seq = w.Seq
				results = append(results, w.Result)
				continue
			}
			if _, err := t.exec(`UPDATE orphan SET failures = failures + 1, token = 0, visible_at = ?2 WHERE event_seq = ?1 AND (token = ?3 OR ?4)`,
				w.Seq, row.US(t.now.Add(time.Minute)), claim.Token, claim.External); err != nil {
				return err
			}
		}
		return nil
	})
	return results, err
}

// Release gives a claim back: due now, no attempt spent. An external claim is
// not the store's to give back.
func (s *Store) Release(ctx context.Context, claim store.Claim) error {
	if len(claim.Events) == 0 || claim.External {
		return nil
	}
	return s.write(ctx, bulk, "release orphans", func(t *tx) error {
		_, err := t.exec(`UPDATE orphan SET visible_at = due_at, token = 0
			WHERE token = ?2 AND event_seq IN (SELECT seq FROM b_seq(?1))`, bind(claim.Events, claimedColumn), claim.Token)
		return err
	})
}

// NextDue is when the earliest orphan may be claimed; ok is false when none waits.
func (s *Store) NextDue(ctx context.Context) (due time.Time, ok bool, err error) {
	var first int64
	for _, r := range event.Routes() {
		err := s.read(ctx, "next due", `SELECT coalesce(min((SELECT min(visible_at) FROM orphan WHERE route = ?1 AND tenant_id = t.id)), 0) FROM tenant t`,
			func(sc row.Scanner) error {
				var v int64
				if err := sc.Scan(&v); err != nil {
					return err
				}
				if v != 0 && (first == 0 || v < first) {
					first = v
				}
				return nil
			}, string(r))
		if err != nil {
			return time.Time{}, false, err
		}
	}
	return row.At(first), first != 0, nil
}

// Orphans pages through what waits, by number from the one after: what a queue
// beside the database is rebuilt from.
func (s *Store) Orphans(ctx context.Context, after int64, n int) ([]store.Parked, error) {
	now := row.US(s.opt.Now())
	var all []store.Parked
	err := s.read(ctx, "read orphans", `SELECT event_seq, tenant_id, route, due_at FROM orphan WHERE event_seq > ?1 ORDER BY event_seq LIMIT ?2`,
		func(sc row.Scanner) error {
			var p store.Parked
			var due int64
			err := sc.Scan(&p.Seq, &p.Tenant, &p.Route, &due)
			p.Delay = time.Duration(max(0, due-now)) * time.Microsecond
			all = append(all, p)
			return err
		}, after, n)
	return all, err
}

// QueueStats are the depths by route. It counts index entries: for scrapes
// that are cached, not for every request.
func (s *Store) QueueStats(ctx context.Context) (map[event.Route]store.RouteStats, error) {
	all := map[event.Route]store.RouteStats{}
	for _, r := range event.Routes() {
		all[r] = store.RouteStats{}
	}
	now := row.US(s.opt.Now())
	err := s.readOn(ctx, s.probes, "queue stats", `SELECT o.route, o.depth, o.due, o.leased, e.received_at FROM (
			SELECT route, count(*) AS depth, sum(visible_at <= ?1) AS due, sum(token <> 0 AND visible_at > ?1) AS leased, min(event_seq) AS oldest
			FROM orphan GROUP BY route) o JOIN event e ON e.seq = o.oldest`,
		func(sc row.Scanner) error {
			var route event.Route
			var st store.RouteStats
			var received int64
			if err := sc.Scan(&route, &st.Depth, &st.Due, &st.Leased, &received); err != nil {
				return err
			}
			st.OldestAt = row.At(received)
			all[route] = st
			return nil
		}, now)
	return all, err
}

// QueueDepth is how many orphans wait, and when the oldest was received, at O(1).
func (s *Store) QueueDepth(ctx context.Context) (depth int64, oldest time.Time, err error) {
	err = s.readOn(ctx, s.probes, "queue depth", `SELECT coalesce((SELECT sum(orphaned) FROM ledger), 0),
		coalesce((SELECT received_at FROM event WHERE seq = (SELECT min(event_seq) FROM orphan)), 0)`, func(sc row.Scanner) error {
		var us int64
		err := sc.Scan(&depth, &us)
		oldest = row.At(us)
		return err
	})
	return depth, oldest, err
}

// adopt takes the events that wait for any of the keys through the processor,
// at most store.AdoptLimit of them; what is left is noted and continued at once by
// AdoptNext. The first count is how many were applied, the second how many
// are left.
func (t *tx) adopt(keys []store.TenantKey) (adopted int, left int64, err error) {
	if len(keys) == 0 {
		return 0, 0, nil
	}
	room := max(store.AdoptLimit-t.processed, 0)
	waiting, err := t.waitingFor(keys, room+1)
	if err != nil {
		return 0, 0, err
	}
	taken, until := store.TakeIn(waiting, room)
	var rest []seqKey
	for i, after := range until {
		if after != math.MaxInt64 {
			rest = append(rest, seqKey{keys[i].Tenant, keys[i].Key[:], after})
		}
	}
	if len(rest) > 0 {
		if _, err := t.exec(`INSERT INTO adopting (tenant_id, key, after_seq, served_at) SELECT tenant_id, key, seq, 0 FROM b_key(?1) WHERE true
			ON CONFLICT DO UPDATE SET after_seq = min(after_seq, excluded.after_seq)`, bind(rest, keyColumn)); err != nil {
			return 0, 0, err
		}
	}
	seqs := make([]tenantSeq, 0, len(taken))
	for seq, i := range taken {
		seqs = append(seqs, tenantSeq{keys[i].Tenant, seq})
	}
	slices.SortFunc(seqs, func(a, b tenantSeq) int { return cmp.Compare(a.seq, b.seq) })
	t.processed += len(seqs)
	if adopted, err = t.adoptSeqs(seqs); err != nil {
		return adopted, 0, err
	}
	if len(rest) > 0 { // an event may wait for several of the keys
		_, err = t.one(`SELECT count(DISTINCT w.event_seq) FROM b_key(?1) b
			CROSS JOIN waiting_key w ON w.tenant_id = b.tenant_id AND w.key = b.key AND w.event_seq > b.seq`,
			[]any{bind(rest, keyColumn)}, &left)
	}
	return adopted, left, err
}

// waitingFor gives, for each of the keys, the first n events that wait for it.
func (t *tx) waitingFor(keys []store.TenantKey, n int) ([][]int64, error) {
	all := make([][]int64, len(keys))
	rows := make([]seqKey, len(keys))
	for i := range keys {
		rows[i] = seqKey{keys[i].Tenant, keys[i].Key[:], int64(i)}
	}
	err := t.query(`SELECT b.seq, w.event_seq FROM b_key(?1) b CROSS JOIN waiting_key w ON w.tenant_id = b.tenant_id AND w.key = b.key
			AND w.event_seq IN (SELECT event_seq FROM waiting_key WHERE tenant_id = b.tenant_id AND key = b.key ORDER BY event_seq LIMIT ?2)
		ORDER BY b.seq, w.event_seq`, func(sc row.Scanner) error {
		var ord int
		var seq int64
		err := sc.Scan(&ord, &seq)
		if err == nil {
			all[ord] = append(all[ord], seq)
		}
		return err
	}, bind(rows, keyColumn), n)
	return all, err
}

func (t *tx) waiting(tenant int64, key event.Hash, after int64, n int) ([]tenantSeq, error) {
	var seqs []tenantSeq
	err := t.query(`SELECT event_seq FROM waiting_key WHERE tenant_id = ?1 AND key = ?2 AND event_seq > ?3 ORDER BY event_seq LIMIT ?4`,
		func(sc row.Scanner) error {
			ts := tenantSeq{tenant: tenant}
			err := sc.Scan(&ts.seq)
			seqs = append(seqs, ts)
			return err
		}, tenant, key[:], after, n)
	return seqs, err
}

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

// AdoptNext continues the large adoptions, n events of one key in a turn of
// its own. more is false when none is left.
func (s *Store) AdoptNext(ctx context.Context, n int) (more bool, err error) {
	err = s.write(ctx, bulk, "adopt", func(t *tx) error {
		more = false
		var tenant, after int64
		var key []byte
		found, err := t.one(`SELECT tenant_id, key, after_seq FROM adopting ORDER BY served_at LIMIT 1`, nil, &tenant, &key, &after)
		if err != nil || !found {
			return err
		}
		seqs, err := t.waiting(tenant, event.Hash(key), after, n)
		if err != nil {
			return err
		}
		if _, err = t.adoptSeqs(seqs); err != nil {
			return err
		}
		if len(seqs) < n {
			_, err = t.exec(`DELETE FROM adopting WHERE tenant_id = ?1 AND key = ?2`, tenant, key)
		} else {
			_, err = t.exec(`UPDATE adopting SET after_seq = ?3, served_at = ?4 WHERE tenant_id = ?1 AND key = ?2`,
				tenant, key, seqs[len(seqs)-1].seq, row.US(t.now))
		}
		if err != nil {
			return err
		}
		_, err = t.one(`SELECT EXISTS (SELECT 1 FROM adopting)`, nil, &more)
		return err
	})
	return more, err
}

type tenantSeq struct {
	tenant int64
	seq    int64
}

func tenantSeqColumn(c sqlite3.Context, s *tenantSeq, col int) {
	switch col {
	case 1:
		c.ResultInt64(s.tenant)
	case 2:
		c.ResultInt64(s.seq)
	}
}

// load reads stored events that wait (orphaned, or dead and not set aside by
// a person) for the processor.
func (t *tx) load(seqs []tenantSeq, by string) ([]*store.Work, error) {
	works := make([]*store.Work, 0, len(seqs))
	err := t.query(`SELECT `+lightColumns+` FROM b_seq(?1) b
		CROSS JOIN event e ON e.seq = b.seq AND e.tenant_id = b.tenant_id
		WHERE e.state = 'orphaned' OR (e.state = 'dead'
			AND NOT EXISTS (SELECT 1 FROM dead_letter d WHERE d.event_seq = e.seq AND d.status = 'ignored'))`,
		func(sc row.Scanner) error {
			var r store.Record
			if err := row.ScanEvent(sc, &r); err != nil {
				return err
			}
			works = append(works, store.WorkOf(&r, by))
			return nil
		}, bind(seqs, tenantSeqColumn))
	return works, err
}
