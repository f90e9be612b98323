package postgres

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Assign ties an event to an enrollment by hand. An event that was tied to
// another one is moved: its facts and counts go with it.
func (s *Store) Assign(ctx context.Context, tenant int64, id, enrollment uuid.UUID, actor string) (store.Result, error) {
	var res store.Result
	err := s.write(ctx, "assign event", func(t *tx) error {
		r, err := t.holdEvent(tenant, id)
		if err != nil {
			return err
		}
		var one int
		if ok, err := t.one(`SELECT 1 FROM enrollment WHERE id = $1 AND tenant_id = $2`, []any{enrollment[:], tenant}, &one); err != nil {
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
			t.lockEnrollments(map[uuid.UUID]int64{r.Enrollment: tenant, enrollment: tenant})
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
		if w.To != event.Applied || !w.Changed {
			return errors.New("the event was not assigned")
		}
		res = w.Result
		if err := t.remember([]store.Entry{{Tenant: tenant, Seq: r.Seq, Moment: store.Moment{At: t.now, What: "assigned", Detail: detail}}}); err != nil {
			return err
		}
		return t.Audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "event.assign", Subject: id.String(), Detail: detail})
	})
	return res, err
}

// holdEvent locks an event, and its row in the queue before it, and reads it.
func (t *tx) holdEvent(tenant int64, id uuid.UUID) (r store.Record, err error) {
	t.later(`SELECT 1 FROM orphan o WHERE o.tenant_id = $2 AND o.event_seq = (SELECT e.seq FROM event e WHERE e.id = $1 AND e.tenant_id = $2) FOR UPDATE`, id[:], tenant)
	t.later(`SELECT 1 FROM event e WHERE e.id = $1 AND e.tenant_id = $2 FOR NO KEY UPDATE`, id[:], tenant)
	found := false
	err = t.query(`SELECT `+lightColumns+` FROM event e WHERE e.id = $1 AND e.tenant_id = $2`, func(sc row.Scanner) error {
		found = true
		return row.ScanEvent(sc, &r)
	}, id[:], tenant)
	if err == nil && !found {
		err = fault.New(fault.NotFound, "there is no event %s", id)
	}
	return r, err
}

// untie takes an applied event off its enrollment again, as if it had never
// been applied: the only way an attribution changes. Event and enrollment are locked.
func (t *tx) untie(r *store.Record) error {
	t.later(`UPDATE event SET state = 'orphaned', enrollment_id = NULL, instance_id = NULL, settled_at = 0, settled_by = ''
		WHERE seq = $1 AND tenant_id = $2 AND state = 'applied'`, r.Seq, r.Tenant)
	t.sums.Book(r.Tenant, event.Applied, -1)
	t.sums.Book(r.Tenant, event.Orphaned, 1)
	t.sums.Counters[store.CounterOf(&r.Event, r.Instance)]--
	if err := t.remember([]store.Entry{{Tenant: r.Tenant, Seq: r.Seq, Moment: store.Settled(r)}}); err != nil {
		return err
	}
	return t.recount(r)
}

// recount makes the fact that an event was part of anew from the events that
// are left. The fact's row is locked before they are read: a writer that adds
// to it has either been committed by then, and its event is read, or comes
// after, and adds to what is written here.
func (t *tx) recount(r *store.Record) error {
	was := store.NewEffects()
	was.Apply(&r.Event, r.Instance, r.Enrollment)
	for fact := range was.Facts {
		key := []any{
			r.Tenant, r.Instance[:], r.Enrollment[:], string(fact.Key.Type), fact.Key.Qualifier,
			int64(fact.Key.Step), int32(fact.Key.Machine), fact.Key.Provider, fact.Key.Variant,
		}
		const isKey = `instance_id = $2 AND enrollment_id = $3 AND type = $4 AND qualifier = $5 AND step = $6 AND machine = $7 AND provider = $8 AND variant = $9`
		var archived, first, last int64 // what retention has removed the events of stays
		if _, err := t.one(`SELECT archived, archived_first, archived_last FROM fact WHERE tenant_id = $1 AND `+isKey+` FOR UPDATE`, key, &archived, &first, &last); err != nil {
			return err
		}
		left := store.NewEffects()
		if archived > 0 {
			left.Facts[fact] = store.FactSum{Count: archived, First: row.At(first), Last: row.At(last)}
		}
		ref := enrollmentRef(r.Tenant, r.Enrollment)
		err := t.query(`SELECT `+lightColumns+` FROM event_search s JOIN event e ON e.seq = s.event_seq AND e.tenant_id = s.tenant_id
			WHERE s.tenant_id = $1 AND s.key = $2 AND e.enrollment_id = $3 AND e.state = 'applied'`, func(sc row.Scanner) error {
			var e store.Record
			if err := row.ScanEvent(sc, &e); err != nil {
				return err
			}
			left.Apply(&e.Event, r.Instance, r.Enrollment)
			return nil
		}, r.Tenant, ref.key[:], r.Enrollment[:])
		if err != nil {
			return err
		}
		if sum, ok := left.Facts[fact]; ok {
			t.later(`UPDATE fact SET count = $10, first_at = $11, last_at = $12 WHERE tenant_id = $1 AND `+isKey, append(key, sum.Count, row.US(sum.First), row.US(sum.Last))...)
		} else {
			t.later(`DELETE FROM fact WHERE tenant_id = $1 AND `+isKey, key...)
		}
	}
	return t.restate(map[uuid.UUID]int64{r.Enrollment: r.Tenant})
}
