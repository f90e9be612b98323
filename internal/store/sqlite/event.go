package sqlite

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// lightColumns leave the payload out, which may have megabytes: for lists and
// for the processor, which never looks at it.
const lightColumns = row.EventHead + `x''` + row.EventTail

// Event reads one event of a tenant.
func (s *Store) Event(ctx context.Context, tenant int64, id uuid.UUID) (store.Record, error) {
	var r store.Record
	found := false
	err := s.read(ctx, "read event", `SELECT `+row.EventColumns+` FROM event e WHERE e.id = ?1 AND e.tenant_id = ?2`, func(sc row.Scanner) error {
		found = true
		return row.ScanEvent(sc, &r)
	}, id[:], tenant)
	if err == nil && !found {
		err = fault.New(fault.NotFound, "there is no event %s", id)
	}
	return r, err
}

// Events searches a tenant's events, newest first. What is searched by an
// index (address, message, enrollment) is found at once however many events
// there are; the other filters are checked row by row.
func (s *Store) Events(ctx context.Context, tenant int64, f store.EventFilter, p store.Page) ([]store.Record, int64, error) {
	where := []string{"e.tenant_id = ?"}
	args := []any{tenant}
	add := func(cond string, arg ...any) {
		where = append(where, cond)
		args = append(args, arg...)
	}
	if p.After > 0 {
		add("e.seq < ?", p.After)
	}
	indexed := func(kind, value, cond string, arg ...any) {
		seqs, sargs := s.searched(searchRef{tenant, row.SearchKey(kind, value)})
		add("e.seq IN ("+seqs+") AND "+cond, append(sargs, arg...)...)
	}
	if f.Enrollment != uuid.Nil {
		indexed("enrollment", f.Enrollment.String(), "e.enrollment_id = ?", f.Enrollment[:])
	}
	if f.MessageID != "" {
		id := event.NormalID(f.MessageID)
		indexed("message", id, "e.provider_message_id <> ''")
	}
	if f.Email != "" {
		indexed("email", event.NormalAddress(f.Email), "e.email <> ''")
	}
	if f.State != "" {
		add("e.state = ?", string(f.State))
		if f.State != event.Applied {
			add("e.state <> 'applied'") // says that the index of the unsettled serves
		}
	}
	if f.Provider != "" {
		add("e.provider = ?", f.Provider)
	}
	if f.Source != uuid.Nil {
		add("e.source_id = ?", f.Source[:])
	}
	if f.Type != "" {
		add("e.type = ?", string(f.Type))
	}
	if !f.Since.IsZero() {
		add("e.occurred_at >= ?", row.US(f.Since))
	}
	if !f.Until.IsZero() {
		add("e.occurred_at < ?", row.US(f.Until))
	}
	// What no index serves reads row by row: two at a time, the others wait, so
	// that readers of single rows always find a connection.
	if f.Enrollment == uuid.Nil && f.MessageID == "" && f.Email == "" {
		ctx, cancel := context.WithTimeout(ctx, s.opt.TxTimeout)
		defer cancel()
		select {
		case s.scans <- struct{}{}:
			defer func() { <-s.scans }()
		case <-ctx.Done():
			return nil, 0, &fault.Error{Kind: fault.Throttled, Op: "search events", Msg: "too many searches at once; narrow them by email, message_id or enrollment_id", RetryAfter: time.Second}
		}
	}
	var rows []store.Record
	err := s.read(ctx, "search events", `SELECT `+lightColumns+` FROM event e WHERE `+strings.Join(where, " AND ")+
		` ORDER BY e.seq DESC LIMIT ?`, func(sc row.Scanner) error {
		rows = append(rows, store.Record{})
		return row.ScanEvent(sc, &rows[len(rows)-1])
	}, append(args, p.Limit+1)...)
	if err != nil {
		return nil, 0, err
	}
	rows, next := row.Cut(rows, p.Limit, func(r *store.Record) int64 { return r.Seq })
	return rows, next, nil
}

// Timeline tells an event's life: what came of columns and what was written
// because it is rare, by time.
func (s *Store) Timeline(ctx context.Context, tenant int64, id uuid.UUID) ([]store.Moment, error) {
	r, err := s.Event(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	var rare []store.Moment
	err = s.read(ctx, "read timeline", `SELECT at, what, detail FROM timeline WHERE event_seq = ?1 AND tenant_id = ?2 ORDER BY at`, func(sc row.Scanner) error {
		var m store.Moment
		var us int64
		err := sc.Scan(&us, &m.What, &m.Detail)
		m.At = row.At(us)
		rare = append(rare, m)
		return err
	}, r.Seq, tenant)
	return store.Timeline(&r, rare), err
}

// Assign ties an event to an enrollment by hand. An event that was tied to
// another one is moved: its facts and counts go with it.
func (s *Store) Assign(ctx context.Context, tenant int64, id, enrollment uuid.UUID, actor string) (store.Result, error) {
	var res store.Result
	err := s.write(ctx, live, "assign event", func(t *tx) error {
		var r store.Record
		found := false
		err := t.query(`SELECT `+row.EventColumns+` FROM event e WHERE e.id = ?1 AND e.tenant_id = ?2`, func(sc row.Scanner) error {
			found = true
			return row.ScanEvent(sc, &r)
		}, id[:], tenant)
		if err != nil {
			return err
		}
		if !found {
			return fault.New(fault.NotFound, "there is no event %s", id)
		}
		var one int
		if ok, err := t.one(`SELECT 1 FROM enrollment WHERE id = ?1 AND tenant_id = ?2`, []any{enrollment[:], tenant}, &one); err != nil {
			return err
		} else if !ok {
			return fault.New(fault.NotFound, "there is no enrollment %s", enrollment)
		}
		detail := "to enrollment " + enrollment.String() + " by " + actor
		switch {
		case r.State == event.Ignored:
			return fault.New(fault.Conflict, "the event %s is not an outreach event and belongs to no enrollment", id)
		case r.State == event.Applied && r.Enrollment == enrollment:
			res = store.Result{ID: id, Outcome: event.OutcomeApplied, State: event.Applied, By: r.SettledBy}
			return nil
		case r.State == event.Applied:
			detail = "moved from enrollment " + r.Enrollment.String() + " " + detail
			if err := t.untie(&r); err != nil {
				return err
			}
			r.State = event.Orphaned
		}
		w := store.WorkOf(&r, store.ByAssign)
		w.Forced = enrollment
		if err := t.process([]*store.Work{w}); err != nil {
			return err
		}
		res = w.Result
		if err := t.remember(tenant, r.Seq, store.Moment{At: t.now, What: "assigned", Detail: detail}); err != nil {
			return err
		}
		return t.Audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "event.assign", Subject: id.String(), Detail: detail})
	})
	return res, err
}

// untie takes an applied event off its enrollment again, as if it had never
// been applied: the only way an attribution changes.
func (t *tx) untie(r *store.Record) error {
	if _, err := t.exec(`UPDATE event SET state = 'orphaned', enrollment_id = NULL, instance_id = NULL, settled_at = 0, settled_by = ''
		WHERE seq = ?1 AND tenant_id = ?2 AND state = 'applied'`, r.Seq, r.Tenant); err != nil {
		return err
	}
	x := store.NewEffects()
	x.Book(r.Tenant, event.Applied, -1)
	x.Book(r.Tenant, event.Orphaned, 1)
	x.Counters[store.CounterOf(&r.Event, r.Instance)] = -1
	if err := t.writeEffects(x); err != nil {
		return err
	}
	if err := t.remember(r.Tenant, r.Seq, store.Settled(r)); err != nil {
		return err
	}
	return t.recount(r.Tenant, r.Instance, r.Enrollment)
}

// recount makes an enrollment's facts anew from its events.
func (t *tx) recount(tenant int64, instance, enrollment uuid.UUID) error {
	x := store.NewEffects()
	seqs, args := t.s.searched(enrollmentRef(tenant, enrollment))
	err := t.query(`SELECT `+row.EventColumns+` FROM event e WHERE e.seq IN (`+seqs+`) AND e.tenant_id = ? AND e.enrollment_id = ? AND e.state = 'applied'`,
		func(sc row.Scanner) error {
			var r store.Record
			if err := row.ScanEvent(sc, &r); err != nil {
				return err
			}
			x.Apply(&r.Event, instance, enrollment)
			return nil
		}, append(args, tenant, enrollment[:])...)
	if err != nil {
		return err
	}
	// What retention has removed the events of stays.
	for _, q := range []string{
		`DELETE FROM fact WHERE tenant_id = ?1 AND instance_id = ?2 AND enrollment_id = ?3 AND archived = 0`,
		`UPDATE fact SET count = archived, first_at = archived_first, last_at = archived_last WHERE tenant_id = ?1 AND instance_id = ?2 AND enrollment_id = ?3`,
	} {
		if _, err := t.exec(q, tenant, instance[:], enrollment[:]); err != nil {
			return err
		}
	}
	x.Counters = nil
	if err := t.writeFacts(x); err != nil {
		return err
	}
	return t.restate(map[uuid.UUID]int64{enrollment: tenant})
}
