package app

import (
	"context"
	"errors"
	"fmt"
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
	"tallyhook/internal/store/sqlite"
)

// Store is what a server needs of its database, whichever that is.
type Store interface {
	httpapi.Campaigns
	httpapi.Enrollments
	httpapi.Events
	httpapi.Suppressions
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
	// refusing tells since when the database takes no writes, and why; ok is
	// true when it does take them.
	refusing func() (since time.Time, err error, ok bool)
	// probe tries to write while writes are refused.
	probe func(ctx context.Context) error
}

// hooks are what the store tells after a commit.
type hooks struct {
	adopted func([]store.Result)
	parked  func([]store.Parked)
}

// openEngine opens the database that DATABASE_URL names. serve takes the right
// to be the process that serves it, where only one may.
func openEngine(ctx context.Context, cfg config.Config, serve bool, h hooks) (*engine, error) {
	path := cfg.SQLitePath()
	if dir := filepath.Dir(path); dir != "." && serve {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the folder of DATABASE_URL: %w", err)
		}
	}
	s, err := sqlite.Open(ctx, sqlite.Options{
		Serve: serve, Path: path, TxTimeout: cfg.TxTimeout, Now: time.Now,
		Delay: orphan.Schedule(cfg.RetrySchedule).Delay, Adopted: h.adopted,
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

// Migration is one step of the schema.
type Migration struct {
	Version   int64
	AppliedAt time.Time // zero: pending
}

// migrations lists the steps of the schema; it changes nothing.
func migrations(ctx context.Context, cfg config.Config) ([]Migration, error) {
	steps, err := sqlite.Migrations(ctx, cfg.SQLitePath())
	all := make([]Migration, 0, len(steps))
	for _, s := range steps {
		all = append(all, Migration(s))
	}
	return all, err
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
