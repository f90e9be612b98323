package sqlite_test

import (
	"database/sql"
	"testing"

	"github.com/ncruces/go-sqlite3/driver"

	"tallyhook/internal/event"
	"tallyhook/internal/store/storetest"
)

// TestServesALaterSchema: migrations only add, so that after an upgrade that
// disappoints this release can be put back on the schema of the next one.
func TestServesALaterSchema(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	early := w.Send(event.Opened, storetest.Address("ada@example.com"))
	w.Reopen(func(*storetest.Options) { later(t, w.Path()) })
	w.IsApplied(early.ID, w.Person("ada@example.com"))
	w.Send(event.Clicked, storetest.Address("ada@example.com"))
	w.Send(event.Replied, storetest.Address("bob@example.com"))
	w.Spend()
}

// later does what the next release's migration may do: columns with a default,
// tables, indexes.
func later(t *testing.T, path string) {
	t.Helper()
	db, err := driver.Open("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func(db *sql.DB) {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}(db)
	for _, q := range []string{
		`ALTER TABLE event ADD COLUMN later TEXT NOT NULL DEFAULT ''`,
		`ALTER TABLE enrollment ADD COLUMN later INTEGER`,
		`CREATE TABLE later (id INTEGER PRIMARY KEY)`,
		`CREATE INDEX event_later ON event (tenant_id, later)`,
		`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`,
	} {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}
