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
	standard := readForwarded(r.Header.Values("Forwarded"))
	proto := lastOf(r.Header.Values("X-Forwarded-Proto"))
	if proto == "" && len(standard) > 0 {
		proto = standard[len(standard)-1].proto
	}
	if strings.EqualFold(proto, "https") {
		secure = true
	}
	return s.origin(peer, r.Header.Values("X-Forwarded-For"), standard), secure
}

// origin is the client that the two headers name. Most proxies write one of
// them and pass the other on as the client has sent it, and which is which
// cannot be told. So where both are there they must agree; otherwise neither is
// believed, and the request counts as the proxy's own.
func (s *server) origin(peer netip.Addr, usual []string, standard []hop) netip.Addr {
	switch {
	case len(standard) == 0:
		return s.forwarded(peer, usual)
	case len(usual) == 0:
		return s.back(peer, standard)
	}
	at := s.forwarded(peer, usual)
	if s.back(peer, standard) != at {
		return peer
	}
	return at
}

// forwarded reads X-Forwarded-For: addresses, the nearest last.
func (s *server) forwarded(peer netip.Addr, headers []string) netip.Addr {
	var hops []hop
	for _, header := range headers {
		for entry := range strings.SplitSeq(header, ",") {
			hops = append(hops, hop{from: address(strings.TrimSpace(entry))})
		}
	}
	return s.back(peer, hops)
}

// back goes back through the proxies, from the nearest on, as far as they are
// trusted: the first address that is not is the client. Whatever stands before
// that one anybody may have written. Where an entry cannot be read, the last
// one that could is taken.
func (s *server) back(peer netip.Addr, hops []hop) netip.Addr {
	at := peer
	for _, h := range slices.Backward(hops) {
		if !h.from.IsValid() {
			return at
		}
		if at = h.from; !s.trusts(at) {
			return at
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
		if text, ok = strings.CutSuffix(inner, "]"); !ok {
			return netip.Addr{}
		}
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
