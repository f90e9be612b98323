package app_test

import (
	"slices"
	"strings"
	"testing"

	"tallyhook/internal/testenv"
)

// operation is one route as the running server's own description has it, so
// that a new route is in these tests from its first day.
type operation struct {
	id      string
	method  string
	path    string
	public  bool
	scope   string   // empty: any key will do
	signed  bool     // takes a signature in place of a key
	xscope  string   // the extension x-scope
	only    bool     // the extension x-operator: for the default tenant alone
	accepts []string // content types of the body
	query   []string // names of its parameters
}

func (o operation) String() string { return o.method + " " + o.path }

func (o operation) api() bool { return strings.HasPrefix(o.path, "/api/") }

func (o operation) json() bool { return slices.Contains(o.accepts, "application/json") }

// nobody are ids that name nothing.
const nobody = "0199a1c0-0000-7000-8000-00000000dead"

// at is the path with its parameters filled in.
func (o operation) at(id string) string {
	return strings.NewReplacer("{id}", id, "{email}", "nobody@example.com", "{token}", "thw_nobody").Replace(o.path)
}

func operations(t *testing.T, c *testenv.Client) []operation {
	t.Helper()
	var all []operation
	for path, methods := range c.Get("/openapi.json").At("paths").Map() {
		for method, of := range methods.Map() {
			o := operation{id: of.At("operationId").Text(), method: strings.ToUpper(method), path: path}
			security := of.At("security").List()
			o.public = len(security) == 0
			o.xscope, o.only = of.At("x-scope").Text(), of.At("x-operator").Text() == "true"
			for _, s := range security {
				if scopes := s.At("apiKey").List(); len(scopes) == 1 {
					o.scope = scopes[0].Text()
				}
				_, signed := s.Map()["standardWebhooks"]
				o.signed = o.signed || signed
			}
			for media := range of.At("requestBody.content").Map() {
				o.accepts = append(o.accepts, media)
			}
			for _, p := range of.At("parameters").List() {
				if p.At("in").Text() == "query" {
					o.query = append(o.query, p.At("name").Text())
				}
			}
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	if len(all) < 50 {
		t.Fatalf("the description has %d operations, which cannot be all", len(all))
	}
	return all
}

// rightBody is a body that an operation takes. One that is missing here fails
// the tests: add it with the route.
func rightBody(t *testing.T, o operation) any {
	t.Helper()
	if !o.json() {
		return nil
	}
	ref := map[string]any{"provider": "postmark", "kind": "message", "value": "m-1"}
	body, ok := map[string]any{
		"createTemplate":     map[string]any{"name": "t", "type": "email"},
		"replaceTemplate":    map[string]any{"name": "t", "type": "email"},
		"createInstance":     map[string]any{"name": "i", "template_id": nobody},
		"patchInstance":      map[string]any{"name": "i"},
		"createEnrollment":   map[string]any{"email": "nobody@example.com"},
		"createEnrollments":  []any{map[string]any{"email": "nobody@example.com"}},
		"patchEnrollment":    map[string]any{"status": "unsubscribed"},
		"addRefs":            map[string]any{"refs": []any{ref}},
		"postEvents":         opened("e-1"),
		"postEventsWebhook":  opened("e-1"),
		"assignEvent":        map[string]any{"enrollment_id": nobody},
		"createSource":       map[string]any{"provider": "generic", "name": "s"},
		"patchSource":        map[string]any{"name": "s"},
		"createKey":          map[string]any{"name": "k", "scopes": []any{"events:read"}},
		"replayLetters":      map[string]any{"ids": []any{nobody}},
		"rotateSourceSecret": map[string]any{"grace": "1h"},
		"rotateSourceURL":    map[string]any{"grace": "1h"},
		"rotateKey":          map[string]any{"grace": "1h"},
		"createTenant":       map[string]any{"name": "n"},
		"patchTenant":        map[string]any{"name": "n"},
		"eraseContact":       map[string]any{"email": "nobody@example.com"},
	}[o.id]
	if !ok {
		t.Fatalf("%s (%s) has a body that this test does not know; add one to rightBody", o, o.id)
	}
	return body
}
