package postgres

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// process takes events through the one processor, in this transaction. What it
// leaves without an enrollment is looked at once more after the commit.
func (t *tx) process(works []*store.Work) error {
	if err := store.Process(t, t.rules(), works); err != nil {
		return err
	}
	for _, w := range works {
		if w.Unmatched() && (w.Changed || w.By == store.ByRetry) {
			t.unmatched = append(t.unmatched, w)
		}
	}
	return nil
}

// Lookup implements store.Steps: one round trip for all kinds of keys.
func (t *tx) Lookup(l *store.Lookup) error {
	// Of a key's owners two are read at most (nth).
	t.probe(l.Owned, `SELECT p.ord, m.enrollment_id, m.instance_id
		FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS p(tenant_id, key, ord)
		JOIN match_key m ON m.tenant_id = p.tenant_id AND m.key = p.key AND m.nth < 2`, l.Owner, func(probes []store.Probe) []any {
		return []any{tenantsOf(probes), hashesOf(probes, (*store.Probe).Hash)}
	})
	t.probe(l.Enrollments, `SELECT p.ord, e.id, e.instance_id
		FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS p(tenant_id, id, ord)
		JOIN enrollment e ON e.id = p.id AND e.tenant_id = p.tenant_id`, l.Owner, func(probes []store.Probe) []any {
		ids := make([][]byte, len(probes))
		for i := range probes {
			id := probes[i].Enrollment()
			ids[i] = id[:]
		}
		return []any{tenantsOf(probes), ids}
	})
	if len(l.Campaigns) > 0 {
		t.ask(`SELECT p.ord, e.id, c.instance_id, i.status = 'active'
			FROM unnest($1::bigint[], $2::bytea[], $3::bytea[]) WITH ORDINALITY AS p(tenant_id, key, address, ord)
			JOIN provider_campaign c ON c.tenant_id = p.tenant_id AND c.key = p.key
			JOIN instance i ON i.id = c.instance_id AND i.tenant_id = c.tenant_id
			LEFT JOIN enrollment e ON e.instance_id = c.instance_id AND e.tenant_id = c.tenant_id AND e.address_key = p.address`, func(sc row.Scanner) error {
			var ord int
			var enrollment, instance []byte
			var active bool
			if err := sc.Scan(&ord, &enrollment, &instance, &active); err != nil {
				return err
			}
			l.Mapped(&l.Campaigns[ord-1], row.ID(enrollment), row.ID(instance), active)
			return nil
		}, tenantsOf(l.Campaigns), hashesOf(l.Campaigns, (*store.Probe).Hash), hashesOf(l.Campaigns, (*store.Probe).Address))
	}
	return t.flush()
}

func (t *tx) probe(probes []store.Probe, query string, found func(p *store.Probe, enrollment, instance uuid.UUID), args func([]store.Probe) []any) {
	if len(probes) == 0 {
		return
	}
	t.ask(query, func(sc row.Scanner) error {
		var ord int
		var enrollment, instance []byte
		if err := sc.Scan(&ord, &enrollment, &instance); err != nil {
			return err
		}
		found(&probes[ord-1], row.ID(enrollment), row.ID(instance))
		return nil
	}, args(probes)...)
}

func tenantsOf(probes []store.Probe) []int64 {
	all := make([]int64, len(probes))
	for i := range probes {
		all[i] = probes[i].Tenant()
	}
	return all
}

func hashesOf(probes []store.Probe, of func(*store.Probe) event.Hash) [][]byte {
	all := make([][]byte, len(probes))
	for i := range probes {
		h := of(&probes[i])
		all[i] = h[:]
	}
	return all
}

func tenantOf(w *store.Work) int64 { return w.Event.Tenant }
func seqOf(w *store.Work) int64    { return w.Seq }

// bytesOf is an id as an element of a bytea[]; uuid.Nil is NULL.
func bytesOf(id *uuid.UUID) []byte {
	if *id == uuid.Nil {
		return nil
	}
	return id[:]
}

func reasonOf(w *store.Work) string { return w.Decision.Reason }
func detailOf(w *store.Work) string { return w.Decision.Detail }

func appliedTo(w *store.Work) []byte {
	if w.To != event.Applied {
		return nil
	}
	return w.Decision.Enrollment[:]
}

func appliedIn(w *store.Work) []byte {
	if w.To != event.Applied {
		return nil
	}
	return w.Instance[:]
}

func settledBy(w *store.Work) string {
	if w.To != event.Applied {
		return ""
	}
	return w.By
}

// Insert implements store.Steps.
func (t *tx) Insert(fresh []*store.Work) error {
	text := func(field func(*event.Event) string) []string {
		return column(fresh, func(w *store.Work) string { return field(w.Event) })
	}
	when := func(is func(*store.Work) bool) []int64 {
		return column(fresh, func(w *store.Work) int64 {
			if is(w) {
				return row.US(t.now)
			}
			return 0
		})
	}
	t.later(`INSERT INTO event (seq, id, tenant_id, source_id, scope, provider, kind, control, type, channel,
		provider_event_id, provider_message_id, action_id, lead_id, claimed_enrollment, email, campaign, step, bounce, machine,
		url, occurred_at, estimated, received_at, state, reason, detail, enrollment_id, instance_id, parked_at, settled_at,
		settled_by, identity, metadata, payload, enrolls)
		SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::boolean[], $9::text[], $10::text[],
		$11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::bigint[], $19::text[], $20::int[],
		$21::text[], $22::bigint[], $23::boolean[], $24::bigint[], $25::text[], $26::text[], $27::text[], $28::bytea[], $29::bytea[], $30::bigint[], $31::bigint[],
		$32::text[], $33::bytea[], $34::bytea[], $35::bytea[], $36::boolean[]) AS b(seq, id, tenant_id)`,
		column(fresh, seqOf),
		column(fresh, func(w *store.Work) []byte { return w.Event.ID[:] }),
		column(fresh, tenantOf),
		column(fresh, func(w *store.Work) []byte { return bytesOf(&w.Event.SourceID) }),
		text(func(e *event.Event) string { return e.Scope }),
		text(func(e *event.Event) string { return e.Provider }),
		text(func(e *event.Event) string { return e.Kind }),
		column(fresh, func(w *store.Work) bool { return w.Event.Control }),
		text(func(e *event.Event) string { return string(e.Type) }),
		text(func(e *event.Event) string { return string(e.Channel) }),
		text(func(e *event.Event) string { return e.ProviderEventID }),
		text(func(e *event.Event) string { return e.ProviderMessageID }),
		text(func(e *event.Event) string { return e.ActionID }),
		text(func(e *event.Event) string { return e.LeadID }),
		text(func(e *event.Event) string { return e.EnrollmentID }),
		text(func(e *event.Event) string { return e.Email }),
		text(func(e *event.Event) string { return e.Campaign }),
		column(fresh, func(w *store.Work) int64 { return int64(w.Event.StepNumber) }),
		text(func(e *event.Event) string { return string(e.Bounce) }),
		column(fresh, func(w *store.Work) int32 { return int32(w.Event.Machine) }),
		text(func(e *event.Event) string { return e.URL }),
		column(fresh, func(w *store.Work) int64 { return row.US(w.Event.OccurredAt) }),
		column(fresh, func(w *store.Work) bool { return w.Event.OccurredAtEstimated }),
		column(fresh, func(w *store.Work) int64 { return row.US(w.Event.ReceivedAt) }),
		column(fresh, func(w *store.Work) string { return string(w.To) }),
		column(fresh, reasonOf),
		column(fresh, detailOf),
		column(fresh, appliedTo),
		column(fresh, appliedIn),
		when(func(w *store.Work) bool { return w.To == event.Orphaned }),
		when(func(w *store.Work) bool { return w.To == event.Applied || w.To == event.Ignored }),
		column(fresh, settledBy),
		column(fresh, func(w *store.Work) []byte { return w.Identity[:] }),
		column(fresh, func(w *store.Work) []byte {
			if len(w.Event.Metadata) == 0 {
				return nil
			}
			return w.Event.Metadata
		}),
		column(fresh, func(w *store.Work) []byte { return append([]byte{}, w.Event.Payload...) }),
		column(fresh, func(w *store.Work) bool { return w.Event.EnrollUnmatched }),
	)
	entries := make([]searchEntry, 0, 3*len(fresh))
	for _, w := range fresh {
		for _, r := range searchRefs(w.Event.Tenant, w.Event.Email, w.Event.ProviderMessageID, w.Enrollment()) {
			entries = append(entries, searchEntry{r, w.Seq})
		}
	}
	t.indexSearch(entries)
	return nil
}

type searchEntry struct {
	searchRef
	seq int64
}

// indexSearch lets events be found by what the entries say.
func (t *tx) indexSearch(entries []searchEntry) {
	if len(entries) == 0 {
		return
	}
	slices.SortFunc(entries, func(a, b searchEntry) int {
		return cmp.Or(cmp.Compare(a.tenant, b.tenant), bytes.Compare(a.key[:], b.key[:]), cmp.Compare(a.seq, b.seq))
	})
	keys := make([][]byte, len(entries))
	for i := range entries {
		keys[i] = entries[i].key[:]
	}
	t.later(`INSERT INTO event_search (tenant_id, key, event_seq)
		SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[]) AS b(tenant_id, key, event_seq) ON CONFLICT DO NOTHING`,
		column(entries, func(e searchEntry) int64 { return e.tenant }), keys, column(entries, func(e searchEntry) int64 { return e.seq }))
}

func bySeq(works []*store.Work) {
	slices.SortFunc(works, func(a, b *store.Work) int { return cmp.Compare(a.Seq, b.Seq) })
}

// Settle implements store.Steps, by number, as everybody locks events.
func (t *tx) Settle(moved, others []*store.Work) error {
	all := slices.Concat(moved, others)
	bySeq(all)
	found := make(map[int64]*store.Work, len(moved))
	for _, w := range moved {
		found[w.Seq] = w
	}
	var dead []*store.Work // their letters say why, too
	for _, w := range others {
		if w.From == event.Dead {
			dead = append(dead, w)
		}
	}
	if len(dead) > 0 {
		bySeq(dead)
		t.later(`UPDATE dead_letter d SET reason = b.reason, error = b.detail
			FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) AS b(seq, tenant_id, reason, detail)
			WHERE d.event_seq = b.seq AND d.tenant_id = b.tenant_id`,
			column(dead, seqOf), column(dead, tenantOf), column(dead, reasonOf), column(dead, detailOf))
	}
	return t.query(`UPDATE event e SET state = b.to_state, reason = b.reason, detail = b.detail,
		enrollment_id = b.enrollment_id, instance_id = b.instance_id, parked_at = b.parked_at,
		settled_at = b.settled_at, settled_by = b.settled_by
		FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bytea[], $9::bigint[], $10::bigint[], $11::text[])
			AS b(seq, tenant_id, from_state, to_state, reason, detail, enrollment_id, instance_id, parked_at, settled_at, settled_by)
		WHERE e.seq = b.seq AND e.tenant_id = b.tenant_id AND e.state = b.from_state
		RETURNING e.seq`, func(sc row.Scanner) error {
		var seq int64
		if err := sc.Scan(&seq); err != nil {
			return err
		}
		if w := found[seq]; w != nil {
			w.Changed = true
		}
		return nil
	},
		column(all, seqOf), column(all, tenantOf),
		column(all, func(w *store.Work) string { return string(w.From) }),
		column(all, func(w *store.Work) string { return string(w.To) }),
		column(all, reasonOf), column(all, detailOf), column(all, appliedTo), column(all, appliedIn),
		column(all, func(w *store.Work) int64 {
			if w.To == event.Orphaned && w.ParkedAt.IsZero() {
				return row.US(t.now)
			}
			return row.US(w.ParkedAt)
		}),
		column(all, func(w *store.Work) int64 {
			if w.To == event.Applied {
				return row.US(t.now)
			}
			return 0
		}),
		column(all, settledBy))
}

// Depart implements store.Steps.
func (t *tx) Depart(d store.Departures) error {
	if len(d.Queue) > 0 {
		t.gone = append(t.gone, store.GoneOf(d.Queue)...)
		bySeq(d.Queue)
		t.later(`DELETE FROM orphan o USING unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id)
			WHERE o.event_seq = b.seq AND o.tenant_id = b.tenant_id`, column(d.Queue, seqOf), column(d.Queue, tenantOf))
	}
	if len(d.Waiting) > 0 {
		t.later(`DELETE FROM waiting_key w USING unnest($1::bigint[], $2::bytea[], $3::bigint[]) AS b(tenant_id, key, seq)
			WHERE w.tenant_id = b.tenant_id AND w.key = b.key AND w.event_seq = b.seq`, waitingOf(d.Waiting)...)
	}
	if len(d.Letters) > 0 {
		bySeq(d.Letters)
		t.later(`UPDATE dead_letter d SET status = 'replayed', last_attempt_at = $3
			FROM unnest($1::bigint[], $2::bigint[]) AS b(seq, tenant_id) WHERE d.event_seq = b.seq AND d.tenant_id = b.tenant_id`,
			column(d.Letters, seqOf), column(d.Letters, tenantOf), row.US(t.now))
	}
	entries := make([]searchEntry, len(d.Settled))
	for i, w := range d.Settled {
		entries[i] = searchEntry{enrollmentRef(w.Event.Tenant, w.Decision.Enrollment), w.Seq}
	}
	t.indexSearch(entries)
	return nil
}

// waitingOf are the columns of waiting_key: what events wait for, by key.
func waitingOf(works []*store.Work) []any {
	type row struct {
		tenant int64
		key    []byte
		seq    int64
	}
	rows := make([]row, 0, 2*len(works))
	for _, w := range works {
		for _, k := range w.Event.Keys() {
			rows = append(rows, row{w.Event.Tenant, bytes.Clone(k.Hash[:]), w.Seq})
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.tenant, b.tenant), bytes.Compare(a.key, b.key), cmp.Compare(a.seq, b.seq))
	})
	return []any{
		column(rows, func(r row) int64 { return r.tenant }), column(rows, func(r row) []byte { return r.key }),
		column(rows, func(r row) int64 { return r.seq }),
	}
}

// Park implements store.Steps.
func (t *tx) Park(works []*store.Work) error {
	t.later(`INSERT INTO orphan (event_seq, tenant_id, route, attempts, failures, due_at, visible_at, token)
		SELECT seq, tenant_id, route, 0, 0, due_at, due_at, 0 FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[]) AS b(seq, tenant_id, route, due_at)`,
		column(works, seqOf), column(works, tenantOf),
		column(works, func(w *store.Work) string { return string(w.Event.Route()) }), column(works, dueOf))
	t.later(`INSERT INTO waiting_key (tenant_id, key, event_seq)
		SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[]) AS b(tenant_id, key, event_seq) ON CONFLICT DO NOTHING`, waitingOf(works)...)
	t.parked = append(t.parked, store.ParkedOf(works, t.now)...)
	return nil
}

func dueOf(w *store.Work) int64 { return row.US(w.Result.NextAttemptAt) }

// Spend implements store.Steps. The rows are locked (held): of two claimers one
// spends an attempt.
func (t *tx) Spend(works []*store.Work) error {
	bySeq(works)
	t.later(`UPDATE orphan o SET attempts = b.seen + 1, due_at = b.due_at, visible_at = b.due_at, token = 0, failures = 0
		FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::bigint[]) AS b(seq, tenant_id, seen, due_at)
		WHERE o.event_seq = b.seq AND o.tenant_id = b.tenant_id AND o.attempts = b.seen AND o.due_at <= $5`,
		column(works, seqOf), column(works, tenantOf),
		column(works, func(w *store.Work) int32 { return int32(w.Attempts) }), //nolint:gosec // read from an INT
		column(works, dueOf), row.US(t.now))
	return nil
}

// recheckAfter is how long after a burial its event is looked at once more.
const recheckAfter = time.Minute

// Bury implements store.Steps.
func (t *tx) Bury(works []*store.Work) error {
	bySeq(works)
	ids := make([]uuid.UUID, len(works))
	for i := range ids {
		ids[i] = row.NewID()
	}
	t.later(`INSERT INTO dead_letter (id, tenant_id, event_seq, source_id, provider, reason, error, status, attempts, first_received_at, last_attempt_at)
		SELECT id, tenant_id, seq, source_id, provider, reason, error, 'dead', attempts, first_received_at, $9
		FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::bigint[], $10::int[])
			AS b(id, tenant_id, seq, source_id, provider, reason, error, first_received_at, attempts)
		ON CONFLICT (event_seq) DO UPDATE SET reason = excluded.reason, error = excluded.error, status = 'dead',
		attempts = excluded.attempts, last_attempt_at = excluded.last_attempt_at`,
		column(ids, func(id uuid.UUID) []byte { return id[:] }), column(works, tenantOf), column(works, seqOf),
		column(works, func(w *store.Work) []byte { return bytesOf(&w.Event.SourceID) }),
		column(works, func(w *store.Work) string { return w.Event.Provider }),
		column(works, reasonOf), column(works, detailOf),
		column(works, func(w *store.Work) int64 { return row.US(w.Event.ReceivedAt) }), row.US(t.now),
		column(works, func(w *store.Work) int32 { return int32(w.Spent()) })) //nolint:gosec // one more than what was read from an INT
	waiting := slices.DeleteFunc(slices.Clone(works), func(w *store.Work) bool { return !w.Unmatched() })
	if len(waiting) > 0 {
		t.later(`INSERT INTO recheck (tenant_id, event_seq, due_at)
			SELECT tenant_id, seq, $3 FROM unnest($1::bigint[], $2::bigint[]) AS b(tenant_id, seq)
			ON CONFLICT (event_seq) DO UPDATE SET due_at = excluded.due_at`,
			column(waiting, tenantOf), column(waiting, seqOf), row.US(t.now.Add(recheckAfter)))
	}
	return nil
}

// Remember implements store.Steps.
func (t *tx) Remember(entries []store.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	t.later(`INSERT INTO timeline (tenant_id, event_seq, at, what, detail)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[]) AS b(tenant_id, event_seq, at, what, detail)
		ON CONFLICT DO NOTHING`,
		column(entries, func(e store.Entry) int64 { return e.Tenant }),
		column(entries, func(e store.Entry) int64 { return e.Seq }),
		column(entries, func(e store.Entry) int64 { return row.US(e.At) }),
		column(entries, func(e store.Entry) string { return e.What }),
		column(entries, func(e store.Entry) string { return e.Detail }))
	return nil
}

// remember writes timeline entries.
func (t *tx) remember(entries []store.Entry) error { return t.Remember(entries) }
