package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

// An entry is a byte that says what it is, a byte of version, and fields: a
// tag, the length of the value as a varint, the value. Tags ascend. A field
// that holds its zero value is left out. Values are bytes as they are: what
// the database will refuse must still get there to be refused.
//
// A new field takes a new tag, and old entries are read as if it were not
// told. A field that older releases must not pass over needs a new version;
// tags that are not known are refused for the same reason.
const (
	kindEvent = 'e'
	kindBody  = 'b'

	version = 1
)

var (
	errForm    = errors.New("this is not an entry of a spool")
	errVersion = errors.New("the entry was written by a later release")
)

// field is one field of an entry: where its value is, by a pointer of one of
// the types of put and take. One table serves both ways, so that they cannot
// come apart.
type field struct {
	tag byte
	at  any
}

func eventFields(e *event.Event) []field {
	return []field{
		{1, &e.ID},
		{2, &e.Tenant},
		{3, &e.SourceID},
		{4, &e.Scope},
		{5, &e.Provider},
		{6, &e.Kind},
		{7, &e.Control},
		{8, &e.ReceivedAt},
		{9, (*string)(&e.Type)},
		{10, (*string)(&e.Channel)},
		{11, &e.ProviderEventID},
		{12, &e.ProviderMessageID},
		{13, &e.ActionID},
		{14, &e.LeadID},
		{15, &e.EnrollmentID},
		{16, &e.Email},
		{17, &e.Campaign},
		{18, &e.StepNumber},
		{19, (*string)(&e.Bounce)},
		{20, (*int8)(&e.Machine)},
		{21, &e.URL},
		{22, &e.OccurredAt},
		{23, &e.OccurredAtEstimated},
		{24, &e.Metadata},
		{25, &e.Payload},
		{26, &e.IdentityParts},
		{27, &e.Stream},
		{28, &e.Tags},
		{29, &e.IgnoreUnmatched},
		{30, (*uuid.UUID)(&e.Nonce.Key)},
		{31, (*uuid.UUID)(&e.Nonce.Digest)},
		{32, &e.EnrollUnmatched},
	}
}

// bodyFields are what a body that could not be read consists of; the rest of
// a Letter comes into being in the store.
func bodyFields(l *store.Letter) []field {
	return []field{
		{1, &l.ID},
		{2, &l.Tenant},
		{3, &l.SourceID},
		{4, &l.Provider},
		{5, &l.Reason},
		{6, &l.Error},
		{7, &l.FirstReceivedAt},
		{8, &l.Body},
		{9, &l.Headers},
	}
}

func encodeEvent(e event.Event) []byte {
	b := make([]byte, 2, 256+len(e.Payload)+len(e.Metadata))
	b[0], b[1] = kindEvent, version
	return put(b, eventFields(&e))
}

func encodeBody(l store.Letter) []byte {
	b := make([]byte, 2, 256+len(l.Body))
	b[0], b[1] = kindBody, version
	return put(b, bodyFields(&l))
}

// decode reads an entry. What it returns shares no memory with data.
func decode(data []byte) (s store.Spooled, err error) {
	switch {
	case len(data) < 2 || (data[0] != kindEvent && data[0] != kindBody):
		return s, errForm
	case data[1] != version:
		return s, errVersion
	}
	if data[0] == kindBody {
		s.Body = &store.Letter{}
		return s, take(data[2:], bodyFields(s.Body))
	}
	return s, take(data[2:], eventFields(&s.Event))
}

func put(b []byte, fields []field) []byte {
	for _, f := range fields {
		v, told := value(f.at)
		if !told {
			continue
		}
		b = append(b, f.tag)
		b = binary.AppendUvarint(b, uint64(len(v)))
		b = append(b, v...)
	}
	return b
}

// value is a field as bytes; told is false for the zero value.
func value(at any) (v []byte, told bool) {
	switch p := at.(type) {
	case *uuid.UUID:
		return p[:], *p != uuid.Nil
	case *string:
		return []byte(*p), *p != ""
	case *[]byte:
		return *p, *p != nil
	case *bool:
		return nil, *p
	case *int:
		return binary.AppendVarint(nil, int64(*p)), *p != 0
	case *int8:
		return binary.AppendVarint(nil, int64(*p)), *p != 0
	case *int64:
		return binary.AppendVarint(nil, *p), *p != 0
	case *time.Time:
		v = binary.AppendVarint(nil, p.Unix())
		return binary.AppendUvarint(v, uint64(p.Nanosecond())), !p.IsZero() //nolint:gosec // 0 to 999,999,999
	case *[]string:
		return list(*p), *p != nil
	case *map[string]string:
		return list(pairs(*p)), *p != nil
	}
	panic(fmt.Sprintf("spool: no encoding for %T", at))
}

func take(data []byte, fields []field) error {
	last := byte(0)
	for len(data) > 0 {
		tag := data[0]
		v, rest, ok := cut(data[1:])
		if !ok || tag <= last {
			return errForm
		}
		i, known := slices.BinarySearchFunc(fields, tag, func(f field, t byte) int { return int(f.tag) - int(t) })
		if !known {
			return fmt.Errorf("field %d: %w", tag, errVersion)
		}
		if err := set(fields[i].at, v); err != nil {
			return fmt.Errorf("field %d: %w", tag, err)
		}
		data, last = rest, tag
	}
	return nil
}

func set(at any, v []byte) error {
	switch p := at.(type) {
	case *uuid.UUID:
		if len(v) != len(p) {
			return errForm
		}
		copy(p[:], v)
	case *string:
		*p = string(v)
	case *[]byte:
		*p = append([]byte{}, v...)
	case *bool:
		*p = true
	case *int:
		n, err := number(v, math.MinInt, math.MaxInt)
		*p = int(n)
		return err
	case *int8:
		n, err := number(v, math.MinInt8, math.MaxInt8)
		*p = int8(n) //nolint:gosec // number keeps it in range
		return err
	case *int64:
		n, err := number(v, math.MinInt64, math.MaxInt64)
		*p = n
		return err
	case *time.Time:
		sec, n := binary.Varint(v)
		if n <= 0 {
			return errForm
		}
		ns, m := binary.Uvarint(v[n:])
		if m <= 0 || n+m != len(v) || ns >= uint64(time.Second) {
			return errForm
		}
		*p = time.Unix(sec, int64(ns)).UTC()
	case *[]string:
		items, err := unlist(v)
		*p = items
		return err
	case *map[string]string:
		items, err := unlist(v)
		if err != nil || len(items)%2 != 0 {
			return errForm
		}
		*p = make(map[string]string, len(items)/2)
		for i := 0; i < len(items); i += 2 {
			(*p)[items[i]] = items[i+1]
		}
	}
	return nil
}

// number reads a varint between two bounds that fills v.
func number(v []byte, least, most int64) (int64, error) {
	i, n := binary.Varint(v)
	if n != len(v) || i < least || i > most {
		return 0, errForm
	}
	return i, nil
}

// cut takes a value with its length off the front.
func cut(data []byte) (v, rest []byte, ok bool) {
	size, n := binary.Uvarint(data)
	if n <= 0 || size > uint64(len(data)-n) { //nolint:gosec // n is at most len(data)
		return nil, nil, false
	}
	end := n + int(size) //nolint:gosec // at most len(data)
	return data[n:end], data[end:], true
}

func list(items []string) []byte {
	var b []byte
	for _, s := range items {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

func unlist(data []byte) ([]string, error) {
	items := []string{}
	for len(data) > 0 {
		v, rest, ok := cut(data)
		if !ok {
			return nil, errForm
		}
		items, data = append(items, string(v)), rest
	}
	return items, nil
}

// pairs lists a map in the order of its keys: the same map is the same bytes.
func pairs(m map[string]string) []string {
	items := make([]string, 0, 2*len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		items = append(items, k, m[k])
	}
	return items
}
