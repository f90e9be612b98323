package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/campaign"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// maxBulk is the most contacts in one bulk enrollment.
const maxBulk = 10_000

type bulkView struct {
	Received int        `json:"received" doc:"Items in the request."`
	Created  int        `json:"created"`
	Merged   int        `json:"merged"`
	Conflict int        `json:"conflict"`
	Error    int        `json:"error"`
	Results  []bulkItem `json:"results" nullable:"false"`
}

type bulkItem struct {
	Index    int    `json:"index"`
	Status   string `json:"status" enum:"created,merged,conflict,error"`
	ID       string `json:"id,omitempty" format:"uuid" doc:"The enrollment; on a conflict the one that exists."`
	Adopted  int    `json:"adopted,omitzero"`
	Adopting int64  `json:"adopting,omitzero"`
	Error    string `json:"error,omitempty" doc:"Why this item failed."`
}

func describeBulk(m *mount, op *huma.Operation) {
	op.Parameters = []*huma.Param{
		pathParam("id", "", "The instance."),
		{
			Name: "on_conflict", In: "query", Description: "merge adds the references to enrollments that exist. An item's own on_conflict wins.",
			Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{"error", "merge"}},
		},
	}
	item := m.schema(enrollmentBody{})
	most := maxBulk
	op.RequestBody = &huma.RequestBody{
		Required:    true,
		Description: "At most 10,000 items and 16 MiB. NDJSON is one object a line.",
		Content: map[string]*huma.MediaType{
			"application/json":     {Schema: &huma.Schema{Type: huma.TypeArray, Items: item, MaxItems: &most}},
			"application/x-ndjson": {Schema: item},
		},
	}
	m.answer(op, http.StatusOK, "A result for each item; one bad item never fails the others.", Data[bulkView]{})
	delete(op.Responses, "409")
}

func (s *server) bulkEnroll(w http.ResponseWriter, r *http.Request) {
	view, err := s.enrollAll(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.write(w, r, http.StatusOK, Data[bulkView]{view})
}

func (s *server) enrollAll(r *http.Request) (bulkView, error) {
	ctx := r.Context()
	instance, err := parseID("instance", r.PathValue("id"))
	if err != nil {
		return bulkView{}, err
	}
	if err := onlyQuery(r, "on_conflict"); err != nil {
		return bulkView{}, err
	}
	mergeAll := r.URL.Query().Get("on_conflict")
	if mergeAll != "" && mergeAll != "merge" && mergeAll != "error" {
		return bulkView{}, fault.BadInput(fault.Field{Location: "query.on_conflict", Message: "must be error or merge", Value: mergeAll})
	}
	raws, err := bulkItems(r)
	if err != nil {
		return bulkView{}, err
	}
	if _, err := s.Campaigns.Instance(ctx, tenant(ctx), instance); err != nil {
		return bulkView{}, err
	}

	view := bulkView{Received: len(raws), Results: make([]bulkItem, len(raws))}
	var contacts [2][]campaign.Enrollment // by: merge or not
	var indexes [2][]int
	for i, raw := range raws {
		view.Results[i].Index = i
		var b enrollmentBody
		at := "body[" + strconv.Itoa(i) + "]"
		if err := jsonv2.Unmarshal(raw, &b, jsonv2.RejectUnknownMembers(true)); err != nil {
			view.Results[i].fail(at + " " + explain(err))
			continue
		}
		if b.OnConflict != "" && b.OnConflict != "merge" && b.OnConflict != "error" {
			view.Results[i].fail(at + ".on_conflict must be error or merge")
			continue
		}
		e := b.enrollment(tenant(ctx), instance)
		if err := e.Validate(at); err != nil {
			view.Results[i].fail(fieldsText(err))
			continue
		}
		group := 0
		if b.OnConflict == "merge" || (b.OnConflict == "" && mergeAll == "merge") {
			group = 1
		}
		contacts[group] = append(contacts[group], e)
		indexes[group] = append(indexes[group], i)
	}
	for group := range contacts {
		if len(contacts[group]) == 0 {
			continue
		}
		results, err := s.Enrollments.Enroll(ctx, tenant(ctx), instance, contacts[group], group == 1, store.Idempotency{})
		if err == nil && len(results) != len(contacts[group]) {
			err = fmt.Errorf("enroll answered %d results for %d contacts", len(results), len(contacts[group]))
		}
		if err != nil && group == 1 && len(contacts[0]) > 0 {
			// The first half stands: say so, and what failed, item by item.
			s.note(ctx, err)
			for _, i := range indexes[group] {
				view.Results[i].fail(fieldsText(err))
			}
			continue
		}
		if err != nil {
			return bulkView{}, err
		}
		for j, res := range results {
			view.Results[indexes[group][j]].take(res)
		}
	}
	for i := range view.Results {
		switch view.Results[i].Status {
		case "created":
			view.Created++
		case "merged":
			view.Merged++
		case "conflict":
			view.Conflict++
		default:
			view.Error++
		}
	}
	return view, nil
}

func (i *bulkItem) fail(why string) { i.Status, i.Error = "error", why }

func (i *bulkItem) take(r store.Enrolled) {
	i.Adopted, i.Adopting = r.Adopted, r.Adopting
	switch {
	case r.Err != nil:
		i.fail(fieldsText(r.Err))
		return
	case r.Merged:
		i.Status = "merged"
	case r.Conflict:
		i.Status, i.Error = "conflict", "the contact is enrolled already"
	default:
		i.Status = "created"
	}
	i.ID = r.ID.String()
}

// fieldsText says what is wrong with one item in a line.
func fieldsText(err error) string {
	p := problemOf(err)
	if len(p.Errors) == 0 {
		return p.Detail
	}
	var b bytes.Buffer
	for i, f := range p.Errors {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(f.Location + " " + f.Message)
	}
	return b.String()
}

// bulkItems splits the body into its items without reading them.
func bulkItems(r *http.Request) ([]jsontext.Value, error) {
	body := callOf(r.Context()).body
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) // the layer before has accepted it
	var items []jsontext.Value
	var err error
	if media == "application/x-ndjson" {
		items = lines(body)
	} else {
		items, err = elements(body)
	}
	switch {
	case err != nil:
		return nil, fault.BadInput(fault.Field{Location: "body", Message: err.Error()})
	case len(items) == 0:
		return nil, fault.BadInput(fault.Field{Location: "body", Message: "has no items; send at least one contact"})
	case len(items) > maxBulk:
		return nil, fault.BadInput(fault.Field{Location: "body", Message: "has more than 10000 items; send them in several requests"})
	}
	return items, nil
}

// lines are the lines of NDJSON that are not blank.
func lines(body []byte) []jsontext.Value {
	var items []jsontext.Value
	for line := range bytes.Lines(body) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			items = append(items, line)
		}
		if len(items) > maxBulk {
			break
		}
	}
	return items
}

// elements are the elements of a JSON array.
func elements(body []byte) ([]jsontext.Value, error) {
	// Each element is checked for keys that stand twice when it is read.
	dec := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true))
	if dec.PeekKind() != '[' {
		return nil, errors.New("must be a JSON array, or NDJSON with Content-Type: application/x-ndjson")
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, errors.New(explain(err))
	}
	var items []jsontext.Value
	for dec.PeekKind() != ']' && len(items) <= maxBulk {
		v, err := dec.ReadValue()
		if err != nil {
			return nil, errors.New(explain(err))
		}
		items = append(items, v.Clone())
	}
	if len(items) > maxBulk {
		return items, nil
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, errors.New(explain(err))
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("is not valid JSON: data after the array")
	}
	return items, nil
}
