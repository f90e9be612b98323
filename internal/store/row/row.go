// Package row is how the types of a store are kept in the rows of a SQL
// database and read back: what is the same in every dialect, so that no two
// stores can read a row differently. It knows no driver and runs no statement.
//
// Guarantees: a time is kept in microseconds since 1970 in UTC, the zero time
// as 0; an id in its 16 bytes, uuid.Nil as NULL.
package row

import (
	"time"

	"github.com/google/uuid"
)

// Scanner is what a row gives.
type Scanner interface{ Scan(dest ...any) error }

// US is a time as it is stored; the zero time is 0.
func US(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// At is a stored time; 0 is the zero time.
func At(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// Blob is an id as it is stored; uuid.Nil is NULL.
func Blob(id uuid.UUID) any {
	if id == uuid.Nil {
		return nil
	}
	return id[:]
}

// ID is a stored id; what is NULL or empty is uuid.Nil.
func ID(b []byte) uuid.UUID {
	var id uuid.UUID
	copy(id[:], b)
	return id
}

// NewID makes a UUIDv7. It only fails when the system has no randomness, and
// then nothing else works either.
func NewID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// Page takes the row off that was read only to know whether more follow.
func Page[T any](rows []T, seqs []int64, limit int) ([]T, int64) {
	if len(rows) <= limit {
		return rows, 0
	}
	return rows[:limit], seqs[limit-1]
}

// Cut takes the row off that was read only to know whether more follow.
func Cut[T any](rows []T, limit int, seq func(*T) int64) ([]T, int64) {
	if len(rows) <= limit {
		return rows, 0
	}
	rows = rows[:limit]
	return rows, seq(&rows[limit-1])
}
