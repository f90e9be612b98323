package limit

import (
	"net/netip"
	"time"

	"tallyhook/internal/fault"
)

// Kind says which budget a request was refused for. It is a bounded name for a
// metric.
type Kind string

// The kinds of budgets.
const (
	Anonymous Kind = "anonymous" // an address without a key or with a wrong one
	API       Kind = "api"       // an API key
	Webhook   Kind = "webhook"   // a source
	Signature Kind = "signature" // bad signatures of an address for a source
)

// Kinds lists them.
func Kinds() []Kind { return []Kind{Anonymous, API, Webhook, Signature} }

// Limiter is the budgets of one rate: a Window, or Shared ones. An
// implementation must not wait for a network.
type Limiter interface {
	Take(k Key) Decision
	Give(k Key)
}

// Budgets are all budgets of the edge.
type Budgets struct {
	Anonymous, API, Webhook, Signature Limiter

	// Refused takes note of a refusal, for a metric. It may be nil.
	Refused func(Kind)
}

// Rates are what NewBudgets makes budgets of. Bad signatures have the rate of
// the anonymous.
type Rates struct{ Anonymous, API, Webhook Rate }

// How many budgets of a kind are kept in one generation: at most 12 MiB for
// each of the two kinds that strangers can fill.
const (
	mostStrangers = 1 << 16
	mostKnown     = 1 << 14
)

// NewBudgets makes budgets in the memory of this process. now is nil for
// time.Now.
func NewBudgets(r Rates, now func() time.Time) *Budgets {
	return &Budgets{
		Anonymous: NewWindow(r.Anonymous, mostStrangers, now), Signature: NewWindow(r.Anonymous, mostStrangers, now),
		API: NewWindow(r.API, mostKnown, now), Webhook: NewWindow(r.Webhook, mostKnown, now),
	}
}

// Take spends one of a budget.
func (b *Budgets) Take(kind Kind, k Key) Decision {
	d := b.of(kind).Take(k)
	if !d.Allowed && b.Refused != nil {
		b.Refused(kind)
	}
	return d
}

// Give returns what a Take has spent.
func (b *Budgets) Give(kind Kind, k Key) { b.of(kind).Give(k) }

func (b *Budgets) of(kind Kind) Limiter {
	switch kind {
	case API:
		return b.API
	case Webhook:
		return b.Webhook
	case Signature:
		return b.Signature
	case Anonymous:
	}
	return b.Anonymous
}

// Verified spends one of a source's budget, once a request for it has shown a
// good signature. The error is a fault of kind Throttled.
func (b *Budgets) Verified(source [16]byte) error {
	if d := b.Take(Webhook, Of(source)); !d.Allowed {
		return Refuse(Webhook, d, "the source sends faster than its limit; try again")
	}
	return nil
}

// Failed counts a bad signature against its sender and the source. The error,
// a fault of kind Throttled, says that there were too many: the request is
// refused either way.
func (b *Budgets) Failed(from netip.Addr, source [16]byte) error {
	if d := b.Take(Signature, Pair(from, source)); !d.Allowed {
		return Refuse(Signature, d, "too many requests of this address have failed to verify for this source")
	}
	return nil
}

// Exceeded is the cause of a refusal: which budget, and when it is whole again.
type Exceeded struct {
	Kind     Kind
	Decision Decision
}

// Error implements error.
func (e *Exceeded) Error() string { return "the budget " + string(e.Kind) + " is spent" }

// Refuse makes the error of a refusal, of kind Throttled.
func Refuse(kind Kind, d Decision, message string) error {
	return &fault.Error{Kind: fault.Throttled, Op: "limit", Msg: message, RetryAfter: d.Reset, Err: &Exceeded{kind, d}}
}
