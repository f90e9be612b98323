package bench

import (
	"math"
	"math/bits"
	"time"
)

// Each power of two of nanoseconds has 64 buckets, so a value that is read
// back is at most 1/64 too large, whatever its size.
const (
	subBits = 6
	sub     = 1 << subBits
	buckets = (64 - subBits) * sub
)

// Histogram counts durations in bounded memory. It is not for several
// goroutines at once: each has its own, and they are merged. The zero value is
// empty and ready.
type Histogram struct {
	counts [buckets]uint64
	n      uint64
	max    time.Duration
}

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

// Merge adds all that another one has counted.
func (h *Histogram) Merge(o *Histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// Count is how many durations were counted.
func (h *Histogram) Count() uint64 { return h.n }

// Max is the longest duration, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile is the duration that a share q (0..1) of all stays at or below:
// the smallest such by nearest rank, at most 1/64 too large, and never more
// than Max. Of nothing it is 0.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := max(uint64(math.Ceil(q*float64(h.n))), 1)
	var seen uint64
	for i, c := range h.counts {
		seen += c
		if c > 0 && seen >= rank {
			return min(time.Duration(highest(i)), h.max) //nolint:gosec // bounded by the largest duration
		}
	}
	return h.max
}

// bucketOf: below 2*sub every value has a bucket of its own.
func bucketOf(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift*sub + int(v>>shift) //nolint:gosec // less than buckets
}

// highest is the largest value of a bucket.
func highest(i int) uint64 {
	shift := max(i/sub-1, 0)
	return uint64(i-shift*sub+1)<<shift - 1 //nolint:gosec // i is an index
}
