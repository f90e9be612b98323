package httpapi

import (
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	jsonv2 "github.com/go-json-experiment/json"
)

func introduction() string {
	return "Tallyhook takes the webhooks of outreach tools, ties each event to the enrollment it belongs to " +
		"(waiting, where the event comes first), and counts.\n\n" +
		"One resource is answered as {\"data\": {...}}, a list as {\"data\": [...], \"next_cursor\": \"...\" or null}. " +
		"Errors are application/problem+json (RFC 9457) and name each wrong field. Ids are UUIDv7, times RFC 3339 in UTC. " +
		"X-Request-ID is taken from the request, or made, and returned. " +
		"Fields that a request does not have are refused, so a typing error is found at once."
}

// operation describes what the table says of a route.
func (m *mount) operation(route *Route) huma.Operation {
	op := huma.Operation{
		Method: route.Method, Path: route.Path, OperationID: route.ID, Summary: route.Summary,
		Tags: []string{route.Tag}, DefaultStatus: route.Status, MaxBodyBytes: -1,
		Responses: map[string]*huma.Response{},
	}
	codes := []int{http.StatusInternalServerError, http.StatusServiceUnavailable}
	if strings.HasPrefix(route.Path, "/api") {
		codes = append(codes, http.StatusBadRequest)
	}
	if strings.Contains(route.Path, "{") {
		codes = append(codes, http.StatusNotFound)
	}
	if len(route.Accepts) > 0 {
		codes = append(codes, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusConflict)
	}
	switch route.Class {
	case classScope, classKey, classSigned, classOperator:
		codes = append(codes, http.StatusUnauthorized, http.StatusForbidden)
		scopes := []string{}
		if route.Scope != "" {
			scopes = append(scopes, route.Scope)
			op.Description = "Scope: " + route.Scope + "."
			op.Extensions = map[string]any{"x-scope": route.Scope}
		} else {
			op.Description = "Any API key."
		}
		if route.Class == classOperator {
			op.Description = "Scope: " + route.Scope + ", of the default tenant."
			op.Extensions["x-operator"] = true
		}
		op.Security = []map[string][]string{{"apiKey": scopes}, {"bearer": scopes}}
		if route.Class == classSigned {
			op.Security = append(op.Security, map[string][]string{"standardWebhooks": {}, "sourceID": {}})
		}
	case classPublic, classWebhook:
		op.Security = []map[string][]string{}
	}
	for _, code := range codes {
		op.Responses[strconv.Itoa(code)] = m.problemResponse(code)
	}
	return op
}

func (m *mount) schema(v any) *huma.Schema {
	return m.api.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(v), true, "")
}

func (m *mount) problemResponse(code int) *huma.Response {
	r := &huma.Response{
		Description: http.StatusText(code),
		Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: m.schema(Problem{})}},
	}
	str := &huma.Schema{Type: huma.TypeString}
	switch code {
	case http.StatusUnauthorized:
		r.Headers = map[string]*huma.Param{"WWW-Authenticate": {Schema: str}}
	case http.StatusServiceUnavailable:
		r.Headers = map[string]*huma.Param{"Retry-After": {Description: "In seconds.", Schema: str}}
	}
	return r
}

// answer adds a response with a body made from a Go type.
func (m *mount) answer(op *huma.Operation, code int, description string, body any) {
	op.Responses[strconv.Itoa(code)] = &huma.Response{
		Description: description,
		Content:     map[string]*huma.MediaType{"application/json": {Schema: m.schema(body)}},
	}
}

func textResponse(op *huma.Operation, code int, media, description string) {
	op.Responses[strconv.Itoa(code)] = &huma.Response{
		Description: description,
		Content:     map[string]*huma.MediaType{media: {Schema: &huma.Schema{Type: huma.TypeString}}},
	}
}

func describeText(_ *mount, op *huma.Operation) {
	textResponse(op, http.StatusOK, "text/plain", http.StatusText(http.StatusOK))
	delete(op.Responses, "500")
	if op.Path == "/readyz" {
		textResponse(op, http.StatusServiceUnavailable, "text/plain", "Starting, or shutting down.")
		return
	}
	delete(op.Responses, "503")
}

func describeHTML(_ *mount, op *huma.Operation) {
	textResponse(op, http.StatusOK, "text/html", http.StatusText(http.StatusOK))
	delete(op.Responses, "503")
}

func describeAnyJSON(_ *mount, op *huma.Operation) {
	op.Responses["200"] = &huma.Response{
		Description: "An OpenAPI 3.1 document.",
		Content:     map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Type: huma.TypeObject}}},
	}
	delete(op.Responses, "503")
}

func pathParam(name, format, description string) *huma.Param {
	return &huma.Param{
		Name: name, In: "path", Required: true, Description: description,
		Schema: &huma.Schema{Type: huma.TypeString, Format: format},
	}
}

// describe finishes the description and makes it bytes.
func (m *mount) describe() ([]byte, error) {
	api := m.api.OpenAPI()
	api.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"apiKey": {Type: "apiKey", In: "header", Name: "X-API-Key", Description: "An API key. Its scopes say what it may do; admin may do everything."},
		"bearer": {Type: "http", Scheme: "bearer", Description: "The same API key as Authorization: Bearer."},
		"standardWebhooks": {
			Type: "apiKey", In: "header", Name: "webhook-signature",
			Description: "A Standard Webhooks signature with webhook-id and webhook-timestamp, made with the secret of a source of provider generic.",
		},
		"sourceID": {Type: "apiKey", In: "header", Name: "X-Source-ID", Description: "The source whose secret signed the request."},
	}
	for _, name := range []string{
		"Events", "Webhooks", "Sources", "Templates", "Campaigns", "Enrollments", "Suppressions", "Contacts", "Dead letters", "Keys", "Tenants", "Operations",
	} {
		api.Tags = append(api.Tags, &huma.Tag{Name: name})
	}
	schemas := api.Components.Schemas.Map()
	delete(schemas, "ErrorModel") // huma's own error, which is never sent
	delete(schemas, "ErrorDetail")
	for _, op := range m.operations() {
		for _, p := range op.Parameters {
			// A copy: the schema itself also checks the input, and an id
			// that is not a UUID is a 404 and not a wrong field.
			if p.In == "path" && p.Name == "id" {
				s := *p.Schema
				s.Format = "uuid"
				p.Schema, p.Example = &s, "0199a1c0-7c1e-7d3a-9d4e-2f6b1c8a0e11"
			}
		}
	}
	m.furtherAnswers()
	m.loosenAnswers()
	spec, err := jsonv2.Marshal(api, jsonv2.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("describe the API: %w", err)
	}
	return spec, nil
}

func (m *mount) operations() map[string]*huma.Operation {
	all := map[string]*huma.Operation{}
	for _, item := range m.api.OpenAPI().Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil {
				all[op.OperationID] = op
			}
		}
	}
	return all
}

// furtherAnswers describes the successes beside the usual one.
func (m *mount) furtherAnswers() {
	ops := m.operations()
	m.answer(ops["createEnrollment"], http.StatusOK, "on_conflict is merge, and the contact was enrolled already.", Data[enrolledView]{})
	m.answer(ops["replayLetters"], http.StatusOK, "A dry run.", Data[startedView]{})
	m.answer(ops["getHealth"], http.StatusServiceUnavailable, "The service is unhealthy: its database is down.", healthView{})
	ops["listSuppressions"].Responses["200"].Content["text/csv"] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	conflicts := []string{
		"deleteTemplate", "unsubscribeEnrollment", "deleteEnrollment", "replayLetter", "ignoreLetter", "restoreLetter", "cancelReplay",
		"suspendTenant", "resumeTenant",
	}
	for _, id := range conflicts {
		ops[id].Responses["409"] = m.problemResponse(http.StatusConflict)
	}
}

// loosenAnswers lets answers grow: only what is submitted is closed.
func (m *mount) loosenAnswers() {
	submitted := map[string]bool{}
	for _, op := range m.operations() {
		if op.RequestBody == nil {
			continue
		}
		for _, media := range op.RequestBody.Content {
			m.reach(media.Schema, submitted)
		}
	}
	for name, s := range m.api.OpenAPI().Components.Schemas.Map() {
		if closed, ok := s.AdditionalProperties.(bool); ok && !closed && !submitted[name] {
			s.AdditionalProperties = nil
		}
	}
}

// reach notes every schema that one refers to.
func (m *mount) reach(s *huma.Schema, seen map[string]bool) {
	if s == nil {
		return
	}
	if name := s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]; name != "" && !seen[name] {
		seen[name] = true
		m.reach(m.api.OpenAPI().Components.Schemas.SchemaFromRef(s.Ref), seen)
	}
	m.reach(s.Items, seen)
	for _, p := range s.Properties {
		m.reach(p, seen)
	}
	for _, o := range s.OneOf {
		m.reach(o, seen)
	}
	if more, ok := s.AdditionalProperties.(*huma.Schema); ok {
		m.reach(more, seen)
	}
}
