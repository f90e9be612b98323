package provider

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// authenticate holds a request against a source's further requirements. Every
// provider's Verify calls it beside its own scheme; where a vendor signs
// nothing it is all there is beyond the URL's token. A requirement that cannot
// be understood is never met: a typing error must not open the source.
func (s Settings) authenticate(req Request) error {
	if len(s.AllowedCIDRs) > 0 && !s.allows(req.RemoteAddr) {
		return ErrAddress
	}
	if s.BasicAuth != "" {
		if err := checkBasicAuth(req, []string{s.BasicAuth}); err != nil {
			return err
		}
	}
	for name, want := range s.Headers {
		got := req.header(name)
		switch {
		case got == "":
			return ErrMissing
		case !sameSecret(got, want):
			return ErrMismatch
		}
	}
	return nil
}

// Check tells what in the settings could never be met, so that it is refused
// when the source is made and not found out by lost webhooks. It looks at the
// requirements on requests only, not at OnUnmatched.
func (s Settings) Check() error {
	if s.BasicAuth != "" {
		if err := checkUserPassword(s.BasicAuth); err != nil {
			return fmt.Errorf("basic_auth: %w", err)
		}
	}
	for name, value := range s.Headers {
		switch {
		case !isToken(name):
			return fmt.Errorf("headers: %q is not a header name", name)
		case strings.TrimSpace(value) != value || value == "":
			return fmt.Errorf("headers: the value of %s must not be empty nor start or end with space", name)
		case strings.ContainsFunc(value, isControl):
			return fmt.Errorf("headers: the value of %s holds a control character", name)
		}
	}
	for _, cidr := range s.AllowedCIDRs {
		if _, err := parseCIDR(cidr); err != nil {
			return fmt.Errorf("allowed_cidrs: %q is not an address or a range such as 203.0.113.0/24", cidr)
		}
	}
	return checkTopics(s.TopicARNs)
}

func (s Settings) allows(remote string) bool {
	addr, err := netip.ParseAddr(remote)
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	for _, cidr := range s.AllowedCIDRs {
		if p, err := parseCIDR(cidr); err == nil && p.Contains(addr) {
			return true
		}
	}
	return false
}

// parseCIDR reads a range; a lone address is the range of itself.
func parseCIDR(s string) (netip.Prefix, error) {
	s = strings.TrimSpace(s)
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("parse range: %w", err)
		}
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 { // ::ffff:203.0.113.0/120
			return netip.PrefixFrom(a.Unmap(), p.Bits()-96), nil
		}
		return p, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("parse address: %w", err)
	}
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// checkBasicAuth wants the request's RFC 7617 credentials to be one of the
// given "user:password" pairs.
func checkBasicAuth(req Request, pairs []string) error {
	scheme, coded, ok := strings.Cut(strings.TrimSpace(req.header("Authorization")), " ")
	if !ok || !strings.EqualFold(scheme, "Basic") {
		return ErrMissing
	}
	got, err := decodeBase64(strings.TrimSpace(coded))
	if err != nil {
		return ErrMalformed
	}
	if !anySecret(pairs, string(got)) {
		return ErrMismatch
	}
	return nil
}

// checkUserPassword refuses a pair that no browser, vendor or RFC 7617 client
// could send.
func checkUserPassword(pair string) error {
	user, password, ok := strings.Cut(pair, ":")
	switch {
	case !ok || user == "" || password == "":
		return errors.New("must have the form user:password")
	case len(pair) > maxSecret:
		return fmt.Errorf("is longer than %d bytes", maxSecret)
	case strings.ContainsFunc(pair, isControl):
		return errors.New("holds a control character")
	}
	return nil
}

// maxSecret bounds any secret, in bytes; the longest real one (a PEM key of
// another provider) is far below.
const maxSecret = 4096

// sameSecret compares in a time that depends on neither value: both are
// hashed first, since ConstantTimeCompare tells different lengths apart.
func sameSecret(got, want string) bool {
	g, w := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(g[:], w[:]) == 1
}

// anySecret tells whether got is one of the secrets: the current one or one in
// its grace time. An empty secret matches nothing.
func anySecret(secrets []string, got string) bool {
	found := false
	for _, s := range secrets {
		if s != "" && sameSecret(got, s) {
			found = true
		}
	}
	return found
}

// hasSecret tells whether there is anything to compare with.
func hasSecret(secrets []string) bool {
	for _, s := range secrets {
		if s != "" {
			return true
		}
	}
	return false
}

// header is a request header's first value; a request read back from a store
// may have none.
func (r Request) header(name string) string {
	if r.Header == nil {
		return ""
	}
	return r.Header.Get(name)
}

// decodeBase64 reads standard base64 with or without its padding: secrets
// lose it on the way through forms.
func decodeBase64(s string) ([]byte, error) {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		return nil, fmt.Errorf("decode base64: %w", err)
	}
	return b, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// isToken tells whether s can be a header name (RFC 9110, token).
func isToken(s string) bool {
	if s == "" || len(s) > 256 {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}
