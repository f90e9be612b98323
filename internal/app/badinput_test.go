package app_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"tallyhook/internal/testenv"
)

// TestBadInput sends every route what it must refuse, over real sockets. No
// answer is of our own fault, each says what is wrong, and nothing of it
// reaches the store.
func TestBadInput(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{Env: []string{"MAX_BODY_BYTES=65536", "LOG_LEVEL=warn"}})
	b := &badInput{T: t, server: server, c: server.Client("")}
	_, b.weak = b.c.NewKey("weak", "dlq:read")
	_, b.weaker = b.c.NewKey("weaker", "campaigns:read")
	all := operations(t, b.c)
	for _, o := range all {
		b.keys(o)
		b.ids(o)
		b.methods(o, all)
		b.tooLarge(o)
		if o.api() {
			b.forbidden(o)
			b.parameters(o)
		}
		if o.api() && o.json() {
			b.bodies(o)
		}
	}
	b.nothingIsStored()
}

type badInput struct {
	*testing.T
	server       *testenv.Server
	c            *testenv.Client
	weak, weaker string // keys of one scope each
}

// send expects a refusal, and that it is a whole problem.
func (b *badInput) send(want []int, o operation, what, path string, body any, headers ...testenv.Header) testenv.Answer {
	b.Helper()
	a, err := b.c.Try(o.method, path, body, headers...)
	if err != nil {
		b.Errorf("%s, %s: %v", o, what, err)
		return a
	}
	b.hold(want, o, what, a)
	return a
}

func (b *badInput) hold(want []int, o operation, what string, a testenv.Answer) {
	b.Helper()
	if !slices.Contains(want, a.Status) {
		b.Errorf("%s, %s: status %d, want %v: %.300s", o, what, a.Status, want, a.Body)
		return
	}
	if a.Header.Get("X-Request-ID") == "" || a.Header.Get("X-Content-Type-Options") != "nosniff" {
		b.Errorf("%s, %s: the answer has no request id or no security headers", o, what)
	}
	if a.Status < 400 {
		return
	}
	if got := a.Header.Get("Content-Type"); got != "application/problem+json" {
		b.Errorf("%s, %s: Content-Type %q, want application/problem+json", o, what, got)
	}
	if a.At("status").Int() != int64(a.Status) || a.At("detail").Text() == "" || a.At("request_id").Text() != a.Header.Get("X-Request-ID") {
		b.Errorf("%s, %s: not a whole problem: %s", o, what, a.Body)
	}
}

// reject expects one status.
func (b *badInput) reject(want int, o operation, what, path string, body any, headers ...testenv.Header) testenv.Answer {
	b.Helper()
	return b.send([]int{want}, o, what, path, body, headers...)
}

func (b *badInput) keys(o operation) {
	b.Helper()
	if o.public {
		return
	}
	none := testenv.Header{Name: "X-API-Key", Value: ""}
	a := b.reject(401, o, "no key", o.at(nobody), rightBody(b.T, o), none)
	if !strings.Contains(a.At("detail").Text(), "API key") || a.Header.Get("WWW-Authenticate") == "" {
		b.Errorf("%s, no key: %s", o, a.Body)
	}
	b.reject(401, o, "an unknown key", o.at(nobody), rightBody(b.T, o), testenv.Header{Name: "X-API-Key", Value: "thk_" + strings.Repeat("a", 40)})
	b.reject(401, o, "another scheme", o.at(nobody), rightBody(b.T, o), none, testenv.Header{Name: "Authorization", Value: "Basic YTpi"})
	if o.scope == "" {
		return
	}
	key := b.weak
	if o.scope == "dlq:read" {
		key = b.weaker
	}
	a = b.reject(403, o, "a key without the scope", o.at(nobody), rightBody(b.T, o), testenv.Header{Name: "X-API-Key", Value: key})
	if !strings.Contains(a.At("detail").Text(), o.scope) {
		b.Errorf("%s: the refusal does not name the scope %s: %s", o, o.scope, a.Body)
	}
}

func (b *badInput) ids(o operation) {
	b.Helper()
	if !strings.Contains(o.path, "{") || o.id == "putSuppression" {
		return
	}
	b.reject(404, o, "an unknown id", o.at(nobody), rightBody(b.T, o))
	if !strings.Contains(o.path, "{id}") {
		return
	}
	for _, id := range []string{"1", "nil", "%00", "..%2F..%2Fetc", "%27%3B--", "0199a1c0000070008000000000000000", strings.Repeat("9", 5000)} {
		b.reject(404, o, "the id "+id[:min(len(id), 20)], o.at(id), rightBody(b.T, o))
	}
}

// methods tries one that the path does not have.
func (b *badInput) methods(o operation, all []operation) {
	b.Helper()
	if o.path == "/webhooks/{token}" {
		return // answers the checks of vendors
	}
	for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		if slices.ContainsFunc(all, func(other operation) bool { return other.method == m && covers(other.path, o.path) }) {
			continue
		}
		wrong := o
		wrong.method = m
		if a := b.reject(405, wrong, "another method", o.at(nobody), nil); a.Header.Get("Allow") == "" {
			b.Errorf("%s: 405 without Allow", wrong)
		}
	}
}

// covers tells whether a path is one of a pattern's: /dlq/{id} covers /dlq/stats.
func covers(pattern, path string) bool {
	p, q := strings.Split(pattern, "/"), strings.Split(path, "/")
	return slices.EqualFunc(p, q, func(a, b string) bool { return a == b || strings.HasPrefix(a, "{") })
}

// tooLarge announces a body that is too long, and sends one without saying so.
func (b *badInput) tooLarge(o operation) {
	b.Helper()
	if o.method == http.MethodGet {
		return
	}
	limit := 65536
	if o.id == "createEnrollments" {
		limit = 16 << 20
	}
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nX-API-Key: %s\r\n", o.method, o.at(nobody), testenv.AdminKey)
	b.raw(o, "announced too large", head+fmt.Sprintf("Content-Length: %d\r\n\r\n", limit+1), nil)
	b.raw(o, "chunked too large", head+"Transfer-Encoding: chunked\r\n\r\n", func(w io.Writer) error {
		chunk := fmt.Sprintf("%x\r\n%s\r\n", 32<<10, strings.Repeat(" ", 32<<10))
		for sent := 0; sent <= limit; sent += 32 << 10 {
			if _, err := io.WriteString(w, chunk); err != nil {
				return err
			}
		}
		return nil
	})
}

// raw writes a request by hand and expects 413.
func (b *badInput) raw(o operation, what, head string, body func(io.Writer) error) {
	b.Helper()
	conn := dial(b.T, b.server)
	defer conn.Close() //nolint:errcheck // the answer was read
	if _, err := io.WriteString(conn, head); err != nil {
		b.Errorf("%s, %s: %v", o, what, err)
		return
	}
	if body != nil {
		if err := body(conn); err != nil {
			b.Logf("%s, %s: the server closed before everything was sent, as it may: %v", o, what, err)
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		b.Errorf("%s, %s: no answer: %v", o, what, err)
		return
	}
	defer resp.Body.Close() //nolint:errcheck // it is read below
	a := testenv.Answer{Status: resp.StatusCode, Header: resp.Header}
	if a.Body, err = io.ReadAll(resp.Body); err != nil {
		b.Errorf("%s, %s: the answer was cut: %v", o, what, err)
	}
	b.hold([]int{413}, o, what, a)
}

func (b *badInput) forbidden(o operation) {
	b.Helper()
	for _, name := range []string{"__proto__", "constructor", "prototype"} {
		for _, query := range []string{name + "=1", "a[" + name + "][b]=1", "a." + name + "=1", url.QueryEscape(name) + "=1", "%5f%5fproto%5f%5f=1"} {
			b.reject(400, o, "the query "+query, o.at(nobody)+"?"+query, rightBody(b.T, o))
		}
		if o.method == http.MethodGet {
			continue
		}
		for _, body := range []string{
			`{"` + name + `":{"admin":true}}`, `{"metadata":{"deep":[{"` + name + `":1}]}}`, `[{"` + name + `":1}]`,
			fmt.Sprintf(`{"\u%04x%s":1}`, name[0], name[1:]),
		} {
			a := b.reject(400, o, "the body "+body, o.at(nobody), body)
			if !strings.Contains(a.At("errors.0.message").Text(), name) {
				b.Errorf("%s, the body %s: the refusal does not name the key: %s", o, body, a.Body)
			}
		}
	}
}

func (b *badInput) parameters(o operation) {
	b.Helper()
	a := b.reject(400, o, "an unknown parameter", o.at(nobody)+"?no_such_parameter=1", rightBody(b.T, o))
	if !strings.Contains(string(a.Body), "no_such_parameter") {
		b.Errorf("%s: an unknown parameter is not named: %s", o, a.Body)
	}
	b.reject(400, o, "an unknown parameter that is no text", o.at(nobody)+"?%FF%FE=1", rightBody(b.T, o))
	b.reject(400, o, "a broken query", o.at(nobody)+"?limit=%zz", rightBody(b.T, o))
	for _, name := range o.query {
		for _, value := range []string{"%00", "%FF%FE", "'%20OR%201=1--", "-1", "1e9", strings.Repeat("x", 5000), "%E2%98%83", "{}"} {
			b.send([]int{200, 400, 404}, o, name+"="+value[:min(len(value), 20)], o.at(nobody)+"?"+name+"="+value, rightBody(b.T, o))
		}
	}
}

func (b *badInput) bodies(o operation) {
	b.Helper()
	at := o.at(nobody)
	for _, media := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml", "application/jsonx", "nonsense"} {
		b.reject(415, o, "Content-Type "+media, at, rightBody(b.T, o), testenv.Header{Name: "Content-Type", Value: media})
	}
	for _, body := range []string{
		`{`, `{"a":`, `{"a":1}}`, `not json`, "\x00", `{"a":1,"a":2}`, `{'a':1}`, "{\"name\":\"\xff\xfe\"}", `null`, `true`, `"text"`, `[]`,
		`1e400`, strings.Repeat("[", 20_000), strings.Repeat(`{"a":`, 10_000), "", " ",
	} {
		a := b.send([]int{400, 404}, o, fmt.Sprintf("the body %.30q", body), at, body)
		if a.Status == 404 && o.id != "createEnrollments" { // whose items are read one by one
			b.Errorf("%s, the body %.30q: status 404, want 400", o, body)
		}
	}
	if o.id == "createEnrollments" {
		return
	}
	a := b.reject(400, o, "an unknown field", at, `{"no_such_field":1}`)
	if !strings.Contains(string(a.Body), "no_such_field") {
		b.Errorf("%s: an unknown field is not named: %s", o, a.Body)
	}
	b.reject(400, o, "a field of the wrong type", at, fmt.Sprintf(`{"%s":{"x":[1]}}`, anyField(b.T, o)))
}

// anyField is a field of the body that is no object.
func anyField(t *testing.T, o operation) string {
	t.Helper()
	for name := range rightBody(t, o).(map[string]any) {
		return name
	}
	return ""
}

func (b *badInput) nothingIsStored() {
	b.Helper()
	for _, path := range []string{
		"/api/events", "/api/campaigns/templates", "/api/campaigns/instances", "/api/sources", "/api/suppressions", "/api/admin/dlq",
	} {
		if rows := b.c.Rows(path); len(rows) != 0 {
			b.Errorf("%s has %d rows, want none: %v", path, len(rows), rows[0].Map())
		}
	}
	if n := len(b.c.Rows("/api/keys")); n != 3 {
		b.Errorf("there are %d API keys, want the 3 that were there before", n)
	}
	balance := b.c.Get("/api/admin/balance").At("data")
	for _, of := range []string{"ledger", "recount"} {
		for name, v := range balance.At("tenants.0." + of).Map() {
			if v.Int() != 0 {
				b.Errorf("balance: %s in the %s is %d, want 0", name, of, v.Int())
			}
		}
	}
	for line := range strings.Lines(b.server.Log()) {
		if strings.Contains(line, `"level":"ERROR"`) || strings.Contains(line, "could not write") {
			b.Fatalf("the server has logged an error: %.400s", line)
		}
	}
}
