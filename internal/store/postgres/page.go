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
