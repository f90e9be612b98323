package httpapi

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"tallyhook/internal/limit"
)

// Services are what the edge calls. All are required but MetricsHandler and
// Budgets.
type Services struct {
	Campaigns    Campaigns
	Enrollments  Enrollments
	Events       Events
	Acceptor     Acceptor
	Receiver     Receiver
	Suppressions Suppressions
	Erasures     Erasures
	Letters      Letters
	Access       Access
	Reports      Reports
	Health       Health

	// MetricsHandler answers GET /metrics; nil when another listener does.
	MetricsHandler http.Handler
	Budgets        *limit.Budgets // nil: no limits
	Observer       Observer
}

// Observer takes note of what happened, for metrics. Every function may be
// nil. No argument is unbounded: a route is a pattern of the table, a method
// one of the known ones, a provider one of the known ones or empty.
type Observer struct {
	InFlight        func(delta int)
	Request         func(method, route string, status int, took time.Duration)
	WebhookRejected func(provider, reason string)
	AuthFailure     func(reason string)
	OriginRefused   func()
}

// Options are the edge's settings.
type Options struct {
	MaxBodyBytes int64            // of one request; 0 = 2 MiB. Bulk enrollment has its own bound
	PublicURL    string           // what vendors call us by, without the path
	Version      string           // of the program
	Development  bool             // APP_ENV=development: pages of any localhost port may call
	Logger       *slog.Logger     // nil: discarded
	Now          func() time.Time // nil: time.Now

	AllowedOrigins []string       // as browsers write them
	TrustedProxies []netip.Prefix // whose X-Forwarded-For and X-Forwarded-Proto are believed
	TLS            bool           // the server speaks TLS: what comes without it is sent there
}

// server holds what the handlers share.
type server struct {
	Services
	opt    Options
	log    *slog.Logger
	now    func() time.Time
	mux    *http.ServeMux
	bodies atomic.Int64      // bytes of request bodies in hand
	routes map[string]*Route // by the pattern of the mux
	spec   []byte            // /openapi.json
	reader docsPage          // /docs
}

// New builds the handler of every route. It fails when the table of routes is
// not one that can be served.
func New(s Services, o Options) (http.Handler, error) {
	srv, err := newServer(s, o)
	if err != nil {
		return nil, err
	}
	var h http.Handler = http.HandlerFunc(srv.dispatch)
	for _, l := range slices.Backward(srv.layers()) {
		h = l.wrap(h)
	}
	return h, nil
}

func newServer(s Services, o Options) (*server, error) {
	if o.MaxBodyBytes <= 0 {
		o.MaxBodyBytes = 2 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.PublicURL = strings.TrimRight(o.PublicURL, "/")
	srv := &server{
		Services: s, opt: o, log: o.Logger, now: o.Now,
		mux: http.NewServeMux(), routes: map[string]*Route{},
	}
	if err := srv.mount(); err != nil {
		return nil, err
	}
	return srv, nil
}

// mount registers the whole table. Both the mux and huma panic on a pattern or
// a type they cannot serve; that is a defect found at the start.
func (s *server) mount() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("mount routes: %v", p)
		}
	}()
	m := newMount(s)
	for _, r := range s.table() {
		if r.Path == "/metrics" && s.MetricsHandler == nil {
			continue
		}
		if _, twice := s.routes[r.pattern()]; twice {
			return errors.New("mount routes: " + r.pattern() + " stands twice in the table")
		}
		route := r.Route
		s.routes[r.pattern()] = &route
		r.mount(m, &route)
	}
	if s.spec, err = m.describe(); err != nil {
		return err
	}
	s.reader, err = newDocsPage()
	return err
}

// clock is now in UTC at the resolution that every store can hold.
func (s *server) clock() time.Time { return s.now().UTC().Truncate(time.Microsecond) }
