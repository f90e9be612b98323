package postgres_test

import (
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store/postgres"
	"tallyhook/internal/store/storetest"
	"tallyhook/internal/testenv"
)

// TestOpensLate: a replica that starts while the database is away has a store
// that says so, and works as soon as the database is there, on a new one too.
func TestOpensLate(t *testing.T) {
	t.Parallel()
	pg := testenv.StartPostgres(t, testenv.PostgresOptions{})
	url := pg.Database(t, "late")
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	o := options(storetest.Options{TxTimeout: 30 * time.Second, Now: time.Now}, url)
	if s, err := postgres.Open(t.Context(), o); err == nil {
		t.Errorf("without Late it opens: %v", s.Close())
	} else if !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want Unavailable", err)
	}
	o.Late = true
	o.Delay = func(int) (time.Duration, bool) { return time.Hour, true }
	s, err := postgres.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	e := event.Event{
		ID: [16]byte{1}, Tenant: 1, Scope: "api:x", Provider: "x", Type: event.Opened, Channel: event.Email, Email: "ada@example.com",
		ProviderEventID: "1", ReceivedAt: time.Now(), OccurredAt: time.Now(), Payload: []byte("{}"),
	}
	_, err = s.Commit(t.Context(), []event.Event{e})
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("commit while away: got %v, want Unavailable", err)
	}
	storetest.Kind(t, s.Ping(t.Context()), fault.Unavailable)
	pg.Restart(t)
	testenv.Eventually(t, time.Minute, "the store answers", func() bool { return s.Ping(t.Context()) == nil })
	res, err := s.Commit(t.Context(), []event.Event{e})
	if err != nil || res[0].Outcome != event.OutcomeOrphaned {
		t.Errorf("commit: got %v, %v", res, err)
	}
}

// TestOpenSaysWhatIsWrong: no password in it.
func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	o := options(storetest.Options{TxTimeout: time.Second, Now: time.Now}, "postgres://u:hunter2@127.0.0.1:1/db%zz")
	o.Late = true
	s, err := postgres.Open(t.Context(), o)
	if err == nil {
		t.Fatalf("it opens: %v", s.Close())
	}
	storetest.Kind(t, err, fault.Invalid)
}

// TestServesALaterSchema: migrations only add, so that after an upgrade that
// disappoints this release can be put back on the schema of the next one.
func TestServesALaterSchema(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	early := w.Send(event.Opened, storetest.Address("ada@example.com"))
	conn := raw(t, w)
	for _, q := range []string{
		`ALTER TABLE event ADD COLUMN later TEXT NOT NULL DEFAULT ''`,
		`ALTER TABLE enrollment ADD COLUMN later BIGINT`,
		`CREATE TABLE later (id BIGINT PRIMARY KEY)`,
		`CREATE INDEX event_later ON event (tenant_id, later)`,
		`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)`,
	} {
		exec(t, conn, q)
	}
	w.Reopen()
	w.IsApplied(early.ID, w.Person("ada@example.com"))
	w.Send(event.Clicked, storetest.Address("ada@example.com"))
	w.Send(event.Replied, storetest.Address("bob@example.com"))
	w.Spend()
}
