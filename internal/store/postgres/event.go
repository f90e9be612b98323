package postgres

import (
	"context"
	"strconv"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Event reads one event of a tenant.
func (s *Store) Event(ctx context.Context, tenant int64, id uuid.UUID) (store.Record, error) {
	var r store.Record
	found := false
	err := s.read(ctx, "read event", `SELECT `+row.EventColumns+` FROM event e WHERE e.id = $1 AND e.tenant_id = $2`, func(sc row.Scanner) error {
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
	var c conditions
	from := "event e"
	indexed := func(kind, value string) {
		n := strconv.Itoa(len(c.args))
		from += " JOIN event_search s" + n + " ON s" + n + ".event_seq = e.seq"
		key := row.SearchKey(kind, value)
		c.add("s"+n+".tenant_id = ? AND s"+n+".key = ?", tenant, key[:])
	}
	if f.Enrollment != uuid.Nil {
		indexed("enrollment", f.Enrollment.String())
		c.add("e.enrollment_id = ?", f.Enrollment[:]) // it may have been another's before
	}
	if f.MessageID != "" {
		indexed("message", event.NormalID(f.MessageID))
	}
	if f.Email != "" {
		indexed("email", event.NormalAddress(f.Email))
	}
	byRow := len(c.args) == 0
	c.add("e.tenant_id = ? AND e.seq < ?", tenant, before(p))
	if f.State != "" {
		c.text("e.state = ?", string(f.State))
		if f.State != event.Applied {
			c.add("e.state <> 'applied'") // says that the index of the unsettled serves
		}
	}
	if f.Provider != "" {
		c.text("e.provider = ?", f.Provider)
	}
	if f.Source != uuid.Nil {
		c.add("e.source_id = ?", f.Source[:])
	}
	if f.Type != "" {
		c.text("e.type = ?", string(f.Type))
	}
	if !f.Since.IsZero() {
		c.add("e.occurred_at >= ?", row.US(f.Since))
	}
	if !f.Until.IsZero() {
		c.add("e.occurred_at < ?", row.US(f.Until))
	}
	if byRow {
		done, err := s.scan(ctx)
		if err != nil {
			return nil, 0, err
		}
		defer done()
	}
	var rows []store.Record
	query := c.bind(`SELECT `+lightColumns+` FROM `+from+` WHERE `+c.String()+` ORDER BY e.seq DESC LIMIT ?`, p.Limit+1)
	err := s.read(ctx, "search events", query, func(sc row.Scanner) error {
		rows = append(rows, store.Record{})
		return row.ScanEvent(sc, &rows[len(rows)-1])
	}, c.args...)
	if err != nil {
		return nil, 0, err
	}
	rows, next := row.Cut(rows, p.Limit, func(r *store.Record) int64 { return r.Seq })
	return rows, next, nil
}

// scan waits for room for a search that reads row by row: two at a time, the
// others wait, so that readers of single rows always find a connection. Call
// done at its end.
func (s *Store) scan(ctx context.Context) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, s.opt.TxTimeout)
	defer cancel()
	select {
	case s.scans <- struct{}{}:
		return func() { <-s.scans }, nil
	case <-ctx.Done():
		return nil, &fault.Error{Kind: fault.Throttled, Op: "search events", Msg: "too many searches at once; narrow them by email, message_id or enrollment_id", RetryAfter: time.Second}
	}
}

// Timeline tells an event's life: what came of columns and what was written
// because it is rare, by time.
func (s *Store) Timeline(ctx context.Context, tenant int64, id uuid.UUID) ([]store.Moment, error) {
	r, err := s.Event(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	var rare []store.Moment
	err = s.read(ctx, "read timeline", `SELECT at, what, detail FROM timeline WHERE event_seq = $1 AND tenant_id = $2 ORDER BY at, what`, func(sc row.Scanner) error {
		var m store.Moment
		var us int64
		err := sc.Scan(&us, &m.What, &m.Detail)
		m.At = row.At(us)
		rare = append(rare, m)
		return err
	}, r.Seq, tenant)
	return store.Timeline(&r, rare), err
}
