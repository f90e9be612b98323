package sqlite

import (
	"context"
	"database/sql"
)

// Migrate is for tests that need the schema without a store.
func Migrate(db *sql.DB) error { return migrate(context.Background(), db) }

// Pragma sets a pragma on the connection that writes.
func (s *Store) Pragma(ctx context.Context, name, value string) error {
	if err := s.turn.acquire(ctx, live); err != nil {
		return err
	}
	defer s.turn.release()
	var got any
	return s.conn.QueryRowContext(ctx, "PRAGMA "+name+"="+value).Scan(&got)
}

// Distrust does what a failed COMMIT does.
func (s *Store) Distrust() { s.index.distrust() }
