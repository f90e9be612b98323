package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"tallyhook/internal/fault"
)

// Problem is an error as every route answers it (RFC 9457).
type Problem struct {
	Type      string         `json:"type" doc:"Always about:blank: the status says what kind of problem it is." example:"about:blank"`
	Title     string         `json:"title" doc:"The name of the status." example:"Bad Request"`
	Status    int            `json:"status" example:"400"`
	Detail    string         `json:"detail" doc:"What went wrong and what to do about it." example:"body.event_type is required"`
	RequestID string         `json:"request_id" doc:"The X-Request-ID of this request, for the logs." example:"0199a1c0-1111-7000-8000-000000000001"`
	Errors    []ProblemField `json:"errors,omitempty" doc:"Each wrong part of the input."`
	// EnrollmentID is the extension member of a 409 for a contact that is
	// enrolled already.
	EnrollmentID string `json:"enrollment_id,omitempty" doc:"On a 409 of an enrollment: the one that exists."`

	header http.Header
}

// ProblemField is one wrong part of an input.
type ProblemField struct {
	Location string `json:"location" doc:"Path of the part." example:"body.event_type"`
	Message  string `json:"message" example:"is required"`
	Value    any    `json:"value,omitempty" doc:"What was sent, left out where it is long or may be secret."`
}

// Error implements error.
func (p *Problem) Error() string { return p.Detail }

// GetStatus tells huma the status.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders tells huma the headers, such as Retry-After.
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType makes application/json the type of RFC 9457.
func (*Problem) ContentType(string) string { return "application/problem+json" }

// statusOf is the HTTP status of a kind.
func statusOf(k fault.Kind) int {
	switch k {
	case fault.Internal:
		return http.StatusInternalServerError
	case fault.Invalid, fault.Data:
		return http.StatusBadRequest
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.Forbidden:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.TooLarge:
		return http.StatusRequestEntityTooLarge
	case fault.Unsupported:
		return http.StatusUnsupportedMediaType
	case fault.Throttled:
		return http.StatusTooManyRequests
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// defaultDetail is said where an error has no message of its own.
func defaultDetail(k fault.Kind) string {
	switch k {
	case fault.Internal:
		return "something went wrong on our side; the request id finds it in the logs"
	case fault.Invalid:
		return "the request is not valid"
	case fault.Unauthenticated:
		return "the API key is missing or unknown"
	case fault.Forbidden:
		return "the API key may not do this"
	case fault.NotFound:
		return "it does not exist"
	case fault.Conflict:
		return "its state does not allow this"
	case fault.TooLarge:
		return "the request body is too large"
	case fault.Unsupported:
		return "the content type is not supported here"
	case fault.Throttled:
		return "too many requests; try again later"
	case fault.Unavailable:
		return "temporarily unavailable; try again"
	case fault.Data:
		return "the request holds a value that cannot be stored"
	}
	return "something went wrong on our side"
}

// kindOf is the kind of an error as the edge sees it: a deadline that ran out
// is passing, whoever forgot to say so.
func kindOf(err error) fault.Kind {
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return e.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fault.Unavailable
	}
	return fault.Internal
}

// problemOf turns an error into what the caller may know of it.
func problemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	kind := kindOf(err)
	p := newProblem(statusOf(kind), defaultDetail(kind))
	var retry time.Duration
	if e, ok := errors.AsType[*fault.Error](err); ok {
		retry = e.RetryAfter
		if e.Msg != "" && kind != fault.Internal && kind != fault.Data {
			p.Detail = e.Msg
		}
		for _, f := range e.Fields {
			p.Errors = append(p.Errors, publicField(f.Location, f.Message, f.Value))
		}
	}
	p.pause(retry)
	return p
}

func newProblem(status int, detail string) *Problem {
	p := &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, header: http.Header{}}
	if status == http.StatusUnauthorized {
		p.header.Set("WWW-Authenticate", `Bearer realm="tallyhook"`)
	}
	return p
}

// pause sets Retry-After where the status asks for one.
func (p *Problem) pause(d time.Duration) {
	if p.Status != http.StatusTooManyRequests && p.Status != http.StatusServiceUnavailable {
		return
	}
	if d <= 0 {
		d = 5 * time.Second
	}
	p.header.Set("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
}

// secretive lists parts of locations whose values are never echoed.
func secretive(location string) bool {
	l := strings.ToLower(location)
	for _, part := range []string{"secret", "basic_auth", "headers", "key", "password", "token", "authorization"} {
		if strings.Contains(l, part) {
			return true
		}
	}
	return false
}

// publicField drops a value that is long, not a plain one, or may be secret.
func publicField(location, message string, value any) ProblemField {
	f := ProblemField{Location: location, Message: message}
	if secretive(location) {
		return f
	}
	switch v := value.(type) {
	case string:
		if v != "" && len(v) <= 120 {
			f.Value = v
		}
	case bool, float64, int, int64:
		f.Value = v
	case jsontext.Value:
		if k := v.Kind(); len(v) <= 120 && k != '{' && k != '[' && v.IsValid() {
			f.Value = v
		}
	case json.Number:
		f.Value = v.String()
	}
	return f
}

// fromHuma turns huma's error into ours. Its 422 is our 400; the status line
// is mapped where it is written.
func fromHuma(m *huma.ErrorModel) *Problem {
	status := plainStatus(m.Status)
	p := newProblem(status, m.Detail)
	for _, d := range m.Errors {
		if d == nil {
			continue
		}
		loc, msg, value := d.Location, d.Message, d.Value
		var name string
		if n, err := fmt.Sscanf(msg, validation.MsgExpectedRequiredProperty, &name); err == nil && n == 1 {
			loc, msg, value = loc+"."+name, "is required", nil
		} else if msg == validation.MsgUnexpectedProperty {
			msg, value = "is not a field of this request", nil
		}
		p.Errors = append(p.Errors, publicField(loc, msg, value))
	}
	if status == http.StatusBadRequest && len(p.Errors) > 0 {
		p.Detail = defaultDetail(fault.Invalid)
		if len(p.Errors) == 1 {
			p.Detail = p.Errors[0].Location + ": " + p.Errors[0].Message
		}
	}
	if status >= http.StatusInternalServerError {
		p.Detail, p.Errors = defaultDetail(fault.Internal), nil
	}
	p.pause(0)
	return p
}

// plainStatus maps huma's 422 to the contract's 400.
func plainStatus(status int) int {
	if status == http.StatusUnprocessableEntity {
		return http.StatusBadRequest
	}
	return status
}

// fail notes an error of ours in the log, once, and makes it a problem.
func (s *server) fail(ctx context.Context, err error) *Problem {
	s.note(ctx, err)
	p := problemOf(err)
	p.RequestID = callOf(ctx).id
	return p
}

// note logs an error that is ours and not the caller's.
func (s *server) note(ctx context.Context, err error) {
	if _, told := errors.AsType[*Problem](err); told {
		return
	}
	level := slog.LevelError
	switch kind := kindOf(err); {
	case statusOf(kind) < http.StatusInternalServerError:
		return
	case kind == fault.Unavailable:
		level = slog.LevelWarn
	}
	c := callOf(ctx)
	s.log.LogAttrs(ctx, level, "request failed", slog.String("request_id", c.id), slog.String("route", c.pattern()),
		slog.String("kind", kindOf(err).String()), slog.Any("error", err))
}

// refuse answers an error on a raw route.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	tellExceeded(w, err)
	writeProblem(w, r, s.fail(r.Context(), err))
}

// writeProblem writes a problem as it is.
func writeProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	p.RequestID = callOf(r.Context()).id
	maps.Copy(w.Header(), p.header)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	if err := jsonv2.MarshalWrite(w, p, writeOptions()); err != nil {
		return // the caller went away: there is nobody left to tell
	}
}

// parseID reads an id of a path. What is not a UUID names nothing.
func parseID(what, id string) (uuid.UUID, error) {
	u, err := uuid.Parse(id)
	if err != nil || len(id) != 36 {
		return uuid.Nil, fault.New(fault.NotFound, "no %s has this id: it is not a UUID", what)
	}
	return u, nil
}
