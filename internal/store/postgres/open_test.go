package postgres_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/postgres"
	"tallyhook/internal/store/storetest"
	"tallyhook/internal/testenv"
)

func opened(ctx context.Context, url string) (*postgres.Store, error) {
	return postgres.Open(ctx, options(storetest.Options{TxTimeout: time.Minute, Now: time.Now, Delay: hourly}, url))
}

func hourly(n int) (time.Duration, bool) { return time.Hour, n < 3 }

// TestReplicasMigrateTogether starts several replicas on an empty database at
// the same moment: the schema is made once, and so is the first tenant.
func TestReplicasMigrateTogether(t *testing.T) {
	t.Parallel()
	url := server.Empty(t)
	before, err := postgres.Migrations(t.Context(), url)
	must(t, err)
	for _, m := range before {
		if !m.AppliedAt.IsZero() {
			t.Errorf("step %d is applied to an empty database", m.Version)
		}
	}
	start := func() error {
		s, err := opened(t.Context(), url)
		if err != nil {
			return err
		}
		all, err := s.Ledgers(t.Context())
		storetest.Same(t, "tenants", len(all), 1)
		if cerr := s.Close(); err == nil {
			err = cerr
		}
		return err
	}
	together(t, start, start, start, start)
	after, err := postgres.Migrations(t.Context(), url)
	must(t, err)
	storetest.Same(t, "steps", len(after), len(before))
	for _, m := range after {
		if m.AppliedAt.IsZero() {
			t.Errorf("step %d is pending", m.Version)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	url := server.Database(t, t.Name())
	for name, c := range map[string]struct {
		url  string
		want fault.Kind
		says string
	}{
		"WhatIsNoURL":             {"postgres://secret:password@host:port/x", fault.Invalid, "postgres://user@host:5432/name"},
		"CommitsThatMayBeLost":    {url + "&synchronous_commit=off", fault.Unsupported, "synchronous_commit"},
		"AServerThatIsNotThere":   {"postgres://127.0.0.1:1/x?sslmode=disable", fault.Unavailable, "open the database"},
		"ADatabaseThatIsNotThere": {server.URL("nowhere"), fault.Unavailable, "nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := opened(t.Context(), c.url)
			if s != nil {
				t.Error("there is a store")
			}
			storetest.Kind(t, err, c.want)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want it to say %q", err, c.says)
			}
			if err != nil && strings.Contains(err.Error(), "password@") {
				t.Errorf("the error repeats the password: %v", err)
			}
		})
	}
}

// TestConnectionsHaveDeadlines: the server ends what outlives its client.
func TestConnectionsHaveDeadlines(t *testing.T) {
	t.Parallel()
	seen := &settings{}
	w := storetest.New(t, traced(seen))
	w.Person("ada@example.com")
	if seen.conn == nil {
		t.Fatal("no statement was seen")
	}
	for name, want := range map[string]string{
		"statement_timeout": "30000", "lock_timeout": "15000", "idle_in_transaction_session_timeout": "60000",
	} {
		storetest.Same(t, name, seen.conn[name], want)
	}
}

// settings notes what a connection was configured with.
type settings struct {
	counter
	conn map[string]string
}

func (s *settings) TraceConnectEnd(_ context.Context, d pgx.TraceConnectEndData) {
	if d.Conn != nil && s.conn == nil {
		s.conn = d.Conn.Config().RuntimeParams
	}
}

func (s *settings) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return ctx
}

// TestServerIsKilledAndPaused: while the database is away everything is
// refused as passing, and when it is back all that was accepted is there.
func TestServerIsKilledAndPaused(t *testing.T) {
	t.Parallel()
	own := testenv.StartPostgres(t, testenv.PostgresOptions{Template: schema})
	start := func(timeout time.Duration) *postgres.Store {
		t.Helper()
		s, err := postgres.Open(t.Context(), postgres.Options{
			URL: own.Database(t, "x"), TxTimeout: timeout, Now: time.Now, Delay: hourly,
		})
		must(t, err)
		t.Cleanup(func() { must(t, s.Close()) })
		return s
	}
	// What must work has time; what must not, has little.
	s, steady := start(2*time.Second), start(time.Minute)
	ctx := context.WithoutCancel(t.Context())
	w := &storetest.World{Store: steady, T: t, Clock: storetest.NewClock(), Tenant: store.DefaultTenant}
	w.Template, w.Instance = w.Campaign(w.Tenant, nil)
	w.Join(w.Instance, campaign.Enrollment{Email: "ada@example.com"})
	sent := []event.Event{w.Event(event.Replied, storetest.Address("ada@example.com"))}
	w.Put(sent...)

	away := func() {
		t.Helper()
		e := w.Event(event.Replied, storetest.Address("ada@example.com"))
		_, err := s.Commit(ctx, []event.Event{e})
		storetest.Kind(t, err, fault.Unavailable)
		storetest.Kind(t, s.Ping(ctx), fault.Unavailable)
		sent = append(sent, e) // the outcome is unknown: it is sent again
	}
	must(t, own.Kill())
	away()
	own.Restart(t)
	until(t, "the database is back", func() bool { return s.Ping(ctx) == nil })
	again := func() {
		t.Helper()
		for _, e := range sent {
			until(t, "an event is committed", func() bool {
				res, err := s.Commit(ctx, []event.Event{e})
				return err == nil && res[0].Outcome == event.OutcomeApplied
			})
		}
	}
	again()
	own.Pause(t)
	away()
	own.Resume(t)
	until(t, "the database goes on", func() bool { return s.Ping(ctx) == nil })
	again()
	must(t, own.Stop())
	away()
	own.Restart(t)
	again()
	l := w.Account(w.Tenant)
	storetest.Same(t, "ledger", l, store.Ledger{Tenant: w.Tenant, Received: int64(len(sent)), Applied: int64(len(sent))})
	w.Balanced()
}
