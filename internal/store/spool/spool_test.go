package spool_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/spool"
)

func open(t testing.TB, dir string, change ...func(*spool.Options)) *spool.Spool {
	t.Helper()
	o := spool.Options{Dir: dir}
	for _, c := range change {
		c(&o)
	}
	s, err := spool.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, s) })
	return s
}

func shut(t testing.TB, s *spool.Spool) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func some(n int) []event.Event {
	events := make([]event.Event, n)
	for i := range events {
		events[i] = event.Event{
			ID: uuid.Must(uuid.NewV7()), Tenant: 1, Scope: "api:x", Provider: "x", Type: event.Opened, Channel: event.Email,
			LeadID: fmt.Sprint(i), ReceivedAt: time.Unix(1_764_000_000, 0).UTC(), OccurredAt: time.Unix(1_764_000_000, 0).UTC(), Payload: []byte(`{"n":1}`),
		}
	}
	return events
}

func put(t testing.TB, s *spool.Spool, events []event.Event) {
	t.Helper()
	if err := s.Append(context.WithoutCancel(t.Context()), events); err != nil {
		t.Fatal(err)
	}
}

// all reads the whole spool and leaves it as it is.
func all(t testing.TB, s *spool.Spool) (entries []store.Spooled) {
	t.Helper()
	entries, _, err := s.Next(context.WithoutCancel(t.Context()), 1_000_000, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func seqs(entries []store.Spooled) (n []int64) {
	for _, e := range entries {
		n = append(n, e.Seq)
	}
	return n
}

func done(t testing.TB, s *spool.Spool, n ...int64) {
	t.Helper()
	if err := s.Done(t.Context(), n); err != nil {
		t.Fatal(err)
	}
}

func unavailable(t testing.TB, err error) {
	t.Helper()
	if !fault.Is(err, fault.Unavailable) {
		t.Fatalf("got %v, want an unavailable", err)
	}
}

func TestWhatWentInComesOutInOrder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "spool")
	s := open(t, dir)
	events := some(5)
	put(t, s, events[:2])
	put(t, s, nil)
	body := store.Letter{ID: uuid.Must(uuid.NewV7()), Tenant: 1, Provider: "lemlist", Reason: store.ReasonUndecodable, Body: []byte("\x00nonsense"), Headers: map[string]string{"content-type": "text/plain"}}
	if err := s.AppendBody(t.Context(), body); err != nil {
		t.Fatal(err)
	}
	put(t, s, events[2:])
	shut(t, s) // and the next process finds it
	s = open(t, dir)
	got := all(t, s)
	want := []store.Spooled{{Event: events[0]}, {Event: events[1]}, {Body: &body}, {Event: events[2]}, {Event: events[3]}, {Event: events[4]}}
	for i := range want {
		want[i].Seq = got[i].Seq
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	st := s.Stats()
	if st.Events != 6 || st.Bytes < 6*100 || st.OldestAt.IsZero() || st.Limit != 1<<30 {
		t.Errorf("stats are %+v", st)
	}
	two, _, err := s.Next(t.Context(), 2, 1<<20)
	if err != nil || len(two) != 2 {
		t.Fatalf("got %d, %v", len(two), err)
	}
	one, _, err := s.Next(t.Context(), 6, 1)
	if err != nil || len(one) != 1 {
		t.Errorf("bounded by bytes: got %d, %v", len(one), err)
	}
	done(t, s, seqs(two)...)
	done(t, s, seqs(two)...) // again: they are gone
	if n := s.Stats().Events; n != 4 || len(all(t, s)) != 4 {
		t.Errorf("%d are left", n)
	}
	last := seqs(all(t, s))
	done(t, s, last...)
	if d := cmp.Diff(store.SpoolStats{Limit: 1 << 30}, s.Stats()); d != "" {
		t.Error(d)
	}
	put(t, s, some(1))
	if n := all(t, s)[0].Seq; n <= last[len(last)-1] {
		t.Errorf("the number %d was given twice", n)
	}
}

func TestFilesAreTheOwnersAlone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a b+c?d%20e", "spool") // names mean nothing
	s := open(t, dir)
	put(t, s, some(1))
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v, %v", info.Mode(), err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", f.Name(), info.Mode(), err)
		}
	}
}

func TestOneProcessHasIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	_, err := spool.Open(t.Context(), spool.Options{Dir: dir})
	if !fault.Is(err, fault.Conflict) {
		t.Fatalf("a second one: got %v", err)
	}
	shut(t, s)
	shut(t, s) // again
	open(t, dir)
}

func TestFullRefusesAndKeepsWhatItHas(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), func(o *spool.Options) { o.MaxBytes = 3000 })
	kept := 0
	for range 100 {
		err := s.Append(t.Context(), some(1))
		if err == nil {
			kept++
			continue
		}
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.Unavailable || f.RetryAfter <= 0 || f.Msg == "" {
			t.Fatalf("got %v", err)
		}
	}
	if kept == 0 || kept == 100 || len(all(t, s)) != kept || s.Stats().Bytes > 3000 {
		t.Fatalf("%d were kept, it holds %+v", kept, s.Stats())
	}
	done(t, s, all(t, s)[0].Seq)
	put(t, s, some(1)) // room again
}

// TestConcurrentAppendsShareTransactions: all are kept, and each caller's
// events stay together.
func TestConcurrentAppends(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	const callers, each = 32, 20
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				if err := s.Append(context.Background(), some(2)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	ids := map[uuid.UUID]bool{}
	for _, e := range all(t, s) {
		ids[e.Event.ID] = true
	}
	if len(ids) != callers*each*2 || s.Stats().Events != callers*each*2 {
		t.Errorf("%d events, %+v", len(ids), s.Stats())
	}
}

func TestCancelledAppend(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	kept := 0
	for range 50 { // its turn and its end race; either way the sums are right
		if err := s.Append(ctx, some(1)); err == nil {
			kept++
		} else {
			unavailable(t, err)
		}
	}
	if n := s.Stats(); n.Events != int64(kept) || len(all(t, s)) != kept {
		t.Errorf("%d were kept, it holds %+v", kept, n)
	}
}

func TestUnreadableEntriesStandInNobodysWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, some(1))
	if err := s.Exec(t.Context(), `INSERT INTO entry (at, size, data) VALUES (1, 200, x'6509')`); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	s = open(t, dir)
	put(t, s, some(1))
	entries, unread, err := s.Next(t.Context(), 10, 1<<20)
	if err != nil || len(entries) != 2 || len(unread) != 1 {
		t.Fatalf("got %d and %v, %v", len(entries), unread, err)
	}
	if _, unread, err = s.Next(t.Context(), 10, 1<<20); err != nil || len(unread) != 0 {
		t.Errorf("told twice: %v, %v", unread, err)
	}
	done(t, s, seqs(entries)...)
	if st := s.Stats(); st.Events != 1 || st.Aside != 1 {
		t.Errorf("it is not kept: %+v", st)
	}
	put(t, s, some(1))
	if err := s.Aside(t.Context(), seqs(all(t, s))); err != nil {
		t.Fatal(err)
	}
	if n := len(all(t, s)); n != 0 || s.Stats().Aside != 2 {
		t.Errorf("%d to read, %+v", n, s.Stats())
	}
	shut(t, s)
	s = open(t, dir)
	if n := len(all(t, s)); n != 1 {
		t.Errorf("a start gives another chance to %d, want 1", n)
	}
}

func TestRemovedFileIsUnavailable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	if err := os.Remove(filepath.Join(dir, "spool.db")); err != nil {
		t.Fatal(err)
	}
	unavailable(t, s.Append(t.Context(), some(1)))
	_, _, err := s.Next(t.Context(), 1, 1)
	unavailable(t, err)
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"Damaged": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "spool.db"), []byte("not a database, but long enough to be looked at as one"), 0o600)
		}, "move it away"},
		"NoFolder": {func(dir string) error {
			return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600))
		}, "make the folder"},
		"Later": {func(dir string) error {
			s, err := spool.Open(context.Background(), spool.Options{Dir: dir})
			if err != nil {
				return err
			}
			return errors.Join(s.Exec(context.Background(), `PRAGMA user_version = 99`), s.Close())
		}, "later release"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "spool")
			if err := errors.Join(os.Mkdir(dir, 0o700), tt.spoil(dir)); err != nil {
				t.Fatal(err)
			}
			_, err := spool.Open(t.Context(), spool.Options{Dir: dir})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
		})
	}
}

// TestEmptySpoolGivesItsRoomBack: an outage does not cost disk for ever.
func TestEmptySpoolGivesItsRoomBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	big := some(1)
	big[0].Payload = make([]byte, 1<<20)
	for range 20 {
		put(t, s, big)
	}
	done(t, s, seqs(all(t, s))...)
	size := int64(0)
	for _, name := range []string{"spool.db", "spool.db-wal"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 1<<20 {
		t.Errorf("an empty spool takes %d bytes", size)
	}
	put(t, s, some(1))
	if len(all(t, s)) != 1 {
		t.Error("it takes nothing any more")
	}
}

func BenchmarkAppend(b *testing.B) {
	s := open(b, b.TempDir())
	events := some(500)
	for b.Loop() {
		put(b, s, events)
	}
	b.ReportMetric(float64(500*b.N)/b.Elapsed().Seconds(), "events/s")
}
