package access_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// TestHeardChanges: what another replica changes is read anew when it is heard
// of, and nothing else is.
func TestHeardChanges(t *testing.T) {
	t.Parallel()
	f := setup(t)
	k, key, err := f.CreateKey(t.Context(), f.admin, "k", []string{access.ScopeAdmin}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	made := create(t, f, access.SourceInput{Provider: "generic", Name: "s"})
	token := tokenOf(t, made.URL)
	reads := func() int {
		before := f.store.total()
		for _, look := range []func() error{
			func() error { _, err := f.Authenticate(t.Context(), key); return err },
			func() error { _, err := f.SourceByToken(t.Context(), token); return err },
			func() error { _, err := f.OpenSource(t.Context(), made.ID); return err },
		} {
			if err := look(); err != nil {
				t.Fatal(err)
			}
		}
		return f.store.total() - before
	}
	reads()
	for _, tc := range []struct {
		name  string
		heard store.Change
		want  int
	}{
		{"nothing", store.Change{Kind: store.ChangedWork}, 0},
		{"another key", store.Change{Kind: store.ChangedKey, ID: uuid.Must(uuid.NewV7())}, 0},
		{"the key", store.Change{Kind: store.ChangedKey, ID: k.ID}, 1},
		{"another source", store.Change{Kind: store.ChangedSource, ID: uuid.Must(uuid.NewV7())}, 0},
		{"the source", store.Change{Kind: store.ChangedSource, ID: made.ID}, 2},
		{"what a later release tells", store.ParseChange("tenant 7"), 3},
	} {
		f.Heard(tc.heard)
		if got := reads(); got != tc.want {
			t.Errorf("%s has changed: %d looks at the store, want %d", tc.name, got, tc.want)
		}
	}
}

// TestHeardDuringARead: what is being read when a change is heard of is not
// kept.
func TestHeardDuringARead(t *testing.T) {
	t.Parallel()
	f := setup(t)
	k, key, err := f.CreateKey(t.Context(), f.admin, "k", []string{access.ScopeAdmin}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	f.store.during = func() { f.Heard(store.Change{Kind: store.ChangedKey, ID: k.ID, Hash: k.Hash}) }
	for range 2 {
		if _, err := f.Authenticate(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.store.count("KeyByHash"); got != 2 {
		t.Errorf("%d looks at the store, want 2", got)
	}
}

// TestDeaf: while other replicas are not heard, the store is asked about each
// row once a second; when it cannot be asked, what was read still counts for
// its time to live, and absence does not. Heard again, everything is read anew.
func TestDeaf(t *testing.T) {
	t.Parallel()
	f := setup(t)
	_, key, err := f.CreateKey(t.Context(), f.admin, "k", []string{access.ScopeAdmin}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	unknown := "correct horse battery"
	look := func(want int, why string) {
		t.Helper()
		before := f.store.count("KeyByHash")
		for range 3 {
			if _, err := f.Authenticate(t.Context(), key); err != nil {
				t.Fatalf("%s: %v", why, err)
			}
			_, err := f.Authenticate(t.Context(), unknown)
			wantKind(t, err, fault.Unauthenticated)
		}
		if got := f.store.count("KeyByHash") - before; got != want {
			t.Errorf("%s: %d looks at the store, want %d", why, got, want)
		}
	}
	look(2, "at first")
	f.Listening(false)
	look(0, "deaf")
	f.clock.add(time.Second)
	look(2, "deaf for a second")
	f.Listening(false)
	look(0, "deaf still")
	f.Listening(true)
	look(2, "no more")
	f.clock.add(2 * time.Second)
	look(0, "later")
	f.Listening(false)
	f.store.set(true)
	if _, err := f.Authenticate(t.Context(), key); err != nil {
		t.Errorf("a known key while the store is away: %v", err)
	}
	_, err = f.Authenticate(t.Context(), unknown)
	wantKind(t, err, fault.Unavailable)
	f.clock.add(28 * time.Second)
	_, err = f.Authenticate(t.Context(), key)
	wantKind(t, err, fault.Unavailable)
}
