package campaign

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// VariantOf reads the A/B variant that an event's metadata names: its member
// "variant", a string of at most 64 bytes; anything else is none.
func VariantOf(metadata []byte) string {
	if !bytes.Contains(metadata, []byte(`"variant"`)) {
		return ""
	}
	dec := jsontext.NewDecoder(bytes.NewReader(metadata))
	if tok, err := dec.ReadToken(); err != nil || tok.Kind() != '{' {
		return ""
	}
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return ""
		}
		key := name.String()
		v, err := dec.ReadValue()
		if err != nil {
			return ""
		}
		if key != "variant" || v.Kind() != '"' || len(v) > 66 {
			continue
		}
		b, err := jsontext.AppendUnquote(nil, v)
		if err != nil {
			return ""
		}
		return string(b)
	}
	return ""
}

// OnlyVariant is metadata that names the same variant and nothing else; nil
// when it names none.
func OnlyVariant(metadata []byte) []byte {
	v := VariantOf(metadata)
	if v == "" {
		return nil
	}
	b, err := jsontext.AppendQuote([]byte(`{"variant":`), v)
	if err != nil { // it is of a JSON string
		return nil
	}
	return append(b, '}')
}
