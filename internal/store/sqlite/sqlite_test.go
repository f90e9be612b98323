package sqlite_test

import (
	"database/sql"
	"errors"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3/driver"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"tallyhook/internal/ingest"
	"tallyhook/internal/store/sqlite"
	"tallyhook/internal/store/storetest"
	"tallyhook/internal/telemetry"
)

// long runs the traps at their full size: a million orphans take minutes.
var long = flag.Bool("long", false, "run the long forms")

func TestMain(m *testing.M) {
	flag.Parse()
	checks := true
	flag.Visit(func(f *flag.Flag) { checks = checks && f.Name != "rapid.checks" })
	if checks { // quick by default; -rapid.checks=10000 looks longer
		if err := flag.Set("rapid.checks", "30"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// empty is a migrated database without anything in it: copying it costs a
// tenth of migrating anew for each of some hundred tests.
var empty = sync.OnceValues(func() (file []byte, err error) {
	dir, err := os.MkdirTemp("", "tallyhook")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := driver.Open("file:" + filepath.Join(dir, "empty.db") + "?_pragma=journal_mode(wal)")
	if err != nil {
		return nil, err
	}
	if err := sqlite.Migrate(db); err != nil {
		return nil, err
	}
	if err := db.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(dir, "empty.db"))
})

// open opens the embedded store for the suite.
func open(t testing.TB, o storetest.Options) storetest.Store {
	t.Helper()
	if _, err := os.Stat(o.Path); err != nil {
		db, err := empty()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(o.Path, db, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := sqlite.Open(t.Context(), sqlite.Options{
		Path: o.Path, TxTimeout: o.TxTimeout, Now: o.Now, Delay: o.Delay, Adopted: o.Adopted, Parked: o.Parked, Gone: o.Gone, Generation: o.Generation, Horizon: o.Horizon,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, open)
}

// raw opens the database beside the store, to plant what no caller of the
// store could.
func raw(t testing.TB, w *storetest.World) *sql.DB {
	t.Helper()
	db, err := driver.Open("file:" + w.Path() + "?_pragma=busy_timeout(60000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func exec(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func metrics() *telemetry.Metrics { return telemetry.NewMetrics(prometheus.NewRegistry(), "test") }

// committer starts a committer on a World's store.
func committer(w *storetest.World) *ingest.Committer {
	w.T.Helper()
	c := ingest.NewCommitter(w, ingest.Options{MaxWait: time.Minute, Now: w.Clock.Now, Logger: discard(), Metrics: metrics()})
	w.T.Cleanup(c.Close)
	return c
}

// statements runs fn and counts the statements of its transactions.
func statements(t testing.TB, w *storetest.World, fn func()) int64 {
	t.Helper()
	s := embedded(t, w)
	before := s.Statements()
	fn()
	return s.Statements() - before
}

func pragma(t testing.TB, w *storetest.World, name, value string) error {
	t.Helper()
	return embedded(t, w).Pragma(t.Context(), name, value)
}

// embedded is the store of a World as what it is.
func embedded(t testing.TB, w *storetest.World) *sqlite.Store {
	t.Helper()
	s, ok := w.Store.(*sqlite.Store)
	if !ok {
		t.Fatal("not the embedded store")
	}
	return s
}
