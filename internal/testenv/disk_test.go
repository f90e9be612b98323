//go:build unix

package testenv_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyhook/internal/testenv"
)

// TestDisk: PostgreSQL has no room on a disk that is full, and has again when
// it is freed, whoever runs the tests.
func TestDisk(t *testing.T) {
	t.Parallel()
	disk := testenv.StartDisk(t, 32<<20)
	p := testenv.StartPostgres(t, testenv.PostgresOptions{Tables: disk})
	conn, err := pgx.Connect(t.Context(), p.Database(t, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // the database goes with the test
	if _, err := conn.Exec(t.Context(), `CREATE TABLE room (taken TEXT NOT NULL)`); err != nil {
		t.Fatal(err)
	}
	take := func() error {
		_, err := conn.Exec(t.Context(), `INSERT INTO room SELECT $1 FROM generate_series(1, 100)`, strings.Repeat("x", 1000))
		return err
	}
	if err := take(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		disk.Fill()
		err = take()
		if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "53100" {
			t.Errorf("on a full disk: %v, want SQLSTATE 53100", err)
		}
		disk.Free()
		if err := take(); err != nil {
			t.Errorf("on a disk that was freed: %v", err)
		}
	}
}
