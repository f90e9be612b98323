package store

import (
	"context"
	"time"
)

// Limits bound one tenant beside the limits of its keys and sources. 0 is no
// limit. The default tenant, the operator's own, has none.
type Limits struct {
	RequestsPerSecond int `json:"requests_per_second,omitempty"` // with all its API keys
	WebhooksPerSecond int `json:"webhooks_per_second,omitempty"` // over all its sources
	MaxKeys           int `json:"max_keys,omitempty"`            // API keys that are neither revoked, expired nor replaced
	MaxSources        int `json:"max_sources,omitempty"`         // sources that are not deleted
	MaxInstances      int `json:"max_instances,omitempty"`       // instances that are not completed
}

// Trace is what a change leaves beside its own rows, in the same transaction:
// a line of the audit log and, of a creating request with an Idempotency-Key,
// what it is answered again with. A key that was used before is a Conflict:
// then nothing is changed.
type Trace struct {
	Audit       Audit // its tenant is the one of the Idempotency
	Idempotency Idempotency
}

// AuditFilter narrows the audit log; zero fields do not.
type AuditFilter struct {
	Actor  string
	Action string // one action, or all of a subject: "key" stands for "key.create" and the others
	Since  time.Time
	Until  time.Time // exclusive
}

// Origin is where a request comes from, for the audit log.
type Origin struct {
	Remote    string // the client's address
	RequestID string
}

type originKey struct{}

// WithOrigin lets every audit line that is written for a request say where it
// came from, however many calls lie between.
func WithOrigin(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// OriginOf is the zero Origin for what no request has asked for.
func OriginOf(ctx context.Context) Origin {
	o, _ := ctx.Value(originKey{}).(Origin)
	return o
}
