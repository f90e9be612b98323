package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/google/uuid"

	"tallyhook/internal/fault"
	"tallyhook/internal/guard"
)

// identify is where a request begins: it gets its id and its client's address,
// and its route is looked up once, so that every later layer knows the route's
// bounds and pattern.
func (s *server) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{id: r.Header.Get("X-Request-ID"), method: r.Method, path: r.URL.Path}
		c.client, c.secure = s.client(r)
		if !saneID(c.id) {
			c.id = newID()
		}
		if cleanPath(r.URL.Path) == r.URL.Path {
			_, pattern := s.mux.Handler(r)
			c.route = s.routes[pattern]
		}
		w.Header().Set("X-Request-ID", c.id)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
	})
}

func newID() string {
	if id, err := uuid.NewV7(); err == nil {
		return id.String()
	}
	return uuid.Nil.String()
}

// saneID accepts a request id that cannot break a log line or a header.
func saneID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// cleanPath is what the mux would redirect to: such a redirect would have an
// HTML body, and nobody needs it.
func cleanPath(p string) string {
	if p == "" || p[0] != '/' {
		return "/" + p
	}
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// observe writes the access log and the metrics when the answer is complete,
// whoever gave it. It decides nothing, so it stands outside the layers that
// do: what they refuse is seen too.
func (s *server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := s.now()
		if f := s.Observer.InFlight; f != nil {
			f(1)
			defer f(-1)
		}
		rec := &recorder{ResponseWriter: w}
		ctx := r.Context()
		c := callOf(ctx)
		defer func() {
			took := s.now().Sub(start)
			if f := s.Observer.Request; f != nil {
				f(knownMethod(r.Method), c.pattern(), rec.status, took)
			}
			attrs := []slog.Attr{
				slog.String("method", knownMethod(r.Method)),
				slog.String("route", c.pattern()),
				slog.Int("status", rec.status),
				slog.Int64("bytes", rec.bytes),
				slog.Float64("duration_ms", float64(took.Microseconds())/1000),
				slog.String("request_id", c.id),
			}
			if c.who.Tenant != 0 {
				attrs = append(attrs, slog.Int64("tenant", c.who.Tenant), slog.String("key_id", c.who.KeyID.String()))
			}
			s.log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
		}()
		next.ServeHTTP(rec, r)
	})
}

// knownMethod keeps a client's invention out of the labels.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

// recoverPanic turns a panic into one log line and a 500.
func (s *server) recoverPanic(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		c := callOf(ctx)
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			s.log.LogAttrs(ctx, slog.LevelError, "panic", slog.String("request_id", c.id),
				slog.String("route", c.pattern()), slog.String("panic", said(p)), slog.String("stack", string(debug.Stack())))
			if rec, ok := w.(*recorder); ok && rec.status != 0 {
				panic(http.ErrAbortHandler) // half an answer must not look like a whole one
			}
			writeProblem(w, r, newProblem(http.StatusInternalServerError, defaultDetail(fault.Internal)))
		}()
		next.ServeHTTP(w, r)
	})
}

// said is what may be logged of a panic: the runtime's own words, and of
// anything else its type alone, since what was being worked on may be in it.
func said(p any) string {
	if err, ok := p.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", p)
}

// secure sets the security headers of every answer, errors too.
func (s *server) secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secureHeaders(w.Header(), callOf(r.Context()).secure)
		next.ServeHTTP(w, r)
	})
}

func secureHeaders(h http.Header, secure bool) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	if secure {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// guard refuses keys that would reach into a JavaScript prototype, anywhere in
// the query or a JSON body on /api. On webhooks the receiver keeps them as
// dead letters instead, so that nothing authentic is lost.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/api") {
			next.ServeHTTP(w, r)
			return
		}
		if name := guard.ForbiddenQuery(r.URL.RawQuery); name != "" {
			s.refuse(w, r, fault.BadInput(fault.Field{Location: "query", Message: "has the forbidden key " + name}))
			return
		}
		if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
			s.refuse(w, r, fault.BadInput(fault.Field{Location: "query", Message: "is not a valid query: check its percent signs and semicolons"}))
			return
		}
		if name := guard.ForbiddenKey(callOf(r.Context()).body); name != "" {
			s.refuse(w, r, fault.BadInput(fault.Field{Location: "body", Message: "has the forbidden key " + name}))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// dispatch hands the request to its route, or says that there is none.
func (s *server) dispatch(w http.ResponseWriter, r *http.Request) {
	c := callOf(r.Context())
	if c.route != nil {
		s.mux.ServeHTTP(w, r)
		return
	}
	if cleanPath(r.URL.Path) == r.URL.Path {
		var v verdict
		h, _ := s.mux.Handler(r)
		h.ServeHTTP(&v, r)
		if v.status == http.StatusMethodNotAllowed {
			allow := v.Header().Get("Allow")
			p := newProblem(v.status, "this route does not have the method; it has "+allow)
			p.header.Set("Allow", allow)
			writeProblem(w, r, p)
			return
		}
	}
	writeProblem(w, r, newProblem(http.StatusNotFound, "there is no such route; /docs lists them"))
}

// verdict takes the mux's own plain-text answer and keeps what it says.
type verdict struct {
	header http.Header
	status int
}

func (v *verdict) Header() http.Header {
	if v.header == nil {
		v.header = http.Header{}
	}
	return v.header
}

func (v *verdict) Write(b []byte) (int, error) { return len(b), nil }

func (v *verdict) WriteHeader(status int) { v.status = status }
