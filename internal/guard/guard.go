// Package guard finds member names that would reach into a JavaScript prototype
// if someone downstream merged what we pass on. It scans bounded bytes and
// decodes nothing.
package guard

import (
	"bytes"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// forbidden tells whether a name would reach into a JavaScript object's
// prototype if someone downstream merged it.
func forbidden(name []byte) bool {
	switch string(name) {
	case "__proto__", "constructor", "prototype":
		return true
	}
	return false
}

// ForbiddenKey finds a member name of a JSON text, or of a sequence of JSON
// texts, that is __proto__, constructor or prototype, at any depth and however
// it is escaped. It decodes nothing and answers "" when there is none. What is
// not JSON passes: its decoder refuses it.
func ForbiddenKey(body []byte) string {
	// Only \u can spell a letter or an underscore in another way.
	if !bytes.Contains(body, []byte(`\u`)) && !bytes.Contains(body, []byte("__proto__")) &&
		!bytes.Contains(body, []byte("constructor")) && !bytes.Contains(body, []byte("prototype")) {
		return ""
	}
	dec := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for {
		tok, err := dec.ReadToken()
		if err != nil { // the end, or not JSON
			return ""
		}
		// Within an object an odd number of tokens read means: that was a name.
		if kind, n := dec.StackIndex(dec.StackDepth()); kind != '{' || n%2 == 0 {
			continue
		}
		if name := tok.String(); forbidden([]byte(name)) {
			return name
		}
	}
}

// ForbiddenQuery finds a forbidden name among the keys of a raw query, also as
// a part of a path such as a[__proto__][b] or a.constructor.
func ForbiddenQuery(raw string) string {
	for pair := range strings.FieldsFuncSeq(raw, func(r rune) bool { return r == '&' || r == ';' }) {
		key, _, _ := strings.Cut(pair, "=")
		if clear, err := url.QueryUnescape(key); err == nil {
			key = clear
		}
		for part := range strings.FieldsFuncSeq(key, func(r rune) bool { return strings.ContainsRune("[]. ", r) }) {
			if forbidden([]byte(part)) {
				return part
			}
		}
	}
	return ""
}
