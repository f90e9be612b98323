package postgres

import (
	"math"

	"tallyhook/internal/store"
)

// before is the number that the rows of a page stay below: one comparison that
// an index serves, also for the first page.
func before(p store.Page) int64 {
	if p.After == 0 {
		return math.MaxInt64
	}
	return p.After
}

// page takes the row off that was read only to know whether more follow.
func page[T any](rows []T, seqs []int64, limit int) ([]T, int64) {
	if len(rows) <= limit {
		return rows, 0
	}
	return rows[:limit], seqs[limit-1]
}

// cut does what page does for rows that know their number.
func cut[T any](rows []T, limit int, seq func(*T) int64) ([]T, int64) {
	if len(rows) <= limit {
		return rows, 0
	}
	rows = rows[:limit]
	return rows, seq(&rows[limit-1])
}
