package access

import (
	"github.com/google/uuid"

	"tallyhook/internal/store"
)

// Heard forgets what a change has made untrue, made here or by another replica.
// Whatever is being read at this moment is not kept either. A change of a kind
// that is not known, as of a later release, makes everything untrue.
func (s *Service) Heard(c store.Change) {
	switch c.Kind {
	case store.ChangedWork:
		return
	case store.ChangedKey:
		s.keys.forget(func(_ [32]byte, k store.Key) bool { return k.ID == c.ID }, func(h [32]byte) bool { return h == c.Hash })
		if c.Hash != [32]byte{} {
			s.known.addKey(c.Hash)
		}
	case store.ChangedSource:
		s.byToken.forget(func(_ [32]byte, o Opened) bool { return o.ID == c.ID }, never)
		s.byID.forget(func(k uuid.UUID, _ Opened) bool { return k == c.ID }, func(k uuid.UUID) bool { return k == c.ID })
		s.known.addSource(c.ID) // made or deleted: a look is worth it, and tells which
	default:
		s.forgetAll()
	}
	s.change()
}

func never([32]byte) bool { return false }

// Listening tells whether changes of other replicas are heard of from now on.
// A service that was told nothing takes it that there are no others. What was
// known when they began to be heard is forgotten: changes may have been missed.
func (s *Service) Listening(on bool) {
	if on {
		s.forgetAll()
	}
	s.deaf.Store(!on)
}

func (s *Service) forgetAll() {
	s.keys.forgetAll()
	s.byToken.forgetAll()
	s.byID.forgetAll()
	s.tenants.forgetAll()
}
