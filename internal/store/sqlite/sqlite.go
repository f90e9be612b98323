// Package sqlite is the embedded store: one SQLite file in WAL mode with
// synchronous=FULL, one writer with priorities, a pool of readers.
//
// Guarantees: a transaction that was committed is on disk (fsynced); every
// transaction has a deadline; matching, adoption and burial happen inside the
// one writer, so an event and its enrollment can never miss each other.
package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/driver"
	"github.com/pressly/goose/v3"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options are what the store needs to know of the outside.
type Options struct {
	Path      string           // file of the database
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
	// Serve takes the right to be the one process that serves the database.
	Serve bool
	// Generation is how many events make a generation of the index; 0 takes
	// the default of 65,536.
	Generation int
	// Horizon is how far back duplicates can be told, which is what retention
	// keeps: a new event of before is dead. 0: for ever.
	Horizon time.Duration
}

// Store is the embedded store.
type Store struct {
	opt        Options
	readers    *sql.DB
	probes     *sql.DB       // health and gauges: never behind somebody's search
	scans      chan struct{} // room for searches that read row by row
	writers    *sql.DB
	conn       *sql.Conn
	turn       turn
	stmts      map[string]*sql.Stmt // prepared on conn; used by the holder of the turn
	index      index
	file       os.FileInfo             // of the database at Open
	lock       *sql.DB                 // held while serving
	refusing   atomic.Pointer[refusal] // set while writes fail
	statements atomic.Int64
	tokens     atomic.Int64
	tombs      store.Tombstones
	retiring   atomic.Int64 // the number up to which this pass of retention has looked
	erasing    atomic.Bool  // a contact was erased at some time: new events are looked up
}

// Open opens or makes the database and brings its schema up to date.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{opt: o, stmts: map[string]*sql.Stmt{}, scans: make(chan struct{}, 2)}
	s.index.size = cmp.Or(o.Generation, defaultGeneration)
	s.tokens.Store(o.Now().UnixMicro())
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", o.Path, err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) (err error) {
	if s.opt.Serve {
		if s.lock, err = hold(ctx, s.opt.Path); err != nil {
			return err
		}
	}
	if err = create(s.opt.Path); err != nil {
		return err
	}
	if s.writers, err = driver.Open(dsn(s.opt.Path, "cache_size(-65536)", "secure_delete(1)"), registerBatches); err != nil {
		return err
	}
	s.writers.SetMaxOpenConns(1)
	if err = migrate(ctx, s.writers); err != nil {
		return err
	}
	if s.conn, err = s.writers.Conn(ctx); err != nil {
		return err
	}
	if s.readers, err = driver.Open(dsn(s.opt.Path, "cache_size(-16384)", "query_only(1)"), registerBatches); err != nil {
		return err
	}
	s.readers.SetMaxOpenConns(4)
	s.readers.SetMaxIdleConns(4)
	if s.probes, err = driver.Open(dsn(s.opt.Path, "query_only(1)"), registerBatches); err != nil {
		return err
	}
	s.probes.SetMaxOpenConns(2)
	s.probes.SetMaxIdleConns(2)
	if s.file, err = os.Stat(s.opt.Path); err != nil {
		return err
	}
	return errors.Join(s.firstTenant(ctx), s.loadErased(ctx), s.loadIndex(ctx), s.unmarkAll(ctx), private(s.opt.Path+"-wal"), private(s.opt.Path+"-shm"))
}

// wal_autocheckpoint is 4,000 pages: fewer, larger checkpoints cost the
// ingesting side less than the default of 1,000.
func dsn(path string, pragmas ...string) string {
	q := url.Values{"_txlock": {"immediate"}}
	q.Add("_pragma", "busy_timeout(5000)")
	q.Add("_pragma", "journal_mode(wal)")
	q.Add("_pragma", "synchronous(full)")
	q.Add("_pragma", "wal_autocheckpoint(4000)")
	for _, p := range pragmas {
		q.Add("_pragma", p)
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

func migrate(ctx context.Context, db *sql.DB) error {
	p, err := provider(db)
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func provider(db *sql.DB) (*goose.Provider, error) {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return p, nil
}

// Migrations lists the schema's steps and when each was applied to the
// database of that file. It changes nothing.
func Migrations(ctx context.Context, path string) (all []store.Migration, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	db, err := driver.Open(dsn(path))
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	p, err := provider(db)
	if err != nil {
		return nil, err
	}
	steps, err := p.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	for _, st := range steps {
		all = append(all, store.Migration{Version: st.Source.Version, AppliedAt: st.AppliedAt.UTC()})
	}
	return all, nil
}

func (s *Store) firstTenant(ctx context.Context) error {
	return s.write(ctx, live, "make the first tenant", func(t *tx) error {
		uid, err := uuid.NewV7()
		if err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO tenant (id, uid, name, created_at) VALUES (?, ?, 'default', ?) ON CONFLICT DO NOTHING`,
			store.DefaultTenant, uid[:], row.US(s.opt.Now()))
		return err
	})
}

// Close writes the log back and closes every connection. It must be the last call.
func (s *Store) Close() error {
	var errs []error
	for _, st := range s.stmts {
		errs = append(errs, st.Close())
	}
	if s.readers != nil {
		errs = append(errs, s.readers.Close())
	}
	if s.probes != nil {
		errs = append(errs, s.probes.Close())
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	if s.writers != nil {
		errs = append(errs, s.writers.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// Ping reads one row: is the database there?
func (s *Store) Ping(ctx context.Context) error {
	if err := s.present(); err != nil {
		return err
	}
	var one int
	return s.fail("ping", s.probes.QueryRowContext(ctx, `SELECT 1 FROM tenant LIMIT 1`).Scan(&one))
}

// Statements counts the statements run in writing transactions since the
// start; tests hold it against the size of batches.
func (s *Store) Statements() int64 { return s.statements.Load() }

// tx is one writing transaction.
type tx struct {
	s         *Store
	ctx       context.Context //nolint:containedctx // lives as long as the transaction it bounds
	now       time.Time
	adopted   []store.Result  // events that adoption applied, for the metrics
	parked    []store.Parked  // events that came to wait
	gone      []store.Claimed // events that wait no longer, retries aside
	after     []func()        // what is true once the transaction is committed
	either    []func()        // what may be done whether or not the commit went through
	changed   bool            // it wrote something
	processed int             // waiting events that adoptions have looked at
	under     map[int64]bool  // events on their way through the processor, which adoptions pass over
}

// write runs fn in one transaction under the store's deadline.
func (s *Store) write(ctx context.Context, p priority, op string, fn func(t *tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.TxTimeout)
	defer cancel()
	if err := s.turn.acquire(ctx, p); err != nil {
		return fault.Wrap(fault.Unavailable, op, err)
	}
	defer s.turn.release()
	t := &tx{s: s, ctx: ctx, now: s.opt.Now().UTC().Truncate(time.Microsecond)}
	err := s.transact(ctx, op, t, fn)
	s.note(err, t.changed)
	return err
}

func (s *Store) transact(ctx context.Context, op string, t *tx, fn func(t *tx) error) error {
	if err := s.present(); err != nil {
		return err
	}
	// Some errors roll back by themselves; "no transaction is active" is fine.
	rollback := func() { _, _ = s.conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") }
	if _, err := s.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		rollback()
		return s.fail(op, err)
	}
	finished := false
	defer func() {
		if !finished { // a panic on its way up must not leave the transaction open
			rollback()
			s.index.distrust()
		}
	}()
	var err error
	if s.index.stale {
		err = t.catchUp()
	}
	if err == nil {
		err = fn(t)
	}
	if err == nil {
		if err = ctx.Err(); err == nil {
			if _, err = s.conn.ExecContext(ctx, "COMMIT"); err != nil {
				s.index.distrust() // the outcome is unknown: the next writer looks
				for _, fn := range t.either {
					fn()
				}
			}
		}
	}
	if err != nil {
		rollback()
		finished = true
		return s.fail(op, err)
	}
	for _, fn := range append(t.after, t.either...) {
		fn()
	}
	finished = true
	if s.opt.Adopted != nil && len(t.adopted) > 0 {
		s.opt.Adopted(t.adopted)
	}
	if s.opt.Parked != nil && len(t.parked) > 0 {
		s.opt.Parked(t.parked)
	}
	if s.opt.Gone != nil && len(t.gone) > 0 {
		s.opt.Gone(t.gone)
	}
	return nil
}

// within runs fn so that what it did is undone, and nothing else of the
// transaction, when it fails.
func (t *tx) within(fn func() error) error {
	if _, err := t.exec("SAVEPOINT part"); err != nil {
		return err
	}
	after, either, parked, gone := len(t.after), len(t.either), len(t.parked), len(t.gone)
	err := fn()
	if err != nil {
		t.after, t.either, t.parked, t.gone = t.after[:after], t.either[:either], t.parked[:parked], t.gone[:gone]
		if _, rerr := t.exec("ROLLBACK TO part"); rerr != nil {
			return errors.Join(err, rerr)
		}
	}
	if _, rerr := t.exec("RELEASE part"); rerr != nil {
		return errors.Join(err, rerr)
	}
	return err
}

func (t *tx) stmt(query string) (*sql.Stmt, error) {
	t.s.statements.Add(1)
	if st := t.s.stmts[query]; st != nil {
		return st, nil
	}
	st, err := t.s.conn.PrepareContext(t.ctx, query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	t.s.stmts[query] = st
	return st, nil
}

func (t *tx) exec(query string, args ...any) (int64, error) {
	st, err := t.stmt(query) //nolint:sqlclosecheck // kept prepared until Close
	if err != nil {
		return 0, err
	}
	res, err := st.ExecContext(t.ctx, args...)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	t.changed = t.changed || n > 0
	return n, err
}

func (t *tx) query(query string, each func(row.Scanner) error, args ...any) error {
	st, err := t.stmt(query) //nolint:sqlclosecheck // kept prepared until Close
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(t.ctx, args...)
	if err != nil {
		return err
	}
	return drain(rows, each)
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

// read runs a query on the pool of readers.
func (s *Store) read(ctx context.Context, op, query string, each func(row.Scanner) error, args ...any) error {
	return s.readOn(ctx, s.readers, op, query, each, args...)
}

func (s *Store) readOn(ctx context.Context, db *sql.DB, op, query string, each func(row.Scanner) error, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.TxTimeout)
	defer cancel()
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return s.fail(op, err)
	}
	return s.fail(op, drain(rows, each))
}

func drain(rows *sql.Rows, each func(row.Scanner) error) (err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
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
	switch {
	case refused(err):
		kind = fault.Data
	case errors.Is(err, sqlite3.CORRUPT), errors.Is(err, sqlite3.NOTADB), errors.Is(err, sqlite3.MISUSE),
		errors.Is(err, sqlite3.ERROR), errors.Is(err, sqlite3.RANGE):
		kind = fault.Internal
	}
	return fault.Wrap(kind, op, err)
}

// refused tells whether the database refuses the data itself.
func refused(err error) bool {
	return errors.Is(err, sqlite3.CONSTRAINT) || errors.Is(err, sqlite3.MISMATCH) || errors.Is(err, sqlite3.TOOBIG)
}
