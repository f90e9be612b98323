package postgres

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// offer is what one tenant has due on a route, and what is taken of it.
type offer struct {
	route  event.Route
	tenant int64
	due    int // at most as many as a claim takes
	oldest int64
	take   int
}

// deal hands n places out: each route its share, in turn over its tenants, the
// longest due first, and then what is left to whoever still has due work.
func deal(offers []*offer, n int) {
	weights := 0
	for _, r := range event.Routes() {
		weights += store.Share(r)
	}
	left := n
	for pass := range 2 {
		for _, r := range event.Routes() {
			want := left
			if pass == 0 {
				want = min(want, max(1, n*store.Share(r)/weights))
			}
			left -= dealRoute(offers, r, want)
		}
	}
}

func dealRoute(offers []*offer, r event.Route, want int) (dealt int) {
	for more := true; more; {
		more = false
		for _, o := range offers {
			if dealt == want {
				return dealt
			}
			if o.route == r && o.take < o.due {
				o.take++
				dealt++
				more = true
			}
		}
	}
	return dealt
}

// Claim takes at most n due orphans under a lease: weighted over the routes
// and in turn over the tenants, the longest due first. A lease that runs out
// makes them claimable again and is not an attempt. Only what has been visible
// for at least overdue is taken: beside another queue that leaves it room.
// What another replica is claiming in the same moment is passed over.
func (s *Store) Claim(ctx context.Context, n int, lease, overdue time.Duration) (store.Claim, error) {
	var claim store.Claim
	err := s.write(ctx, "claim orphans", func(t *tx) error {
		claim = store.Claim{Token: 1 + rand.Int64N(1<<62)} //nolint:gosec // it tells claims apart and guards nothing
		offers, err := t.offers(n, row.US(t.now.Add(-overdue)))
		if err != nil || len(offers) == 0 {
			return err
		}
		deal(offers, n)
		offers = slices.DeleteFunc(offers, func(o *offer) bool { return o.take == 0 })
		return t.query(`UPDATE orphan o SET visible_at = $5, token = $6 FROM (
				SELECT c.event_seq FROM unnest($1::text[], $2::bigint[], $3::int[]) AS b(route, tenant_id, take)
				CROSS JOIN LATERAL (SELECT event_seq FROM orphan WHERE route = b.route AND tenant_id = b.tenant_id AND visible_at <= $4
					ORDER BY visible_at LIMIT b.take FOR UPDATE SKIP LOCKED) c) taken
			WHERE o.event_seq = taken.event_seq RETURNING o.event_seq, o.tenant_id, o.route, o.attempts`, func(sc row.Scanner) error {
			var c store.Claimed
			err := sc.Scan(&c.Seq, &c.Tenant, &c.Route, &c.Attempts)
			claim.Events = append(claim.Events, c)
			return err
		},
			column(offers, func(o *offer) string { return string(o.route) }), column(offers, func(o *offer) int64 { return o.tenant }),
			column(offers, func(o *offer) int32 { return int32(o.take) }), //nolint:gosec // at most n
			row.US(t.now.Add(-overdue)), row.US(t.now.Add(lease)), claim.Token)
	})
	if err != nil {
		return store.Claim{}, err
	}
	return claim, nil
}

// offers counts what is visible since a moment, up to n for each route and
// tenant, the longest due first.
func (t *tx) offers(n int, since int64) ([]*offer, error) {
	var all []*offer
	routes := column(event.Routes(), func(r event.Route) string { return string(r) })
	err := t.query(`SELECT r.route, t.id, o.n, o.oldest FROM unnest($1::text[]) AS r(route) CROSS JOIN tenant t
		CROSS JOIN LATERAL (SELECT count(*) AS n, min(visible_at) AS oldest FROM (
			SELECT visible_at FROM orphan WHERE route = r.route AND tenant_id = t.id AND visible_at <= $2 ORDER BY visible_at LIMIT $3) due) o
		WHERE o.n > 0`, func(sc row.Scanner) error {
		o := &offer{}
		err := sc.Scan(&o.route, &o.tenant, &o.due, &o.oldest)
		all = append(all, o)
		return err
	}, routes, since, n)
	slices.SortFunc(all, func(a, b *offer) int { return cmp.Or(cmp.Compare(a.oldest, b.oldest), cmp.Compare(a.tenant, b.tenant)) })
	return all, err
}

// Retry runs claimed orphans through the processor: those whose enrollment is
// there are applied, the others spend an attempt, and after the last one are
// buried. Only orphans that the claim still holds are touched.
func (s *Store) Retry(ctx context.Context, claim store.Claim) ([]store.Result, error) {
	var results []store.Result
	err := s.write(ctx, "retry orphans", func(t *tx) error {
		works, err := t.held(claim)
		if err != nil {
			return err
		}
		if err := t.process(works); err != nil {
			return err
		}
		var entries []store.Entry
		results, entries = t.rules().Tried(works)
		return t.remember(entries)
	})
	return results, err
}

// held locks and reads the orphans that a claim still holds and may spend an
// attempt of. Who waits for another's lock finds the attempt spent.
func (t *tx) held(claim store.Claim) ([]*store.Work, error) {
	if len(claim.Events) == 0 {
		return nil, nil
	}
	type state struct{ attempts, failures int }
	seen := make(map[int64]int, len(claim.Events))
	for _, c := range claim.Events {
		seen[c.Seq] = c.Attempts
	}
	held := make(map[int64]state, len(seen))
	var seqs []tenantSeq
	err := t.query(`SELECT o.event_seq, o.tenant_id, o.attempts, o.failures FROM unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id)
		JOIN orphan o ON o.event_seq = b.seq AND o.tenant_id = b.tenant_id AND (o.token = $3 OR $4) AND o.due_at <= $5
		ORDER BY o.event_seq FOR UPDATE OF o`, func(sc row.Scanner) error {
		var seq tenantSeq
		var h state
		if err := sc.Scan(&seq.seq, &seq.tenant, &h.attempts, &h.failures); err != nil {
			return err
		}
		if claim.External || seen[seq.seq] == h.attempts {
			held[seq.seq] = h
			seqs = append(seqs, seq)
		}
		return nil
	}, column(claim.Events, func(c store.Claimed) int64 { return c.Seq }), column(claim.Events, func(c store.Claimed) int64 { return c.Tenant }),
		claim.Token, claim.External, row.US(t.now))
	if err != nil {
		return nil, err
	}
	works, err := t.read(seqs, store.ByRetry)
	if err != nil {
		return nil, err
	}
	works = slices.DeleteFunc(works, func(w *store.Work) bool { return w.From != event.Orphaned })
	for _, w := range works {
		w.Attempts, w.Failures = held[w.Seq].attempts, held[w.Seq].failures
	}
	return works, nil
}

// Failed notes that an orphan, alone in its batch, failed for a reason of its
// own. The third time in a row it is buried as poison.
func (s *Store) Failed(ctx context.Context, claim store.Claim, detail string) ([]store.Result, error) {
	const poisonAfter = 3
	var results []store.Result
	err := s.write(ctx, "note failed orphan", func(t *tx) error {
		results = nil
		works, err := t.held(claim)
		if err != nil {
			return err
		}
		var poison, again []*store.Work
		for _, w := range works {
			if w.Failures+1 >= poisonAfter {
				w.Bury, w.BuryDetail = store.ReasonPoison, detail
				poison = append(poison, w)
			} else {
				again = append(again, w)
			}
		}
		if len(again) > 0 {
			t.later(`UPDATE orphan o SET failures = o.failures + 1, token = 0, visible_at = $3
				FROM unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id) WHERE o.event_seq = b.seq AND o.tenant_id = b.tenant_id`,
				column(again, seqOf), column(again, tenantOf), row.US(t.now.Add(time.Minute)))
		}
		if err := t.process(poison); err != nil {
			return err
		}
		for _, w := range poison {
			w.Result.Seq = w.Seq
			results = append(results, w.Result)
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
	return s.write(ctx, "release orphans", func(t *tx) error {
		rows := slices.SortedFunc(slices.Values(claim.Events), func(a, b store.Claimed) int { return cmp.Compare(a.Seq, b.Seq) })
		t.later(`UPDATE orphan o SET visible_at = o.due_at, token = 0 FROM unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id)
			WHERE o.event_seq = b.seq AND o.tenant_id = b.tenant_id AND o.token = $3`,
			column(rows, func(c store.Claimed) int64 { return c.Seq }), column(rows, func(c store.Claimed) int64 { return c.Tenant }), claim.Token)
		return nil
	})
}

// NextDue is when the earliest orphan may be claimed; ok is false when none waits.
func (s *Store) NextDue(ctx context.Context) (due time.Time, ok bool, err error) {
	routes := column(event.Routes(), func(r event.Route) string { return string(r) })
	err = s.read(ctx, "next due", `SELECT min((SELECT min(visible_at) FROM orphan WHERE route = r.route AND tenant_id = t.id))
		FROM unnest($1::text[]) AS r(route) CROSS JOIN tenant t`, func(sc row.Scanner) error {
		var first *int64
		if err := sc.Scan(&first); err != nil || first == nil {
			return err
		}
		due, ok = row.At(*first), true
		return nil
	}, routes)
	return due, ok, err
}

// Orphans pages through what waits, by number from the one after: what a queue
// beside the database is rebuilt from.
func (s *Store) Orphans(ctx context.Context, after int64, n int) ([]store.Parked, error) {
	now := row.US(s.opt.Now())
	var all []store.Parked
	err := s.read(ctx, "read orphans", `SELECT event_seq, tenant_id, route, due_at FROM orphan WHERE event_seq > $1 ORDER BY event_seq LIMIT $2`,
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
	err := s.read(ctx, "queue stats", `SELECT o.route, o.depth, o.due, o.leased, e.received_at FROM (
			SELECT route, count(*) AS depth, count(*) FILTER (WHERE visible_at <= $1) AS due,
				count(*) FILTER (WHERE token <> 0 AND visible_at > $1) AS leased, min(event_seq) AS oldest
			FROM orphan GROUP BY route) o JOIN event e ON e.seq = o.oldest`,
		func(sc row.Scanner) error {
			var route event.Route
			var st store.RouteStats
			var received int64
			err := sc.Scan(&route, &st.Depth, &st.Due, &st.Leased, &received)
			st.OldestAt = row.At(received)
			all[route] = st
			return err
		}, row.US(s.opt.Now()))
	return all, err
}

// QueueDepth is how many orphans wait, and when the oldest was received, at
// O(tenants and slots).
func (s *Store) QueueDepth(ctx context.Context) (depth int64, oldest time.Time, err error) {
	err = s.read(ctx, "queue depth", `SELECT coalesce((SELECT sum(orphaned) FROM ledger), 0)::bigint,
		coalesce((SELECT received_at FROM event WHERE seq = (SELECT min(event_seq) FROM orphan)), 0)`, func(sc row.Scanner) error {
		var us int64
		err := sc.Scan(&depth, &us)
		oldest = row.At(us)
		return err
	})
	return depth, oldest, err
}
