package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Numbers reads an instance's counters and facts. since and until narrow by
// event time; zero is open. A unique is dated at its first event.
func (s *Store) Numbers(ctx context.Context, tenant int64, instance uuid.UUID, since, until time.Time) (store.Numbers, error) {
	n := store.Numbers{Status: map[string]int64{}}
	from, to := int64(-1<<62), int64(1<<62)
	if !since.IsZero() {
		from = row.US(since)
	}
	if !until.IsZero() {
		to = row.US(until)
	}
	err := s.read(ctx, "read counters", `SELECT bucket, type, qualifier, step, machine, provider, variant, count FROM counter
		WHERE tenant_id = ?1 AND instance_id = ?2 AND bucket * 1000000 >= ?3 AND bucket * 1000000 < ?4 AND count <> 0`, func(sc row.Scanner) error {
		var r store.Tally
		var bucket int64
		err := sc.Scan(&bucket, &r.Type, &r.Qualifier, &r.Step, &r.Machine, &r.Provider, &r.Variant, &r.Count)
		r.Bucket = time.Unix(bucket, 0).UTC()
		n.Tallies = append(n.Tallies, r)
		return err
	}, tenant, instance[:], from, to)
	if err != nil {
		return n, err
	}
	err = s.read(ctx, "read facts", `SELECT enrollment_id, type, qualifier, step, machine, provider, variant, count, first_at, last_at FROM fact
		WHERE tenant_id = ?1 AND instance_id = ?2 AND first_at >= ?3 AND first_at < ?4`, func(sc row.Scanner) error {
		var r store.UniqueRow
		var id []byte
		var first, last int64
		err := sc.Scan(&id, &r.Type, &r.Qualifier, &r.Step, &r.Machine, &r.Provider, &r.Variant, &r.Count, &first, &last)
		r.Enrollment, r.FirstAt, r.LastAt = row.ID(id), row.At(first), row.At(last)
		n.Uniques = append(n.Uniques, r)
		return err
	}, tenant, instance[:], from, to)
	if err != nil {
		return n, err
	}
	for _, st := range campaign.Statuses() {
		n.Status[string(st)] = 0
	}
	err = s.read(ctx, "count enrollments", `SELECT status, count(*) FROM enrollment WHERE instance_id = ?1 AND tenant_id = ?2 GROUP BY status`,
		func(sc row.Scanner) error {
			var st string
			var c int64
			err := sc.Scan(&st, &c)
			n.Status[st] = c
			return err
		}, instance[:], tenant)
	return n, err
}

// Ledgers reads every tenant's account, at O(tenants).
func (s *Store) Ledgers(ctx context.Context) ([]store.Ledger, error) {
	var all []store.Ledger
	err := s.readOn(ctx, s.probes, "read ledgers", ledgerQuery, func(sc row.Scanner) error {
		l, _, err := row.ScanLedger(sc)
		all = append(all, l)
		return err
	})
	return all, err
}

const ledgerQuery = `SELECT t.id, t.uid, coalesce(l.received, 0), coalesce(l.duplicates, 0), coalesce(l.applied, 0), coalesce(l.orphaned, 0),
	coalesce(l.dead, 0), coalesce(l.ignored, 0), coalesce(l.archived, 0), coalesce(l.undecodable, 0)
	FROM tenant t LEFT JOIN ledger l ON l.tenant_id = t.id ORDER BY t.id`

// Balance recounts every event, counter and fact in one snapshot and holds
// the accounts against it. It reads the whole database: minutes for tens of
// millions of events.
func (s *Store) Balance(ctx context.Context) (b store.Balance, err error) {
	conn, err := s.readers.Conn(ctx)
	if err != nil {
		return b, s.fail("balance", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	snap, err := conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return b, s.fail("balance", err)
	}
	defer func() { err = errors.Join(err, snap.Rollback()) }()
	each := func(query string, fn func(row.Scanner) error) error {
		rows, err := snap.QueryContext(ctx, query)
		if err != nil {
			return err
		}
		return drain(rows, fn)
	}
	index := map[int64]int{}
	err = each(ledgerQuery, func(sc row.Scanner) error {
		l, uid, err := row.ScanLedger(sc)
		index[l.Tenant] = len(b.Tenants)
		b.Tenants = append(b.Tenants, store.TenantBalance{Tenant: uid, Ledger: l, Recount: store.Ledger{Tenant: l.Tenant, Received: l.Archived, Archived: l.Archived}})
		return err
	})
	if err != nil {
		return b, s.fail("balance", err)
	}
	err = each(`SELECT tenant_id, count(*), sum(duplicates), sum(state = 'applied'), sum(state = 'orphaned'), sum(state = 'dead'), sum(state = 'ignored')
		FROM event GROUP BY tenant_id`, func(sc row.Scanner) error {
		var r store.Ledger
		var rows int64
		if err := sc.Scan(&r.Tenant, &rows, &r.Duplicates, &r.Applied, &r.Orphaned, &r.Dead, &r.Ignored); err != nil {
			return err
		}
		t := &b.Tenants[index[r.Tenant]]
		r.Received, r.Archived = rows+r.Duplicates+t.Ledger.Archived, t.Ledger.Archived
		t.Recount = r
		return nil
	})
	if err != nil {
		return b, s.fail("balance", err)
	}
	err = each(`SELECT tenant_id, count(*) FROM dead_letter WHERE event_seq IS NULL GROUP BY tenant_id`, func(sc row.Scanner) error {
		var tenant, n int64
		err := sc.Scan(&tenant, &n)
		b.Tenants[index[tenant]].Recount.Undecodable = n
		return err
	})
	if err != nil {
		return b, s.fail("balance", err)
	}
	drift := func(what string) func(row.Scanner) error {
		return func(sc row.Scanner) error {
			var d store.CounterDrift
			var tenant int64
			var instance []byte
			var kind string
			if err := sc.Scan(&tenant, &instance, &kind, &d.Counted, &d.Recount); err != nil {
				return err
			}
			d.Instance, d.What = row.ID(instance), what+" "+kind
			b.Tenants[index[tenant]].Counters += d.Off()
			b.Counters = append(b.Counters, d)
			return nil
		}
	}
	// Counters and facts, each by instance and type, against the events.
	for _, q := range []struct{ what, query string }{
		{"counter", `SELECT tenant_id, instance_id, type, sum(a), sum(b) FROM (
			SELECT tenant_id, instance_id, type, bucket, qualifier, step, machine, provider, count AS a, archived AS b FROM counter
			UNION ALL SELECT tenant_id, instance_id, type, (occurred_at / 900000000) * 900, ` + qualifierSQL + `, step, machine, provider, 0, 1 FROM event WHERE state = 'applied')
			GROUP BY tenant_id, instance_id, type, bucket, qualifier, step, machine, provider HAVING sum(a) <> sum(b)`},
		{"fact", `SELECT tenant_id, instance_id, type, sum(a), sum(b) FROM (
			SELECT tenant_id, instance_id, enrollment_id, type, qualifier, step, machine, provider, count AS a, archived AS b FROM fact
			UNION ALL SELECT tenant_id, instance_id, enrollment_id, type, ` + qualifierSQL + `, step, machine, provider, 0, 1 FROM event WHERE state = 'applied')
			GROUP BY tenant_id, instance_id, enrollment_id, type, qualifier, step, machine, provider HAVING sum(a) <> sum(b)`},
		{"queue", `SELECT e.tenant_id, x'', 'orphaned without a place in the queue', count(*), 0 FROM event e
			WHERE e.state = 'orphaned' AND NOT EXISTS (SELECT 1 FROM orphan o WHERE o.event_seq = e.seq) GROUP BY e.tenant_id`},
		{"queue", `SELECT o.tenant_id, x'', 'in the queue and not orphaned', count(*), 0 FROM orphan o
			WHERE NOT EXISTS (SELECT 1 FROM event e WHERE e.seq = o.event_seq AND e.state = 'orphaned') GROUP BY o.tenant_id`},
		{"dead letter", `SELECT e.tenant_id, x'', 'dead without a letter', count(*), 0 FROM event e
			WHERE e.state = 'dead' AND NOT EXISTS (SELECT 1 FROM dead_letter d WHERE d.event_seq = e.seq) GROUP BY e.tenant_id`},
	} {
		if err := each(q.query, drift(q.what)); err != nil {
			return b, s.fail("balance", err)
		}
	}
	for i := range b.Tenants {
		t := &b.Tenants[i]
		l, r := t.Ledger, t.Recount
		b.Difference += l.Off(r) + t.Counters
	}
	return b, nil
}

// qualifierSQL says campaign.FactOf's qualifier in SQL, so that the recount
// does not use the code that it checks.
const qualifierSQL = `CASE WHEN type = 'bounced' THEN bounce
	WHEN type = 'resubscribed' AND (estimated = 1 OR occurred_at > received_at) THEN 'void' ELSE '' END`
