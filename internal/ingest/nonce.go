package ingest

import (
	"sync"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
)

// Bounds of the nonces that are remembered: longer than any scheme takes a
// signature for, and in two generations, as many as a flood of authentic
// webhooks may bring.
const (
	nonceWindow = 30 * time.Minute
	nonceLimit  = 50_000 // of one generation
)

// nonces remembers which events each nonce came with. It is for schemes that
// sign a nonce and not the body: who has seen a request on its way could put
// another event under its signature. The same events under the same nonce are
// a sender that tries again.
//
// They are in memory: after a restart, and on another node, a nonce that is
// still within its signature's time is unknown. The events themselves are
// duplicates there as everywhere, by their identity.
type nonces struct {
	mu         sync.Mutex // guards what follows
	young, old map[event.Hash]event.Hash
	since      time.Time // when young began
}

// take tells whether the events may come with the nonce, and remembers them.
func (n *nonces) take(source uuid.UUID, nonce string, events []event.Event, now time.Time) bool {
	parts := make([]string, 0, len(events))
	for i := range events {
		h := events[i].Identity()
		parts = append(parts, string(h[:]))
	}
	key, digest := event.HashOf("nonce", source.String(), nonce), event.HashOf(parts...)
	n.mu.Lock()
	defer n.mu.Unlock()
	if age := now.Sub(n.since); n.young == nil || age < 0 || age >= nonceWindow || len(n.young) >= nonceLimit {
		n.young, n.old, n.since = map[event.Hash]event.Hash{}, n.young, now
	}
	first, known := n.young[key]
	if !known {
		first, known = n.old[key]
	}
	if known {
		return first == digest
	}
	n.young[key] = digest
	return true
}
