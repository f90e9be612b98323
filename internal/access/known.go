package access

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/google/uuid"
)

// knownKept bounds how many keys, and how many sources, are known to exist: 3
// to 4 MiB each.
const knownKept = 50_000

// known holds which keys and sources exist, without a time to live: it answers
// whether looking one up can be worth it, and nothing else. So a limit on
// strangers never shuts out a key that is good, also when the cache has just
// forgotten it, and a flood of guesses never reaches the store.
type known struct {
	mu      sync.Mutex // guards what follows
	keys    map[[32]byte]struct{}
	sources map[uuid.UUID]struct{}
}

func (k *known) addKey(hash [32]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.keys) < knownKept {
		k.keys[hash] = struct{}{}
	}
}

func (k *known) dropKey(hash [32]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, hash)
}

func (k *known) addSource(id uuid.UUID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.sources) < knownKept {
		k.sources[id] = struct{}{}
	}
}

func (k *known) dropSource(id uuid.UUID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.sources, id)
}

// KnownKey tells from memory alone whether a key was seen to be good, by its
// last lookup. It admits nobody: Authenticate does.
func (s *Service) KnownKey(key string) bool {
	hash := sha256.Sum256([]byte(key))
	s.known.mu.Lock()
	defer s.known.mu.Unlock()
	_, ok := s.known.keys[hash]
	return ok
}

// KnownSource tells from memory alone whether a source was seen to be there.
func (s *Service) KnownSource(id uuid.UUID) bool {
	s.known.mu.Lock()
	defer s.known.mu.Unlock()
	_, ok := s.known.sources[id]
	return ok
}

// Learn reads which keys and sources exist, of all tenants, those that another
// replica has made among them. It is for the start and now and then.
func (s *Service) Learn(ctx context.Context) error {
	for after, more := int64(0), true; more; more = after != 0 {
		rows, next, err := s.store.AllKeys(ctx, after, keyPage)
		if err != nil {
			return fmt.Errorf("learn keys: %w", err)
		}
		for _, k := range rows {
			if s.refuses(k) == "" {
				s.known.addKey(k.Hash)
			}
		}
		after = next
	}
	for after, more := int64(0), true; more; more = after != 0 {
		rows, next, err := s.store.AllSources(ctx, after, keyPage)
		if err != nil {
			return fmt.Errorf("learn sources: %w", err)
		}
		for _, row := range rows {
			s.known.addSource(row.ID)
		}
		after = next
	}
	return nil
}
