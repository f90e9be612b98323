package httpapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// client tells who a request comes from, and whether it came over TLS. The
// headers are believed of a trusted proxy alone: anybody else can write them.
func (s *server) client(r *http.Request) (addr netip.Addr, secure bool) {
	peer := address(r.RemoteAddr)
	if r.TLS != nil {
		secure = true
	}
	if !s.trusts(peer) {
		return peer, secure
	}
	if proto := lastOf(r.Header.Values("X-Forwarded-Proto")); strings.EqualFold(proto, "https") {
		secure = true
	}
	return s.forwarded(peer, r.Header.Values("X-Forwarded-For")), secure
}

// forwarded goes back through the proxies, from the nearest on, as far as they
// are trusted: the first address that is not is the client. Whatever stands
// before that one anybody may have written. Where an entry cannot be read, the
// last one that could is taken.
func (s *server) forwarded(peer netip.Addr, headers []string) netip.Addr {
	at := peer
	for _, header := range slices.Backward(headers) {
		for rest, more := header, true; more; {
			entry := rest
			var cut int
			if cut = strings.LastIndexByte(rest, ','); cut >= 0 {
				rest, entry = rest[:cut], rest[cut+1:]
			}
			more = cut >= 0
			a := address(strings.TrimSpace(entry))
			if !a.IsValid() {
				return at
			}
			if at = a; !s.trusts(a) {
				return a
			}
		}
	}
	return at
}

func (s *server) trusts(a netip.Addr) bool {
	for _, p := range s.opt.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// address reads an IP address with or without a port; the zero one when it is
// none.
func address(text string) netip.Addr {
	if a, err := netip.ParseAddrPort(text); err == nil {
		return a.Addr().Unmap().WithZone("")
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		text = strings.TrimSuffix(inner, "]")
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

func lastOf(values []string) string {
	if len(values) == 0 {
		return ""
	}
	last := values[len(values)-1]
	return strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
}
