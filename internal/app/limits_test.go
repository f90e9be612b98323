package app_test

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

const goodKey = "X-API-Key: " + testenv.AdminKey

// refused checks a 429: the fields that say when to come again.
func (e *edge) refused(what, kind string, count, within int, a testenv.Answer) {
	e.Helper()
	if a.Status != 429 {
		e.Errorf("%s: got %d %.200s, want 429", what, a.Status, a.Body)
		return
	}
	e.whole(what, a)
	after, err := strconv.Atoi(a.Header.Get("Retry-After"))
	if err != nil || after < 1 || after > within {
		e.Errorf("%s: Retry-After %q, want 1 to %d seconds", what, a.Header.Get("Retry-After"), within)
	}
	if got, want := a.Header.Get("RateLimit-Policy"), fmt.Sprintf("%q;q=%d;w=%d", kind, count, within); got != want {
		e.Errorf("%s: RateLimit-Policy %q, want %q", what, got, want)
	}
	if got, want := a.Header.Get("RateLimit"), fmt.Sprintf("%q;r=0;t=%d", kind, after); got != want {
		e.Errorf("%s: RateLimit %q, want %q", what, got, want)
	}
}

// TestAnonymousLimit: 100 in 15 minutes by default, then 429, whatever is
// tried; a good key from the same address goes on.
func TestAnonymousLimit(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_API=0")
	guess := func(i int) string {
		return fmt.Sprintf("X-API-Key: guess-%032d", i)
	}
	for i := range 100 {
		text, want := request("GET", "/api/events", "", guess(i)), 401
		switch i % 4 {
		case 1:
			text = request("GET", "/api/events", "")
		case 2:
			text, want = request("GET", "/nowhere", ""), 404
		case 3:
			text, want = request("GET", "/openapi.json", ""), 200
		}
		a := e.raw(text)
		if a.Status != want {
			t.Fatalf("request %d: got %d, want %d", i+1, a.Status, want)
		}
		if got, want := a.Header.Get("RateLimit"), fmt.Sprintf(`"anonymous";r=%d;t=`, 99-i); !strings.HasPrefix(got, want) {
			t.Fatalf("request %d: RateLimit %q, want %q", i+1, got, want)
		}
	}
	for _, text := range []string{
		request("GET", "/api/events", "", guess(1000)), request("GET", "/api/events", ""), request("GET", "/docs", ""), request("GET", "/nowhere", ""),
		request("GET", "/api/events", "", "Authorization: Bearer "+strings.Repeat("x", 40)), request("GET", "/webhooks/sometoken", ""),
	} {
		e.refused(text[:40], "anonymous", 100, 900, e.raw(text))
	}
	if a := e.raw(request("POST", "/webhooks/guessed", "{}")); a.Status != 429 {
		t.Errorf("a guessed webhook: got %d, want 429", a.Status)
	}
	// A mis-keyed job behind the same address shuts nobody out.
	for range 20 {
		if a := e.raw(request("GET", "/api/events", "", goodKey)); a.Status != 200 || a.Header.Get("RateLimit") != "" {
			t.Fatalf("a good key from the same address: got %d, RateLimit %q", a.Status, a.Header.Get("RateLimit"))
		}
	}
	// What watches the server is exempt.
	for _, path := range []string{"/health", "/livez", "/readyz", "/metrics"} {
		for range 5 {
			if a := e.raw(request("GET", path, "", guess(1))); a.Status != 200 || a.Header.Get("RateLimit") != "" {
				t.Errorf("%s: got %d, RateLimit %q", path, a.Status, a.Header.Get("RateLimit"))
			}
		}
	}
	if got := e.metric(`tallyhook_rate_limited_total{kind="anonymous"}`); got != 7 {
		t.Errorf("counted %v, want 7", got)
	}
}

// TestGuesserThatHangsUp: who closes its half of the connection at once is
// counted like everybody else, and is no failure of ours.
func TestGuesserThatHangsUp(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_ANONYMOUS=50/1h")
	for i := range 60 {
		conn := e.dial()
		text := request("GET", "/api/events", "", fmt.Sprintf("X-API-Key: guess-%032d", i))
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		if half, ok := conn.(*net.TCPConn); ok {
			if err := half.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		want := 401
		if i >= 50 {
			want = 429
		}
		if a := e.exchange(conn, ""); a.Status != want {
			t.Errorf("guess %d: got %d %s, want %d", i+1, a.Status, a.Body, want)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestNewKeyFromABlockedAddress: a key made a moment ago, which no cache has
// seen in use, is let in too, and a revoked one is not.
func TestNewKeyFromABlockedAddress(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_ANONYMOUS=1/1h", "RATE_LIMIT_API=0")
	admin := e.client(testenv.AdminKey)
	e.raw(request("GET", "/docs", ""))
	e.refused("the address", "anonymous", 1, 3600, e.raw(request("GET", "/docs", "")))
	id, key := admin.NewKey("new", "events:read")
	line := "X-API-Key: " + key
	if a := e.raw(request("GET", "/api/events", "", line)); a.Status != 200 {
		t.Errorf("a new key: got %d %s", a.Status, a.Body)
	}
	admin.Do(204, "DELETE", "/api/keys/"+id, nil)
	if a := e.raw(request("GET", "/api/events", "", line)); a.Status != 429 {
		t.Errorf("the revoked key from the blocked address: got %d, want 429", a.Status)
	}
}

// TestGoodKeyAfterARestart: all keys are known from the start on.
func TestGoodKeyAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := []string{"RATE_LIMIT_ANONYMOUS=1/1h", "RATE_LIMIT_API=0"}
	server := testenv.Start(t, testenv.Options{Dir: dir, Env: env})
	_, key := server.Client("").NewKey("job", "events:read")
	if code := server.Stop(2 * time.Minute); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	server = testenv.Start(t, testenv.Options{Dir: dir, Env: env})
	stranger := testenv.NewClient(t, server.URL, "")
	defer stranger.Close()
	stranger.Do(200, "GET", "/docs", nil)
	stranger.Do(429, "GET", "/docs", nil)
	server.Client(key).Get("/api/events")
}

// TestKeyAndSourceBudgets: each key and each source has its own, and only what
// is authentic spends it.
func TestKeyAndSourceBudgets(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_API=20/1h", "RATE_LIMIT_WEBHOOK=5/1h")
	admin := e.client(testenv.AdminKey)
	source, other := admin.NewSource("generic", ""), admin.NewSource("generic", "") // two requests
	_, second := admin.NewKey("second", "events:read")                              // and one
	for i := range 17 {
		if a := e.raw(request("GET", "/api/events", "", goodKey)); a.Status != 200 || !strings.HasPrefix(a.Header.Get("RateLimit"), fmt.Sprintf(`"api";r=%d;t=`, 16-i)) {
			t.Fatalf("request %d: got %d, RateLimit %q", i+1, a.Status, a.Header.Get("RateLimit"))
		}
	}
	e.refused("a key that asks too often", "api", 20, 3600, e.raw(request("GET", "/api/events", "", goodKey)))
	if a := e.raw(request("GET", "/api/events", "", "X-API-Key: "+second)); a.Status != 200 {
		t.Errorf("another key: got %d", a.Status)
	}

	// Forgeries do not use up a source's budget; what is authentic does.
	for range 10 {
		e.signed(401, source, "forged", false)
	}
	for i := range 5 {
		e.signed(200, source, fmt.Sprint("msg_", i), true)
	}
	e.refused("a source that sends too fast", "webhook", 5, 3600, e.signed(429, source, "msg_6", true))
	e.signed(200, other, "msg_7", true)
	for kind, want := range map[string]float64{"api": 1, "webhook": 1, "signature": 0, "anonymous": 0} {
		if got := e.metric(`tallyhook_rate_limited_total{kind="` + kind + `"}`); got != want {
			t.Errorf("%s: counted %v, want %v", kind, got, want)
		}
	}
}

// signed sends a webhook with a signature that is good or not.
func (e *edge) signed(want int, source testenv.Source, id string, good bool) testenv.Answer {
	e.Helper()
	body := `{"event_type":"opened","channel":"email","email":"ada@example.com","provider_event_id":"` + id + `"}`
	headers, err := testenv.Sign(source.Secret, id, time.Now(), []byte(body))
	if err != nil {
		e.Fatal(err)
	}
	lines := make([]string, 0, 3)
	for _, h := range headers {
		lines = append(lines, h.Name+": "+h.Value)
	}
	if !good {
		body = strings.Replace(body, "ada", "eve", 1)
	}
	a := e.raw(request("POST", source.Path, body, lines...))
	if a.Status != want {
		e.Errorf("webhook %s: got %d %.200s, want %d", id, a.Status, a.Body, want)
	}
	return a
}

// TestFailedSignatures count against the address and the source: a wrong
// secret on a vendor's shared address shuts out neither that vendor's other
// sources, nor a good signature for this one.
func TestFailedSignatures(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_ANONYMOUS=3/1h", "RATE_LIMIT_API=0")
	admin := e.client(testenv.AdminKey)
	source, other := admin.NewSource("generic", ""), admin.NewSource("generic", "")
	for range 3 {
		e.signed(401, source, "forged", false)
	}
	for range 5 {
		e.refused("too many forgeries", "signature", 3, 3600, e.signed(429, source, "forged", false))
	}
	e.signed(200, source, "msg_1", true)
	e.signed(401, other, "forged", false)
	e.signed(200, other, "msg_2", true)
	// The flood left three traces, not eight.
	rows := admin.Get("/api/sources/" + source.ID + "/rejections").At("data").List()
	if len(rows) != 3 {
		t.Errorf("%d rejections are kept, want 3", len(rows))
	}
	if got := strings.Count(e.log.String(), `"msg":"webhook refused"`); got != 4 {
		t.Errorf("%d refusals are logged, want 4", got)
	}
	// None of it counted against the address itself.
	if a := e.raw(request("GET", "/docs", "")); a.Status != 200 {
		t.Errorf("/docs: got %d", a.Status)
	}

	// The same by X-Source-ID.
	body := `{"event_type":"opened","channel":"email","email":"ada@example.com","provider_event_id":"e1"}`
	sign := func(secret string) []testenv.Header {
		h, err := testenv.Sign(secret, "msg_3", time.Now(), []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return append(h, testenv.Header{Name: "X-Source-ID", Value: source.ID})
	}
	keyless := e.client("")
	keyless.Do(429, "POST", "/api/events", body, sign(other.Secret)...)
	keyless.Do(202, "POST", "/api/events", body, sign(source.Secret)...)
	// An id that names no source is a guess, and is held for one.
	nobody := append(sign(source.Secret)[:3], testenv.Header{Name: "X-Source-ID", Value: "0199a1c0-7c1e-7d3a-9d4e-2f6b1c8a0e11"})
	keyless.Do(401, "POST", "/api/events", body, nobody...)
	keyless.Do(401, "POST", "/api/events", body, nobody...)
	keyless.Do(429, "POST", "/api/events", body, nobody...)
	keyless.Do(200, "POST", "/api/events", body, sign(source.Secret)...)
}

// TestBulkBodyOfAStranger: the larger bound is for keys, and asking for it
// counts like everything else.
func TestBulkBodyOfAStranger(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_ANONYMOUS=1/1h", "MAX_BODY_BYTES=1024", "RATE_LIMIT_API=0")
	path := "/api/campaigns/instances/0199a1c0-7c1e-7d3a-9d4e-2f6b1c8a0e11/enrollments/bulk"
	body := "[" + strings.Repeat(" ", 3000) + "]"
	wrong := "X-API-Key: " + strings.Repeat("w", 40)
	if a := e.raw(request("POST", path, body, wrong)); a.Status != 401 {
		t.Errorf("got %d, want 401", a.Status)
	}
	e.refused("the second", "anonymous", 1, 3600, e.raw(request("POST", path, body, wrong)))
	if a := e.raw(request("POST", path, body, goodKey)); a.Status == 401 || a.Status == 413 || a.Status == 429 {
		t.Errorf("with a key: got %d %s", a.Status, a.Body)
	}
}

// TestClientAddress: the header is believed of trusted proxies only, from the
// right, as far as they are trusted.
func TestClientAddress(t *testing.T) {
	t.Parallel()
	t.Run("Untrusted", func(t *testing.T) {
		t.Parallel()
		e := startEdge(t, "RATE_LIMIT_ANONYMOUS=2/1h")
		for i := range 2 {
			e.raw(request("GET", "/docs", "", fmt.Sprintf("X-Forwarded-For: 192.0.2.%d", i)))
		}
		e.refused("a forged header", "anonymous", 2, 3600, e.raw(request("GET", "/docs", "", "X-Forwarded-For: 192.0.2.77")))
	})
	t.Run("Trusted", func(t *testing.T) {
		t.Parallel()
		e := startEdge(t, "RATE_LIMIT_ANONYMOUS=1/1h", "TRUSTED_PROXIES=127.0.0.0/8,10.0.0.0/8,fd00::/8")
		// Each first one is let in: it is another client. Each second one names the same.
		for _, same := range [][2][]string{
			{{"192.0.2.1"}, {"192.0.2.1:4711"}},
			{{"192.0.2.2"}, {"198.51.100.9, 192.0.2.2"}},             // what the client wrote itself
			{{"192.0.2.3, 10.1.1.1"}, {"evil, 192.0.2.3, 10.2.2.2"}}, // over two proxies
			{{"192.0.2.4", "10.1.1.1"}, {"192.0.2.4"}},               // in two headers
			{{"2001:db8::1"}, {"[2001:db8::ffff]:443"}},              // one /64
			{{"::ffff:192.0.2.6"}, {"192.0.2.6"}},
			{{"192.0.2.7, fd00::1"}, {"192.0.2.7"}},
			{{"10.9.9.9"}, {"unknown, 10.9.9.9"}}, // what cannot be read ends the way back
			{{"nonsense"}, {""}},                  // then it is the proxy itself
		} {
			for i, values := range same {
				var lines []string
				for _, v := range values {
					lines = append(lines, "X-Forwarded-For: "+v)
				}
				want := []int{200, 429}[i]
				if a := e.raw(request("GET", "/docs", "", lines...)); a.Status != want {
					t.Errorf("%v: got %d, want %d", values, a.Status, want)
				}
			}
		}
	})
}
