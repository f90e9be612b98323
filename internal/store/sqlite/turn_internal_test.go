package sqlite

import (
	"context"
	"testing"
)

// queue makes a waiter and returns when it is in the line.
func queue(t *testing.T, u *turn, p priority, got chan<- priority) {
	t.Helper()
	u.mu.Lock()
	before := len(u.waiting[p])
	u.mu.Unlock()
	go func() {
		if err := u.acquire(context.Background(), p); err != nil {
			t.Error(err)
		}
		got <- p
	}()
	for {
		u.mu.Lock()
		n := len(u.waiting[p])
		u.mu.Unlock()
		if n > before {
			return
		}
	}
}

func TestTurnServesLiveFirstAndStarvesNobody(t *testing.T) {
	t.Parallel()
	var u turn
	if err := u.acquire(t.Context(), live); err != nil {
		t.Fatal(err)
	}
	got := make(chan priority)
	queue(t, &u, bulk, got)
	for range 3 * liveInARow {
		queue(t, &u, live, got)
	}
	var order []priority
	for range 3*liveInARow + 1 {
		u.release()
		order = append(order, <-got)
	}
	u.release()
	if order[0] != live {
		t.Error("bulk work went before a caller who waits")
	}
	at := -1
	for i, p := range order {
		if p == bulk {
			at = i
		}
	}
	if at != liveInARow {
		t.Errorf("the bulk turn came after %d live ones, want %d", at, liveInARow)
	}
	if u.held {
		t.Error("the turn is held by nobody")
	}
}

func TestTurnIsPassedOnByWhoGivesUp(t *testing.T) {
	t.Parallel()
	var u turn
	if err := u.acquire(t.Context(), live); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := u.acquire(gone, live); err == nil {
		t.Fatal("got the turn with a context that has ended")
	}
	u.release()
	if err := u.acquire(t.Context(), bulk); err != nil {
		t.Fatal(err)
	}
	u.release()
}
