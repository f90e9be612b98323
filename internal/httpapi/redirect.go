package httpapi

import (
	"net/http"
	"net/url"
	"strings"
)

// redirect sends whoever comes without TLS to where it is, when the server
// speaks TLS. The method and the body stay (308). Never a webhook, which few
// vendors would follow, nor a probe. The target is PUBLIC_URL and never the
// Host header, which the sender chooses.
func (s *server) redirect(next http.Handler) http.Handler {
	if !s.opt.TLS {
		return next
	}
	to := "https://" + originHost(s.opt.PublicURL)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := callOf(r.Context())
		if c.secure || onWebhooks(r) || c.route != nil && c.route.probe() {
			next.ServeHTTP(w, r)
			return
		}
		at := "/" + strings.TrimPrefix(r.URL.EscapedPath(), "/")
		if r.URL.RawQuery != "" {
			at += "?" + r.URL.RawQuery
		}
		w.Header().Set("Location", to+at)
		w.WriteHeader(http.StatusPermanentRedirect)
	})
}

// onWebhooks tells requests to webhooks, those with a method that they do not
// have included.
func onWebhooks(r *http.Request) bool {
	return r.URL.Path == "/webhooks" || strings.HasPrefix(r.URL.Path, "/webhooks/")
}

// probe tells the routes that a machine asks all the time to see whether the
// server is well.
func (r *Route) probe() bool {
	return r.Path == "/health" || r.Path == "/livez" || r.Path == "/readyz"
}

// originHost is the host of a URL with its port, as in an origin.
func originHost(of string) string {
	u, err := url.Parse(of)
	if err != nil {
		return ""
	}
	return u.Host
}
