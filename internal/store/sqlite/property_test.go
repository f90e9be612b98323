package sqlite_test

import (
	"testing"

	"tallyhook/internal/store/storetest"
)

func TestOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	storetest.OrderDoesNotMatter(t, open, generations(50))
}
