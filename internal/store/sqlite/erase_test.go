package sqlite_test

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
)

// TestNothingStaysOfAnErasedContact reads the bytes of the database's files,
// the log included: secure_delete leaves nothing in pages that are free, and
// the log is emptied.
func TestNothingStaysOfAnErasedContact(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open, func(o *storetest.Options) { o.Generation = 300 })
	traces := func() (found []string) {
		files, err := filepath.Glob(w.Path() + "*")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, trace := range storetest.AdaTraces() {
				if n := bytes.Count(b, []byte(trace)); n > 0 {
					found = append(found, filepath.Base(f)+" has "+trace)
				}
			}
		}
		return found
	}
	a := w.EnrollAda()
	// Rows of every size, on pages of their own too, between those of others.
	for n := range 40 {
		w.Send(event.Opened, storetest.Address("ada.lovelace@example.com"), func(e *event.Event) {
			e.Payload = bytes.Repeat([]byte("ada.lovelace@example.com "), 1+n*n)
		})
		w.Flood(20, storetest.Address("bob@example.com"))
	}
	w.Flood(50, storetest.Address("ada.lovelace@example.com"), storetest.Lead("nobody's"))
	w.Spend()
	w.Index()
	if len(traces()) == 0 {
		t.Fatal("the contact is not in the files before it is erased: this test proves nothing")
	}
	w.Erase(store.Contact{Email: "ada.lovelace@example.com"}, 30)
	storetest.Same(t, "traces after the erasure", traces(), nil)
	w.Send(event.Opened, storetest.Address("ada.lovelace@example.com"))
	w.Flood(20, storetest.Address("bob@example.com"))
	storetest.Same(t, "traces after what is resent and what is new", traces(), nil)
	storetest.Same(t, "the neighbour", w.Record(a.Other.ID).Email, "bob@example.com")
}

// TestAReaderHoldsUpTheEndOfAnErasureAlone keeps a reader on the database as it
// was before: the log cannot be emptied, and so the erasure is not done, but
// nobody waits for it.
func TestAReaderHoldsUpTheEndOfAnErasureAlone(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	w.EnrollAda()
	db := raw(t, w)
	read, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := read.QueryRowContext(t.Context(), "SELECT count(*) FROM event").Scan(&n); err != nil {
		t.Fatal(err)
	}
	e, err := w.StartErasure(t.Context(), w.Tenant, store.Contact{Email: "ada.lovelace@example.com"}, "me")
	if err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		if more, err = w.NextErasure(t.Context(), 100); err != nil {
			t.Fatal(err)
		}
	}
	got, err := w.Erasure(t.Context(), w.Tenant, e.ID)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "status while a reader is there", got.Status, "running")
	storetest.Same(t, "others go on", w.Send(event.Opened, storetest.Address("bob@example.com")).Outcome, event.OutcomeApplied)
	if err := read.Rollback(); err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "status when it has gone", w.EraseOn(e.ID, 100).Status, "done")
}
