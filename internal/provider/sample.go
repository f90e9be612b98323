package provider

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Sampling is what a sample is made of.
type Sampling struct {
	Now    time.Time
	ID     string // hexadecimal; makes the sample another event than any before
	URL    string // as the vendor would call it
	Config Config // of the source
}

// Sample is a webhook as the vendor would send it, made by ourselves to try a
// source with.
type Sample struct {
	Body   []byte
	Header map[string]string
	URL    string // where the vendor puts something into it; empty: as it was
	// Unsigned says why the sample has no signature: only the vendor has what
	// signs. Empty: it is authenticated as the vendor does it.
	Unsigned string
}

// sampleAddress is whom samples are about; nobody has it (RFC 2606).
const sampleAddress = "sample@example.com"

// MakeSample makes a request that meets the source's settings too, as far as
// it can: the client address is the first of those that are allowed.
func (p *Provider) MakeSample(of Sampling) (req Request, unsigned string) {
	s := p.Sample(of)
	settings := of.Config.Settings
	header := sampleHeader{}
	if settings.BasicAuth != "" {
		header.set("Authorization", basicCredentials(settings.BasicAuth))
	}
	for name, value := range settings.Headers {
		header.set(name, value)
	}
	for name, value := range s.Header {
		header.set(name, value)
	}
	req = Request{
		Method: "POST", URL: of.URL, Header: header, Body: s.Body, RemoteAddr: "127.0.0.1",
		HeaderNames: slices.Sorted(maps.Keys(header)), Settings: settings,
	}
	if s.URL != "" {
		req.URL = s.URL
	}
	if len(settings.AllowedCIDRs) > 0 {
		req.RemoteAddr = firstAddress(settings.AllowedCIDRs[0])
	}
	return req, s.Unsigned
}

// firstAddress is one that a range allows.
func firstAddress(cidr string) string {
	p, err := parseCIDR(cidr)
	if err != nil {
		return netip.Addr{}.String()
	}
	return p.Addr().String()
}

// sampleHeader has names in lower case.
type sampleHeader map[string]string

func (h sampleHeader) set(name, value string) { h[strings.ToLower(name)] = value }

// Get implements Header.
func (h sampleHeader) Get(name string) string { return h[strings.ToLower(name)] }

// secret is the current one; empty when there is none.
func (s Sampling) secret() string {
	if len(s.Config.Secrets) == 0 {
		return ""
	}
	return s.Config.Secrets[0]
}

func (s Sampling) unix() string { return strconv.FormatInt(s.Now.Unix(), 10) }

func (s Sampling) iso() string { return s.Now.UTC().Format(time.RFC3339) }

// number is the id as a number below 2^53.
func (s Sampling) number() string {
	sum := sha256.Sum256([]byte(s.ID))
	n := uint64(0)
	for _, b := range sum[:6] {
		n = n<<8 | uint64(b)
	}
	return strconv.FormatUint(n, 10)
}

// fill puts the id ($ID), the number ($N), the address ($TO) and the time ($AT,
// $UNIX) into a body.
func (s Sampling) fill(body string) []byte {
	return []byte(strings.NewReplacer("$ID", s.ID, "$N", s.number(), "$TO", sampleAddress, "$AT", s.iso(), "$UNIX", s.unix()).Replace(body))
}

// signed is a sample whose body is signed in a header, as the name says.
func (s Sampling) signed(body []byte, name, signature string) Sample {
	return Sample{Body: body, Header: map[string]string{name: signature}}
}

// authorized is a sample with the secret as credentials: Basic ones for
// user:password, else a bearer token; none without a secret.
func (s Sampling) authorized(body []byte) Sample {
	switch secret := s.secret(); {
	case secret == "":
		return Sample{Body: body}
	case strings.Contains(secret, ":"):
		return s.signed(body, "Authorization", basicCredentials(secret))
	default:
		return s.signed(body, "Authorization", "Bearer "+secret)
	}
}

// standard is a sample that is signed by Standard Webhooks, with headers of that family.
func (s Sampling) standard(family string, body []byte) Sample {
	out := Sample{Body: body, Header: map[string]string{family + "-id": "msg_" + s.ID, family + "-timestamp": s.unix()}}
	key := standardKeyOf(s.secret())
	if key.public != nil {
		out.Unsigned = "the source has your sender's public key, and only the private one can sign"
		return out
	}
	sum := mac(sha256.New, key.shared, "msg_"+s.ID, ".", s.unix(), ".", string(body))
	out.Header[family+"-signature"] = "v1," + base64.StdEncoding.EncodeToString(sum)
	return out
}

func mac(h func() hash.Hash, key []byte, parts ...string) []byte {
	m := hmac.New(h, key)
	for _, p := range parts {
		m.Write([]byte(p))
	}
	return m.Sum(nil)
}

// hexMAC is the signature of most vendors.
func (s Sampling) hexMAC(parts ...string) string {
	return hex.EncodeToString(mac(sha256.New, []byte(s.secret()), parts...))
}

func basicCredentials(pair string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair))
}

// quoted is a text as a JSON string.
func quoted(text string) string {
	b, err := jsontext.AppendQuote(nil, text)
	if err != nil {
		return `""` // not UTF-8: no source has such a secret
	}
	return string(b)
}
