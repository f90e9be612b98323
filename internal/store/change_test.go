package store_test

import (
	"testing"

	"github.com/google/uuid"

	"tallyhook/internal/store"
)

func TestChangesReadBack(t *testing.T) {
	t.Parallel()
	id := uuid.Must(uuid.NewV7())
	for _, c := range []store.Change{
		{Kind: store.ChangedKey, ID: id},
		{Kind: store.ChangedKey, ID: id, Hash: [32]byte{1, 31: 2}},
		{Kind: store.ChangedSource, ID: id},
		{Kind: store.ChangedWork},
	} {
		if got := store.ParseChange(c.String()); got != c {
			t.Errorf("%q reads back as %+v, want %+v", c, got, c)
		}
	}
}

// TestUnknownChanges: a later release may tell what this one does not know.
func TestUnknownChanges(t *testing.T) {
	t.Parallel()
	id := uuid.Must(uuid.NewV7()).String()
	for _, text := range []string{"", "tenant", "tenant " + id, "key", "key 7", "source " + id + " 00", "key " + id + " zz", "KEY " + id} {
		if got := store.ParseChange(text); got != (store.Change{}) {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}

// FuzzParseChange: whatever is told is read, and what is read is told alike.
func FuzzParseChange(f *testing.F) {
	f.Add("work")
	f.Add("key 0199a1c0-7c1e-7d3a-9d4e-2f6b1c8a0e11 0100000000000000000000000000000000000000000000000000000000000002")
	f.Add("source 0199a1c0-7c1e-7d3a-9d4e-2f6b1c8a0e11")
	f.Fuzz(func(t *testing.T, text string) {
		c := store.ParseChange(text)
		if again := store.ParseChange(c.String()); again != c {
			t.Errorf("%q is read as %+v, and that as %+v", text, c, again)
		}
	})
}
