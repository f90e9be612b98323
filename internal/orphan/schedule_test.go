package orphan_test

import (
	"testing"
	"time"

	"tallyhook/internal/orphan"
)

func TestDelayHasUpToATenthAdded(t *testing.T) {
	t.Parallel()
	s := orphan.Schedule{5 * time.Second, time.Minute, 0}
	for n, base := range s {
		seen := map[time.Duration]bool{}
		for range 2000 {
			d, ok := s.Delay(n)
			if !ok || d < base || d > base+base/10 {
				t.Fatalf("delay %d is %v, %v; want %v to %v", n, d, ok, base, base+base/10)
			}
			seen[d] = true
		}
		if base > 0 && len(seen) < 100 {
			t.Errorf("2000 delays have %d lengths: a burst comes back as one", len(seen))
		}
	}
	for _, n := range []int{-1, 3, 100} {
		if _, ok := s.Delay(n); ok {
			t.Errorf("there is an attempt %d", n)
		}
	}
}
