package testenv

import (
	"context"
	"sync"
	"testing"

	"github.com/ncruces/go-sqlite3/driver"
)

// Exec changes a database behind the program's back, as a defect or a hand
// would.
func Exec(tb testing.TB, path, query string) {
	tb.Helper()
	db, err := driver.Open("file:" + path)
	if err != nil {
		tb.Fatalf("open %s: %v", path, err)
	}
	if _, err := db.ExecContext(context.Background(), query); err != nil {
		tb.Errorf("%s: %v", query, err)
	}
	if err := db.Close(); err != nil {
		tb.Errorf("close %s: %v", path, err)
	}
}

// Count reads one number from a database, also while the program has it open.
func Count(tb testing.TB, path, query string) int64 {
	tb.Helper()
	db, err := driver.Open("file:" + path + "?mode=ro&_pragma=busy_timeout(60000)")
	if err != nil {
		tb.Fatalf("open %s: %v", path, err)
	}
	var n int64
	if err := db.QueryRowContext(context.Background(), query).Scan(&n); err != nil {
		tb.Errorf("%s: %v", query, err)
	}
	if err := db.Close(); err != nil {
		tb.Errorf("close %s: %v", path, err)
	}
	return n
}

// Lock takes a database away from everybody who would write to it, as another
// process that holds it would, until the returned function is called.
func Lock(tb testing.TB, path string) (unlock func()) {
	tb.Helper()
	db, err := driver.Open("file:" + path + "?_pragma=busy_timeout(60000)")
	if err != nil {
		tb.Fatalf("open %s: %v", path, err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(context.Background(), `BEGIN EXCLUSIVE`); err != nil {
		tb.Fatalf("lock %s: %v", path, err)
	}
	var once sync.Once
	unlock = func() {
		once.Do(func() {
			if err := db.Close(); err != nil {
				tb.Errorf("unlock %s: %v", path, err)
			}
		})
	}
	tb.Cleanup(unlock)
	return unlock
}
