package postgres

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"tallyhook/internal/campaign"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// slotsSQL are the slots that counters have. The index begins with the slot, so
// the next one is a single step in it.
const slotsSQL = `WITH RECURSIVE slots (slot) AS (
	SELECT min(slot) FROM counter
	UNION ALL SELECT (SELECT min(c.slot) FROM counter c WHERE c.slot > s.slot) FROM slots s WHERE s.slot IS NOT NULL) `

// Numbers reads an instance's counters and facts, all as of one moment. since
// and until narrow by event time; zero is open. A unique is dated at its first event.
func (s *Store) Numbers(ctx context.Context, tenant int64, instance uuid.UUID, since, until time.Time) (store.Numbers, error) {
	n := store.Numbers{Status: map[string]int64{}}
	from, to := int64(-1<<62), int64(1<<62)
	if !since.IsZero() {
		from = row.US(since)
	}
	if !until.IsZero() {
		to = row.US(until)
	}
	for _, st := range campaign.Statuses() {
		n.Status[string(st)] = 0
	}
	ctx, cancel := context.WithTimeout(ctx, s.opt.TxTimeout)
	defer cancel()
	err := s.snapshot(ctx, "read numbers", func(each eachFunc) error {
		err := each(slotsSQL+`SELECT bucket, type, qualifier, step, machine, provider, variant, sum(count)::bigint FROM slots s JOIN counter c ON c.slot = s.slot
			WHERE c.tenant_id = $1 AND c.instance_id = $2 AND bucket * 1000000 >= $3 AND bucket * 1000000 < $4
			GROUP BY bucket, type, qualifier, step, machine, provider, variant HAVING sum(count) <> 0`, func(sc row.Scanner) error {
			var r store.Tally
			var bucket int64
			err := sc.Scan(&bucket, &r.Type, &r.Qualifier, &r.Step, &r.Machine, &r.Provider, &r.Variant, &r.Count)
			r.Bucket = time.Unix(bucket, 0).UTC()
			n.Tallies = append(n.Tallies, r)
			return err
		}, tenant, instance[:], from, to)
		if err != nil {
			return err
		}
		err = each(`SELECT enrollment_id, type, qualifier, step, machine, provider, variant, count, first_at, last_at FROM fact
			WHERE tenant_id = $1 AND instance_id = $2 AND first_at >= $3 AND first_at < $4`, func(sc row.Scanner) error {
			var r store.UniqueRow
			var id []byte
			var first, last int64
			err := sc.Scan(&id, &r.Type, &r.Qualifier, &r.Step, &r.Machine, &r.Provider, &r.Variant, &r.Count, &first, &last)
			r.Enrollment, r.FirstAt, r.LastAt = row.ID(id), row.At(first), row.At(last)
			n.Uniques = append(n.Uniques, r)
			return err
		}, tenant, instance[:], from, to)
		if err != nil {
			return err
		}
		return each(`SELECT status, count(*) FROM enrollment WHERE instance_id = $1 AND tenant_id = $2 GROUP BY status`, func(sc row.Scanner) error {
			var st string
			var c int64
			err := sc.Scan(&st, &c)
			n.Status[st] = c
			return err
		}, instance[:], tenant)
	})
	return n, err
}

// eachFunc runs a query and hands its rows out.
type eachFunc func(query string, fn func(row.Scanner) error, args ...any) error

// snapshot runs queries that all see the database as of one moment.
func (s *Store) snapshot(ctx context.Context, op string, fn func(each eachFunc) error) error {
	if err := s.prepare(ctx); err != nil {
		return s.fail(op, err)
	}
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(pg pgx.Tx) error {
		return fn(func(query string, fn func(row.Scanner) error, args ...any) error {
			rows, err := pg.Query(ctx, query, args...)
			if err != nil {
				return err
			}
			return drain(rows, fn)
		})
	})
	return s.fail(op, err)
}

// Ledgers reads every tenant's account, at O(tenants and slots).
func (s *Store) Ledgers(ctx context.Context) ([]store.Ledger, error) {
	var all []store.Ledger
	err := s.read(ctx, "read ledgers", ledgerQuery, func(sc row.Scanner) error {
		l, _, err := row.ScanLedger(sc)
		all = append(all, l)
		return err
	})
	return all, err
}

const ledgerQuery = `SELECT t.id, t.uid, coalesce(sum(l.received), 0)::bigint, coalesce(sum(l.duplicates), 0)::bigint, coalesce(sum(l.applied), 0)::bigint,
	coalesce(sum(l.orphaned), 0)::bigint, coalesce(sum(l.dead), 0)::bigint, coalesce(sum(l.ignored), 0)::bigint,
	coalesce(sum(l.archived), 0)::bigint, coalesce(sum(l.undecodable), 0)::bigint
	FROM tenant t LEFT JOIN ledger l ON l.tenant_id = t.id GROUP BY t.id ORDER BY t.id`

// Balance recounts every event, counter and fact in one snapshot and holds
// the accounts against it. It reads the whole database: minutes for tens of
// millions of events, and nobody waits for it.
func (s *Store) Balance(ctx context.Context) (store.Balance, error) {
	r := recount{index: map[int64]int{}}
	err := s.snapshot(ctx, "balance", func(each eachFunc) error {
		if err := each(`SET LOCAL statement_timeout = 0`, nil); err != nil { // the caller's deadline is the only one
			return err
		}
		if err := r.ledgers(each); err != nil {
			return err
		}
		for _, q := range driftQueries() {
			if err := each(q.query, r.drift(q.what)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return store.Balance{}, err
	}
	for i := range r.b.Tenants {
		t := &r.b.Tenants[i]
		l, n := t.Ledger, t.Recount
		r.b.Difference += l.Off(n) + t.Counters
	}
	return r.b, nil
}

// recount gathers a balance, tenant by tenant.
type recount struct {
	b     store.Balance
	index map[int64]int
}

// ledgers reads the accounts, and counts the events and bodies that they are about.
func (r *recount) ledgers(each eachFunc) error {
	err := each(ledgerQuery, func(sc row.Scanner) error {
		l, uid, err := row.ScanLedger(sc)
		r.index[l.Tenant] = len(r.b.Tenants)
		r.b.Tenants = append(r.b.Tenants, store.TenantBalance{Tenant: uid, Ledger: l, Recount: store.Ledger{Tenant: l.Tenant, Received: l.Archived, Archived: l.Archived}})
		return err
	})
	if err != nil {
		return err
	}
	err = each(`SELECT tenant_id, count(*), sum(duplicates)::bigint, count(*) FILTER (WHERE state = 'applied'), count(*) FILTER (WHERE state = 'orphaned'),
		count(*) FILTER (WHERE state = 'dead'), count(*) FILTER (WHERE state = 'ignored') FROM event GROUP BY tenant_id`, func(sc row.Scanner) error {
		var n store.Ledger
		var rows int64
		if err := sc.Scan(&n.Tenant, &rows, &n.Duplicates, &n.Applied, &n.Orphaned, &n.Dead, &n.Ignored); err != nil {
			return err
		}
		t := &r.b.Tenants[r.index[n.Tenant]]
		n.Received, n.Archived = rows+n.Duplicates+t.Ledger.Archived, t.Ledger.Archived
		t.Recount = n
		return nil
	})
	if err != nil {
		return err
	}
	return each(`SELECT tenant_id, count(*) FROM dead_letter WHERE event_seq IS NULL GROUP BY tenant_id`, func(sc row.Scanner) error {
		var tenant, n int64
		err := sc.Scan(&tenant, &n)
		r.b.Tenants[r.index[tenant]].Recount.Undecodable = n
		return err
	})
}

// drift notes rows that differ.
func (r *recount) drift(what string) func(row.Scanner) error {
	return func(sc row.Scanner) error {
		var d store.CounterDrift
		var tenant int64
		var instance []byte
		var kind string
		if err := sc.Scan(&tenant, &instance, &kind, &d.Counted, &d.Recount); err != nil {
			return err
		}
		d.Instance, d.What = row.ID(instance), what+" "+kind
		r.b.Tenants[r.index[tenant]].Counters += d.Off()
		r.b.Counters = append(r.b.Counters, d)
		return nil
	}
}

type driftQuery struct{ what, query string }

// driftQueries find what differs: counters and facts, each by instance and
// type, against the events, and events without the place that their state needs.
func driftQueries() []driftQuery {
	return []driftQuery{
		{"counter", `SELECT tenant_id, instance_id, type, sum(a)::bigint, sum(b)::bigint FROM (
			SELECT tenant_id, instance_id, type, bucket, qualifier, step, machine, provider, count AS a, archived AS b FROM counter
			UNION ALL SELECT tenant_id, instance_id, type, (occurred_at / 900000000) * 900, ` + qualifierSQL + `, step, machine, provider, 0, 1
			FROM event WHERE state = 'applied') n
			GROUP BY tenant_id, instance_id, type, bucket, qualifier, step, machine, provider HAVING sum(a) <> sum(b)`},
		{"fact", `SELECT tenant_id, instance_id, type, sum(a)::bigint, sum(b)::bigint FROM (
			SELECT tenant_id, instance_id, enrollment_id, type, qualifier, step, machine, provider, count AS a, archived AS b FROM fact
			UNION ALL SELECT tenant_id, instance_id, enrollment_id, type, ` + qualifierSQL + `, step, machine, provider, 0, 1
			FROM event WHERE state = 'applied') n
			GROUP BY tenant_id, instance_id, enrollment_id, type, qualifier, step, machine, provider HAVING sum(a) <> sum(b)`},
		{"queue", `SELECT e.tenant_id, ''::bytea, 'orphaned without a place in the queue', count(*), 0::bigint FROM event e
			WHERE e.state = 'orphaned' AND NOT EXISTS (SELECT 1 FROM orphan o WHERE o.event_seq = e.seq) GROUP BY e.tenant_id`},
		{"queue", `SELECT o.tenant_id, ''::bytea, 'in the queue and not orphaned', count(*), 0::bigint FROM orphan o
			WHERE NOT EXISTS (SELECT 1 FROM event e WHERE e.seq = o.event_seq AND e.state = 'orphaned') GROUP BY o.tenant_id`},
		{"dead letter", `SELECT e.tenant_id, ''::bytea, 'dead without a letter', count(*), 0::bigint FROM event e
			WHERE e.state = 'dead' AND NOT EXISTS (SELECT 1 FROM dead_letter d WHERE d.event_seq = e.seq) GROUP BY e.tenant_id`},
	}
}

// qualifierSQL says campaign.FactOf's qualifier in SQL, so that the recount
// does not use the code that it checks.
const qualifierSQL = `CASE WHEN type = 'bounced' THEN bounce
	WHEN type = 'resubscribed' AND (estimated OR occurred_at > received_at) THEN 'void' ELSE '' END`
