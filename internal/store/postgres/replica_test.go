package postgres_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"tallyhook/internal/store/storetest"
)

// replica opens a second store on a World's database: another server beside it.
func replica(w *storetest.World) storetest.Store {
	w.T.Helper()
	s := mortal(w)
	w.T.Cleanup(func() {
		if err := s.Close(); err != nil {
			w.T.Errorf("close the replica: %v", err)
		}
	})
	return s
}

// mortal opens a replica that the test closes itself.
func mortal(w *storetest.World) storetest.Store {
	w.T.Helper()
	return open(w.T, storetest.Options{Path: w.Path(), TxTimeout: 30 * time.Second, Now: w.Clock.Now, Delay: func(n int) (time.Duration, bool) {
		return time.Second << n, n < storetest.Attempts
	}})
}

// together runs functions that begin at the same moment, waits for all and
// fails the test for what they could not do.
func together(t testing.TB, fns ...func() error) {
	t.Helper()
	var ready, done sync.WaitGroup
	errs := make([]error, len(fns))
	ready.Add(len(fns))
	for i, fn := range fns {
		done.Go(func() {
			ready.Done()
			ready.Wait()
			errs[i] = fn()
		})
	}
	done.Wait()
	must(t, errors.Join(errs...))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
