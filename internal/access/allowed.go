package access

import (
	"fmt"
	"net/netip"
	"strings"

	"tallyhook/internal/fault"
)

// maxAllowed bounds the addresses and ranges of one key.
const maxAllowed = 100

// checkAllowed reads addresses and ranges. A range stands for all addresses in
// it, whichever of them it is written with; IPv4 inside of IPv6 is IPv4, as a
// client's address is.
func checkAllowed(wrong []fault.Field, texts []string) ([]netip.Prefix, []fault.Field) {
	if len(texts) > maxAllowed {
		return nil, append(wrong, fault.Field{Location: "body.allowed_ips", Message: fmt.Sprintf("has more than %d entries", maxAllowed)})
	}
	var all []netip.Prefix
	for i, text := range texts {
		p, ok := parseAllowed(text)
		if !ok {
			wrong = append(wrong, fault.Field{
				Location: fmt.Sprintf("body.allowed_ips[%d]", i), Message: "is no address such as 203.0.113.7 and no range such as 203.0.113.0/24",
			})
			continue
		}
		all = append(all, p)
	}
	return all, wrong
}

func parseAllowed(text string) (netip.Prefix, bool) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, false
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, false
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}
