package guard_test

import (
	"encoding/json"
	"slices"
	"testing"

	"tallyhook/internal/guard"
)

func TestForbiddenKey(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"Plain":         {`{"email":"a@b.c"}`, ""},
		"Top":           {`{"__proto__":1}`, "__proto__"},
		"Constructor":   {`{"constructor":{}}`, "constructor"},
		"Prototype":     {`{"prototype":{}}`, "prototype"},
		"Nested":        {`{"a":{"b":[1,{"c":{"__proto__":{}}}]}}`, "__proto__"},
		"InArray":       {`[{"a":1},{"constructor":1}]`, "constructor"},
		"AfterValues":   {`{"a":[1,[2]],"b":{},"prototype":1}`, "prototype"},
		"Escaped":       {`{"\u005f_proto__":1}`, "__proto__"},
		"AllEscaped":    {`{"\u0063onstruct\u006fr":1}`, "constructor"},
		"Twice":         {`{"a":1,"a":{"__proto__":1}}`, "__proto__"},
		"SecondText":    {"{\"a\":1}\n{\"__proto__\":1}\n", "__proto__"},
		"ValueOnly":     {`{"a":"__proto__","b":["constructor"]}`, ""},
		"ValueEscaped":  {`{"a":"\u005f_proto__"}`, ""},
		"LongerName":    {`{"__proto__x":1,"my constructor":2}`, ""},
		"OtherCase":     {`{"Constructor":1}`, ""},
		"NotJSON":       {`__proto__=1`, ""},
		"BrokenBefore":  {`{"a":,"__proto__":1}`, ""},
		"Empty":         {``, ""},
		"InvalidUTF8":   {"{\"\xff\":{\"__proto__\":1}}", "__proto__"},
		"TopLevelValue": {`"__proto__"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := guard.ForbiddenKey([]byte(c.body)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestForbiddenQuery(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ query, want string }{
		"Plain":     {"limit=5&email=a%40b.c", ""},
		"Key":       {"__proto__=1", "__proto__"},
		"NoValue":   {"a=1&constructor", "constructor"},
		"Brackets":  {"a[__proto__][b]=1", "__proto__"},
		"Dots":      {"a.prototype.b=1", "prototype"},
		"Escaped":   {"%5f_proto__=1", "__proto__"},
		"Semicolon": {"a=1;__proto__=2", "__proto__"},
		"Value":     {"email=__proto__", ""},
		"Part":      {"my__proto__=1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := guard.ForbiddenQuery(c.query); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzGuard(f *testing.F) {
	for _, s := range []string{`{"__proto__":1}`, `[{"a":{"\u005f_proto__":{}}}]`, `{"a":"constructor"}`, `{"a":`, "\"\\u005f\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := guard.ForbiddenKey(body)
		var v any
		if json.Unmarshal(body, &v) != nil {
			return // what is not JSON may pass
		}
		// encoding/json keeps the last of several equal keys, so it may see
		// fewer keys than the guard, never more.
		if got == "" && holds(v) {
			t.Errorf("the guard passed %q", body)
		}
	})
}

func holds(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if k == "__proto__" || k == "constructor" || k == "prototype" || holds(e) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, holds)
	}
	return false
}
