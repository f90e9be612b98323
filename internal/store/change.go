package store

import (
	"encoding/hex"
	"strings"

	"github.com/google/uuid"
)

// ChangeKind says what a replica has changed.
type ChangeKind string

// The kinds of changes.
const (
	ChangedKey    ChangeKind = "key"    // made, revoked or changed
	ChangedSource ChangeKind = "source" // made, changed or deleted
	ChangedWork   ChangeKind = "work"   // there is something to do now: the workers need not wait for their next look
)

// Change is what one replica tells the others: which of the things that they
// hold in memory is to be read anew. It names things and holds no secret.
type Change struct {
	Kind ChangeKind // one that is not known, as of a later release, stands for everything
	ID   uuid.UUID  // of the key or the source
	Hash [32]byte   // of a key that was made: it is asked for by its hash; else zero
}

// String is the change as it is sent: its kind, id and hash.
func (c Change) String() string {
	s := string(c.Kind)
	if c.ID != uuid.Nil {
		s += " " + c.ID.String()
	}
	if c.Hash != [32]byte{} {
		s += " " + hex.EncodeToString(c.Hash[:])
	}
	return s
}

// ParseChange reads what String has written. Anything else is a change of an
// unknown kind: who hears it forgets everything, and is right.
func ParseChange(text string) Change {
	kind, rest, _ := strings.Cut(text, " ")
	c := Change{Kind: ChangeKind(kind)}
	switch c.Kind {
	case ChangedWork:
		return c
	case ChangedKey, ChangedSource:
	default:
		return Change{}
	}
	id, hash, hashed := strings.Cut(rest, " ")
	var err error
	if c.ID, err = uuid.Parse(id); err != nil || c.ID == uuid.Nil {
		return Change{}
	}
	if hashed {
		raw, err := hex.DecodeString(hash)
		if err != nil || len(raw) != len(c.Hash) {
			return Change{}
		}
		copy(c.Hash[:], raw)
	}
	return c
}
