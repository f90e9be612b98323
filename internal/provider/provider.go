// Package provider turns what outreach tools really send into canonical
// events. Each provider is one file: how its webhook is authenticated, how its
// body is read, what identifies an event, and which refusal its sender
// understands. Everything here is pure: no network, no store, and the clock is
// an argument.
//
// Guarantees: Verify works on the raw bytes, compares in constant time and
// fails closed; Decode is called only for a verified body, never panics, and
// its events take their identity from submitted fields alone.
package provider

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"tallyhook/internal/event"
)

// Header gives a request header's first value by its name, in any case.
// http.Header has it.
type Header interface {
	Get(name string) string
}

// Request is a webhook as it came in.
type Request struct {
	Method      string
	URL         string // as the vendor calls it: PUBLIC_URL, path and query
	Header      Header
	Body        []byte   // raw bytes
	RemoteAddr  string   // client address without port
	HeaderNames []string // for the record of a refusal; values are never kept
	Settings    Settings // of the source, for a Decode that depends on them (PhantomBuster)
}

// Config is what a source knows about its vendor.
type Config struct {
	Secrets  []string // the current secret first, then those in their grace time; may be empty
	Settings Settings
	// Certificate gets the certificate at an address that CheckCertificateURL
	// has passed, in PEM; an error means that it cannot be had just now. Nil
	// where nothing may be fetched.
	Certificate func(address string) ([]byte, error)
}

// Settings are a source's further requirements (contract.md, Sources).
type Settings struct {
	BasicAuth    string            `json:"basic_auth,omitempty"`    // "user:password"
	Headers      map[string]string `json:"headers,omitempty"`       // required on each request
	AllowedCIDRs []string          `json:"allowed_cidrs,omitempty"` // client addresses
	Agents       map[string]Agent  `json:"agents,omitempty"`        // what each PhantomBuster agent does
	TopicARNs    []string          `json:"topic_arns,omitempty"`    // SNS topics of an SES source
	Accept       Accept            `json:"accept,omitzero"`         // what is taken; the rest is ignored
	OnUnmatched  string            `json:"on_unmatched,omitempty"`  // park (default), ignore or enroll
}

// What becomes of an event without an enrollment.
const (
	ParkUnmatched   = "park"
	IgnoreUnmatched = "ignore"
	EnrollUnmatched = "enroll"
)

// CheckUnmatched refuses what OnUnmatched cannot be, and enrolling where the
// provider's events never tell the campaign that they would enroll in. Of no
// provider it takes all that there is.
func (p *Provider) CheckUnmatched(v string) error {
	switch v {
	case "", ParkUnmatched, IgnoreUnmatched:
		return nil
	case EnrollUnmatched:
		if p != nil && !slices.Contains(p.Tells, tellsCampaigns) {
			return fmt.Errorf("%s tells no campaigns: nobody would be enrolled", p.Title)
		}
		return nil
	}
	return errors.New("must be park, ignore or enroll")
}

// Refusal is why a webhook is not accepted.
type Refusal string

// The refusals that have a dialect.
const (
	RefuseAuth        Refusal = "auth"        // bad signature, missing credentials
	RefuseUnknown     Refusal = "unknown"     // no such source
	RefuseTooLarge    Refusal = "too_large"   // over MAX_BODY_BYTES
	RefuseThrottled   Refusal = "throttled"   // too fast
	RefuseUnavailable Refusal = "unavailable" // we cannot make it durable
)

// Errors of Verify. They say what failed, never what was expected.
var (
	ErrNoSecret  = errors.New("the source has no secret to verify with")
	ErrMissing   = errors.New("the signature or credentials are missing")
	ErrMalformed = errors.New("the signature is malformed")
	ErrMismatch  = errors.New("the signature does not match")
	ErrExpired   = errors.New("the signed time is outside the tolerance")
	ErrAddress   = errors.New("the client address is not allowed")
	ErrTopic     = errors.New("the topic is not one of topic_arns")
	// ErrUnavailable is no refusal: what verifies the request cannot be had
	// just now, and the sender shall try again.
	ErrUnavailable = errors.New("the signing certificate cannot be fetched")
)

// Provider is one vendor.
type Provider struct {
	Name   string // in URLs and metrics, lower case
	Number byte   // in the tokens of its sources' URLs: from 1, never changed, never used again
	Title  string
	Scheme string   // how requests are authenticated, in a few words
	Events []string // the vendor's own event names that are canonical
	Setup  string   // where to click and what to paste, one paragraph
	// Tells names the lists of Accept that the vendor's events have something
	// for: streams, tags, campaigns.
	Tells []string
	// MakeSecret is set where the scheme needs a secret that we may generate
	// when none is given.
	MakeSecret func() (string, error)
	// CheckSecret refuses a secret that could never verify anything.
	CheckSecret func(secret string) error
	// Verify authenticates the raw request. now is the receiver's clock.
	Verify func(now time.Time, cfg Config, req Request) error
	// Decode reads the verified body. An error means the body is kept as an
	// undecodable dead letter.
	Decode func(req Request) ([]event.Event, error)
	// Sample makes a webhook as the vendor would send it, with the source's own
	// secret, of an event that has happened to sampleAddress.
	Sample func(of Sampling) Sample
	// Nested is set where events are JSON inside of a form, or of a text of the
	// body: a scan of the body for keys does not see theirs.
	Nested bool
	// Mask hides a secret that the body itself carries, so that it is stored
	// nowhere; nil when bodies carry none. The masked body still decodes.
	Mask func(body []byte) []byte
	// Nonce is the value that the sender uses for one request only, for a
	// scheme that signs it and not the body: another event with the same nonce
	// is refused. Nil where the body is signed.
	Nonce func(req Request) string
	// Confirm is an address that the vendor wants to be called to confirm what
	// the verified request says, "" for most requests; nil with most vendors.
	Confirm func(cfg Config, req Request) string
	// Refuse is the status this vendor understands for a refusal; nil means
	// DefaultRefusal.
	Refuse func(Refusal) int
}

// Status is the HTTP status for a refusal in the vendor's dialect.
func (p *Provider) Status(r Refusal) int {
	if p != nil && p.Refuse != nil {
		return p.Refuse(r)
	}
	return DefaultRefusal(r)
}

// DefaultRefusal is the plain meaning of each refusal.
func DefaultRefusal(r Refusal) int {
	switch r {
	case RefuseAuth:
		return 401
	case RefuseUnknown:
		return 404
	case RefuseTooLarge:
		return 413
	case RefuseThrottled:
		return 429
	case RefuseUnavailable:
		return 503
	}
	return 503
}

// All lists every provider; adding one is its file and one line here.
func All() []*Provider {
	return []*Provider{
		generic(),
		lemlist(),
		hubspot(),
		postmark(),
		sendgrid(),
		mailgun(),
		ses(),
		resend(),
		brevo(),
		smartlead(),
		instantly(),
		phantombuster(),
		heygen(),
		calendly(),
		mailersend(),
		mailjet(),
		mandrill(),
		sparkpost(),
		mailtrap(),
	}
}

// ByNumber finds a provider by its Number; nil when this version has none.
func ByNumber(number byte) *Provider {
	for _, p := range All() {
		if p.Number == number {
			return p
		}
	}
	return nil
}

// ByName finds a provider; nil when there is none of that name.
func ByName(name string) *Provider {
	for _, p := range All() {
		if p.Name == name {
			return p
		}
	}
	return nil
}
