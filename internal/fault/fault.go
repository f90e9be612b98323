// Package fault is the one error type of Tallyhook. Its Kind says what the
// caller should do, not what went wrong inside: the edge turns a Kind into a
// status code, the workers turn it into "retry" or "bury". A Kind is set once,
// where the meaning is known; everywhere else an error is wrapped with %w.
package fault

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind says what the receiver of an error should do about it.
type Kind uint8

// The kinds, with what they ask of the caller.
const (
	Internal        Kind = iota // a defect of ours: report it, answer 500
	Invalid                     // the request is wrong: correct the fields, 400
	Unauthenticated             // say who you are: 401
	Forbidden                   // you are known and may not: 403
	NotFound                    // it does not exist for this tenant: 404
	Conflict                    // the state does not allow it: 409
	TooLarge                    // send less: 413
	Unsupported                 // another content type: 415
	Throttled                   // slow down: 429
	Unavailable                 // ours and passing: retry later, spends no attempt, 503
	Data                        // the store refuses this very data: isolate it, never retry the same
)

// String names the kind as it appears in logs.
func (k Kind) String() string {
	switch k {
	case Internal:
		return "internal"
	case Invalid:
		return "invalid"
	case Unauthenticated:
		return "unauthenticated"
	case Forbidden:
		return "forbidden"
	case NotFound:
		return "not_found"
	case Conflict:
		return "conflict"
	case TooLarge:
		return "too_large"
	case Unsupported:
		return "unsupported"
	case Throttled:
		return "throttled"
	case Unavailable:
		return "unavailable"
	case Data:
		return "data"
	}
	return "unknown"
}

// Field is one wrong part of an input. Location is a path such as
// "body.event_type" or "query.limit". Value is what was sent, left out (nil)
// where it may be secret or large.
type Field struct {
	Location string
	Message  string
	Value    any
}

// Error carries a Kind, the operation that found it, and the cause.
type Error struct {
	Kind       Kind
	Op         string        // what was being done, "enroll contact"
	Msg        string        // for the caller; safe to show
	Fields     []Field       // for Invalid: each wrong part
	RetryAfter time.Duration // for Throttled and Unavailable; 0 = the edge's default
	Err        error         // the cause; never shown to a caller
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
		b.WriteString(": ")
	}
	if e.Msg != "" {
		b.WriteString(e.Msg)
	} else {
		b.WriteString(e.Kind.String())
	}
	for i, f := range e.Fields {
		if i == 0 {
			b.WriteString(": ")
		} else {
			b.WriteString("; ")
		}
		b.WriteString(f.Location + " " + f.Message)
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes an error of a kind with a message that may be shown to a caller.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Msg: fmt.Sprintf(format, args...)}
}

// Wrap gives a cause its kind. A nil cause stays nil.
func Wrap(kind Kind, op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: kind, Op: op, Err: err}
}

// BadInput is an Invalid error that names one or more fields.
func BadInput(fields ...Field) *Error {
	msg := "the request is not valid"
	if len(fields) == 1 {
		msg = fields[0].Location + " " + fields[0].Message
	}
	return &Error{Kind: Invalid, Msg: msg, Fields: fields}
}

// KindOf finds the kind of an error; an error without one is Internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Is tells whether an error is of a kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }
