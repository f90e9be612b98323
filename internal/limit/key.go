package limit

import "net/netip"

// Address is the key of a client address. An IPv6 address counts as its /64,
// which is what one subscriber has; one that is embedded IPv4 as that. The
// zero address, of a client that cannot be told, is a key like any other.
func Address(a netip.Addr) Key {
	var k Key
	a = a.Unmap().WithZone("")
	k[0] = byte(a.BitLen() / 8) //nolint:gosec // 0, 4 or 16
	b := a.As16()
	if a.Is6() {
		copy(k[1:9], b[:8])
		return k
	}
	copy(k[1:17], b[:])
	return k
}

// Of is the key of an id: of an API key, or of a source.
func Of(id [16]byte) Key {
	var k Key
	k[0] = 'i'
	copy(k[1:], id[:])
	return k
}

// Pair is the key of an address together with a source.
func Pair(a netip.Addr, source [16]byte) Key {
	k := Address(a)
	k[0] |= 0x80 // an address alone never has it
	// A /64 or an IPv4 address fits into eight bytes: of a mapped IPv4 address
	// the last four tell it apart.
	if !a.Unmap().Is6() {
		copy(k[1:5], k[13:17])
	}
	copy(k[16:], source[:])
	return k
}
