package store

import (
	"bytes"
	"cmp"
	"slices"

	"tallyhook/internal/event"
)

// NonceRow is a nonce of one tenant's request and what came with it.
type NonceRow struct {
	Tenant int64
	event.Nonce
}

// Nonces are those of a batch of events, and what a store knows of them.
type Nonces struct {
	Rows []NonceRow // each nonce once, by tenant and key, as everybody takes them

	first map[nonceKey]event.Hash // the digest that each came with first
}

type nonceKey struct {
	tenant int64
	key    event.Hash
}

// NewNonces gathers the nonces of a batch; most events have none.
func NewNonces(works []*Work) *Nonces {
	n := &Nonces{}
	for _, w := range works {
		k := nonceKey{w.Event.Tenant, w.Event.Nonce.Key}
		if _, ok := n.first[k]; ok || k.key == (event.Hash{}) {
			continue
		}
		if n.first == nil {
			n.first = map[nonceKey]event.Hash{}
		}
		n.first[k] = w.Event.Nonce.Digest
		n.Rows = append(n.Rows, NonceRow{k.tenant, w.Event.Nonce})
	}
	slices.SortFunc(n.Rows, func(a, b NonceRow) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), bytes.Compare(a.Key[:], b.Key[:]))
	})
	return n
}

// Known notes what a nonce came with when it was kept, now or before.
func (n *Nonces) Known(r NonceRow) { n.first[nonceKey{r.Tenant, r.Key}] = r.Digest }

// Sift gives the events that may come with their nonce. The others are
// refused, each for itself: nothing of them is stored. An event that is buried
// whatever is found was accepted before, and is not refused any more.
func (n *Nonces) Sift(works []*Work) []*Work {
	if len(n.Rows) == 0 {
		return works
	}
	kept := make([]*Work, 0, len(works))
	for _, w := range works {
		first, ok := n.first[nonceKey{w.Event.Tenant, w.Event.Nonce.Key}]
		if ok && first != w.Event.Nonce.Digest && w.Bury == "" {
			w.Result = Result{ID: w.Event.ID, Refused: true}
			continue
		}
		kept = append(kept, w)
	}
	return kept
}
