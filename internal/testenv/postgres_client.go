package testenv

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// SQL runs a statement on a database, beside whoever else uses it.
func SQL(tb testing.TB, url, query string) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), url)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := conn.Exec(tb.Context(), query); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	if err := conn.Close(tb.Context()); err != nil {
		tb.Fatal(err)
	}
}

// TakeConnections takes every connection that the database's server has to
// give, those of the servers under test too. release gives them back.
func TakeConnections(tb testing.TB, url string) (release func()) {
	tb.Helper()
	first, err := pgx.Connect(tb.Context(), url)
	if err != nil {
		tb.Fatal(err)
	}
	held := []*pgx.Conn{first}
	Eventually(tb, time.Minute, "every connection is taken", func() bool {
		if _, err := first.Exec(tb.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tallyhook'`); err != nil {
			tb.Fatal(err)
		}
		for len(held) < 1000 {
			conn, err := pgx.Connect(tb.Context(), url)
			if err != nil {
				break
			}
			held = append(held, conn)
		}
		var servers int
		if err := first.QueryRow(tb.Context(), `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tallyhook'`).Scan(&servers); err != nil {
			tb.Fatal(err)
		}
		return servers == 0
	})
	return func() {
		for _, conn := range held {
			if err := conn.Close(context.WithoutCancel(tb.Context())); err != nil {
				tb.Error(err)
			}
		}
	}
}

// Statements counts the statements of the connections that it traces. It
// implements pgx.QueryTracer and pgx.BatchTracer.
type Statements struct{ n atomic.Int64 }

// Count is how many there were.
func (s *Statements) Count() int64 { return s.n.Load() }

// TraceQueryStart implements pgx.QueryTracer.
func (s *Statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	s.n.Add(1)
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (*Statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceBatchStart implements pgx.BatchTracer.
func (*Statements) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (s *Statements) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) { s.n.Add(1) }

// TraceBatchEnd implements pgx.BatchTracer.
func (*Statements) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// SQLNumber reads one number from a database, beside whoever else uses it.
func SQLNumber(tb testing.TB, url, query string) int64 {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), url)
	if err != nil {
		tb.Fatal(err)
	}
	var n int64
	if err := conn.QueryRow(tb.Context(), query).Scan(&n); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	if err := conn.Close(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return n
}
