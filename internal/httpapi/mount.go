package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// mount puts the table's routes on the server's mux. Routes made with handle
// go through huma, which reads and checks the input by the handler's types and
// describes it; routes made with raw describe themselves.
type mount struct {
	s      *server
	api    huma.API
	second map[string]form // by pattern: the other form of a route
}

func newMount(s *server) *mount {
	registry := huma.NewMapRegistry("#/components/schemas/", schemaName)
	format := huma.Format{Marshal: marshal, Unmarshal: unmarshal}
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI:    "3.1.0",
			Info:       &huma.Info{Title: "Tallyhook", Version: version(s.opt.Version), Description: introduction()},
			Components: &huma.Components{Schemas: registry},
		},
		Formats:                      map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{s.transform},
	}
	m := &mount{s: s, second: map[string]form{}}
	m.api = humago.New(shim{m}, config)
	return m
}

func version(v string) string {
	if v == "" {
		return "dev"
	}
	return v
}

// schemaName names a schema after its Go type without the word View.
func schemaName(t reflect.Type, hint string) string {
	return strings.ReplaceAll(huma.DefaultSchemaNamer(t, hint), "View", "")
}

// shim is the mux as humago sees it: each of its handlers gets the layers
// around a route, and a writer that maps huma's 422.
type shim struct{ m *mount }

func (x shim) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	s, other := x.m.s, x.m.second[pattern]
	s.mux.Handle(pattern, s.around(s.routes[pattern], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if other.choose != nil && other.choose(r) {
			other.handle(w, r)
			return
		}
		h(statusWriter{w}, r)
	})))
}

func (x shim) ServeHTTP(w http.ResponseWriter, r *http.Request) { x.m.s.mux.ServeHTTP(w, r) }

// statusWriter maps huma's 422. It hides the connection's deadlines on
// purpose: the body has been read, and huma would lift the server's.
type statusWriter struct{ w http.ResponseWriter }

func (s statusWriter) Header() http.Header { return s.w.Header() }
func (s statusWriter) Write(b []byte) (int, error) {
	return s.w.Write(b)
}
func (s statusWriter) WriteHeader(status int) { s.w.WriteHeader(plainStatus(status)) }

// transform makes huma's own errors ours.
func (s *server) transform(ctx huma.Context, _ string, v any) (any, error) {
	if m, ok := v.(*huma.ErrorModel); ok {
		p := fromHuma(m)
		p.RequestID = callOf(ctx.Context()).id
		for name, values := range p.header {
			for _, value := range values {
				ctx.SetHeader(name, value)
			}
		}
		return p, nil
	}
	return v, nil
}

// handle mounts a handler whose types say what it reads and answers.
func handle[I, O any](h func(context.Context, *I) (*O, error)) func(*mount, *Route) {
	return func(m *mount, route *Route) {
		huma.Register(m.api, m.operation(route), func(ctx context.Context, in *I) (*O, error) {
			out, err := h(ctx, in)
			if err != nil {
				return nil, m.s.fail(ctx, err)
			}
			return out, nil
		})
	}
}

// raw mounts a plain handler. describe completes its operation; nil leaves the
// route out of the description.
func raw(h http.HandlerFunc, describe func(*mount, *huma.Operation)) func(*mount, *Route) {
	return func(m *mount, route *Route) {
		m.s.mux.Handle(route.pattern(), m.s.around(route, h))
		if describe == nil {
			return
		}
		op := m.operation(route)
		describe(m, &op)
		m.api.OpenAPI().AddOperation(&op)
	}
}

// either mounts a route that has a second form, chosen by the request.
func either(choose func(*http.Request) bool, second http.HandlerFunc, first func(*mount, *Route)) func(*mount, *Route) {
	return func(m *mount, route *Route) {
		m.second[route.pattern()] = form{choose, second}
		first(m, route)
	}
}

type form struct {
	choose func(*http.Request) bool
	handle http.HandlerFunc
}

// marshal writes an answer: the same value always as the same bytes.
func marshal(w io.Writer, v any) error {
	return jsonv2.MarshalWrite(w, v, writeOptions())
}

func writeOptions() jsonv2.Options {
	// What a caller sent in broken UTF-8 is echoed as U+FFFD, not as half an answer.
	return jsonv2.JoinOptions(jsonv2.Deterministic(true), jsontext.EscapeForHTML(false), jsontext.AllowInvalidUTF8(true))
}

// unmarshal reads a body strictly: no key twice, no key that the type does not
// have, letter case counts. Its errors are for the caller: no Go in them.
func unmarshal(data []byte, v any) error {
	if err := jsonv2.Unmarshal(data, v, jsonv2.RejectUnknownMembers(true)); err != nil {
		return errors.New(explain(err))
	}
	return nil
}

// explain says what is wrong with a JSON text to whoever sent it.
func explain(err error) string {
	if syn, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		switch {
		case errors.Is(err, jsontext.ErrDuplicateName):
			return "has the same key twice in one object"
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
			return "is not valid JSON: it ends too early"
		}
		return "is not valid JSON at byte " + strconv.FormatInt(syn.ByteOffset, 10)
	}
	if sem, ok := errors.AsType[*jsonv2.SemanticError](err); ok {
		at := strings.TrimPrefix(dotted(sem.JSONPointer), ".")
		switch {
		case errors.Is(err, jsonv2.ErrUnknownName):
			return "has a field that this request does not have: " + at
		case at == "":
			return "has the wrong type"
		}
		return at + " has the wrong type or is out of range"
	}
	return "is not valid JSON"
}

// dotted turns a JSON pointer into the form of our locations.
func dotted(p jsontext.Pointer) string {
	var b strings.Builder
	for tok := range p.Tokens() {
		if _, err := strconv.ParseUint(tok, 10, 32); err == nil {
			b.WriteString("[" + tok + "]")
			continue
		}
		b.WriteString("." + tok)
	}
	return b.String()
}
