// Package postgres is the store on PostgreSQL 14 or later, for several
// replicas of the server at once.
//
// Guarantees: a transaction that was committed is durable as far as the
// server's synchronous_commit says (local or better is checked at Open); every
// transaction has a deadline, in Go and in the server; a deadlock or a
// serialization failure is tried again as a whole and spends nothing.
package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options are what the store needs to know of the outside.
type Options struct {
	URL       string           // postgres://...
	TxTimeout time.Duration    // deadline of one transaction
	Now       func() time.Time // the clock
	// Delay gives the time until an orphan's next attempt after it has spent
	// n attempts; ok is false when the schedule is spent.
	Delay func(n int) (d time.Duration, ok bool)
	// Adopted is told, after the commit, which waiting events an adoption has
	// applied. May be nil.
	Adopted func([]store.Result)
	// Parked is told, after the commit, which events have come to wait and for
	// how long, so that a queue beside the database can hold them too. May be nil.
	Parked func([]store.Parked)
	// Writers is how many transactions write at once; 0 takes 4.
	Writers int
}

// attempts is how often a transaction that lost a deadlock or a serialization
// race is tried before the caller hears of it.
const attempts = 5

// Store is the store on PostgreSQL.
type Store struct {
	opt  Options
	pool *pgxpool.Pool
}

// tx is one writing transaction.
type tx struct {
	s       *Store
	ctx     context.Context //nolint:containedctx // lives as long as the transaction it bounds
	pg      pgx.Tx
	now     time.Time
	adopted []store.Result // events that adoption applied, for the metrics
	parked  []store.Parked
}

// write runs fn in one transaction under the store's deadline.
func (s *Store) write(ctx context.Context, op string, fn func(t *tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.TxTimeout)
	defer cancel()
	var err error
	for range attempts {
		err = s.transact(ctx, op, fn)
		if !lostRace(err) || ctx.Err() != nil {
			break
		}
	}
	return s.fail(op, err)
}

func (s *Store) transact(ctx context.Context, _ string, fn func(t *tx) error) error {
	t := &tx{s: s, ctx: ctx, now: s.opt.Now().UTC().Truncate(time.Microsecond)}
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{}, func(pg pgx.Tx) error {
		t.pg = pg
		return fn(t)
	})
	if err != nil {
		return err
	}
	if s.opt.Adopted != nil && len(t.adopted) > 0 {
		s.opt.Adopted(t.adopted)
	}
	if s.opt.Parked != nil && len(t.parked) > 0 {
		s.opt.Parked(t.parked)
	}
	return nil
}

// scanner is what a row gives.
type scanner interface{ Scan(dest ...any) error }

func (t *tx) exec(query string, args ...any) (int64, error) {
	tag, err := t.pg.Exec(t.ctx, query, args...)
	return tag.RowsAffected(), err
}

func (t *tx) query(query string, each func(scanner) error, args ...any) error {
	rows, err := t.pg.Query(t.ctx, query, args...)
	if err != nil {
		return err
	}
	return drain(rows, each)
}

// one reads at most one row and tells whether there was one.
func (t *tx) one(query string, args []any, dest ...any) (bool, error) {
	err := t.pg.QueryRow(t.ctx, query, args...).Scan(dest...)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// read runs a query outside of a transaction.
func (s *Store) read(ctx context.Context, op, query string, each func(scanner) error, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.TxTimeout)
	defer cancel()
	rows, err := s.pool.Query(ctx, query, args...)
	if err != nil {
		return s.fail(op, err)
	}
	return s.fail(op, drain(rows, each))
}

func drain(rows pgx.Rows, each func(scanner) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// fail gives an error of the database its kind. A kind set further inside stays.
func (s *Store) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	kind := fault.Unavailable
	if refused(err) {
		kind = fault.Data
	}
	return fault.Wrap(kind, op, err)
}

// refused tells whether the database refuses the data itself: SQLSTATE classes
// 22 (data exception), 23 (integrity constraint) and 54 (program limit).
func refused(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || len(pg.Code) != 5 {
		return false
	}
	class := pg.Code[:2]
	return class == "22" || class == "23" || class == "54"
}

// lostRace tells whether the transaction lost to another one and may simply be
// run again: serialization_failure and deadlock_detected.
func lostRace(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "40001" || pg.Code == "40P01")
}

// us is a time as it is stored; the zero time is 0.
func us(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// at is a stored time; 0 is the zero time.
func at(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// blob is an id as it is stored; uuid.Nil is NULL.
func blob(id uuid.UUID) any {
	if id == uuid.Nil {
		return nil
	}
	return id[:]
}

func idOf(b []byte) uuid.UUID {
	var id uuid.UUID
	copy(id[:], b)
	return id
}

// Close closes every connection. It must be the last call.
func (s *Store) Close() error { s.pool.Close(); return nil }

// Ping reads one row: is the database there?
func (s *Store) Ping(ctx context.Context) error {
	var one int
	if err := s.pool.QueryRow(ctx, `SELECT 1 FROM tenant LIMIT 1`).Scan(&one); err != nil {
		return s.fail("ping", fmt.Errorf("read a row: %w", err))
	}
	return nil
}
