package sqlite

import (
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// process takes events through the one processor, in this transaction.
func (t *tx) process(works []*store.Work) error {
	return store.Process(t, t.rules(), works)
}

// rules are what the processor decides by in this transaction.
func (t *tx) rules() store.Rules { return store.Rules{Now: t.now, Delay: t.s.opt.Delay} }

// Insert implements store.Steps.
func (t *tx) Insert(fresh []*store.Work) error {
	_, err := t.exec(`INSERT INTO event (seq, id, tenant_id, source_id, scope, provider, kind, control, type, channel,
		provider_event_id, provider_message_id, action_id, lead_id, claimed_enrollment, email, campaign, step, bounce, machine,
		url, occurred_at, estimated, received_at, state, reason, detail, enrollment_id, instance_id, parked_at, settled_at,
		settled_by, identity, metadata, payload, enrolls)
		SELECT seq, id, tenant_id, source_id, scope, provider, kind, control, type, channel,
		provider_event_id, provider_message_id, action_id, lead_id, claimed_enrollment, email, campaign, step, bounce, machine,
		url, occurred_at, estimated, received_at, state, reason, detail, enrollment_id, instance_id, parked_at, settled_at,
		settled_by, identity, metadata, payload, enrolls FROM b_event(?1)`, bind(fresh, t.eventColumn))
	if err != nil {
		return err
	}
	t.indexNew(fresh)
	return nil
}

// Settle implements store.Steps.
func (t *tx) Settle(moved, others []*store.Work) error {
	bySeq := make(map[int64]*store.Work, len(moved))
	for _, w := range moved {
		bySeq[w.Seq] = w
	}
	if len(moved) > 0 {
		err := t.query(`UPDATE event SET state = b.to_state, reason = b.reason, detail = b.detail,
			enrollment_id = b.enrollment_id, instance_id = b.instance_id, parked_at = b.parked_at,
			settled_at = b.settled_at, settled_by = b.settled_by
			FROM b_settle(?1) b
			WHERE event.seq = b.seq AND event.tenant_id = b.tenant_id AND event.state = b.from_state
			RETURNING seq`, func(sc row.Scanner) error {
			var seq int64
			if err := sc.Scan(&seq); err != nil {
				return err
			}
			bySeq[seq].Changed = true
			return nil
		}, bind(moved, t.settleColumn))
		if err != nil {
			return err
		}
	}
	if len(others) == 0 {
		return nil
	}
	if _, err := t.exec(`UPDATE event SET reason = b.reason, detail = b.detail FROM b_settle(?1) b
		WHERE event.seq = b.seq AND event.tenant_id = b.tenant_id AND event.state = b.from_state`,
		bind(others, t.settleColumn)); err != nil {
		return err
	}
	_, err := t.exec(`UPDATE dead_letter SET reason = b.reason, error = b.detail FROM b_settle(?1) b
		WHERE dead_letter.event_seq = b.seq AND dead_letter.tenant_id = b.tenant_id AND b.from_state = 'dead'`,
		bind(others, t.settleColumn))
	return err
}

// Depart implements store.Steps. Where events went is indexed for the search,
// which may have passed them already.
func (t *tx) Depart(d store.Departures) error {
	if len(d.Queue) > 0 {
		t.gone = append(t.gone, store.GoneOf(d.Queue)...)
		if _, err := t.exec(`DELETE FROM orphan WHERE event_seq IN (SELECT seq FROM b_seq(?1))`, bind(d.Queue, seqColumn)); err != nil {
			return err
		}
	}
	if len(d.Waiting) > 0 {
		if _, err := t.exec(`DELETE FROM waiting_key WHERE (tenant_id, key, event_seq) IN (SELECT tenant_id, key, seq FROM b_key(?1))`,
			bind(waitingOf(d.Waiting), keyColumn)); err != nil {
			return err
		}
	}
	if len(d.Letters) > 0 {
		if _, err := t.exec(`UPDATE dead_letter SET status = 'replayed', last_attempt_at = ?2
			WHERE event_seq IN (SELECT seq FROM b_seq(?1))`, bind(d.Letters, seqColumn), row.US(t.now)); err != nil {
			return err
		}
	}
	if len(d.Settled) > 0 {
		return t.indexSettled(d.Settled)
	}
	return nil
}

func seqColumn(c sqlite3.Context, p **store.Work, col int) {
	switch col {
	case 1:
		c.ResultInt64((*p).Event.Tenant)
	case 2:
		c.ResultInt64((*p).Seq)
	}
}

type seqKey struct {
	tenant int64
	key    []byte
	seq    int64
}

func keyColumn(c sqlite3.Context, k *seqKey, col int) {
	switch col {
	case 0:
		c.ResultInt64(k.tenant)
	case 1:
		c.ResultBlob(k.key)
	case 2:
		c.ResultInt64(k.seq)
	}
}

func waitingOf(works []*store.Work) []seqKey {
	keys := make([]seqKey, 0, 2*len(works))
	for _, w := range works {
		for _, k := range w.Event.Keys() {
			keys = append(keys, seqKey{w.Event.Tenant, k.Hash[:], w.Seq})
		}
	}
	return keys
}

// Park implements store.Steps.
func (t *tx) Park(works []*store.Work) error {
	if _, err := t.exec(`INSERT INTO orphan (event_seq, tenant_id, route, attempts, failures, due_at, visible_at, token)
		SELECT seq, tenant_id, route, attempts, 0, due_at, due_at, 0 FROM b_orphan(?1)`, bind(works, t.orphanColumn)); err != nil {
		return err
	}
	if _, err := t.exec(`INSERT INTO waiting_key (tenant_id, key, event_seq)
		SELECT tenant_id, key, seq FROM b_key(?1) WHERE true ON CONFLICT DO NOTHING`,
		bind(waitingOf(works), keyColumn)); err != nil {
		return err
	}
	t.parked = append(t.parked, store.ParkedOf(works, t.now)...)
	return nil
}

// Spend implements store.Steps: of two claimers one spends an attempt.
func (t *tx) Spend(works []*store.Work) error {
	_, err := t.exec(`UPDATE orphan SET attempts = b.seen + 1, due_at = b.due_at, visible_at = b.due_at, token = 0, failures = 0
		FROM b_orphan(?1) b
		WHERE orphan.event_seq = b.seq AND orphan.tenant_id = b.tenant_id AND orphan.attempts = b.seen AND orphan.due_at <= b.now`,
		bind(works, t.orphanColumn))
	return err
}

// Bury implements store.Steps.
func (t *tx) Bury(works []*store.Work) error {
	_, err := t.exec(`INSERT INTO dead_letter (id, tenant_id, event_seq, source_id, provider, reason, error, status, attempts, first_received_at, last_attempt_at)
		SELECT id, tenant_id, seq, source_id, provider, reason, error, 'dead', attempts, first_received_at, last_attempt_at FROM b_letter(?1) WHERE true
		ON CONFLICT (event_seq) DO UPDATE SET reason = excluded.reason, error = excluded.error, status = 'dead',
		attempts = excluded.attempts, last_attempt_at = excluded.last_attempt_at`,
		bind(works, t.letterColumn))
	return err
}

// Remember implements store.Steps.
func (t *tx) Remember(entries []store.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	_, err := t.exec(`INSERT INTO timeline (tenant_id, event_seq, at, what, detail)
		SELECT tenant_id, seq, at, what, detail FROM b_moment(?1) WHERE true
		ON CONFLICT DO NOTHING`, bind(entries, func(c sqlite3.Context, m *store.Entry, col int) {
		switch col {
		case 0:
			c.ResultInt64(m.Tenant)
		case 1:
			c.ResultInt64(m.Seq)
		case 2:
			c.ResultInt64(row.US(m.At))
		case 3:
			c.ResultText(m.What)
		case 4:
			c.ResultText(m.Detail)
		}
	}))
	return err
}

// Effect implements store.Steps.
func (t *tx) Effect(x *store.Effects) error { return t.writeEffects(x) }

// remember writes one entry of an event's timeline.
func (t *tx) remember(tenant, seq int64, m store.Moment) error {
	return t.Remember([]store.Entry{{Tenant: tenant, Seq: seq, Moment: m}})
}
