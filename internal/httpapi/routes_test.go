package httpapi_test

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tallyhook/internal/access"
	"tallyhook/internal/event"
	"tallyhook/internal/httpapi"
)

type document struct {
	OpenAPI    string
	Tags       []struct{ Name string }
	Paths      map[string]map[string]operation
	Components struct {
		Schemas         map[string]any
		SecuritySchemes map[string]any
	}
}

type operation struct {
	OperationID string
	Summary     string
	Tags        []string
	Security    []map[string][]string
	Parameters  []struct{ Name, In string }
	RequestBody *struct {
		Content map[string]struct{ Schema map[string]any }
	}
	Responses map[string]struct{ Description string }
}

func describe(t testing.TB) (*answer, document) {
	t.Helper()
	r := newAPI(t, nil).call("GET", "/openapi.json", "", "X-API-Key", "").want(200)
	return r, decode[document](r)
}

// TestOpenAPIAndTable holds the description and the table of routes together:
// none may know a route that the other does not, and each says who may call it.
func TestOpenAPIAndTable(t *testing.T) {
	t.Parallel()
	_, doc := describe(t)
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("got OpenAPI %q, want 3.1.0", doc.OpenAPI)
	}
	ids := map[string]bool{}
	table := map[string]httpapi.Route{}
	for _, r := range httpapi.Routes() {
		table[strings.ToLower(r.Method)+" "+r.Path] = r
		if r.ID != "" && r.Path != "/metrics" {
			if _, ok := doc.Paths[r.Path][strings.ToLower(r.Method)]; !ok {
				t.Errorf("%s %s is not described", r.Method, r.Path)
			}
		}
		switch r.Class {
		case "public", "webhook", "key":
			if r.Scope != "" {
				t.Errorf("%s %s is %s and has a scope", r.Method, r.Path, r.Class)
			}
		case "scope", "signed", "operator":
			if !slices.Contains(access.Scopes(), r.Scope) {
				t.Errorf("%s %s has the unknown scope %q", r.Method, r.Path, r.Scope)
			}
		default:
			t.Errorf("%s %s has no class", r.Method, r.Path)
		}
	}
	for path, item := range doc.Paths {
		for verb, op := range item {
			r, ok := table[verb+" "+path]
			if !ok {
				t.Errorf("%s %s is described and not in the table", verb, path)
				continue
			}
			if op.OperationID == "" || ids[op.OperationID] || op.Summary == "" {
				t.Errorf("%s %s: the operation id %q is missing or taken, or the summary is missing", verb, path, op.OperationID)
			}
			ids[op.OperationID] = true
			if len(op.Tags) != 1 || !slices.Contains(doc.Tags, struct{ Name string }{op.Tags[0]}) {
				t.Errorf("%s %s has the tags %v, want one of the declared", verb, path, op.Tags)
			}
			if open := r.Class == "public" || r.Class == "webhook"; open != (len(op.Security) == 0) {
				t.Errorf("%s %s: got security %v for class %s", verb, path, op.Security, r.Class)
			}
			for _, need := range op.Security {
				for scheme := range need {
					if doc.Components.SecuritySchemes[scheme] == nil {
						t.Errorf("%s %s names the unknown security scheme %s", verb, path, scheme)
					}
				}
			}
			for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1) {
				if !slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool { return p.Name == m[1] && p.In == "path" }) {
					t.Errorf("%s %s does not describe {%s}", verb, path, m[1])
				}
			}
			for code, res := range op.Responses {
				if res.Description == "" {
					t.Errorf("%s %s: the answer %s has no description", verb, path, code)
				}
			}
		}
	}
}

func TestOpenAPIRefsResolve(t *testing.T) {
	t.Parallel()
	r, doc := describe(t)
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`"\$ref":"([^"]+)"`).FindAllStringSubmatch(r.body, -1) {
		name, ok := strings.CutPrefix(m[1], "#/components/schemas/")
		if !ok || doc.Components.Schemas[name] == nil {
			t.Errorf("%s resolves to nothing", m[1])
		}
		used[name] = true
	}
	for name := range doc.Components.Schemas {
		if strings.Contains(name, "Error") || strings.Contains(name, "View") {
			t.Errorf("the schema %s shows the inside", name)
		}
		if !used[name] {
			t.Errorf("the schema %s is used nowhere", name)
		}
	}
	if len(used) < 40 {
		t.Errorf("got %d schemas, want a description of every route", len(used))
	}
}

// TestEventBodyIsWhatDecodeReads holds the described event and its decoder
// together.
func TestEventBodyIsWhatDecodeReads(t *testing.T) {
	t.Parallel()
	_, doc := describe(t)
	schema, ok := doc.Components.Schemas["EventBody"].(map[string]any)
	if !ok {
		t.Fatal("no schema EventBody")
	}
	props, ok := schema["properties"].(map[string]any)
	if !ok || len(props) < 15 {
		t.Fatalf("got properties %v", props)
	}
	for name := range maps.Keys(props) {
		raw, err := json.Marshal(map[string]any{name: []int{}})
		if err != nil {
			t.Fatal(err)
		}
		_, ferr := event.Decode(raw, "body", event.Strict)
		if ferr == nil || strings.Contains(ferr.Error(), "is not a field of an event") {
			t.Errorf("the decoder does not know the described field %s: %v", name, ferr)
		}
	}
	raw := `{"event_type":"bounced","channel":"email","timestamp":"2026-11-24T10:00:00Z","occurred_at":"2026-11-24T10:00:00Z","provider":"p",
		"provider_event_id":"1","provider_message_id":"2","enrollment_id":"` + someID + `","email":"a@b.c","campaign":"c","step_number":1,
		"bounce":"hard","machine":true,"url":"https://a.b","metadata":{}}`
	if _, ferr := event.Decode([]byte(raw), "body", event.Strict); ferr != nil {
		t.Fatal(ferr)
	}
	var all map[string]any
	if err := json.Unmarshal([]byte(raw), &all); err != nil {
		t.Fatal(err)
	}
	for name := range all {
		if props[name] == nil {
			t.Errorf("the field %s is read and not described", name)
		}
	}
}

// TestEveryBodyIsChecked sends each route that reads JSON what it must refuse.
func TestEveryBodyIsChecked(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	_, doc := describe(t)
	n := 0
	for path, item := range doc.Paths {
		for verb, op := range item {
			if op.RequestBody == nil || op.RequestBody.Content["application/json"].Schema == nil || strings.HasSuffix(path, "/bulk") {
				continue
			}
			n++
			send := func(body string) problem {
				return a.call(strings.ToUpper(verb), concrete(path), body).problem(400)
			}
			for _, broken := range []string{`{`, `{"a":1`, `{"a":1}x`, `nonsense`, `{"a":1,"a":2}`} {
				if p := send(broken); len(p.Errors) == 0 || !strings.HasPrefix(p.Errors[0].Location, "body") {
					t.Errorf("%s %s: %s is answered with %+v", verb, path, broken, p)
				}
			}
			if p := send(`{"no_such_field":1}`); !p.names("body.no_such_field") {
				t.Errorf("%s %s: the unknown field is not named: %+v", verb, path, p)
			}
			if p := send(`"text"`); !p.names("body") {
				t.Errorf("%s %s: text is answered with %+v", verb, path, p)
			}
			for _, field := range fieldsOf(doc, op.RequestBody.Content["application/json"].Schema) {
				if p := send(`{"` + field + `":[{"x":[]}]}`); !strings.Contains(strings.Join(locations(p), " "), "body."+field) {
					t.Errorf("%s %s: the wrong type of %s is not named: %+v", verb, path, field, p)
				}
			}
			p := a.call(strings.ToUpper(verb), concrete(path)+"?no_such=1", `{}`).problem(400)
			if !p.names("query.no_such") {
				t.Errorf("%s %s: the unknown query parameter is not named: %+v", verb, path, p)
			}
			a.call(strings.ToUpper(verb), concrete(path), "").problem(400)
		}
	}
	if n < 14 {
		t.Errorf("checked %d routes, want all that read JSON", n)
	}
}

func locations(p problem) (all []string) {
	for _, e := range p.Errors {
		all = append(all, e.Location)
	}
	return all
}

func fieldsOf(doc document, schema map[string]any) []string {
	if of, ok := schema["oneOf"].([]any); ok {
		if first, ok := of[0].(map[string]any); ok {
			schema = first
		}
	}
	if ref, ok := schema["$ref"].(string); ok {
		if s, ok := doc.Components.Schemas[ref[strings.LastIndexByte(ref, '/')+1:]].(map[string]any); ok {
			schema = s
		}
	}
	props, ok := schema["properties"].(map[string]any)
	if !ok {
		return nil
	}
	return slices.Sorted(maps.Keys(props))
}

func TestLetterCaseCounts(t *testing.T) {
	t.Parallel()
	p := newAPI(t, nil).call("POST", "/api/keys", `{"NAME":"x","scopes":["admin"]}`).problem(400)
	if !strings.Contains(p.Detail, "NAME") {
		t.Errorf("got %+v, want it to name NAME", p)
	}
}

func TestQueryIsChecked(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	for query, location := range map[string]string{
		"limit=0": "query.limit", "limit=1001": "query.limit", "limit=many": "query.limit", "cursor=xx": "query.cursor",
		"cursor=LTE": "query.cursor", "nonsense=1": "query.nonsense", "state=lost": "query.state", "event_type=smiled": "query.event_type",
		"since=yesterday": "query.since", "source_id=1": "query.source_id", "enrollment_id=x": "query.enrollment_id",
		"since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z": "query.until",
	} {
		if p := a.call("GET", "/api/events?"+query, "").problem(400); !p.names(location) {
			t.Errorf("%s: got %+v, want %s named", query, p, location)
		}
	}
	if p := a.call("GET", "/api/campaigns/instances/"+someID+"/performance?timezone=Moon", "").problem(400); !p.names("query.timezone") {
		t.Errorf("got %+v", p)
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	for _, r := range httpapi.Routes() {
		if r.Class == "public" || r.Class == "webhook" {
			continue
		}
		path := concrete(r.Path)
		for _, headers := range [][]string{{"X-API-Key", ""}, {"X-API-Key", "unknown"}, {"X-API-Key", "", "Authorization", "Basic YTpi"}, {"X-API-Key", "", "Authorization", "Bearer unknown"}} {
			res := a.call(r.Method, path, "", headers...)
			if p := res.problem(401); !strings.Contains(p.Detail, "API key") || res.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s with %v: got %+v", r.Method, path, headers, p)
			}
		}
		if r.Scope == "" {
			continue
		}
		for _, scope := range access.Scopes() {
			if scope == r.Scope || scope == access.ScopeAdmin {
				continue
			}
			if p := a.call(r.Method, path, "", "X-API-Key", "", "Authorization", "bearer "+scope).problem(403); !strings.Contains(p.Detail, r.Scope) {
				t.Errorf("%s %s: got %q, want it to name %s", r.Method, path, p.Detail, r.Scope)
			}
		}
	}
}

func TestDocsLoadNothing(t *testing.T) {
	t.Parallel()
	r := newAPI(t, nil).call("GET", "/docs", "", "X-API-Key", "").want(200, "<title>", "prefers-color-scheme", "@media print", "/openapi.json")
	for _, from := range []string{"http://", "https://", "src=", "@import", ":url(", "innerHTML"} {
		if strings.Contains(r.body, from) {
			t.Errorf("the reader has %q", from)
		}
	}
	policy := r.header.Get("Content-Security-Policy")
	if strings.Contains(policy, "unsafe") || !strings.Contains(policy, "script-src 'sha256-") || !strings.Contains(policy, "connect-src 'self'") {
		t.Errorf("got policy %q", policy)
	}
	if strings.Contains(r.body, " style=") || strings.Contains(r.body, " onclick=") {
		t.Error("the reader has styles or handlers that its policy forbids")
	}
}
