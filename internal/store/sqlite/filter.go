package sqlite

import (
	"encoding/binary"

	"tallyhook/internal/event"
)

// filter is a blocked Bloom filter over identities: each key sets 7 bits of
// one block of 512, so that a look costs one cache line (Putze, Sanders,
// Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007). With 16 bits
// a key about one look in 500 is a false yes, which costs one look-up.
type filter []uint64

const (
	filterBits  = 16 // for each key
	filterBlock = 8  // words of 64 bits
)

func newFilter(keys int) filter {
	blocks := keys*filterBits/(filterBlock*64) + 1
	return make(filter, blocks*filterBlock)
}

// place gives the first word of the key's block and the source of its bits.
// The keys are hashes already; the tenant only stirs them.
func (f filter) place(tenant int64, h event.Hash) (word int, bits uint64) {
	a := binary.LittleEndian.Uint64(h[:8]) ^ uint64(tenant)*0x9E3779B97F4A7C15 //nolint:gosec // only mixed
	bits = binary.LittleEndian.Uint64(h[8:])
	blocks := uint64(len(f) / filterBlock)
	return int((a>>32)*blocks>>32) * filterBlock, bits
}

func (f filter) add(tenant int64, h event.Hash) {
	w, bits := f.place(tenant, h)
	for range 7 {
		f[w+int(bits>>6&7)] |= 1 << (bits & 63)
		bits >>= 9
	}
}

func (f filter) has(tenant int64, h event.Hash) bool {
	w, bits := f.place(tenant, h)
	for range 7 {
		if f[w+int(bits>>6&7)]&(1<<(bits&63)) == 0 {
			return false
		}
		bits >>= 9
	}
	return true
}

func (f filter) bytes() []byte {
	b := make([]byte, 0, 8*len(f))
	for _, w := range f {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

func filterOf(b []byte) filter {
	f := make(filter, len(b)/8)
	for i := range f {
		f[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return f
}
