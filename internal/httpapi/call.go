package httpapi

import (
	"context"
	"crypto/sha256"
	"net/http"
	"net/netip"

	"tallyhook/internal/access"
	"tallyhook/internal/store"
)

// call is what the layers found out about one request. It exists from the
// first layer on and belongs to the request's own goroutine.
type call struct {
	id     string
	route  *Route // nil when none matches
	method string
	path   string
	client netip.Addr
	secure bool   // it came over TLS, to us or to a trusted proxy
	body   []byte // raw bytes, read by the body layer

	metered   bool     // a budget was asked; over says what came of it
	over      error    // a fault of kind Throttled
	tentative bool     // the address has paid for a signature that may be good
	tried     *attempt // the key was looked at
	who       access.Principal
	signed    *access.Opened // set in place of who for a signed request
}

type callKey struct{}

// callOf gives the call of a request; an empty one outside the layers.
func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// caller is who a request with an API key comes from.
func caller(ctx context.Context) access.Principal { return callOf(ctx).who }

// origin is where the request comes from, for the audit log.
func (c *call) origin() store.Origin {
	o := store.Origin{RequestID: c.id}
	if c.client.IsValid() {
		o.Remote = c.client.String()
	}
	return o
}

// tenant is the tenant that a request works for.
func tenant(ctx context.Context) int64 { return callOf(ctx).who.Tenant }

// pattern is the route as it may be logged and counted.
func (c *call) pattern() string {
	if c.route == nil {
		return "unmatched"
	}
	return c.route.Path
}

// idempotency ties a request to the key it came with.
func idempotency(ctx context.Context, key string) store.Idempotency {
	if key == "" {
		return store.Idempotency{}
	}
	c := callOf(ctx)
	h := sha256.New()
	h.Write([]byte(c.method + "\n" + c.path + "\n"))
	h.Write(c.body)
	return store.Idempotency{Key: key, Request: [32]byte(h.Sum(nil))}
}

// recorder sees what is answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
