package sqlite_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store/sqlite"
	"tallyhook/internal/store/storetest"
)

func TestOneServerAtATime(t *testing.T) {
	t.Parallel()
	o := sqlite.Options{
		Path: filepath.Join(t.TempDir(), "x.db"), TxTimeout: 30 * time.Second, Now: time.Now, Serve: true,
		Delay: func(int) (time.Duration, bool) { return 0, false },
	}
	first, err := sqlite.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	_, err = sqlite.Open(t.Context(), o)
	storetest.Kind(t, err, fault.Conflict)
	tool := o
	tool.Serve = false // such as doctor
	beside, err := sqlite.Open(t.Context(), tool)
	if err != nil {
		t.Fatal(err)
	}
	if err := beside.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := sqlite.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Same(t, "who may read it", info.Mode().Perm(), 0o600)
}

// TestRemovedFileTakesNoEvents: a commit that no restart would see again is
// refused.
func TestRemovedFileTakesNoEvents(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	away := w.Path() + ".away"
	if err := os.Rename(w.Path(), away); err != nil {
		t.Fatal(err)
	}
	_, err := w.Commit(t.Context(), []event.Event{w.Event(event.Opened, storetest.Lead("l"))})
	storetest.Kind(t, err, fault.Unavailable)
	storetest.Kind(t, w.Ping(t.Context()), fault.Unavailable)
	if err := os.Rename(away, w.Path()); err != nil {
		t.Fatal(err)
	}
	w.Send(event.Opened, storetest.Lead("l"))
}

// TestAnotherProcessWritesMeanwhile: what a tool beside the server has stored
// is met as a duplicate all the same.
func TestAnotherProcessWritesMeanwhile(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	w.Send(event.Opened, storetest.ID("1"), storetest.Lead("l"))
	beside := open(t, storetest.Options{
		Path: w.Path(), TxTimeout: 30 * time.Second, Now: w.Clock.Now, Delay: func(int) (time.Duration, bool) { return time.Second, true },
	})
	for _, id := range []string{"2", "3"} {
		if _, err := beside.Commit(t.Context(), []event.Event{w.Event(event.Opened, storetest.ID(id), storetest.Lead("l"))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := beside.Close(); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]event.Outcome{"1": event.OutcomeDuplicate, "2": event.OutcomeDuplicate, "3": event.OutcomeDuplicate, "4": event.OutcomeOrphaned} {
		storetest.Same(t, id, w.Send(event.Opened, storetest.ID(id), storetest.Lead("l")).Outcome, want)
	}
}
