package sqlite

import (
	"context"
	"sync"
)

// priority says who goes first when several wait for the one writer.
type priority int

const (
	live priority = iota // a caller waits for the answer
	bulk                 // background work in short turns
)

// turn is the right to write: one holder, first come first served within a
// priority, live before bulk. But after liveInARow live turns a waiting bulk
// turn is next, so that neither can starve the other.
type turn struct {
	mu      sync.Mutex
	held    bool
	waiting [2][]*ticket
	row     int // live turns since the last bulk one or since none waited
}

const liveInARow = 8

type ticket struct{ ready chan struct{} }

func (t *turn) acquire(ctx context.Context, p priority) error {
	t.mu.Lock()
	if !t.held {
		t.held = true
		t.mu.Unlock()
		return nil
	}
	k := &ticket{make(chan struct{})}
	t.waiting[p] = append(t.waiting[p], k)
	t.mu.Unlock()
	select {
	case <-k.ready:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, w := range t.waiting[p] {
		if w == k {
			t.waiting[p] = append(t.waiting[p][:i], t.waiting[p][i+1:]...)
			return ctx.Err()
		}
	}
	// The turn was handed over while the context ended: pass it on.
	t.next()
	return ctx.Err()
}

func (t *turn) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next()
}

func (t *turn) next() {
	p := live
	if len(t.waiting[live]) == 0 || (len(t.waiting[bulk]) > 0 && t.row >= liveInARow) {
		p = bulk
	}
	if p == live && len(t.waiting[bulk]) > 0 {
		t.row++
	} else {
		t.row = 0
	}
	if q := t.waiting[p]; len(q) > 0 {
		t.waiting[p] = q[1:]
		close(q[0].ready)
		return
	}
	t.held = false
}
