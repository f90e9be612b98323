package postgres_test

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"tallyhook/internal/store/postgres"
	"tallyhook/internal/store/storetest"
	"tallyhook/internal/testenv"
)

// long runs the traps at their full size.
var long = flag.Bool("long", false, "run the long forms")

// server is the PostgreSQL that the tests share; each has a database of its own.
var server = testenv.NewPostgres(testenv.PostgresOptions{Template: schema})

func TestMain(m *testing.M) {
	flag.Parse()
	checks := true
	flag.Visit(func(f *flag.Flag) { checks = checks && f.Name != "rapid.checks" })
	if checks { // quick by default; -rapid.checks=1000 looks longer
		if err := flag.Set("rapid.checks", "10"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(server.Around(m))
}

// schema brings the schema into the database that the tests' are copies of.
func schema(ctx context.Context, url string) error {
	s, err := postgres.Open(ctx, options(storetest.Options{TxTimeout: 30 * time.Second, Now: time.Now}, url))
	if err != nil {
		return err
	}
	return s.Close()
}

func options(o storetest.Options, url string) postgres.Options {
	return postgres.Options{URL: url, TxTimeout: o.TxTimeout, Now: o.Now, Delay: o.Delay, Adopted: o.Adopted, Parked: o.Parked, Gone: o.Gone, Horizon: o.Horizon}
}

// open opens a store for the suite: what is a file there is a database here.
func open(t testing.TB, o storetest.Options) storetest.Store {
	t.Helper()
	s, err := postgres.Open(context.WithoutCancel(t.Context()), options(o, server.Database(t, o.Path)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, open)
}

func TestOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	storetest.OrderDoesNotMatter(t, open)
}

// raw opens a connection beside the store's, to plant what no caller of the
// store could.
func raw(t testing.TB, w *storetest.World) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.Database(t, w.Path()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func exec(t testing.TB, conn *pgx.Conn, query string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}
