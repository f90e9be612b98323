package app_test

import (
	"strings"
	"testing"

	"tallyhook/internal/testenv"
)

// TestOrderOfLayers proves the contract's order by what a request is answered
// that breaks two layers: the refusal of the lower number. Each neighbouring
// pair of the layers that refuse is here; 3 and 7 refuse nothing, and are held
// to be on every answer and in the log for each of them.
func TestOrderOfLayers(t *testing.T) {
	t.Parallel()
	e := startTLS(t, "PUBLIC_URL=https://events.example.com", "RATE_LIMIT_ANONYMOUS=2/1h", "MAX_BODY_BYTES=1024")
	const (
		evil = "Origin: https://evil.example"
		bad  = `{"__proto__":1}`
		path = "/api/events"
		key  = "X-API-Key: " + testenv.AdminKey
	)
	large := strings.Repeat(" ", 2000)
	type step struct {
		name string
		tls  bool
		text string
		want int
		says string
	}
	all := []step{
		// First what each layer answers alone, within the budget of the address.
		{"1 alone", true, request("POST", path, large, key), 413, "larger than 1024"},
		{"2 alone", false, request("POST", path, "{}", key), 308, ""},
		{"4 alone", true, request("POST", path, "{}", key, evil), 403, "CORS policy violation"},
		{"6 alone", true, request("POST", path, bad, key), 400, "__proto__"},
		{"9 alone", true, request("POST", path, "{}"), 401, "API key"}, // the first of two
		// 1 before 2: what is too large is not sent elsewhere.
		{"1 before 2", false, request("POST", path, large, key), 413, "larger than 1024"},
		{"1 before 4", true, request("POST", path, large, key, evil), 413, "larger than 1024"},
		// 2 before 4.
		{"2 before 4", false, request("POST", path, "{}", key, evil), 308, ""},
		{"2 before 4, preflight", false, request("OPTIONS", path, "", evil, "Access-Control-Request-Method: POST"), 308, ""},
		// 6 before 8 and 9: a stranger learns of the forbidden key before the missing one.
		{"6 before 9", true, request("POST", path, bad), 400, "__proto__"}, // the second of two
		{"6 before 8", true, request("GET", "/api/nowhere?__proto__=1", "", key), 400, "__proto__"},
		// 5 is spent from here on for who has no key.
		{"5 alone", true, request("POST", path, "{}"), 429, "too many requests"},
		{"4 before 5", true, request("POST", path, "{}", evil), 403, "CORS policy violation"},
		{"5 before 6", true, request("POST", path, bad), 429, "too many requests"},
		{"5 before 8", true, request("GET", "/docs", ""), 429, "too many requests"},
		{"5 before 8, no route", true, request("GET", "/nowhere", ""), 429, "too many requests"},
		{"5 before 9, a wrong key", true, request("POST", path, "{}", "X-API-Key: thk_wrong_wrong_wrong"), 429, "too many requests"},
		{"1 before 5", true, request("POST", path, large), 413, "larger than 1024"},
		{"2 before 5", false, request("POST", path, "{}"), 308, ""},
		// 8 before 9: a public route asks for no key, and a wrong one does not matter.
		{"8 before 9", true, request("GET", "/livez", "", "X-API-Key: thk_wrong_wrong_wrong"), 200, "ok"},
		{"8 before 9, no route", true, request("GET", "/api/nowhere", "", key), 404, "no such route"},
		{"behind all layers", true, request("POST", path, `{"event_type":"opened"}`, key), 400, "channel"},
	}
	for _, s := range all {
		send := e.raw
		if s.tls {
			send = e.rawTLS
		}
		before := strings.Count(e.log.String(), `"msg":"request"`)
		a := send(s.text)
		if a.Status != s.want || !strings.Contains(string(a.Body), s.says) {
			t.Errorf("%s: got %d %.200s, want %d %q", s.name, a.Status, a.Body, s.want, s.says)
		}
		e.whole(s.name, a) // layer 3
		log := e.log.String()
		if got := strings.Count(log, `"msg":"request"`); got != before+1 || !strings.Contains(log[strings.LastIndex(log, `"msg":"request"`):], `"request_id":"`+a.Header.Get("X-Request-ID")) {
			t.Errorf("%s: %d lines in the access log, want one of this request", s.name, got-before) // layer 7
		}
		if secure := a.Header.Get("Strict-Transport-Security") != ""; secure != s.tls {
			t.Errorf("%s: HSTS is %t, want %t", s.name, secure, s.tls)
		}
	}
}
