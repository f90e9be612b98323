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
