package sqlite_test

import (
	"testing"

	"go.uber.org/goleak"

	"tallyhook/internal/store/sqlite"
	"tallyhook/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens the embedded store for the suite.
func open(t testing.TB, o storetest.Options) storetest.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{
		Path: o.Path, TxTimeout: o.TxTimeout, Now: o.Now, Delay: o.Delay, Adopted: o.Adopted, Generation: o.Generation,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, open)
}
