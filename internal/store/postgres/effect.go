package postgres

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Effect implements store.Steps: facts first, then the statuses that the facts
// now amount to, then the list. Sums are kept for the end of the transaction.
func (t *tx) Effect(x *store.Effects) error {
	if err := t.writeFacts(x); err != nil {
		return err
	}
	t.writeSuppressions(x)
	t.sums.AddSums(x)
	return nil
}

func compareKeys(a, b campaign.FactKey) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Qualifier, b.Qualifier), cmp.Compare(a.Step, b.Step),
		cmp.Compare(a.Machine, b.Machine), cmp.Compare(a.Provider, b.Provider), cmp.Compare(a.Variant, b.Variant))
}

// writeFacts locks the enrollments whose status may change before anything is
// read: of two writers the second sees what the first has written, and neither
// wins by writing last.
func (t *tx) writeFacts(x *store.Effects) error {
	if len(x.Facts) == 0 {
		return nil
	}
	touched := map[uuid.UUID]int64{}
	for k := range x.Facts {
		if campaign.Decisive(k.Key) {
			touched[k.Enrollment] = k.Tenant
		}
	}
	t.lockEnrollments(touched)
	rows := slices.SortedFunc(maps.Keys(x.Facts), func(a, b store.FactRow) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), bytes.Compare(a.Instance[:], b.Instance[:]),
			bytes.Compare(a.Enrollment[:], b.Enrollment[:]), compareKeys(a.Key, b.Key))
	})
	key := factKeys(rows, func(r store.FactRow) campaign.FactKey { return r.Key })
	sum := func(field func(store.FactSum) int64) []int64 {
		return column(rows, func(r store.FactRow) int64 { return field(x.Facts[r]) })
	}
	t.later(`INSERT INTO fact (tenant_id, instance_id, enrollment_id, type, qualifier, step, machine, provider, variant, count, first_at, last_at)
		SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::text[], $5::text[], $6::bigint[], $7::int[], $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[])
			AS b(tenant_id, instance_id)
		ON CONFLICT (tenant_id, instance_id, enrollment_id, type, qualifier, step, machine, provider, variant) DO UPDATE SET count = fact.count + excluded.count,
		first_at = least(fact.first_at, excluded.first_at), last_at = greatest(fact.last_at, excluded.last_at)`,
		column(rows, func(r store.FactRow) int64 { return r.Tenant }),
		column(rows, func(r store.FactRow) []byte { return r.Instance[:] }),
		column(rows, func(r store.FactRow) []byte { return r.Enrollment[:] }),
		key.typ, key.qualifier, key.step, key.machine, key.provider, key.variant,
		sum(func(s store.FactSum) int64 { return s.Count }),
		sum(func(s store.FactSum) int64 { return row.US(s.First) }),
		sum(func(s store.FactSum) int64 { return row.US(s.Last) }))
	return t.restate(touched)
}

// keys are the columns of facts' and counters' keys.
type keys struct {
	typ, qualifier, provider, variant []string
	step                              []int64
	machine                           []int32
}

func factKeys[T any](rows []T, key func(T) campaign.FactKey) keys {
	var k keys
	for _, r := range rows {
		f := key(r)
		k.typ, k.qualifier = append(k.typ, string(f.Type)), append(k.qualifier, f.Qualifier)
		k.step, k.machine = append(k.step, int64(f.Step)), append(k.machine, int32(f.Machine))
		k.provider, k.variant = append(k.provider, f.Provider), append(k.variant, f.Variant)
	}
	return k
}

// idColumns are enrollments with their tenants, by id.
func idColumns(of map[uuid.UUID]int64) (ids [][]byte, tenants []int64) {
	sorted := slices.SortedFunc(maps.Keys(of), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	for i := range sorted {
		ids, tenants = append(ids, sorted[i][:]), append(tenants, of[sorted[i]])
	}
	return ids, tenants
}

func (t *tx) lockEnrollments(touched map[uuid.UUID]int64) {
	if len(touched) == 0 {
		return
	}
	ids, tenants := idColumns(touched)
	t.later(`SELECT 1 FROM enrollment e JOIN unnest($1::bytea[], $2::bigint[]) AS b(id, tenant_id) ON e.id = b.id AND e.tenant_id = b.tenant_id
		ORDER BY e.id FOR NO KEY UPDATE OF e`, ids, tenants)
}

// restate computes the status of enrollments, which are locked, from their facts.
func (t *tx) restate(touched map[uuid.UUID]int64) error {
	if len(touched) == 0 {
		return nil
	}
	ids, tenants := idColumns(touched)
	facts := make(map[uuid.UUID]*campaign.Facts, len(touched))
	for id := range touched {
		facts[id] = &campaign.Facts{}
	}
	err := t.query(`SELECT f.enrollment_id, f.type, f.qualifier, f.last_at FROM unnest($1::bytea[], $2::bigint[]) AS b(id, tenant_id)
		JOIN enrollment e ON e.id = b.id AND e.tenant_id = b.tenant_id
		JOIN fact f ON f.tenant_id = e.tenant_id AND f.instance_id = e.instance_id AND f.enrollment_id = e.id`, func(sc row.Scanner) error {
		var id []byte
		var k campaign.FactKey
		var last int64
		if err := sc.Scan(&id, &k.Type, &k.Qualifier, &last); err != nil {
			return err
		}
		facts[row.ID(id)].Add(k, row.At(last))
		return nil
	}, ids, tenants)
	if err != nil {
		return err
	}
	statuses := column(ids, func(id []byte) string { return string(facts[row.ID(id)].Status()) })
	t.later(`UPDATE enrollment e SET status = b.status, updated_at = $4 FROM unnest($1::bytea[], $2::bigint[], $3::text[]) AS b(id, tenant_id, status)
		WHERE e.id = b.id AND e.tenant_id = b.tenant_id AND e.status <> b.status`, ids, tenants, statuses, row.US(t.now))
	return nil
}

// writeSuppressions keeps the latest time of each kind: the list comes out the
// same for any order of events.
func (t *tx) writeSuppressions(x *store.Effects) {
	if len(x.Suppressions) == 0 {
		return
	}
	rows := slices.SortedFunc(maps.Keys(x.Suppressions), func(a, b store.SuppressionRow) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), bytes.Compare(a.Key[:], b.Key[:]))
	})
	when := func(field func(*campaign.Suppression) time.Time) []int64 {
		return column(rows, func(r store.SuppressionRow) int64 { return row.US(field(x.Suppressions[r])) })
	}
	t.later(`INSERT INTO suppression (tenant_id, address_key, email, unsubscribed_at, resubscribed_at, complained_at, bounced_at, manual_at, removed_at, updated_at)
		SELECT tenant_id, key, email, unsubscribed_at, resubscribed_at, complained_at, bounced_at, 0, 0, $8
		FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
			AS b(tenant_id, key, email, unsubscribed_at, resubscribed_at, complained_at, bounced_at)
		ON CONFLICT (tenant_id, address_key) DO UPDATE SET
		unsubscribed_at = greatest(suppression.unsubscribed_at, excluded.unsubscribed_at), resubscribed_at = greatest(suppression.resubscribed_at, excluded.resubscribed_at),
		complained_at = greatest(suppression.complained_at, excluded.complained_at), bounced_at = greatest(suppression.bounced_at, excluded.bounced_at),
		updated_at = greatest(suppression.updated_at, excluded.updated_at)`,
		column(rows, func(r store.SuppressionRow) int64 { return r.Tenant }),
		column(rows, func(r store.SuppressionRow) []byte { return r.Key[:] }),
		column(rows, func(r store.SuppressionRow) string { return x.Suppressions[r].Email }),
		when(func(s *campaign.Suppression) time.Time { return s.UnsubscribedAt }),
		when(func(s *campaign.Suppression) time.Time { return s.ResubscribedAt }),
		when(func(s *campaign.Suppression) time.Time { return s.ComplainedAt }),
		when(func(s *campaign.Suppression) time.Time { return s.BouncedAt }), row.US(t.now))
}

// writeSums writes what the transaction has added to sums, each in the slot of
// its connection: the last thing before the commit, so that another one of the
// same slot waits no longer than for that.
func (t *tx) writeSums() {
	t.writeCounters()
	t.writeLedgers()
	t.writeSources()
}

func (t *tx) writeCounters() {
	rows := slices.SortedFunc(maps.Keys(t.sums.Counters), func(a, b store.CounterRow) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), bytes.Compare(a.Instance[:], b.Instance[:]), cmp.Compare(a.Bucket, b.Bucket), compareKeys(a.Key, b.Key))
	})
	if len(rows) == 0 {
		return
	}
	key := factKeys(rows, func(r store.CounterRow) campaign.FactKey { return r.Key })
	t.later(`INSERT INTO counter (slot, tenant_id, instance_id, bucket, type, qualifier, step, machine, provider, variant, count)
		SELECT $1::int, * FROM unnest($2::bigint[], $3::bytea[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::int[], $9::text[], $10::text[], $11::bigint[])
			AS b(tenant_id, instance_id)
		ON CONFLICT (slot, tenant_id, instance_id, bucket, type, qualifier, step, machine, provider, variant) DO UPDATE SET count = counter.count + excluded.count`,
		t.slot,
		column(rows, func(r store.CounterRow) int64 { return r.Tenant }),
		column(rows, func(r store.CounterRow) []byte { return r.Instance[:] }),
		column(rows, func(r store.CounterRow) int64 { return r.Bucket }),
		key.typ, key.qualifier, key.step, key.machine, key.provider, key.variant,
		column(rows, func(r store.CounterRow) int64 { return t.sums.Counters[r] }))
}

func (t *tx) writeLedgers() {
	tenants := slices.Sorted(maps.Keys(t.sums.Ledgers))
	if len(tenants) == 0 {
		return
	}
	sum := func(field func(*store.Ledger) int64) []int64 {
		return column(tenants, func(tenant int64) int64 { return field(t.sums.Ledgers[tenant]) })
	}
	t.later(`INSERT INTO ledger (slot, tenant_id, received, duplicates, applied, orphaned, dead, ignored, archived, undecodable)
		SELECT $1::int, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[])
			AS b(tenant_id, received)
		ON CONFLICT (tenant_id, slot) DO UPDATE SET received = ledger.received + excluded.received, duplicates = ledger.duplicates + excluded.duplicates,
		applied = ledger.applied + excluded.applied, orphaned = ledger.orphaned + excluded.orphaned, dead = ledger.dead + excluded.dead,
		ignored = ledger.ignored + excluded.ignored, archived = ledger.archived + excluded.archived, undecodable = ledger.undecodable + excluded.undecodable`,
		t.slot, tenants,
		sum(func(l *store.Ledger) int64 { return l.Received }), sum(func(l *store.Ledger) int64 { return l.Duplicates }),
		sum(func(l *store.Ledger) int64 { return l.Applied }), sum(func(l *store.Ledger) int64 { return l.Orphaned }),
		sum(func(l *store.Ledger) int64 { return l.Dead }), sum(func(l *store.Ledger) int64 { return l.Ignored }),
		sum(func(l *store.Ledger) int64 { return l.Archived }), sum(func(l *store.Ledger) int64 { return l.Undecodable }))
}

type sourceKey struct {
	tenant int64
	id     uuid.UUID
}

type sourceSum struct {
	n  int64
	at time.Time
}

// bring counts what a source has brought.
func (t *tx) bring(tenant int64, id uuid.UUID, at time.Time) {
	if id == uuid.Nil {
		return
	}
	if t.brought == nil {
		t.brought = map[sourceKey]*sourceSum{}
	}
	s := t.brought[sourceKey{tenant, id}]
	if s == nil {
		s = &sourceSum{}
		t.brought[sourceKey{tenant, id}] = s
	}
	s.n++
	if at.After(s.at) {
		s.at = at
	}
}

func (t *tx) writeSources() {
	rows := slices.SortedFunc(maps.Keys(t.brought), func(a, b sourceKey) int {
		return cmp.Or(cmp.Compare(a.tenant, b.tenant), bytes.Compare(a.id[:], b.id[:]))
	})
	if len(rows) == 0 {
		return
	}
	t.later(`INSERT INTO source_count (slot, tenant_id, source_id, received, last_received_at)
		SELECT $1::int, * FROM unnest($2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[]) AS b(tenant_id, source_id)
		ON CONFLICT (source_id, slot) DO UPDATE SET received = source_count.received + excluded.received,
		last_received_at = greatest(source_count.last_received_at, excluded.last_received_at)`,
		t.slot,
		column(rows, func(r sourceKey) int64 { return r.tenant }),
		column(rows, func(r sourceKey) []byte { return r.id[:] }),
		column(rows, func(r sourceKey) int64 { return t.brought[r].n }),
		column(rows, func(r sourceKey) int64 { return row.US(t.brought[r].at) }))
}
