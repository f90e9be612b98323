package httpapi

import (
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/rs/cors"
)

// corsAge is how long a browser may keep the answer to a preflight, in seconds.
const corsAge = 600

// origins are those whose pages may call the API. They are compared byte by
// byte: a browser writes an origin in one way only.
type origins struct {
	listed    []string
	localhost bool // any port of it
}

func newOrigins(o *Options) origins {
	own := ""
	if u, err := url.Parse(o.PublicURL); err == nil && u.Host != "" {
		host := strings.ToLower(u.Host)
		switch u.Scheme {
		case "http":
			host = strings.TrimSuffix(host, ":80")
		case "https":
			host = strings.TrimSuffix(host, ":443")
		}
		own = u.Scheme + "://" + host
	}
	all := slices.Clone(o.AllowedOrigins)
	if own != "" {
		all = append(all, own)
	}
	return origins{listed: all, localhost: o.Development}
}

func (o origins) allow(origin string) bool {
	if slices.Contains(o.listed, origin) {
		return true
	}
	if !o.localhost {
		return false
	}
	rest, ok := strings.CutPrefix(origin, "http://localhost")
	if !ok {
		rest, ok = strings.CutPrefix(origin, "https://localhost")
	}
	if !ok || rest == "" {
		return ok
	}
	port, ok := strings.CutPrefix(rest, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	return ok && err == nil && n > 0 && strconv.FormatUint(n, 10) == port
}

// crossOrigin lets the pages of allowed origins call the API, and refuses
// every other origin, preflights too. What has no Origin is no browser's
// cross-origin request. The library writes the headers; the gate before it
// decides.
func (s *server) crossOrigin(next http.Handler) http.Handler {
	allowed := newOrigins(&s.opt)
	library := cors.New(cors.Options{
		AllowOriginFunc: allowed.allow,
		AllowedMethods:  []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete},
		AllowedHeaders: []string{
			"Authorization", "Content-Type", "Content-Encoding", "Idempotency-Key", "X-API-Key", "X-Request-ID", "X-Source-ID",
			"webhook-id", "webhook-timestamp", "webhook-signature",
		},
		ExposedHeaders:   []string{"X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy", "Allow"},
		AllowCredentials: true,
		MaxAge:           corsAge,
	}).Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given := r.Header.Values("Origin")
		switch {
		case onWebhooks(r):
			next.ServeHTTP(w, r)
		case len(given) == 0 || len(given) == 1 && allowed.allow(given[0]):
			library.ServeHTTP(w, r)
		default:
			s.refuseOrigin(w, r, given)
		}
	})
}

func (s *server) refuseOrigin(w http.ResponseWriter, r *http.Request, given []string) {
	if f := s.Observer.OriginRefused; f != nil {
		f()
	}
	s.log.LogAttrs(r.Context(), slog.LevelWarn, "origin refused", slog.String("request_id", callOf(r.Context()).id),
		slog.String("route", callOf(r.Context()).pattern()), slog.String("origin", loggable(given)))
	w.Header().Add("Vary", "Origin")
	writeProblem(w, r, newProblem(http.StatusForbidden, "CORS policy violation: pages of this origin may not call this server; ALLOWED_ORIGINS lists those that may"))
}

// loggable is an origin as it may stand in the log: a scheme and a host. What
// is none could be anything, an address or a credential too.
func loggable(given []string) string {
	if len(given) != 1 || len(given[0]) > 100 {
		return "malformed"
	}
	u, err := url.Parse(given[0])
	if err != nil || u.Host == "" || u.Scheme+"://"+u.Host != given[0] || strings.Trim(u.Host, "abcdefghijklmnopqrstuvwxyz0123456789.-:[]") != "" {
		return "malformed"
	}
	return given[0]
}
