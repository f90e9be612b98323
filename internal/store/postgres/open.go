package postgres

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	oldestVersion = 140000 // as server_version_num tells it
	readers       = 8      // connections for reading
	// migrateLock is the session lock under which replicas migrate one after
	// the other.
	migrateLock = 7_245_091_130_826
)

// prepareTimeout bounds the migration of a schema.
const prepareTimeout = 10 * time.Minute

// Open connects to the database and brings its schema up to date. Several
// replicas may do so at once. With Options.Late a database that does not
// answer is no error: the store asks for it again with each use, and is
// Unavailable until then.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{opt: o, scans: make(chan struct{}, 2)}
	s.second = s.look
	err := s.open(ctx)
	if err != nil && (!o.Late || s.writers == nil || !fault.Is(s.fail("open the database", err), fault.Unavailable)) {
		return nil, errors.Join(s.fail("open the database", err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	var err error
	if s.pool, err = s.connect(ctx, readers, nil); err != nil {
		return err
	}
	// Every statement of a writer starts from the rows of its batch and finds
	// the others by an index. A plan that was made while a table was small, and
	// is kept, must not read all of it later.
	if s.writers, err = s.connect(ctx, cmp.Or(s.opt.Writers, 4), map[string]string{
		"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off",
	}); err != nil {
		return err
	}
	return s.prepare(ctx)
}

// prepare makes sure, once, that the server is one to rely on, and that the
// schema is there. Whoever comes while another prepares is told to come again.
func (s *Store) prepare(ctx context.Context) error {
	if s.prepared.Load() {
		return nil
	}
	if !s.preparing.TryLock() {
		return fault.New(fault.Unavailable, "the database is being prepared")
	}
	defer s.preparing.Unlock()
	if s.prepared.Load() {
		return nil
	}
	if err := s.check(ctx); err != nil {
		return err
	}
	// A migration that has begun goes on when whoever needed it has gone.
	long, cancel := context.WithTimeout(context.WithoutCancel(ctx), prepareTimeout)
	defer cancel()
	if err := migrate(long, s.opt.URL); err != nil {
		return err
	}
	uid := row.NewID()
	if _, err := s.writers.Exec(long, `INSERT INTO tenant (id, uid, name, created_at) VALUES ($1, $2, 'default', $3) ON CONFLICT DO NOTHING`,
		store.DefaultTenant, uid[:], row.US(s.opt.Now())); err != nil {
		return fmt.Errorf("make the first tenant: %w", err)
	}
	s.prepared.Store(true)
	return nil
}

// connect makes a pool. The server ends what outlives the deadline of its
// transaction: also when this process is gone.
func (s *Store) connect(ctx context.Context, n int, settings map[string]string) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(s.opt.URL)
	if err != nil {
		return nil, badURL()
	}
	ms := func(d time.Duration) string { return strconv.FormatInt(max(1, d.Milliseconds()), 10) }
	c.ConnConfig.RuntimeParams["statement_timeout"] = ms(s.opt.TxTimeout)
	c.ConnConfig.RuntimeParams["lock_timeout"] = ms(s.opt.TxTimeout / 2)
	c.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = ms(2 * s.opt.TxTimeout)
	c.ConnConfig.RuntimeParams["application_name"] = "tallyhook"
	maps.Copy(c.ConnConfig.RuntimeParams, settings)
	c.ConnConfig.Tracer = s.opt.Tracer
	// A context that ends takes its statement back at the server, too.
	c.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: time.Second}
	}
	c.MaxConns = int32(min(n, 1000)) //nolint:gosec // bounded
	c.MinConns = 0
	return pgxpool.NewWithConfig(ctx, c)
}

// badURL does not repeat the URL, which may hold a password.
func badURL() error {
	return fault.New(fault.Invalid, "the database URL cannot be read; it must look like postgres://user@host:5432/name")
}

// check refuses a server that is too old, or that does not keep what it has committed.
func (s *Store) check(ctx context.Context) (err error) {
	c, err := pgx.ParseConfig(s.opt.URL)
	if err != nil {
		return badURL()
	}
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	var version, durable string
	if err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num'), current_setting('synchronous_commit')`).Scan(&version, &durable); err != nil {
		return err
	}
	n, err := strconv.Atoi(version)
	if err != nil {
		return fmt.Errorf("read the server's version: %w", err)
	}
	if n < oldestVersion {
		return fault.New(fault.Unsupported, "the server is PostgreSQL %d; Tallyhook needs 14 or later", n/10_000)
	}
	if durable == "off" {
		return fault.New(fault.Unsupported, "synchronous_commit is off: what is committed may be lost; set it to local or better for this role or database")
	}
	return nil
}

// Migrations lists the schema's steps and when each was applied to a
// database. It changes nothing but for the table that notes them.
func Migrations(ctx context.Context, url string) ([]store.Migration, error) {
	var all []store.Migration
	err := withProvider(url, func(p *goose.Provider) error {
		steps, err := p.Status(ctx)
		if err != nil {
			return fmt.Errorf("read migrations: %w", err)
		}
		for _, st := range steps {
			all = append(all, store.Migration{Version: st.Source.Version, AppliedAt: st.AppliedAt.UTC()})
		}
		return nil
	})
	return all, err
}

func migrate(ctx context.Context, url string) error {
	return withProvider(url, func(p *goose.Provider) error {
		if _, err := p.Up(ctx); err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		return nil
	})
}

func withProvider(url string, fn func(*goose.Provider) error) (err error) {
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return badURL()
	}
	db := stdlib.OpenDB(*c)
	defer func() { err = errors.Join(err, db.Close()) }()
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrateLock), lock.WithLockTimeout(1, 300))
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, dir, goose.WithDisableGlobalRegistry(true), goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	return fn(p)
}
