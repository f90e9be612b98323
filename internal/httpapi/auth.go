package httpapi

import (
	"context"
	"errors"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/fault"
	"tallyhook/internal/limit"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
)

// authorize is the last layer: API key and scope. It runs once the route is
// known, hence it is wrapped around each route and not around the mux.
func (s *server) authorize(route *Route, next http.Handler) http.Handler {
	if route.Class == classPublic || route.Class == classWebhook {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := callOf(r.Context())
		if err := s.admit(c, route, r); err != nil {
			s.refuse(w, r, err)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead { // it may write to the audit log
			r = r.WithContext(store.WithOrigin(r.Context(), c.origin()))
		}
		next.ServeHTTP(w, r)
	})
}

func (s *server) admit(c *call, route *Route, r *http.Request) error {
	key, given := apiKey(r.Header)
	if !given && route.Class == classSigned && r.Header.Get("webhook-signature") != "" {
		return s.admitSigned(c, r)
	}
	if key == "" {
		s.authFailure("missing")
		return fault.New(fault.Unauthenticated, "an API key is required: send it as X-API-Key or as Authorization: Bearer")
	}
	who, err := s.authenticate(r.Context(), c, key)
	if err != nil {
		if kindOf(err) == fault.Unauthenticated {
			s.authFailure("unknown")
			return withDetail(err, "the API key is not known, has expired or was revoked")
		}
		switch {
		case errors.Is(err, access.ErrAddress):
			s.authFailure("address")
		case errors.Is(err, access.ErrSuspended):
			s.authFailure("suspended")
		}
		return err
	}
	c.who = who
	if route.Scope != "" {
		if !who.Has(route.Scope) {
			if who.Away { // what else the key may do stands in the database
				return fault.New(fault.Unavailable, "the database is away: until it is back, events are accepted and nothing else is served")
			}
			s.authFailure("scope")
			return fault.New(fault.Forbidden, "the API key does not have the scope %s", route.Scope)
		}
	}
	if route.Class == classOperator && !who.Operator() {
		s.authFailure("scope")
		return fault.New(fault.Forbidden, "this concerns all tenants: it is for the default tenant's %s", route.Scope)
	}
	return nil
}

// attempt is what came of an API key.
type attempt struct {
	who access.Principal
	err error
}

// authenticate looks at a request's API key, and where it comes from, once. The lookup goes on when the
// client hangs up: a guesser that never waits for the answer would otherwise
// turn each guess into a failure of ours, which counts against nobody. The
// store bounds it in time.
func (s *server) authenticate(ctx context.Context, c *call, key string) (access.Principal, error) {
	if c.tried == nil {
		who, err := s.Access.Authenticate(context.WithoutCancel(ctx), key)
		if err == nil {
			err = who.From(c.client)
		}
		c.tried = &attempt{who, err}
	}
	return c.tried.who, c.tried.err
}

// withDetail makes sure that the answer says what its reader looks for.
func withDetail(err error, detail string) error {
	if e, ok := errors.AsType[*fault.Error](err); ok && strings.Contains(e.Msg, "API key") {
		return err
	}
	return &fault.Error{Kind: fault.Unauthenticated, Msg: detail, Err: err}
}

// apiKey takes the key out of the two headers it may be in. given is true when
// the request tried to use one at all.
func apiKey(h http.Header) (key string, given bool) {
	if v := strings.TrimSpace(h.Get("X-API-Key")); v != "" {
		return v, true
	}
	v := strings.TrimSpace(h.Get("Authorization"))
	if v == "" {
		return "", false
	}
	scheme, token, _ := strings.Cut(v, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", true
	}
	return strings.TrimSpace(token), true
}

// admitSigned admits a request that is signed for a source of provider generic
// in place of an API key.
func (s *server) admitSigned(c *call, r *http.Request) error {
	id, err := uuid.Parse(r.Header.Get("X-Source-ID"))
	if err != nil {
		s.authFailure("signature")
		return fault.New(fault.Unauthenticated, "a signed request names its source in X-Source-ID; or send an API key")
	}
	opened, err := s.Receiver.SignedBy(r.Context(), id, s.providerRequest(r))
	switch {
	case err == nil:
		if c.tentative {
			s.Budgets.Give(limit.Anonymous, limit.Address(c.client))
		}
	case kindOf(err) == fault.Unauthenticated || kindOf(err) == fault.NotFound:
		// One answer for both: a source's existence is not for strangers.
		s.authFailure("signature")
		return &fault.Error{
			Kind: fault.Unauthenticated, Op: "verify signature", Err: err,
			Msg: "the signature does not verify against the source in X-Source-ID; or send an API key",
		}
	default:
		return err
	}
	c.signed = &opened
	c.who = access.Principal{Tenant: opened.Tenant}
	return nil
}

func (s *server) authFailure(reason string) {
	if f := s.Observer.AuthFailure; f != nil {
		f(reason)
	}
}

// providerRequest is the request as a provider's Verify sees it: raw bytes and
// the public URL, never the Host header.
func (s *server) providerRequest(r *http.Request) provider.Request {
	c := callOf(r.Context())
	u := s.opt.PublicURL + r.URL.EscapedPath()
	if r.URL.RawQuery != "" {
		u += "?" + r.URL.RawQuery
	}
	return provider.Request{
		Method: r.Method, URL: u, Header: r.Header, Body: c.body, RemoteAddr: c.client.String(),
		HeaderNames: slices.Sorted(maps.Keys(r.Header)),
	}
}

// accept refuses a body of a type that the route does not read. A body without
// a type is refused too: guessing would make a browser's simple form post an
// API call.
func (s *server) accept(route *Route, next http.Handler) http.Handler {
	if len(route.Accepts) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(callOf(r.Context()).body) > 0 {
			media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
			known := false
			for _, a := range route.Accepts {
				known = known || (err == nil && media == a)
			}
			if !known {
				s.refuse(w, r, fault.New(fault.Unsupported, "send the body with Content-Type: %s", strings.Join(route.Accepts, " or ")))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
