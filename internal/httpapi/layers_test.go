package httpapi_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"tallyhook/internal/httpapi"
)

func TestRequestID(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	for given, taken := range map[string]bool{
		"abc-1_2.3": true, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false, "a b": false, "a\"b": false, "": false,
	} {
		got := a.call("GET", "/livez", "", "X-Request-ID", given).header.Get("X-Request-ID")
		if got == "" || (got == given) != taken {
			t.Errorf("gave %q, got %q, want it taken: %t", given, got, taken)
		}
	}
}

func TestSecurityHeadersOnEveryAnswer(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(_ *httpapi.Services, o *httpapi.Options) { o.MaxBodyBytes = 10 })
	for _, r := range []*answer{
		a.call("GET", "/livez", ""), a.call("GET", "/nowhere", ""), a.call("PATCH", "/health", ""),
		a.call("GET", "/api/keys", "", "X-API-Key", ""), a.call("POST", "/api/events", strings.Repeat("x", 11)),
		a.call("GET", "/api/events?__proto__=1", ""), a.call("GET", "/docs", ""), a.call("POST", "/webhooks/x", "y"),
		a.call("GET", "/api/events/"+someID, ""),
	} {
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := r.header.Get(name); got != want {
				t.Errorf("%s (%d): got %s %q, want %q", r.what, r.code, name, got, want)
			}
		}
		if !strings.HasPrefix(r.header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: got policy %q", r.what, r.header.Get("Content-Security-Policy"))
		}
		if strings.HasPrefix(strings.Fields(r.what)[1], "/api") && r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got Cache-Control %q", r.what, r.header.Get("Cache-Control"))
		}
	}
}

// unsized hides a reader's length, so that the request goes chunked.
type unsized struct{ io.Reader }

func TestTooLarge(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(_ *httpapi.Services, o *httpapi.Options) { o.MaxBodyBytes = 1000 })
	for _, path := range []string{"/api/events", "/api/campaigns/templates", "/webhooks/tok"} {
		a.call("POST", path, strings.Repeat(" ", 1001)).problem(413)
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, unsized{strings.NewReader(strings.Repeat(" ", 1001))})
		req.Header.Set("X-API-Key", adminKey)
		if req.ContentLength != -1 {
			t.Fatalf("the request has the length %d, want none", req.ContentLength)
		}
		a.do(req).problem(413)
	}
	// Bulk enrollment has a bound of its own.
	bulk := "/api/campaigns/instances/" + someID + "/enrollments/bulk"
	a.call("POST", bulk, "["+strings.Repeat(" ", 2000)+"]").problem(400)
	a.call("POST", bulk, strings.Repeat(" ", 16<<20+1)).problem(413)
}

// TestTooLargeOnASocket is the same against a real server, which must not be
// left with half a request.
func TestTooLargeOnASocket(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(_ *httpapi.Services, o *httpapi.Options) { o.MaxBodyBytes = 1000 })
	srv := httptest.NewServer(a.handler)
	t.Cleanup(srv.Close)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/api/events", unsized{strings.NewReader(strings.Repeat(" ", 5000))})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("got status %d, want 413", resp.StatusCode)
	}
}

func TestNotFoundAndMethod(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	for _, path := range []string{"/", "/api", "/api/nothing", "/api/keys/", "/api//keys", "/api/x/../keys", "/dashboard"} {
		a.call("GET", path, "").problem(404)
	}
	for path, allow := range map[string]string{
		"/health": "GET, HEAD", "/api/keys": "GET, HEAD, POST", "/api/keys/" + someID: "DELETE", "/api/campaigns/events/webhook": "POST",
		"/webhooks/tok": "GET, HEAD, OPTIONS, POST",
	} {
		r := a.call("PUT", path, "")
		r.problem(405)
		if got := r.header.Get("Allow"); got != allow {
			t.Errorf("%s: got Allow %q, want %q", path, got, allow)
		}
	}
	// An id that is none names nothing.
	for _, path := range []string{"/api/campaigns/templates/1", "/api/events/x", "/api/admin/dlq/0", "/api/admin/dlq/replays/y", "/api/sources/" + someID + "0"} {
		a.call("GET", path, "").problem(404)
	}
}

func TestContentType(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	for given, want := range map[string]int{
		"application/json": 400, "application/json; charset=utf-8": 400, "Application/JSON": 400, "text/plain": 415,
		"application/x-www-form-urlencoded": 415, "application/x-ndjson": 415, "": 415, ";": 415,
	} {
		for _, path := range []string{"/api/events", "/api/campaigns/templates"} {
			if r := a.call("POST", path, "{}", "Content-Type", given); r.code != want {
				t.Errorf("%s with %q: got %d, want %d: %s", path, given, r.code, want, r.body)
			}
		}
	}
	bulk := "/api/campaigns/instances/" + someID + "/enrollments/bulk"
	a.call("POST", bulk, "{}", "Content-Type", "text/csv").problem(415)
	a.call("POST", bulk, "{}", "Content-Type", "").problem(415)
	a.call("POST", "/webhooks/tok", "a=b", "Content-Type", "application/x-www-form-urlencoded").want(200)
}

func TestLogTellsNoSecrets(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	a.call("POST", "/webhooks/SECRETTOKEN?q=SECRETQUERY", `{"body":"SECRETBODY"}`)
	a.call("GET", "/webhooks/SECRETTOKEN", "")
	a.call("PUT", "/webhooks/SECRETTOKEN", "")
	a.call("GET", "/api/suppressions/ursula%40example.com?q=SECRETQUERY", "")
	a.call("GET", "/api/keys?q=SECRETQUERY", "", "X-API-Key", "SECRETKEY")
	a.call("POST", "/api/events", `{"event_type":"opened","channel":"email","email":"SECRETBODY@example.com"}`)
	log := a.log.String()
	// None of them can stand in a request id, which is hexadecimal.
	for _, secret := range []string{"SECRETTOKEN", "SECRETQUERY", "SECRETBODY", "SECRETKEY", "ursula"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log tells %s: %s", secret, log)
		}
	}
	for _, want := range []string{`"route":"/webhooks/{token}"`, `"route":"unmatched"`, `"status":200`, `"duration_ms"`, `"request_id"`, `"key_id":"` + someID} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s: %s", want, log)
		}
	}
}

func TestObserver(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []string
	flight := 0
	note := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, s)
	}
	a := newAPI(t, func(s *httpapi.Services, _ *httpapi.Options) {
		s.Observer = httpapi.Observer{
			InFlight: func(d int) { flight += d },
			Request: func(method, route string, status int, _ time.Duration) {
				note(fmt.Sprintf("%s %s %d", method, route, status))
			},
			AuthFailure: func(reason string) { note("auth " + reason) },
		}
	})
	a.call("GET", "/api/events/"+someID, "")
	a.call("BREW", "/secret/path", "")
	a.call("GET", "/api/keys", "", "X-API-Key", "")
	a.call("GET", "/api/keys", "", "X-API-Key", "what")
	a.call("GET", "/api/keys", "", "X-API-Key", "events:read")
	got := strings.Join(seen, "\n")
	want := "GET /api/events/{id} 200\nother unmatched 404\nauth missing\nGET /api/keys 401\nauth unknown\nGET /api/keys 401\nauth scope\nGET /api/keys 403"
	if got != want || flight != 0 {
		t.Errorf("got %d in flight and\n%s\nwant\n%s", flight, got, want)
	}
}

func TestGuardRefuses(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	// The guard comes before the key: a stranger learns that first.
	p := a.call("POST", "/api/events", `{"metadata":{"\u005f_proto__":1}}`, "X-API-Key", "").problem(400)
	if !p.names("body") {
		t.Errorf("got %+v, want an error at body", p)
	}
	p = a.call("GET", "/api/events?a[constructor]=1", "").problem(400)
	if !p.names("query") {
		t.Errorf("got %+v, want an error at query", p)
	}
	a.call("GET", "/api/events?email=%zz", "").problem(400)
	// Webhooks are kept, not refused.
	a.call("POST", "/webhooks/tok", `{"__proto__":1}`).want(200)
}

// TestBulkBodyNeedsAKey: who has no key gets no more room than on other routes.
func TestBulkBodyNeedsAKey(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	path := "/api/campaigns/instances/" + someID + "/enrollments/bulk"
	big := "[" + strings.Repeat(" ", 3<<20) + "]"
	a.call("POST", path, big, "X-API-Key", "").problem(401)
}
