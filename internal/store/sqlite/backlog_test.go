package sqlite_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store/sqlite"
	"tallyhook/internal/testenv"
)

func backlogStore(t *testing.T, path string, timeout time.Duration, generation int) *sqlite.Store {
	t.Helper()
	s, err := openBacklog(t, path, timeout, generation)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openBacklog(t *testing.T, path string, timeout time.Duration, generation int) (*sqlite.Store, error) {
	t.Helper()
	return sqlite.Open(t.Context(), sqlite.Options{
		Path: path, TxTimeout: timeout, Now: time.Now, Generation: generation,
		Delay: func(int) (time.Duration, bool) { return time.Hour, true },
	})
}

func controls(from, n int) []event.Event {
	events := make([]event.Event, n)
	now := time.Now().UTC().Truncate(time.Microsecond)
	for i := range events {
		events[i] = event.Event{
			ID: uuid.Must(uuid.NewV7()), Tenant: 1, Scope: "api:x", Provider: "x", Kind: "k", Control: true,
			ProviderEventID: fmt.Sprint(from + i), OccurredAt: now, ReceivedAt: now, Payload: []byte("{}"),
		}
	}
	return events
}

// TestALargeBacklogStartsUnderAShortDeadline: what a flood and a crash leave
// unindexed must not keep the next server from starting, nor let a resend count.
func TestALargeBacklogStartsUnderAShortDeadline(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	first := backlogStore(t, path, time.Minute, 0)
	const events = 40_000
	for n := 0; n < events; n += 1000 {
		if _, err := first.Commit(t.Context(), controls(n, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	// Far less than reading the backlog takes: 40,000 rows in 50 ms. The few
	// statements that do have the deadline may miss it on a busy machine; they
	// would miss it at each try if the backlog were part of them.
	var second *sqlite.Store
	testenv.Eventually(t, time.Minute, "it starts", func() bool {
		var err error
		second, err = openBacklog(t, path, 50*time.Millisecond, 0)
		return err == nil
	})
	t.Cleanup(func() {
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
	if got := second.Backlog(); got != events {
		t.Errorf("backlog = %d, want %d", got, events)
	}
	third := backlogStore(t, path, time.Minute, 0)
	got, err := third.Commit(t.Context(), controls(events-10, 20))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got {
		want := event.OutcomeDuplicate
		if i >= 10 {
			want = event.OutcomeIgnored
		}
		if r.Outcome != want {
			t.Errorf("event %d is %s, want %s", i, r.Outcome, want)
		}
	}
}

// TestTheBacklogIsBounded: when nothing writes the index, new events are held
// back before memory grows on, and come in again when it has caught up.
func TestTheBacklogIsBounded(t *testing.T) {
	t.Parallel()
	s := backlogStore(t, filepath.Join(t.TempDir(), "x.db"), time.Minute, 100)
	n := 0
	var err error
	for ; n < 5000 && err == nil; n += 50 {
		_, err = s.Commit(t.Context(), controls(n, 50))
	}
	if !fault.Is(err, fault.Unavailable) {
		t.Fatalf("after %d events: %v, want Unavailable", n, err)
	}
	if got := s.Backlog(); got > 1000 {
		t.Errorf("backlog = %d, want at most 1000", got)
	}
	for more := true; more; {
		if more, err = s.IndexNext(t.Context(), 30); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Backlog(); got > 100 {
		t.Errorf("backlog = %d after indexing, want at most one stretch", got)
	}
	got, err := s.Commit(t.Context(), controls(0, 50))
	if err != nil || got[0].Outcome != event.OutcomeDuplicate || got[49].Outcome != event.OutcomeDuplicate {
		t.Errorf("resend = %v, %v, want duplicates", got, err)
	}
}
