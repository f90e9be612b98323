package sqlite

import (
	"time"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

// By names who settles an event.
const (
	byLive     = "live"
	byAdoption = "adoption"
	byRetry    = "retry"
	byReplay   = "replay"
	byAssign   = "assign"
)

// work is one event on its way through the processor.
type work struct {
	ev    *event.Event
	seq   int64
	fresh bool        // not stored yet
	met   int64       // number of the stored event of the same identity; 0 = none
	from  event.State // the state a stored event has
	by    string

	again      bool // our own id was there: a commit of unknown outcome is repeated
	parkedAt   time.Time
	reason     string    // why a stored event was waiting until now
	attempts   int       // spent so far; of an orphan
	failures   int       // of an orphan
	bury       string    // reason to bury whatever is found: a fresh event that cannot be processed
	buryDetail string    //
	forced     uuid.UUID // a person said where it belongs

	identity identityKey // of a fresh event
	keys     []event.Key
	found    []store.Found
	decision store.Decision
	instance uuid.UUID
	to       event.State
	changed  bool // our insert or update was the one that happened
	result   store.Result
}

// enrollment is where an event has come to belong; uuid.Nil while nowhere.
func (w *work) enrollment() uuid.UUID {
	if w.to != event.Applied {
		return uuid.Nil
	}
	return w.decision.Enrollment
}

// process is the one processor (law 3): live events, adoption, retries,
// replays and assignments all pass through it, in one transaction, with a
// constant number of statements for any number of events. Stored events must
// be given in the state that the same transaction read.
func (t *tx) process(works []*work) error {
	if len(works) == 0 {
		return nil
	}
	if err := t.match(works); err != nil {
		return err
	}
	x := store.NewEffects()
	for _, w := range works {
		t.decide(w)
	}
	if err := t.insertEvents(works); err != nil {
		return err
	}
	if err := t.settleStored(works); err != nil {
		return err
	}
	if err := t.schedule(works); err != nil {
		return err
	}
	if err := t.bury(works); err != nil {
		return err
	}
	for _, w := range works {
		if w.changed {
			account(x, w)
		}
	}
	return t.writeEffects(x)
}

// account books what a changed event does to ledger, facts, counters and list.
func account(x *store.Effects, w *work) {
	if w.fresh {
		x.Ledger(w.ev.Tenant).Received++
		if !w.ev.Control {
			x.Suppress(w.ev)
		}
	} else {
		x.Book(w.ev.Tenant, w.from, -1)
	}
	x.Book(w.ev.Tenant, w.to, 1)
	if w.to == event.Applied {
		x.Apply(w.ev, w.instance, w.decision.Enrollment)
	}
}

// decide turns a match into the state an event goes to.
func (t *tx) decide(w *work) {
	w.result = store.Result{ID: w.ev.ID, By: w.by}
	switch {
	case w.bury != "":
		w.to, w.decision = event.Dead, store.Decision{Reason: w.bury, Detail: w.buryDetail}
		w.result.Outcome = event.OutcomeDead
	case w.ev.Control:
		w.to = event.Ignored
		w.result.Outcome = event.OutcomeIgnored
	case w.decision.Enrollment != uuid.Nil && w.instance != uuid.Nil:
		w.to = event.Applied
		w.result.Outcome, w.result.Enrollment = event.OutcomeApplied, w.decision.Enrollment
		w.result.Waited = max(0, t.now.Sub(w.ev.ReceivedAt))
	case w.by == byRetry && w.attempts+1 >= t.s.attemptLimit():
		w.to = event.Dead
		w.result.Outcome = event.OutcomeDead
	case w.by == byAdoption && w.from == event.Dead:
		w.to = event.Dead // stays where it is
		w.result.Outcome = event.OutcomeDead
	default:
		w.to = event.Orphaned
		w.result.Outcome = event.OutcomeOrphaned
	}
	w.result.State, w.result.Reason, w.result.Detail = w.to, w.decision.Reason, w.decision.Detail
}

// attemptLimit is how many attempts the schedule has.
func (s *Store) attemptLimit() int {
	n := 0
	for {
		if _, ok := s.opt.Delay(n); !ok {
			return n
		}
		n++
	}
}

func (t *tx) insertEvents(works []*work) error {
	fresh := make([]*work, 0, len(works))
	for _, w := range works {
		if w.fresh {
			fresh = append(fresh, w)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	_, err := t.exec(`INSERT INTO event (seq, id, tenant_id, source_id, scope, provider, kind, control, type, channel,
		provider_event_id, provider_message_id, action_id, lead_id, claimed_enrollment, email, campaign, step, bounce, machine,
		url, occurred_at, estimated, received_at, state, reason, detail, enrollment_id, instance_id, parked_at, settled_at,
		settled_by, identity, metadata, payload)
		SELECT seq, id, tenant_id, source_id, scope, provider, kind, control, type, channel,
		provider_event_id, provider_message_id, action_id, lead_id, claimed_enrollment, email, campaign, step, bounce, machine,
		url, occurred_at, estimated, received_at, state, reason, detail, enrollment_id, instance_id, parked_at, settled_at,
		settled_by, identity, metadata, payload FROM b_event(?1)`, bind(fresh, t.eventColumn))
	if err != nil {
		return err
	}
	for _, w := range fresh {
		w.changed = true
	}
	t.indexNew(fresh)
	return nil
}

// settleStored changes the state of events that are stored already; only what
// the database says has changed has effects.
func (t *tx) settleStored(works []*work) error {
	var moved []*work
	bySeq := map[int64]*work{}
	for _, w := range works {
		if !w.fresh && w.to != w.from {
			moved = append(moved, w)
			bySeq[w.seq] = w
		}
	}
	if len(moved) == 0 {
		return nil
	}
	err := t.query(`UPDATE event SET state = b.to_state, reason = b.reason, detail = b.detail,
		enrollment_id = b.enrollment_id, instance_id = b.instance_id, parked_at = b.parked_at,
		settled_at = b.settled_at, settled_by = b.settled_by
		FROM b_settle(?1) b
		WHERE event.seq = b.seq AND event.tenant_id = b.tenant_id AND event.state = b.from_state
		RETURNING seq`, func(sc scanner) error {
		var seq int64
		if err := sc.Scan(&seq); err != nil {
			return err
		}
		bySeq[seq].changed = true
		return nil
	}, bind(moved, t.settleColumn))
	if err != nil {
		return err
	}
	return t.unpark(moved)
}

// unpark takes events that have left the queue out of it, and indexes where
// they went for the search, which may have passed them already.
func (t *tx) unpark(moved []*work) error {
	var left, settled []*work
	var waited, letters []*work
	for _, w := range moved {
		if !w.changed {
			continue
		}
		if w.from == event.Orphaned {
			left = append(left, w)
		}
		if w.from == event.Dead {
			letters = append(letters, w)
		}
		if w.to == event.Applied {
			settled = append(settled, w)
		}
		// Of the dead letters only those wait that lacked an enrollment.
		if w.to == event.Applied || w.bury != "" {
			waited = append(waited, w)
		}
	}
	if len(left) > 0 {
		if _, err := t.exec(`DELETE FROM orphan WHERE event_seq IN (SELECT seq FROM b_seq(?1))`, bind(left, seqColumn)); err != nil {
			return err
		}
	}
	if len(waited) > 0 {
		if _, err := t.exec(`DELETE FROM waiting_key WHERE (tenant_id, key, event_seq) IN (SELECT tenant_id, key, seq FROM b_key(?1))`,
			bind(waitingOf(waited), keyColumn)); err != nil {
			return err
		}
	}
	if len(letters) > 0 {
		if _, err := t.exec(`UPDATE dead_letter SET status = 'replayed', last_attempt_at = ?2
			WHERE event_seq IN (SELECT seq FROM b_seq(?1))`, bind(letters, seqColumn), us(t.now)); err != nil {
			return err
		}
	}
	if len(settled) > 0 {
		return t.indexSettled(settled)
	}
	return nil
}

func seqColumn(c sqlite3.Context, p **work, col int) {
	switch col {
	case 1:
		c.ResultInt64((*p).ev.Tenant)
	case 2:
		c.ResultInt64((*p).seq)
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

func waitingOf(works []*work) []seqKey {
	keys := make([]seqKey, 0, 2*len(works))
	for _, w := range works {
		for _, k := range w.ev.Keys() {
			keys = append(keys, seqKey{w.ev.Tenant, k.Hash[:], w.seq})
		}
	}
	return keys
}

// schedule puts events that became orphans into the retry schedule, and
// spends an attempt of those that were retried and still wait.
func (t *tx) schedule(works []*work) error {
	var parked, retried []*work
	for _, w := range works {
		switch {
		case w.to != event.Orphaned:
		case w.changed:
			w.attempts = 0
			t.plan(w, 0)
			parked = append(parked, w)
		case w.by == byRetry:
			t.plan(w, w.attempts+1)
			retried = append(retried, w)
		}
	}
	if len(parked) > 0 {
		if _, err := t.exec(`INSERT INTO orphan (event_seq, tenant_id, route, attempts, failures, due_at, visible_at, token)
			SELECT seq, tenant_id, route, attempts, 0, due_at, due_at, 0 FROM b_orphan(?1)`, bind(parked, t.orphanColumn)); err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO waiting_key (tenant_id, key, event_seq)
			SELECT tenant_id, key, seq FROM b_key(?1) WHERE true ON CONFLICT DO NOTHING`,
			bind(waitingOf(parked), keyColumn)); err != nil {
			return err
		}
		t.tell(parked)
	}
	if err := t.explain(works); err != nil {
		return err
	}
	if len(retried) > 0 {
		// The attempt is spent only where it is still the one that was seen, and
		// was due: of two claimers one spends it.
		if _, err := t.exec(`UPDATE orphan SET attempts = b.seen + 1, due_at = b.due_at, visible_at = b.due_at, token = 0, failures = 0
			FROM b_orphan(?1) b
			WHERE orphan.event_seq = b.seq AND orphan.tenant_id = b.tenant_id AND orphan.attempts = b.seen AND orphan.due_at <= b.now`,
			bind(retried, t.orphanColumn)); err != nil {
			return err
		}
	}
	return nil
}

// tell has the queue beside the database told of new orphans, once they are
// committed.
func (t *tx) tell(parked []*work) {
	if t.s.opt.Parked == nil {
		return
	}
	told := make([]store.Parked, len(parked))
	for i, w := range parked {
		told[i] = store.Parked{Seq: w.seq, Tenant: w.ev.Tenant, Route: w.ev.Route(), Delay: w.result.NextAttemptAt.Sub(t.now)}
	}
	t.after = append(t.after, func() { t.s.opt.Parked(told) })
}

// plan sets when an orphan that has spent so many attempts is tried next.
func (t *tx) plan(w *work, spent int) {
	d, _ := t.s.opt.Delay(spent)
	w.result.NextAttemptAt = t.now.Add(d).Truncate(time.Microsecond)
}

// explain keeps the reason that a waiting event shows true: an address that
// gained a second enrollment turns "no enrollment" into "ambiguous".
func (t *tx) explain(works []*work) error {
	var other []*work
	for _, w := range works {
		if !w.fresh && !w.changed && w.to == w.from && w.decision.Reason != w.reason {
			other = append(other, w)
		}
	}
	if len(other) == 0 {
		return nil
	}
	_, err := t.exec(`UPDATE event SET reason = b.reason, detail = b.detail FROM b_settle(?1) b
		WHERE event.seq = b.seq AND event.tenant_id = b.tenant_id AND event.state = b.from_state`,
		bind(other, t.settleColumn))
	return err
}

// bury makes dead letters of events that died in this transaction.
func (t *tx) bury(works []*work) error {
	var dead []*work
	for _, w := range works {
		if w.changed && w.to == event.Dead {
			dead = append(dead, w)
		}
	}
	if len(dead) == 0 {
		return nil
	}
	if _, err := t.exec(`INSERT INTO dead_letter (id, tenant_id, event_seq, source_id, provider, reason, error, status, attempts, first_received_at, last_attempt_at)
		SELECT id, tenant_id, seq, source_id, provider, reason, error, 'dead', attempts, first_received_at, last_attempt_at FROM b_letter(?1) WHERE true
		ON CONFLICT (event_seq) DO UPDATE SET reason = excluded.reason, error = excluded.error, status = 'dead',
		attempts = excluded.attempts, last_attempt_at = excluded.last_attempt_at`,
		bind(dead, t.letterColumn)); err != nil {
		return err
	}
	moments := make([]moment, 0, len(dead))
	for _, w := range dead {
		moments = append(moments, moment{w.ev.Tenant, w.seq, t.now, "buried", w.decision.Reason + ": " + w.decision.Detail})
	}
	return t.remember(moments)
}

type moment struct {
	tenant int64
	seq    int64
	at     time.Time
	what   string
	detail string
}

// remember writes timeline entries; received, applied and duplicates are
// columns of the event and need none.
func (t *tx) remember(moments []moment) error {
	if len(moments) == 0 {
		return nil
	}
	_, err := t.exec(`INSERT INTO timeline (tenant_id, event_seq, at, what, detail)
		SELECT tenant_id, seq, at, what, detail FROM b_moment(?1) WHERE true
		ON CONFLICT DO NOTHING`, bind(moments, func(c sqlite3.Context, m *moment, col int) {
		switch col {
		case 0:
			c.ResultInt64(m.tenant)
		case 1:
			c.ResultInt64(m.seq)
		case 2:
			c.ResultInt64(us(m.at))
		case 3:
			c.ResultText(m.what)
		case 4:
			c.ResultText(m.detail)
		}
	}))
	return err
}

// newID makes a UUIDv7. It only fails when the system has no randomness, and
// then nothing else works either.
func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }
