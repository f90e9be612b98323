// Package postgres is the store on PostgreSQL 14 or later, for several
// replicas of the server at once.
//
// Guarantees: a transaction that was committed is durable as far as the
// server's synchronous_commit says (Open refuses a server where that is off);
// every transaction has a deadline, in Go and in the server; a deadlock or a
// serialization failure is tried again as a whole and spends nothing; an event
// and its enrollment that are committed at the same moment find each other
// (see look).
//
// Locks are taken in one order: nonces and identities by key, advisory locks of
// idempotency, the tenant where there is a quota, advisory locks of match keys
// (see tooLate), rows of the queue by number, events by number, enrollments by
// id, facts, suppressions, and last the sums, which each writer keeps in a slot
// of its own.
package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

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
	// Gone is told, after the commit, which events have ceased to wait other than
	// by a retry, which tells by its results. May be nil.
	Gone func([]store.Claimed)
	// Missed is told of a second look that failed, which costs the event it was
	// for the wait until its next attempt. May be nil.
	Missed func(error)
	// Writers is how many transactions write at once; 0 takes 4.
	Writers int
	// Late opens the store also while the database does not answer.
	Late bool
	// Horizon is how far back duplicates can be told, which is what retention
	// keeps: a new event of before is dead. 0: for ever.
	Horizon time.Duration
	// Tracer sees every statement. May be nil.
	Tracer pgx.QueryTracer
}

// Store is the store on PostgreSQL.
type Store struct {
	opt     Options
	pool    *pgxpool.Pool // of readers
	writers *pgxpool.Pool
	scans   chan struct{}                        // room for searches that read row by row
	second  func(ctx context.Context, first *tx) // look; a test takes it away

	tombs     store.Tombstones
	retiring  atomic.Int64 // the number up to which this pass of retention has looked
	prepared  atomic.Bool  // the schema is there
	preparing sync.Mutex   // held while it is made
}

// read runs a query outside of a transaction. A connection that was lost since
// its last use, as all are when the server was restarted, is not the caller's
// trouble: the query is run on another one.
func (s *Store) read(ctx context.Context, op, query string, each func(row.Scanner) error, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.TxTimeout)
	defer cancel()
	if err := s.prepare(ctx); err != nil {
		return s.fail(op, err)
	}
	var err error
	for range readers + 1 {
		conn, aerr := s.pool.Acquire(ctx)
		if aerr != nil {
			return s.fail(op, aerr)
		}
		seen := false
		var rows pgx.Rows
		if rows, err = conn.Query(ctx, query, args...); err == nil {
			err = drain(rows, func(sc row.Scanner) error {
				seen = true
				return each(sc)
			})
		}
		conn.Release()
		if seen || !lost(err) || ctx.Err() != nil {
			break
		}
	}
	return s.fail(op, err)
}

func drain(rows pgx.Rows, each func(row.Scanner) error) error {
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
	switch class(err) {
	case "22", "23", "54":
		kind = fault.Data
	case "42", "XX": // a statement or a schema that is not ours, a corrupted file
		kind = fault.Internal
	}
	return fault.Wrap(kind, op, err)
}

// class is the class of the error that the server has answered; empty when it
// has answered none.
func class(err error) string {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || len(pg.Code) != 5 {
		return ""
	}
	return pg.Code[:2]
}

// refused tells whether the database refuses the data itself: SQLSTATE classes
// 22 (data exception), 23 (integrity constraint) and 54 (program limit).
func refused(err error) bool {
	c := class(err)
	return c == "22" || c == "23" || c == "54"
}

// errChanged says that what a transaction had read without a lock was changed
// before it had one.
var errChanged = errors.New("changed meanwhile")

// lostRace tells whether the transaction lost to another one and may simply be
// run again: serialization_failure and deadlock_detected.
func lostRace(err error) bool {
	if _, late := errors.AsType[*tooLate](err); late || errors.Is(err, errChanged) {
		return true
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "40001" || pg.Code == "40P01")
}

// lost tells whether the connection is gone: the server has ended it, or it
// broke, and not because of a deadline.
func lost(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code == "57P01" || pg.Code == "57P02" // shut down by an administrator, by a crash
	}
	_, broken := errors.AsType[*net.OpError](err)
	return broken || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || pgconn.SafeToRetry(err)
}

// readOnly tells whether the connection leads to a server that takes no more
// writes: a primary that has become a standby.
func readOnly(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "25006"
}

// Close closes every connection. It must be the last call.
func (s *Store) Close() error {
	if s.pool != nil {
		s.pool.Close()
	}
	if s.writers != nil {
		s.writers.Close()
	}
	return nil
}

// Ping reads one row: is the database there?
func (s *Store) Ping(ctx context.Context) error {
	found := false
	err := s.read(ctx, "ping", `SELECT 1 FROM tenant LIMIT 1`, func(row.Scanner) error {
		found = true
		return nil
	})
	if err == nil && !found {
		err = fault.New(fault.Internal, "the database has no tenant")
	}
	return err
}
