package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
)

// TestNothingStaysOfAnErasedContact reads every row of every table, and, after
// the server has rewritten its tables, every byte of their files.
func TestNothingStaysOfAnErasedContact(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	conn, err := pgx.Connect(t.Context(), server.Database(t, w.Path()))
	must(t, err)
	defer conn.Close(t.Context()) //nolint:errcheck // a test's own
	var tables []string
	rows, err := conn.Query(t.Context(), `SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`)
	must(t, err)
	tables, err = pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	count := func(query string, trace string) (n int) {
		must(t, conn.QueryRow(t.Context(), query, trace).Scan(&n))
		return n
	}
	inRows := func() (found []string) {
		for _, table := range tables {
			for _, trace := range storetest.AdaTraces() {
				// Bytes read as text, as far as they are.
				if count(`SELECT count(*) FROM `+pgx.Identifier{table}.Sanitize()+` r WHERE position(lower($1) IN lower(r::text)) > 0
					OR position(encode(convert_to($1, 'UTF8'), 'hex') IN r::text) > 0`, trace) > 0 {
					found = append(found, table+" has "+trace)
				}
			}
		}
		return found
	}
	inFiles := func() (found []string) {
		for _, table := range tables {
			for _, trace := range storetest.AdaTraces() {
				if count(`SELECT count(*) FROM pg_class c WHERE (c.oid = '`+table+`'::regclass OR c.oid IN (SELECT reltoastrelid FROM pg_class WHERE oid = '`+table+`'::regclass)
					OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = '`+table+`'::regclass))
					AND position(convert_to($1, 'UTF8') IN pg_read_binary_file(pg_relation_filepath(c.oid))) > 0`, trace) > 0 {
					found = append(found, table+" has "+trace)
				}
			}
		}
		return found
	}
	w.EnrollAda()
	w.Flood(50, storetest.Address("ada.lovelace@example.com"), storetest.Lead("nobody's"))
	w.Spend()
	if len(inRows()) == 0 {
		t.Fatal("the contact is in no row before it is erased: this test proves nothing")
	}
	w.Erase(store.Contact{Email: "ada.lovelace@example.com"}, 30)
	w.Send(event.Opened, storetest.Address("ada.lovelace@example.com"))
	storetest.Same(t, "rows that name the contact", inRows(), nil)
	_, err = conn.Exec(t.Context(), `VACUUM FULL`)
	must(t, err)
	_, err = conn.Exec(t.Context(), `CHECKPOINT`)
	must(t, err)
	storetest.Same(t, "files that name the contact after VACUUM FULL", inFiles(), nil)
}
