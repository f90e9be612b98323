package attack

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const familyHTTP = "malformed HTTP"

// family is one way of attack.
type family struct {
	name string
	send func(ctx context.Context, a *attack, rnd *rand.Rand, name string, i int)
}

func families() []family {
	return []family{
		{familyHTTP, malformed},
		{"JSON bombs", bombs},
		{"broken text", brokenText},
		{"strings in fields", poisoned},
		{"huge arrays", hugeArrays},
		{"replays", replays},
		{"forged signatures", forged},
		{"key guessing", guessing},
		{"timing of keys", timing},
		{"compressed bodies", compressed},
		{"origins", strangers},
		{"header floods", floods},
		{"paths", paths},
	}
}

func pick[T any](rnd *rand.Rand, of ...T) T { return of[rnd.IntN(len(of))] }

// garbage is random bytes.
func garbage(rnd *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.UintN(256)) //nolint:gosec // below 256
	}
	return string(b)
}

// malformed breaks a request at a random place.
func malformed(ctx context.Context, a *attack, rnd *rand.Rand, name string, _ int) {
	good := "POST /api/events HTTP/1.1\r\nHost: test\r\nX-API-Key: wrong-key-of-the-attack\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
	at := rnd.IntN(len(good))
	text := pick(rnd,
		good[:at],
		good[:at]+garbage(rnd, 1+rnd.IntN(8))+good[at:],
		good[:at]+good[min(at+1+rnd.IntN(6), len(good)):],
		garbage(rnd, rnd.IntN(2000)),
		strings.Replace(good, "Content-Length: 2", pick(rnd, "Content-Length: -2", "Content-Length: 2, 3", "Content-Length: 0x2", "Content-Length: 2\r\nContent-Length: 3",
			"Transfer-Encoding: chunked\r\nContent-Length: 2", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding : chunked", "Transfer-Encoding: \x0bchunked"), 1),
		strings.Replace(good, "HTTP/1.1", pick(rnd, "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.1.1", "http/1.1", "HTTP/11"), 1),
		strings.Replace(good, "Host: test", pick(rnd, "Host: a\r\nHost: b", "Host:", "Host: a/b", "Host: \x00", "X: y"), 1),
		"POST /api/events HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"+pick(rnd, "zz\r\n{}\r\n0\r\n\r\n", "ffffffffffffffff\r\n{}", "2\r\n{}", "2;"+strings.Repeat("x", 5000)+"\r\n{}\r\n0\r\n\r\n", "-2\r\n{}\r\n"),
	)
	a.raw(ctx, name, text)
}

// parse reads the first answer of what a server has sent.
func parse(b []byte) answer {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return answer{}
	}
	ans, err := read(resp)
	if err != nil {
		return answer{status: resp.StatusCode, header: resp.Header}
	}
	return ans
}

// jsonRoutes are those that read JSON, with a body that is good but for what
// {instance} and the like stand for.
func (a *attack) jsonRoutes() [][2]string {
	return [][2]string{
		{"/api/events", "events"},
		{"/api/campaigns/events/webhook", "events"},
		{"/api/campaigns/templates", "templates"},
		{"/api/campaigns/instances", "instances"},
		{"/api/campaigns/instances/" + a.instance + "/enrollments", "enrollments"},
		{"/api/campaigns/instances/" + a.instance + "/enrollments/bulk", "enrollments"},
		{"/api/campaigns/enrollments/" + a.enrollment + "/refs", "refs"},
		{"/api/keys", "keys"},
		{"/api/sources", "sources"},
		{"/api/admin/dlq/replay", "replays"},
	}
}

// bombs are texts that cost a careless reader much.
func bombs(ctx context.Context, a *attack, rnd *rand.Rand, name string, i int) {
	route := pick(rnd, a.jsonRoutes()...)
	n := 1 + rnd.IntN(1<<(1+rnd.IntN(15)))
	var body string
	switch rnd.IntN(8) {
	case 0:
		body = strings.Repeat("[", n)
	case 1:
		body = strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n)
	case 2:
		body = `{"metadata":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}"
	case 3:
		var b strings.Builder
		b.WriteString(`{"metadata":{`)
		for k := range min(n, 20_000) {
			fmt.Fprintf(&b, `"k%d":%d,`, k, k)
		}
		body = b.String() + `"z":1},"event_type":1}`
	case 4:
		body = `{"step_number":` + strings.Repeat("9", n) + `}`
	case 5:
		body = `{"event_type":"opened","channel":"email","step_number":` + pick(rnd, "1e400", "-1e400", "1e-999999999", "0."+strings.Repeat("0", n)+"1", "9223372036854775808", "-0", "NaN", "Infinity", "0x1", "1_0", "01") + `,"x":1}`
	case 6:
		body = `{"name":"` + strings.Repeat(`\u0000`, n) + `"}`
	case 7:
		body = `{"` + pick(rnd, "__proto__", "constructor", "prototype", `\u005f_proto__`) + `":` + strconv.Itoa(i) + `}`
	}
	a.call(ctx, name, http.MethodPost, route[0], []byte(body), a.keyed())
}

// brokenText is no UTF-8, or text that confuses.
func brokenText(ctx context.Context, a *attack, rnd *rand.Rand, name string, i int) {
	bad := pick(rnd, "\xff\xfe", "\xc0\xaf", "\xed\xa0\x80", "\xf8\x88\x80\x80\x80", "\x80", "\xe2\x82", `\ud800`, `\udfff\ud800`, "\x00", "\x1f", garbage(rnd, 1+rnd.IntN(30)))
	body := fmt.Sprintf(`{"event_type":"opened","channel":"email","email":"a@example.com","provider_event_id":"%s-%d","no_such_field":1}`, bad, i)
	switch rnd.IntN(4) {
	case 0:
		a.call(ctx, name, http.MethodPost, "/api/events", []byte(body), a.keyed())
	case 1:
		a.call(ctx, name, http.MethodPost, "/api/keys", []byte(`{"name":"`+bad+`","scopes":["`+bad+`"]}`), a.keyed())
	case 2:
		a.call(ctx, name, http.MethodGet, "/api/events?email="+url.QueryEscape(bad)+"&cursor="+url.QueryEscape(bad), nil, a.keyed())
	case 3:
		a.call(ctx, name, http.MethodGet, "/api/suppressions/"+url.PathEscape(bad), nil, a.keyed())
	}
}

// poison are texts that do harm where they are not kept as text.
func poison(rnd *rand.Rand) string {
	return pick(rnd,
		`' OR '1'='1`, `'; DROP TABLE event; --`, `" OR ""="`, `1; SELECT pg_sleep(10)`, `' UNION SELECT hash FROM api_key --`, `%27%20OR%201=1`, `\'; --`, `?1`, `$1`, `:name`,
		`{{7*7}}`, `${7*7}`, `#{7*7}`, `<%= 7*7 %>`, `${jndi:ldap://127.0.0.1/x}`, `{{constructor.constructor('x')()}}`, `%s%n%x%d`, `$(id)`, "`id`", `| id`, `../../etc/passwd`,
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `javascript:alert(1)`, "a\\r\\nSet-Cookie: x=1", `=cmd|' /C calc'!A0`, `＜script＞`, "\u202eevil", `{"a":1}`, `null`, `NaN`)
}

// poisoned puts them into each field. What is valid is kept as it is and
// counted as accepted; what is read back is what was sent.
func poisoned(ctx context.Context, a *attack, rnd *rand.Rand, name string, i int) {
	text := poison(rnd)
	unique := fmt.Sprintf("%s %d-%d", text, a.o.Seed, i)
	post := func(path, what string, body map[string]any, field string) {
		raw, err := json.Marshal(body)
		if err != nil {
			return
		}
		ans := a.call(ctx, name, http.MethodPost, path, raw, a.keyed())
		if ans.status != http.StatusCreated && ans.status != http.StatusAccepted {
			return
		}
		a.accepted(what, 1)
		var got struct {
			Data map[string]any `json:"data"`
		}
		if err := json.Unmarshal(ans.body, &got); err != nil || field != "" && got.Data[field] != body[field] {
			a.mu.Lock()
			a.problem("%s: %q came back as %v", name, body[field], got.Data[field])
			a.mu.Unlock()
		}
	}
	template := func(field string) map[string]any {
		step := map[string]any{"step_number": 1, "channel": "email", "subject": "x"}
		body := map[string]any{"name": "x", "type": "email", "steps": []any{step}}
		switch field {
		case "name", "description", "type", "path_type":
			body[field] = unique
		default:
			step[field] = unique
		}
		return body
	}
	event := func(field string) map[string]any {
		body := map[string]any{"event_type": "opened", "channel": "email", "email": "a@example.com", "provider": "attack", "provider_event_id": fmt.Sprintf("%d-%d-%s", a.o.Seed, i, a.instance)}
		body[field] = unique
		if field == "metadata" {
			body[field] = map[string]any{unique: unique}
		}
		return body
	}
	switch rnd.IntN(7) {
	case 0:
		f := pick(rnd, "name", "description", "type", "path_type", "channel", "subject", "body", "variant")
		shown := ""
		if f == "name" || f == "description" {
			shown = f
		}
		post("/api/campaigns/templates", "templates", template(f), shown)
	case 1:
		f := pick(rnd, "event_type", "channel", "timestamp", "provider", "provider_message_id", "enrollment_id", "email", "campaign", "url", "metadata", "bounce", "machine")
		post("/api/events", "events", event(f), "")
	case 2:
		f := pick(rnd, "contact_id", "email", "linkedin_url")
		post("/api/campaigns/instances/"+a.instance+"/enrollments", "enrollments", map[string]any{f: unique}, f)
	case 3:
		f := pick(rnd, "name", "provider", "secret")
		body := map[string]any{"name": "x", "provider": "generic", f: unique}
		shown := ""
		if f == "name" {
			shown = f
		}
		post("/api/sources", "sources", body, shown)
	case 4:
		f := pick(rnd, "limit", "cursor", "state", "provider", "source_id", "event_type", "email", "enrollment_id", "message_id", "since", "until")
		a.call(ctx, name, http.MethodGet, "/api/events?"+f+"="+url.QueryEscape(text), nil, a.keyed())
	case 5:
		h := a.keyed()
		h.Set(pick(rnd, "Idempotency-Key", "X-Request-Id", "X-Source-Id", "User-Agent", "X-Forwarded-For", "Origin", "Accept"), url.QueryEscape(text))
		a.call(ctx, name, http.MethodGet, "/api/campaigns", nil, h)
	case 6:
		a.call(ctx, name, http.MethodGet, pick(rnd, "/api/events/", "/api/sources/", "/api/suppressions/", "/api/admin/dlq/", "/api/campaigns/templates/")+url.PathEscape(text), nil, a.keyed())
	}
}

// hugeArrays are longer than the routes take, or hold nothing that is good.
func hugeArrays(ctx context.Context, a *attack, rnd *rand.Rand, name string, _ int) {
	n := pick(rnd, 1001, 1001, 1500, 5000, 10_001, 20_000)
	item := pick(rnd, `{}`, `1`, `null`, `[]`, `"x"`, `{"event_type":"opened"}`)
	path := pick(rnd, a.jsonRoutes()[0], a.jsonRoutes()[1], a.jsonRoutes()[5])[0]
	a.call(ctx, name, http.MethodPost, path, []byte("["+strings.TrimSuffix(strings.Repeat(item+",", n), ",")+"]"), a.keyed())
}

// sign makes the headers of a Standard Webhook.
func (a *attack) sign(id string, at time.Time, body []byte, secret string) http.Header {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		key = nil // then it is a forgery
	}
	seconds := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + seconds + "."))
	mac.Write(body)
	return http.Header{
		"Content-Type": {"application/json"}, "Webhook-Id": {id}, "Webhook-Timestamp": {seconds},
		"Webhook-Signature": {"v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))},
	}
}

// replays send the same few authentic webhooks again and again: each is one
// event for good.
func replays(ctx context.Context, a *attack, rnd *rand.Rand, name string, _ int) {
	n := rnd.IntN(5)
	body := fmt.Appendf(nil, `{"event_type":"opened","channel":"email","email":"replay-%d@example.com","provider_event_id":"replay-%d-%s"}`, n, n, a.instance)
	ans := a.call(ctx, name, http.MethodPost, a.path, body, a.sign(fmt.Sprintf("msg_replay_%d", n), time.Now(), body, a.secret))
	var got struct {
		Data struct{ Received, Duplicate int64 } `json:"data"`
	}
	if ans.status == http.StatusOK && json.Unmarshal(ans.body, &got) == nil {
		a.accepted("events", got.Data.Received-got.Data.Duplicate)
	}
}

// forged are webhooks and signed requests that somebody else has made.
func forged(ctx context.Context, a *attack, rnd *rand.Rand, name string, i int) {
	body := fmt.Appendf(nil, `{"event_type":"unsubscribed","channel":"email","email":"forged-%d@example.com"}`, i)
	h := a.sign("msg_forged", time.Now(), body, a.secret)
	good := h.Get("Webhook-Signature")
	path := a.path
	if rnd.IntN(3) == 0 {
		path = "/api/events"
		h.Set("X-Source-Id", pick(rnd, a.source, "0199a1c0-7c1e-7d3a-9d4e-2f6b1c8a0e11", "x"))
	}
	switch rnd.IntN(8) {
	case 0:
		body = bytes.Replace(body, []byte("forged"), []byte("Forged"), 1)
	case 1:
		h = a.sign("msg_forged", time.Now().Add(-6*time.Minute), body, a.secret)
		h.Set("X-Source-Id", a.source)
	case 2:
		h.Set("Webhook-Id", "msg_other")
	case 3:
		h.Set("Webhook-Signature", pick(rnd, "v1,", "v1", "", "v2,"+good[3:], "v1a,"+good[3:], "v1,"+garbage64(rnd, 32), good[:20], "v1,"+strings.Repeat("A", 5000), strings.Repeat("v1,AAAA ", 500)))
	case 4:
		h.Del("Webhook-Timestamp")
	case 5:
		h.Set("Webhook-Timestamp", pick(rnd, "0", "-1", "9999999999999999999", "1e9", "now", h.Get("Webhook-Timestamp")+"0"))
	case 6:
		h = a.sign("msg_forged", time.Now(), body, "whsec_"+garbage64(rnd, 24))
		h.Set("X-Source-Id", a.source)
	case 7:
		path = "/webhooks/" + pick(rnd, garbage64URL(rnd, 40), a.path[10:len(a.path)-1]+"_", "x", strings.Repeat("A", 54))
	}
	a.call(ctx, name, http.MethodPost, path, body, h)
}

func garbage64(rnd *rand.Rand, n int) string {
	return base64.StdEncoding.EncodeToString([]byte(garbage(rnd, n)))
}

func garbage64URL(rnd *rand.Rand, n int) string {
	return base64.RawURLEncoding.EncodeToString([]byte(garbage(rnd, n)))
}

// guessing tries keys, also such as pass for one by their form.
func guessing(ctx context.Context, a *attack, rnd *rand.Rand, name string, _ int) {
	rest := "thk_" + garbage64URL(rnd, 32)
	sum := sha256.Sum256([]byte(rest))
	key := pick(rnd, rest+base64.RawURLEncoding.EncodeToString(sum[:])[:6], rest, garbage64URL(rnd, 1+rnd.IntN(400)), a.o.Key[:len(a.o.Key)-1], a.o.Key+"x", strings.ToUpper(a.o.Key), "null", "' OR 1=1 --", "Bearer")
	h := http.Header{"Content-Type": {"application/json"}}
	if rnd.IntN(2) == 0 {
		h.Set("X-Api-Key", key)
	} else {
		h.Set("Authorization", pick(rnd, "Bearer ", "bearer ", "Basic ", "")+key)
	}
	route := pick(rnd, a.jsonRoutes()...)
	a.call(ctx, name, pick(rnd, http.MethodPost, http.MethodGet), route[0], []byte(`{}`), h)
}

// timing tries keys of which nothing, a half, or all but the last eight
// characters are right, in no order and none of them twice, and keeps how long each took to refuse: a comparison that
// stops at the first difference would show. The figures are for a reader, since
// a busy machine says anything.
func timing(ctx context.Context, a *attack, rnd *rand.Rand, name string, _ int) {
	key := a.o.Key
	wrong := func(from int) string {
		b := []byte(key)
		for i := from; i < len(b); i++ {
			for was := b[i]; b[i] == was; {
				b[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[rnd.IntN(36)]
			}
		}
		return string(b)
	}
	classes := [][2]string{{"nothing right", wrong(0)}, {"half right", wrong(len(key) / 2)}, {"nearly right", wrong(max(0, len(key)-8))}}
	rnd.Shuffle(len(classes), func(i, j int) { classes[i], classes[j] = classes[j], classes[i] })
	for _, c := range classes {
		class, guess := c[0], c[1]
		start := time.Now()
		ans, err := a.ask(ctx, http.MethodGet, "/api/events", nil, http.Header{"X-Api-Key": {guess}})
		took := time.Since(start)
		if err != nil {
			continue
		}
		a.mu.Lock()
		if ans.status != http.StatusUnauthorized && ans.status != http.StatusTooManyRequests {
			a.problem("%s: a key with %s was answered %d", name, class, ans.status)
		}
		if len(a.report.Guess[class]) < 5000 {
			a.report.Guess[class] = append(a.report.Guess[class], took)
		}
		a.mu.Unlock()
	}
	a.call(ctx, name, http.MethodGet, "/api/events", nil, http.Header{"X-Api-Key": {wrong(rnd.IntN(len(key)))}})
}

// compressed bodies unpack to more than they seem, or to nothing.
func compressed(ctx context.Context, a *attack, rnd *rand.Rand, name string, _ int) {
	zip := func(b []byte) []byte {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		_, _ = z.Write(b) // into memory
		_ = z.Close()
		return out.Bytes()
	}
	spaces := bytes.Repeat([]byte(" "), 1<<(10+rnd.IntN(13)))
	whole := zip(spaces)
	body, coding := whole, "gzip"
	switch rnd.IntN(8) {
	case 0: // as it is
	case 1: // in itself
		for range 1 + rnd.IntN(3) {
			body = zip(body)
		}
	case 2: // many members
		body = bytes.Repeat(zip(spaces[:1024]), 1+rnd.IntN(3000))
	case 3:
		body = append(whole, garbage(rnd, 1+rnd.IntN(100))...)
	case 4:
		body = whole[:rnd.IntN(len(whole))]
	case 5:
		body[rnd.IntN(len(body))] ^= byte(1 + rnd.IntN(255)) //nolint:gosec // below 256
	case 6:
		coding = pick(rnd, "gzip, gzip", "deflate", "br", "zstd", "x-gzip", "gzip;q=1", "identity, gzip", "GZIP", "")
	case 7:
		body = []byte(garbage(rnd, rnd.IntN(2000)))
	}
	h := a.keyed()
	h.Set("Content-Encoding", coding)
	a.call(ctx, name, http.MethodPost, pick(rnd, "/api/events", "/api/keys", a.path, "/api/campaigns/instances/"+a.instance+"/enrollments/bulk"), body, h)
}

// strangers are pages of other sites.
func strangers(ctx context.Context, a *attack, rnd *rand.Rand, name string, _ int) {
	h := a.keyed()
	h.Set("Origin", pick(rnd, "null", "https://evil.example", a.base+".evil.example", "https://"+a.addr+"@evil.example", a.base+"/", strings.ToUpper(a.base), "file://", "https://"+strings.Repeat("a", rnd.IntN(5000)), poisonOrigin(rnd)))
	method := pick(rnd, http.MethodGet, http.MethodPost, http.MethodOptions)
	if method == http.MethodOptions {
		h.Set("Access-Control-Request-Method", pick(rnd, "POST", "DELETE", "*", ""))
	}
	ans := a.call(ctx, name, method, pick(rnd, a.jsonRoutes()...)[0], []byte(`{}`), h)
	if ans.status != http.StatusForbidden || ans.header.Get("Access-Control-Allow-Origin") != "" {
		a.mu.Lock()
		a.problem("%s: a page of %.80q was answered %d", name, h.Get("Origin"), ans.status)
		a.mu.Unlock()
	}
}

// poisonOrigin is one that a header can carry.
func poisonOrigin(rnd *rand.Rand) string { return "https://" + url.QueryEscape(poison(rnd)) }

// floods have more or longer headers than anybody needs.
func floods(ctx context.Context, a *attack, rnd *rand.Rand, name string, _ int) {
	var b strings.Builder
	b.WriteString("GET /api/campaigns HTTP/1.1\r\nHost: test\r\nConnection: close\r\n")
	switch rnd.IntN(5) {
	case 0:
		for i := range 1 + rnd.IntN(4000) {
			fmt.Fprintf(&b, "X-%d: %d\r\n", i, i)
		}
	case 1:
		b.WriteString("X-Long: " + strings.Repeat("a", rnd.IntN(100_000)) + "\r\n")
	case 2:
		b.WriteString(strings.Repeat("X", rnd.IntN(70_000)) + ": a\r\n")
	case 3:
		b.WriteString("X-Forwarded-For: " + strings.Repeat("127.0.0.1,", rnd.IntN(6000)) + "1\r\n")
	case 4:
		b.WriteString(strings.Repeat("X-API-Key: wrong-key-of-the-attack\r\n", 1+rnd.IntN(1000)))
	}
	b.WriteString("\r\n")
	a.raw(ctx, name, b.String())
}

// paths try to reach a route under another name.
func paths(ctx context.Context, a *attack, rnd *rand.Rand, name string, _ int) {
	var b strings.Builder
	for range 1 + rnd.IntN(8) {
		b.WriteString(pick(rnd, "/", "//", "/.", "/..", "%2f", "%2e%2e", "%00", "%ff", "%252e", `\`, ";", "/api", "/api/keys", "/webhooks", "/livez", "/docs", "~", "%0d%0a", "*", ":", "@evil.example"))
	}
	method := pick(rnd, "GET", "POST", "OPTIONS", "PUT", "HEAD", "TRACE", "PROPFIND")
	a.raw(ctx, name, method+" "+pick(rnd, "", "/", "http://evil.example")+b.String()+" HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
}
