package provider

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// object is a vendor's JSON object with its members unread. Vendors change
// the type of a member between events and between years (an id is a number
// here and a string there), so no member is bound to a Go type, and a number
// stays the digits it was sent as: an id beyond 2^53 keeps its last digit.
// Names are case-sensitive. A name that comes twice is refused, as what was
// checked could then differ from what is used.
type object map[string]jsontext.Value

func readObject(raw []byte) (object, error) {
	if jsontext.Value(raw).Kind() != '{' {
		return nil, errors.New("the body is not a JSON object")
	}
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, notJSON(err)
	}
	return o, nil
}

// maxItems bounds the events of one body. SendGrid has the largest batches,
// up to 768 KB, which is close to 4,000 of its shortest events.
const maxItems = 5000

// readItems gives the elements of an array, or the one value that the body is.
func readItems(body []byte) ([]jsontext.Value, error) {
	body = bytes.TrimSpace(body)
	if !event.IsArray(body) {
		return []jsontext.Value{body}, nil
	}
	var items []jsontext.Value
	if err := json.Unmarshal(body, &items); err != nil {
		return nil, notJSON(err)
	}
	if len(items) > maxItems {
		return nil, fmt.Errorf("the array has more than %d events", maxItems)
	}
	return items, nil
}

// notJSON says where the body stops being JSON. The decoder's own error is not
// wrapped: it quotes member names, which are the contact's in some bodies and
// have no bound.
func notJSON(err error) error {
	syn, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return errors.New("the body has the same key twice in one object")
	case ok:
		return fmt.Errorf("the body is not valid JSON at byte %d", syn.ByteOffset)
	}
	return errors.New("the body is not valid JSON")
}

// text gives the first of the members that is a non-empty string or a number,
// the number in the digits it was sent as; "" when there is none.
func (o object) text(names ...string) string {
	for _, name := range names {
		v := o[name]
		switch v.Kind() {
		case '"':
			if b, err := jsontext.AppendUnquote(nil, v); err == nil && len(b) > 0 {
				return string(b)
			}
		case '0':
			return string(v)
		default: // no text
		}
	}
	return ""
}

// flag gives a boolean member, also as a text or as 0 and 1; told is false
// when it is absent or none of these.
func (o object) flag(name string) (value, told bool) {
	switch o[name].Kind() {
	case 't':
		return true, true
	case 'f':
		return false, true
	default:
	}
	switch strings.ToLower(o.text(name)) {
	case "true", "1":
		return true, true
	case "false", "0":
		return false, true
	}
	return false, false
}

// nested gives a member that is an object with at least one member, as sent.
func (o object) nested(name string) []byte {
	v := o[name]
	if v.Kind() != '{' || len(bytes.Trim(v, "{} \t\r\n")) == 0 {
		return nil
	}
	return v
}

// maskMembers hides the values of a body's own secrets: what is stored can be
// read by whoever may read events. It knows an object and an array of them.
func maskMembers(raw []byte, names ...string) []byte {
	dec := jsontext.NewDecoder(bytes.NewReader(raw), jsontext.AllowDuplicateNames(true))
	depth := 1
	if dec.PeekKind() == '[' {
		depth = 2
	}
	var masked []byte
	copied := 0
	for {
		tok, err := dec.ReadToken()
		if err != nil { // the end, or not JSON
			break
		}
		kind, n := dec.StackIndex(dec.StackDepth())
		if dec.StackDepth() != depth || kind != '{' || n%2 == 0 || tok.Kind() != '"' || !slices.Contains(names, tok.String()) {
			continue
		}
		v, err := dec.ReadValue()
		if err != nil {
			break
		}
		end := int(dec.InputOffset())
		masked = append(append(masked, raw[copied:end-len(v)]...), `"********"`...)
		copied = end
	}
	if copied == 0 {
		return raw
	}
	return append(masked, raw[copied:]...)
}

// texts gives the strings and numbers of an array, or the one that v is, as
// vendors send a list of one.
func texts(v jsontext.Value) []string {
	items := []jsontext.Value{v}
	if v.Kind() == '[' {
		var err error
		if items, err = readItems(v); err != nil {
			return nil
		}
	}
	var list []string
	for _, item := range items {
		if s := (object{"": item}).text(""); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// pairsObject makes an object of an array of {name: ..., value: ...}; the first
// of a name counts. It is nil when there is none.
func pairsObject(v jsontext.Value, name, value string) jsontext.Value {
	items, err := readItems(v)
	if err != nil {
		return nil
	}
	fields := map[string]string{}
	for _, item := range items {
		o, err := readObject(item)
		if err != nil {
			continue
		}
		key := o.text(name)
		if _, known := fields[key]; key != "" && !known {
			fields[key] = o.text(value)
		}
	}
	return fieldsObject(fields)
}

// fieldsObject is a JSON object of texts, the same one for the same texts; nil
// when there are none.
func fieldsObject(fields map[string]string) jsontext.Value {
	if len(fields) == 0 {
		return nil
	}
	b, err := json.Marshal(fields, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return nil
	}
	return b
}

// textFields gives the members of an object that are texts or numbers.
func textFields(raw jsontext.Value) map[string]string {
	fields := map[string]string{}
	o, err := readObject(raw)
	if err != nil {
		return fields
	}
	for name := range o {
		if s := o.text(name); s != "" {
			fields[name] = s
		}
	}
	return fields
}
