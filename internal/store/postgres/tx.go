package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// attempts is how often a transaction that lost a deadlock or a serialization
// race is tried before the caller hears of it.
const attempts = 5

// slots is how many rows each sum has, so that transactions at the same time
// seldom share one.
const slots = 16

// tx is one writing transaction. What it only writes waits in a queue until
// something must be read, or the end, and goes to the server together: a
// commit costs few round trips.
type tx struct {
	s         *Store
	ctx       context.Context //nolint:containedctx // lives as long as the transaction it bounds
	conn      *pgxpool.Conn
	queue     *pgx.Batch
	slot      int
	now       time.Time
	sums      *store.Effects            // counters and ledgers, written last
	brought   map[sourceKey]*sourceSum  // by sources, written last
	adopted   []store.Result            // events that adoption applied, for the metrics
	parked    []store.Parked            // events that came to wait
	gone      []store.Claimed           // events that wait no longer, retries aside
	unmatched []*store.Work             // events that an enrollment may have missed
	added     map[store.TenantKey]int64 // match keys that events, up to a number, may have missed
	ending    bool                      // the commit is on its way
	processed int                       // waiting events that adoptions have looked at
	under     map[int64]bool            // events on their way through the processor, which adoptions pass over
	locked    map[store.TenantKey]bool  // match keys that are locked, in this transaction or a part of it
}

// write runs fn in one transaction under the store's deadline. What may have
// missed its counterpart is looked at once more after the commit.
func (s *Store) write(ctx context.Context, op string, fn func(t *tx) error) error {
	t, err := s.once(ctx, fn)
	if err != nil {
		return s.fail(op, err)
	}
	if len(t.unmatched) > 0 || len(t.added) > 0 {
		s.second(ctx, t)
	}
	return nil
}

// once is write without the second look.
func (s *Store) once(ctx context.Context, fn func(t *tx) error) (t *tx, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.opt.TxTimeout)
	defer cancel()
	var keys []store.TenantKey // to be locked before anything else
	for range attempts {
		t, err = s.transact(ctx, keys, fn)
		if more, ok := errors.AsType[*tooLate](err); ok {
			keys = append(keys, more.keys...)
		}
		again := lostRace(err) || (t != nil && !t.ending && lost(err)) // a lost COMMIT may have happened
		if !again || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if s.opt.Adopted != nil && len(t.adopted) > 0 {
		s.opt.Adopted(t.adopted)
	}
	if s.opt.Parked != nil && len(t.parked) > 0 {
		s.opt.Parked(t.parked)
	}
	if s.opt.Gone != nil && len(t.gone) > 0 {
		s.opt.Gone(t.gone)
	}
	return t, nil
}

// transact runs fn once, holding the given match keys. The transaction is nil
// when there was no connection.
func (s *Store) transact(ctx context.Context, keys []store.TenantKey, fn func(t *tx) error) (*tx, error) {
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	conn, err := s.writers.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release() // which closes a connection that is not idle
	t := &tx{
		s: s, ctx: ctx, conn: conn, queue: &pgx.Batch{}, now: s.opt.Now().UTC().Truncate(time.Microsecond),
		slot: int(conn.Conn().PgConn().PID() % slots), sums: store.NewEffects(),
	}
	defer rollback(ctx, conn.Conn())                // of what has not been committed, also when a panic is on its way up
	t.later("BEGIN ISOLATION LEVEL READ COMMITTED") // whatever the server's default is: a statement must see what a lock waited for
	t.lock(keys)
	if err = fn(t); err == nil {
		err = t.commit()
	}
	if readOnly(err) { // the next connection may lead to who has taken over
		hangUp(ctx, conn.Conn())
	}
	return t, err
}

// commit writes the sums, which others may wait for, and commits.
func (t *tx) commit() error {
	t.writeSums()
	t.ending = true
	tag, err := t.exec1("COMMIT")
	if err == nil && tag.String() != "COMMIT" {
		err = errors.New("the transaction was rolled back at its end")
	}
	return err
}

// rollback undoes the transaction that is open, or gives the connection up.
func rollback(ctx context.Context, conn *pgx.Conn) {
	if conn.IsClosed() || conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
		_ = conn.Close(ctx) // the server undoes it then
	}
}

func hangUp(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // it is of no more use, however it ends
}

// later queues a statement that returns nothing.
func (t *tx) later(query string, args ...any) { t.queue.Queue(query, args...) }

// ask queues a query; its rows are handed out by the next flush.
func (t *tx) ask(query string, each func(row.Scanner) error, args ...any) {
	t.queue.Queue(query, args...).Query(func(rows pgx.Rows) error { return drain(rows, each) })
}

// flush sends what is queued, in its order.
func (t *tx) flush() error {
	if t.queue.Len() == 0 {
		return nil
	}
	q := t.queue
	t.queue = &pgx.Batch{}
	return t.conn.SendBatch(t.ctx, q).Close()
}

// exec runs a statement, after what is queued, and counts the rows it changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	tag, err := t.exec1(query, args...)
	return tag.RowsAffected(), err
}

func (t *tx) exec1(query string, args ...any) (tag pgconn.CommandTag, err error) {
	t.queue.Queue(query, args...).Exec(func(ct pgconn.CommandTag) error {
		tag = ct
		return nil
	})
	err = t.flush()
	return tag, err
}

// query runs a query, after what is queued.
func (t *tx) query(query string, each func(row.Scanner) error, args ...any) error {
	t.ask(query, each, args...)
	return t.flush()
}

// one reads at most one row and tells whether there was one.
func (t *tx) one(query string, args []any, dest ...any) (bool, error) {
	found := false
	err := t.query(query, func(sc row.Scanner) error {
		if found {
			return nil
		}
		found = true
		return sc.Scan(dest...)
	}, args...)
	return found, err
}

// within runs fn so that what it did is undone, and nothing else of the
// transaction, when the server refuses it.
func (t *tx) within(fn func() error) error {
	t.later("SAVEPOINT part")
	if err := t.flush(); err != nil {
		return err
	}
	before := *t
	t.sums = store.NewEffects()
	err := fn()
	if err == nil {
		t.later("RELEASE SAVEPOINT part")
		err = t.flush()
	}
	if err != nil {
		*t = before
		t.queue = &pgx.Batch{}
		t.later("ROLLBACK TO SAVEPOINT part")
		t.later("RELEASE SAVEPOINT part")
		return errors.Join(err, t.flush())
	}
	before.sums.AddSums(t.sums)
	t.sums = before.sums
	return nil
}

// rules are what the processor decides by in this transaction.
func (t *tx) rules() store.Rules { return store.Rules{Now: t.now, Delay: t.s.opt.Delay} }

// column takes one field of each of the rows of a batch: the form in which a
// statement reads a batch of any size as a table (unnest).
func column[T, V any](rows []T, field func(T) V) []V {
	all := make([]V, len(rows))
	for i, r := range rows {
		all[i] = field(r)
	}
	return all
}
