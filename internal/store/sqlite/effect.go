package sqlite

import (
	"time"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/campaign"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// writeEffects writes what a batch did: facts first, then the statuses that
// the facts now amount to, then sums.
func (t *tx) writeEffects(x *store.Effects) error {
	if err := t.writeFacts(x); err != nil {
		return err
	}
	if err := t.writeCounters(x); err != nil {
		return err
	}
	if err := t.writeSuppressions(x); err != nil {
		return err
	}
	return t.writeLedgers(x)
}

type factRow struct {
	store.FactRow
	store.FactSum
}

func (t *tx) writeFacts(x *store.Effects) error {
	if len(x.Facts) == 0 {
		return nil
	}
	rows := make([]factRow, 0, len(x.Facts))
	touched := map[uuid.UUID]int64{}
	for k, v := range x.Facts {
		rows = append(rows, factRow{k, v})
		if campaign.Decisive(k.Key) {
			touched[k.Enrollment] = k.Tenant
		}
	}
	_, err := t.exec(`INSERT INTO fact (tenant_id, instance_id, enrollment_id, type, qualifier, step, machine, provider, variant, count, first_at, last_at)
		SELECT tenant_id, instance_id, enrollment_id, type, qualifier, step, machine, provider, variant, count, first_at, last_at FROM b_fact(?1) WHERE true
		ON CONFLICT DO UPDATE SET count = count + excluded.count,
		first_at = min(first_at, excluded.first_at), last_at = max(last_at, excluded.last_at)`,
		bind(rows, factColumn))
	if err != nil {
		return err
	}
	return t.restate(touched)
}

func factColumn(c sqlite3.Context, f *factRow, col int) {
	if col >= 3 && col <= 8 {
		factKeyColumn(c, &f.Key, col-3)
		return
	}
	switch col {
	case 0:
		c.ResultInt64(f.Tenant)
	case 1:
		c.ResultBlob(f.Instance[:])
	case 2:
		c.ResultBlob(f.Enrollment[:])
	case 9:
		c.ResultInt64(f.Count)
	case 10:
		c.ResultInt64(row.US(f.First))
	case 11:
		c.ResultInt64(row.US(f.Last))
	}
}

func factKeyColumn(c sqlite3.Context, k *campaign.FactKey, col int) {
	switch col {
	case 0:
		c.ResultText(string(k.Type))
	case 1:
		c.ResultText(k.Qualifier)
	case 2:
		c.ResultInt(k.Step)
	case 3:
		c.ResultInt(int(k.Machine))
	case 4:
		c.ResultText(k.Provider)
	case 5:
		c.ResultText(k.Variant)
	}
}

type statusRow struct {
	tenant int64
	id     uuid.UUID
	status campaign.Status
}

// restate computes the status of enrollments from their facts.
func (t *tx) restate(touched map[uuid.UUID]int64) error {
	if len(touched) == 0 {
		return nil
	}
	list := make([]statusRow, 0, len(touched))
	facts := make(map[uuid.UUID]*campaign.Facts, len(touched))
	for id, tenant := range touched {
		list = append(list, statusRow{tenant: tenant, id: id})
		facts[id] = &campaign.Facts{}
	}
	err := t.query(`SELECT f.enrollment_id, f.type, f.qualifier, f.last_at FROM b_id(?1) b
		CROSS JOIN enrollment e ON e.id = b.id AND e.tenant_id = b.tenant_id
		CROSS JOIN fact f ON f.tenant_id = e.tenant_id AND f.instance_id = e.instance_id AND f.enrollment_id = e.id`, func(sc row.Scanner) error {
		var id []byte
		var k campaign.FactKey
		var last int64
		if err := sc.Scan(&id, &k.Type, &k.Qualifier, &last); err != nil {
			return err
		}
		facts[row.ID(id)].Add(k, row.At(last))
		return nil
	}, bind(list, func(c sqlite3.Context, r *statusRow, col int) {
		switch col {
		case 0:
			c.ResultInt64(r.tenant)
		case 1:
			c.ResultBlob(r.id[:])
		}
	}))
	if err != nil {
		return err
	}
	for i := range list {
		list[i].status = facts[list[i].id].Status()
	}
	_, err = t.exec(`UPDATE enrollment SET status = b.status, updated_at = b.at FROM b_status(?1) b
		WHERE enrollment.id = b.id AND enrollment.tenant_id = b.tenant_id AND enrollment.status <> b.status`,
		bind(list, func(c sqlite3.Context, r *statusRow, col int) {
			switch col {
			case 0:
				c.ResultInt64(r.tenant)
			case 1:
				c.ResultBlob(r.id[:])
			case 2:
				c.ResultText(string(r.status))
			case 3:
				c.ResultInt64(row.US(t.now))
			}
		}))
	return err
}

type counterRow struct {
	store.CounterRow
	n int64
}

func (t *tx) writeCounters(x *store.Effects) error {
	if len(x.Counters) == 0 {
		return nil
	}
	rows := make([]counterRow, 0, len(x.Counters))
	for k, n := range x.Counters {
		rows = append(rows, counterRow{k, n})
	}
	_, err := t.exec(`INSERT INTO counter (tenant_id, instance_id, bucket, type, qualifier, step, machine, provider, variant, count)
		SELECT tenant_id, instance_id, bucket, type, qualifier, step, machine, provider, variant, count FROM b_counter(?1) WHERE true
		ON CONFLICT DO UPDATE SET count = count + excluded.count`,
		bind(rows, counterColumn))
	return err
}

func counterColumn(c sqlite3.Context, r *counterRow, col int) {
	if col >= 3 && col <= 8 {
		factKeyColumn(c, &r.Key, col-3)
		return
	}
	switch col {
	case 0:
		c.ResultInt64(r.Tenant)
	case 1:
		c.ResultBlob(r.Instance[:])
	case 2:
		c.ResultInt64(r.Bucket)
	case 9:
		c.ResultInt64(r.n)
	}
}

type suppressionRow struct {
	store.SuppressionRow
	*campaign.Suppression
}

// writeSuppressions keeps the latest time of each kind: the list comes out the
// same for any order of events.
func (t *tx) writeSuppressions(x *store.Effects) error {
	if len(x.Suppressions) == 0 {
		return nil
	}
	rows := make([]suppressionRow, 0, len(x.Suppressions))
	for k, s := range x.Suppressions {
		rows = append(rows, suppressionRow{k, s})
	}
	_, err := t.exec(`INSERT INTO suppression (tenant_id, address_key, email, unsubscribed_at, resubscribed_at, complained_at, bounced_at, manual_at, removed_at, updated_at)
		SELECT tenant_id, key, email, unsubscribed_at, resubscribed_at, complained_at, bounced_at, 0, 0, at FROM b_suppression(?1) WHERE true
		ON CONFLICT (tenant_id, address_key) DO UPDATE SET
		unsubscribed_at = max(unsubscribed_at, excluded.unsubscribed_at), resubscribed_at = max(resubscribed_at, excluded.resubscribed_at),
		complained_at = max(complained_at, excluded.complained_at), bounced_at = max(bounced_at, excluded.bounced_at), updated_at = excluded.updated_at`,
		bind(rows, func(c sqlite3.Context, r *suppressionRow, col int) {
			switch col {
			case 0:
				c.ResultInt64(r.Tenant)
			case 1:
				c.ResultBlob(r.Key[:])
			case 2:
				c.ResultText(r.Email)
			case 3:
				c.ResultInt64(row.US(r.UnsubscribedAt))
			case 4:
				c.ResultInt64(row.US(r.ResubscribedAt))
			case 5:
				c.ResultInt64(row.US(r.ComplainedAt))
			case 6:
				c.ResultInt64(row.US(r.BouncedAt))
			case 7:
				c.ResultInt64(row.US(t.now))
			}
		}))
	return err
}

func (t *tx) writeLedgers(x *store.Effects) error {
	if len(x.Ledgers) == 0 {
		return nil
	}
	rows := make([]*store.Ledger, 0, len(x.Ledgers))
	for _, l := range x.Ledgers {
		rows = append(rows, l)
	}
	_, err := t.exec(`INSERT INTO ledger (tenant_id, received, duplicates, applied, orphaned, dead, ignored, archived, undecodable)
		SELECT tenant_id, received, duplicates, applied, orphaned, dead, ignored, archived, undecodable FROM b_ledger(?1) WHERE true
		ON CONFLICT DO UPDATE SET received = received + excluded.received, duplicates = duplicates + excluded.duplicates,
		applied = applied + excluded.applied, orphaned = orphaned + excluded.orphaned, dead = dead + excluded.dead,
		ignored = ignored + excluded.ignored, archived = archived + excluded.archived, undecodable = undecodable + excluded.undecodable`,
		bind(rows, func(c sqlite3.Context, p **store.Ledger, col int) {
			l := *p
			c.ResultInt64([...]int64{l.Tenant, l.Received, l.Duplicates, l.Applied, l.Orphaned, l.Dead, l.Ignored, l.Archived, l.Undecodable}[min(col, 8)])
		}))
	return err
}

type sourceRow struct {
	tenant int64
	id     uuid.UUID
	n      int64
	at     time.Time
}

// touchSources counts what each source brought.
func (t *tx) touchSources(works []*store.Work) error {
	sums := map[uuid.UUID]*sourceRow{}
	for _, w := range works {
		e := w.Event
		if e.SourceID == uuid.Nil || w.Again {
			continue
		}
		r := sums[e.SourceID]
		if r == nil {
			r = &sourceRow{tenant: e.Tenant, id: e.SourceID}
			sums[e.SourceID] = r
		}
		r.n++
		if e.ReceivedAt.After(r.at) {
			r.at = e.ReceivedAt
		}
	}
	if len(sums) == 0 {
		return nil
	}
	rows := make([]*sourceRow, 0, len(sums))
	for _, r := range sums {
		rows = append(rows, r)
	}
	_, err := t.exec(`UPDATE source SET received = received + b.n, last_received_at = max(last_received_at, b.at) FROM b_source(?1) b
		WHERE source.id = b.id AND source.tenant_id = b.tenant_id`, bind(rows, func(c sqlite3.Context, p **sourceRow, col int) {
		r := *p
		switch col {
		case 0:
			c.ResultInt64(r.tenant)
		case 1:
			c.ResultBlob(r.id[:])
		case 2:
			c.ResultInt64(r.n)
		case 3:
			c.ResultInt64(row.US(r.at))
		}
	}))
	return err
}
