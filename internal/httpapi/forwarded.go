package httpapi

import (
	"net/netip"
	"strings"
)

// hop is one proxy's word: who it had the request from, and how that came to
// it. A zero address: it does not say, or in a way that cannot be read.
type hop struct {
	from  netip.Addr
	proto string
}

// readForwarded reads the elements of Forwarded (RFC 7239) in their order, over
// several header lines; the last one is that of the nearest proxy. Of a header
// that breaks the grammar nothing can be told apart any more: its last element
// is a hop that says nothing, which ends the way back there.
func readForwarded(headers []string) []hop {
	var hops []hop
	for _, header := range headers {
		for rest, ok := header, true; ok; {
			if rest = strings.TrimLeft(rest, " \t,"); rest == "" { // empty elements mean nothing
				break
			}
			var h hop
			h, rest, ok = readHop(rest)
			hops = append(hops, h)
		}
	}
	return hops
}

// readHop reads one element, for=192.0.2.1;proto=https, and gives what comes
// behind its comma.
func readHop(text string) (h hop, rest string, ok bool) {
	var from, proto bool // seen: a parameter stands once in an element
	rest = text
	for {
		rest = strings.TrimLeft(rest, " \t;")
		if rest == "" || rest[0] == ',' {
			return h, strings.TrimPrefix(rest, ","), true
		}
		var name, value string
		if name, value, rest, ok = readPair(rest); !ok {
			return hop{}, "", false
		}
		switch {
		case name == "for" && !from:
			h.from, from = address(value), true // an obfuscated one, _proxy or unknown, is none
		case name == "proto" && !proto:
			h.proto, proto = value, true
		case name == "for" || name == "proto":
			return hop{}, "", false
		}
		rest = strings.TrimLeft(rest, " \t")
		if rest != "" && rest[0] != ';' && rest[0] != ',' {
			return hop{}, "", false
		}
	}
}

// readPair reads name=value, where value is a token or a quoted string.
func readPair(text string) (name, value, rest string, ok bool) {
	name, rest, ok = strings.Cut(text, "=")
	if !ok || name == "" || strings.ContainsAny(name, " \t\",;") {
		return "", "", "", false
	}
	name = strings.ToLower(name)
	quoted, isQuoted := strings.CutPrefix(rest, `"`)
	if !isQuoted {
		end := strings.IndexAny(rest, " \t;,\"")
		if end < 0 {
			end = len(rest)
		}
		return name, rest[:end], rest[end:], end > 0
	}
	var b strings.Builder
	for i := 0; i < len(quoted); i++ {
		switch c := quoted[i]; {
		case c == '"':
			return name, b.String(), quoted[i+1:], true
		case c == '\\' && i+1 < len(quoted):
			i++
			b.WriteByte(quoted[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", "", false // no end
}
