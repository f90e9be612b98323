package httpapi

import (
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
)

// TestBodiesInHand: all bodies together are bounded, small ones are let in all
// the same, and what was held is given back.
func TestBodiesInHand(t *testing.T) {
	t.Parallel()
	var all atomic.Int64
	read := func(n int) (*holding, error) {
		h := &holding{of: &all}
		_, err := io.Copy(io.Discard, h.reading(strings.NewReader(strings.Repeat("x", n))))
		return h, err
	}
	first, err := read(1 << 20)
	if err != nil || all.Load() != 1<<20 {
		t.Fatalf("%d bytes are counted, %v; want 1 MiB", all.Load(), err)
	}
	all.Add(maxBodies - 1<<20)
	if _, err := read(smallBody); err != nil {
		t.Errorf("a small body: %v", err)
	}
	large, err := read(smallBody + 1<<20)
	if !errors.Is(err, errBodies) {
		t.Errorf("a large body: got %v, want it refused", err)
	}
	large.release()
	first.release()
	if got, want := all.Load(), int64(maxBodies-1<<20+smallBody); got != want {
		t.Errorf("%d bytes are counted afterwards, want %d", got, want)
	}
}
