package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/driver"

	"tallyhook/internal/fault"
)

// hold takes the right to serve a database: one process at a time. It is an
// exclusive lock on a small database beside it, which the system gives back
// however the process ends.
func hold(ctx context.Context, path string) (*sql.DB, error) {
	q := url.Values{"_pragma": {"busy_timeout(1000)", "journal_mode(off)"}, "_txlock": {"exclusive"}}
	db, err := driver.Open("file:" + (&url.URL{Path: path + ".lock"}).EscapedPath() + "?" + q.Encode())
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
		if errors.Is(err, sqlite3.BUSY) || errors.Is(err, sqlite3.LOCKED) {
			err = fault.New(fault.Conflict, "another tallyhook serves %s; stop it first, or give this one another DATABASE_URL", path)
		}
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// create makes a new database's file before SQLite does: it holds addresses
// and payloads, so only its owner may read it.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) //nolint:gosec // the operator names the file
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make database: %w", err)
	}
	return f.Close()
}

// private gives a file beside the database to its owner alone.
func private(path string) error {
	if err := os.Chmod(path, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("protect database: %w", err)
	}
	return nil
}

// present checks that the file that is open is still the one of that name. A
// database that was removed or replaced under the server takes commits that no
// restart will ever see again.
func (s *Store) present() error {
	now, err := os.Stat(s.opt.Path)
	if err != nil || !os.SameFile(now, s.file) {
		return fault.New(fault.Unavailable, "the database file was removed or replaced; restart the server")
	}
	return nil
}

// refusal is why, and since when, the database takes no writes.
type refusal struct {
	since time.Time
	err   error
}

// note remembers the outcome of a write: a full disk or a foreign lock leaves
// reads working, and only this tells.
func (s *Store) note(err error, changed bool) {
	switch {
	case err == nil && changed:
		s.refusing.Store(nil)
	case err != nil && fault.Is(err, fault.Unavailable) && !errors.Is(err, context.Canceled) && s.refusing.Load() == nil:
		s.refusing.Store(&refusal{s.opt.Now(), err})
	}
}

// Refusing tells since when the database takes no writes, and the last known
// reason; ok is true when it does take them.
func (s *Store) Refusing() (since time.Time, err error, ok bool) {
	r := s.refusing.Load()
	if r == nil {
		return time.Time{}, nil, true
	}
	return r.since, r.err, false
}

// Probe writes a little, to see whether the database takes writes again.
func (s *Store) Probe(ctx context.Context) error {
	return s.PutSetting(ctx, "last_probe", []byte(s.opt.Now().UTC().Format(time.RFC3339)))
}
