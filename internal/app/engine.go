package app

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"tallyhook/internal/access"
	"tallyhook/internal/config"
	"tallyhook/internal/deadletter"
	"tallyhook/internal/event"
	"tallyhook/internal/httpapi"
	"tallyhook/internal/ingest"
	"tallyhook/internal/orphan"
	"tallyhook/internal/report"
	"tallyhook/internal/store"
	"tallyhook/internal/store/postgres"
	"tallyhook/internal/store/sqlite"
)

// Store is what a server needs of its database, whichever that is.
type Store interface {
	httpapi.Campaigns
	httpapi.Enrollments
	httpapi.Events
	httpapi.Suppressions
	httpapi.Erasures
	access.Store
	deadletter.Store
	report.Store
	ingest.Store
	ingest.Bodies
	orphan.Queue

	QueueStats(ctx context.Context) (map[event.Route]store.RouteStats, error)
	QueueDepth(ctx context.Context) (depth int64, oldest time.Time, err error)
	LetterCounts(ctx context.Context) (map[store.LetterStatus]int64, error)
	Ledgers(ctx context.Context) ([]store.Ledger, error)
	NextKeyExpiry(ctx context.Context) (time.Time, error)
	Unlock(t store.Tombstones)
	NextErasure(ctx context.Context, n int) (more bool, err error)
	Retire(ctx context.Context, r store.Retention, n int) (store.Retired, error)
	ForgetDuplicates(ctx context.Context, before time.Time, n int) (more bool, err error)
	ForgetNonces(ctx context.Context, before time.Time, n int) (more bool, err error)
	Ping(ctx context.Context) error
	Close() error
}

// engine is a store with what differs from one to the other.
type engine struct {
	Store
	name    string // sqlite or postgres
	where   string // for people: the file, or the URL without its password
	writers int    // transactions that commit new events at once

	// index writes what the store indexes behind; more is true while it has more.
	index func(ctx context.Context, n int) (more bool, err error)
	// refusing tells since when the database takes no writes although it
	// answers, and why; ok is true when it does take them.
	refusing func() (since time.Time, err error, ok bool)
	// probe tries to write while writes are refused.
	probe func(ctx context.Context) error
	// replicas is how replicas tell each other of changes; nil where there is
	// only one.
	replicas replicas
}

// replicas are told of changes, and hear of them.
type replicas interface {
	Listen(ctx context.Context, heard func(store.Change), listening func(error))
	Tell(ctx context.Context, c store.Change) error
}

// hooks are what the store tells after a commit.
type hooks struct {
	adopted func([]store.Result)
	parked  func([]store.Parked)
	gone    func([]store.Claimed)
	missed  func(error)
}

// postgresWriters is how many transactions commit new events at once. Four are
// near the greatest rate of two cores, and few enough that the database's
// connections serve several replicas.
const postgresWriters = 4

// openEngine opens the database that DATABASE_URL names. serve takes the right
// to be the process that serves it, where only one may, and opens a database
// that does not answer where a spool takes its place meanwhile.
func openEngine(ctx context.Context, cfg config.Config, serve bool, h hooks) (*engine, error) {
	if cfg.Postgres() {
		return openPostgres(ctx, cfg, serve, h)
	}
	path := cfg.SQLitePath()
	if dir := filepath.Dir(path); dir != "." && serve {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the folder of DATABASE_URL: %w", err)
		}
	}
	s, err := sqlite.Open(ctx, sqlite.Options{
		Serve: serve, Path: path, TxTimeout: cfg.TxTimeout, Now: time.Now,
		Delay: orphan.Schedule(cfg.RetrySchedule).Delay, Adopted: h.adopted, Parked: h.parked, Gone: h.gone,
		Horizon: horizon(cfg),
	})
	if err != nil {
		return nil, err
	}
	where, err := filepath.Abs(path)
	if err != nil {
		where = path
	}
	return &engine{
		Store: s, name: "sqlite", where: where, writers: 1,
		index: s.IndexNext, refusing: s.Refusing, probe: s.Probe,
	}, nil
}

func openPostgres(ctx context.Context, cfg config.Config, serve bool, h hooks) (*engine, error) {
	s, err := postgres.Open(ctx, postgres.Options{
		URL: cfg.DatabaseURL.Reveal(), TxTimeout: cfg.TxTimeout, Now: time.Now,
		Delay: orphan.Schedule(cfg.RetrySchedule).Delay, Adopted: h.adopted, Parked: h.parked, Gone: h.gone, Missed: h.missed,
		Horizon: horizon(cfg),
		// Two connections more, for what is not ingestion.
		Writers: postgresWriters + 2, Late: serve && cfg.SpoolDir != "",
	})
	if err != nil {
		return nil, err
	}
	return &engine{
		Store: s, name: "postgres", where: redacted(cfg.DatabaseURL.Reveal()), writers: postgresWriters,
		index:    s.IndexNext,
		refusing: func() (time.Time, error, bool) { return time.Time{}, nil, true },
		probe:    s.Ping,
		replicas: s,
	}, nil
}

// redacted is a URL without its password.
func redacted(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "PostgreSQL"
	}
	u.RawQuery = "" // which may name a password too
	return u.Redacted()
}

// migrations lists the steps of the schema; it changes nothing.
func migrations(ctx context.Context, cfg config.Config) ([]store.Migration, error) {
	if cfg.Postgres() {
		return postgres.Migrations(ctx, cfg.DatabaseURL.Reveal())
	}
	return sqlite.Migrations(ctx, cfg.SQLitePath())
}

// missing is set when there is no database to look at yet.
func missing(cfg config.Config) error {
	if cfg.Postgres() {
		return nil
	}
	if _, err := os.Stat(cfg.SQLitePath()); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is not there; tallyhook serve makes it", cfg.SQLitePath())
	}
	return nil
}
