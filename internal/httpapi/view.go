package httpapi

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
)

// Data is the form of an answer with one resource.
type Data[T any] struct {
	Data T `json:"data"`
}

// List is the form of an answer with several.
type List[T any] struct {
	Data       []T     `json:"data" nullable:"false"`
	NextCursor *string `json:"next_cursor" doc:"Give it as ?cursor= for the next page; null on the last one."`
}

type one[T any] struct{ Body Data[T] }

type many[T any] struct{ Body List[T] }

type created[T any] struct {
	Location string `header:"Location"`
	Body     Data[T]
}

type withStatus[T any] struct {
	Status   int
	Location string `header:"Location"`
	Body     Data[T]
}

type nothing struct{}

func reply[T any](v T) *one[T] { return &one[T]{Data[T]{v}} }

func replyCreated[T any](location string, v T) *created[T] {
	return &created[T]{Location: location, Body: Data[T]{v}}
}

func replyList[R, T any](rows []R, next int64, view func(R) T) *many[T] {
	out := &many[T]{List[T]{Data: make([]T, 0, len(rows)), NextCursor: cursorOf(next)}}
	for _, r := range rows {
		out.Body.Data = append(out.Body.Data, view(r))
	}
	return out
}

// PageParams are the parameters of every list.
type PageParams struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50" doc:"Most rows in one answer."`
	Cursor string `query:"cursor" maxLength:"64" doc:"The next_cursor of the page before."`
}

func (p PageParams) page() (store.Page, error) {
	after, err := parseCursor(p.Cursor)
	return store.Page{Limit: p.Limit, After: after}, err
}

// IDParam is the id of a path.
type IDParam struct {
	ID string `path:"id"`
}

// IdempotencyParam is the header of requests that create.
type IdempotencyParam struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" doc:"The same key with the same request answers what the first one made."`
}

// cursorOf hides the row number that a list goes on after.
func cursorOf(next int64) *string {
	if next == 0 {
		return nil
	}
	c := base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(next, 10)))
	return &c
}

func parseCursor(c string) (int64, error) {
	if c == "" {
		return 0, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(c)
	if err == nil {
		if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil && n > 0 {
			return n, nil
		}
	}
	return 0, fault.BadInput(fault.Field{Location: "query.cursor", Message: "is not a cursor that this API gave", Value: c})
}

// Object is a JSON object whose members are the customer's own; null when
// there is none.
type Object []byte

// Schema describes any object.
func (Object) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, Nullable: true, AdditionalProperties: true}
}

// MarshalJSON writes the object as it was given.
func (o Object) MarshalJSON() ([]byte, error) {
	if len(o) == 0 {
		return []byte("null"), nil
	}
	return o, nil
}

// UnmarshalJSON keeps the object's bytes.
func (o *Object) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*o = nil
		return nil
	}
	if len(b) == 0 || b[0] != '{' {
		return errors.New("must be a JSON object")
	}
	*o = append((*o)[:0], b...)
	return nil
}

// anyJSON is a text of any kind: itself where it is JSON, a string otherwise.
type anyJSON []byte

// Schema allows anything.
func (anyJSON) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Description: "The JSON as it was received, or a string when it is not JSON."}
}

// MarshalJSON writes the value.
func (v anyJSON) MarshalJSON() ([]byte, error) {
	if len(v) == 0 {
		return []byte("null"), nil
	}
	if jsontext.Value(v).IsValid() {
		return v, nil
	}
	s := string(v)
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	b, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		return nil, fmt.Errorf("quote text: %w", err)
	}
	return b, nil
}

// instant is a time in a query.
type instant struct{ time.Time }

// Schema describes the format.
func (instant) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time", Examples: []any{"2026-11-24T10:00:00Z"}}
}

// UnmarshalText reads RFC 3339.
func (t *instant) UnmarshalText(b []byte) error {
	v, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return errors.New("not an RFC 3339 time such as 2026-11-24T10:00:00Z (a + in a query is written %2B)")
	}
	t.Time = v.UTC()
	return nil
}

// enumSchema lists the values of a named string.
func enumSchema[T ~string](values []T) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	for _, v := range values {
		s.Enum = append(s.Enum, string(v))
	}
	return s
}

type eventType string

// Schema lists the event types.
func (eventType) Schema(huma.Registry) *huma.Schema { return enumSchema(event.Types()) }

type channelName string

// Schema lists the channels.
func (channelName) Schema(huma.Registry) *huma.Schema { return enumSchema(event.Channels()) }

type scopeName string

// Schema lists the scopes.
func (scopeName) Schema(huma.Registry) *huma.Schema { return enumSchema(access.Scopes()) }

type providerName string

// Schema lists the providers.
func (providerName) Schema(huma.Registry) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	for _, p := range provider.All() {
		s.Enum = append(s.Enum, p.Name)
	}
	return s
}

// optional makes the zero value null.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func optionalID(id uuid.UUID) *string {
	if id == uuid.Nil {
		return nil
	}
	s := id.String()
	return &s
}

// queryID reads an id of a query, which, unlike one of a path, must be one.
func queryID(name, v string) (uuid.UUID, error) {
	if v == "" {
		return uuid.Nil, nil
	}
	id, err := uuid.Parse(v)
	if err != nil {
		return uuid.Nil, fault.BadInput(fault.Field{Location: name, Message: "is not a UUID", Value: v})
	}
	return id, nil
}

// period checks that a period of time is one.
func period(since, until instant) error {
	if !since.IsZero() && !until.IsZero() && !since.Before(until.Time) {
		return fault.BadInput(fault.Field{Location: "query.until", Message: "must lie after since"})
	}
	return nil
}
