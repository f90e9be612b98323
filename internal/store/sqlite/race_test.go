package sqlite_test

import (
	"testing"

	"tallyhook/internal/store/storetest"
)

// TestEventAndEnrollmentAtOnceLeavesNobodyWaiting: both happen inside the one
// writer, so neither can miss the other.
func TestEventAndEnrollmentAtOnceLeavesNobodyWaiting(t *testing.T) {
	t.Parallel()
	pairs := 2000
	if *long {
		pairs = 50_000
	}
	w := storetest.New(t, open)
	storetest.AtOnce(w, pairs, storetest.Replica{Store: w.Store, Accept: committer(w).Accept})
}
