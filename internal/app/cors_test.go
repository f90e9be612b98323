package app_test

import (
	"strings"
	"testing"
)

// hostile are values of Origin that no allowed page sends, beside
// https://events.example.com (PUBLIC_URL), https://app.example.com and
// http://crm.example.com:8080 (ALLOWED_ORIGINS).
func hostile() map[string]string {
	return map[string]string{
		"Null": "null", "NullUpper": "NULL", "Empty": "", "Star": "*", "Stranger": "https://evil.example", "StrangerPort": "https://evil.example:8443",
		"PlainScheme": "http://app.example.com", "OwnPlainScheme": "http://events.example.com", "TLSScheme": "https://crm.example.com:8080",
		"Suffix": "https://app.example.com.evil.example", "Prefix": "https://evilapp.example.com", "Sub": "https://a.app.example.com",
		"Parent": "https://example.com", "DashPrefix": "https://evil-app.example.com", "NoDot": "https://appXexample.com",
		"TrailingDot": "https://app.example.com.", "TrailingSlash": "https://app.example.com/", "Path": "https://app.example.com/x",
		"Query": "https://app.example.com?", "Fragment": "https://app.example.com#", "DefaultPort": "https://app.example.com:443",
		"OtherPort": "https://app.example.com:444", "EmptyPort": "https://app.example.com:", "PortZero": "https://app.example.com:0",
		"LeadingZeroPort": "http://crm.example.com:08080", "LongerPort": "http://crm.example.com:80800", "HugePort": "http://crm.example.com:99999999999999999999",
		"ListedWithoutPort": "http://crm.example.com", "User": "https://app.example.com@evil.example", "UserOfOurs": "https://evil@app.example.com",
		"UserPassword": "https://a:b@app.example.com", "UpperScheme": "HTTPS://app.example.com", "UpperHost": "https://APP.example.com",
		"NoScheme": "app.example.com", "SchemeRelative": "//app.example.com", "OneSlash": "https:/app.example.com", "ThreeSlashes": "https:///app.example.com",
		"Backslash": `https:\\app.example.com`, "BackslashUser": `https://evil.example\@app.example.com`, "File": "file://", "Data": "data:text/html,x",
		"Script": "javascript:alert(1)", "Extension": "chrome-extension://abcdefghijklmnop", "Blob": "blob:https://app.example.com/1",
		"ViewSource": "view-source:https://app.example.com", "Wildcard": "https://*.example.com", "Two": "https://app.example.com https://evil.example",
		"TwoOfOurs": "https://app.example.com https://events.example.com", "Comma": "https://app.example.com, https://evil.example",
		"CommaOfOurs": "https://evil.example,https://app.example.com", "Percent": "https://app%2eexample.com", "PercentNull": "https://app.example.com%00.evil.example",
		"Unicode": "https://аpp.example.com", "FullStop": "https://app。example.com", "Punycode": "https://xn--pp-6kc.example.com", "Latin1": "https://app.example.com\xff",
		"Tab": "https://app.example.com\tx", "InnerSpace": "https://app.exam ple.com", "Quoted": `"https://app.example.com"`,
		"Localhost": "http://localhost", "LocalhostPort": "http://localhost:5173", "Loopback": "http://127.0.0.1:3000", "Six": "http://[::1]:3000",
		"BrokenSix": "http://[::1", "Huge": "https://" + strings.Repeat("a", 20_000) + ".example", "ManyColons": "https://app.example.com:1:2",
		"Markup": "https://<script>alert(1)</script>", "SQL": "https://app.example.com' OR 1=1 --", "Template": "https://${jndi:ldap://evil}", "Zone": "http://[fe80::1%25eth0]",
	}
}

var corsSettings = []string{
	"PUBLIC_URL=https://events.example.com/in", "ALLOWED_ORIGINS=https://app.example.com, http://crm.example.com:8080",
	"RATE_LIMIT_ANONYMOUS=0", "RATE_LIMIT_API=0",
}

// TestHostileOrigins: each is 403 and never 500, with and without a good key,
// preflight too, and none is told any header that would let its page read.
func TestHostileOrigins(t *testing.T) {
	t.Parallel()
	e := startEdge(t, corsSettings...)
	all := hostile()
	if len(all) < 40 {
		t.Fatalf("%d hostile origins, want at least 40", len(all))
	}
	asked := 0
	hold := func(what, text string) {
		t.Helper()
		asked++
		a := e.raw(text)
		if a.Status != 403 || !strings.Contains(string(a.Body), "CORS policy violation") {
			t.Errorf("%s: got %d %.200s, want 403 CORS policy violation", what, a.Status, a.Body)
			return
		}
		e.whole(what, a)
		for name := range a.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: the refusal has %s", what, name)
			}
		}
		if !strings.Contains(strings.Join(a.Header.Values("Vary"), ","), "Origin") {
			t.Errorf("%s: the refusal does not vary by Origin", what)
		}
	}
	key := "X-API-Key: thk-test-0123456789abcdef0123456789abcdef"
	for name, origin := range all {
		line := "Origin: " + origin
		hold(name+", GET", request("GET", "/api/events", "", line, key))
		hold(name+", POST", request("POST", "/api/events", `{"event_type":"opened","channel":"email","email":"a@example.com"}`, line, key))
		hold(name+", preflight", request("OPTIONS", "/api/events", "", line, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-api-key"))
		hold(name+", public", request("GET", "/health", "", line))
		hold(name+", no route", request("GET", "/nowhere", "", line))
	}
	own := "Origin: https://events.example.com"
	hold("two headers, the first allowed", request("GET", "/health", "", own, "Origin: https://evil.example"))
	hold("two headers, both allowed", request("GET", "/health", "", own, own))
	hold("two headers, one empty", request("GET", "/health", "", own, "Origin:"))

	if got := e.metric("tallyhook_cors_refused_total"); got != float64(asked) {
		t.Errorf("counted %v refusals, want %d", got, asked)
	}
	if got := strings.Count(e.log.String(), `"msg":"origin refused"`); got != asked {
		t.Errorf("logged %d refusals, want %d", got, asked)
	}
	if a := e.raw(request("GET", "/api/events", "", key)); len(a.At("data").List()) != 0 {
		t.Errorf("a refused page has stored something: %s", a.Body)
	}
}

// TestAllowedOrigins: no Origin, our own, and those that are listed.
func TestAllowedOrigins(t *testing.T) {
	t.Parallel()
	e := startEdge(t, corsSettings...)
	key := "X-API-Key: thk-test-0123456789abcdef0123456789abcdef"
	if a := e.raw(request("GET", "/api/events", "", key)); a.Status != 200 || a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("without Origin: %d, %v", a.Status, a.Header)
	}
	for _, origin := range []string{"https://events.example.com", "https://app.example.com", "http://crm.example.com:8080"} {
		a := e.raw(request("GET", "/api/events", "", "Origin: "+origin, key))
		if a.Status != 200 || a.Header.Get("Access-Control-Allow-Origin") != origin || a.Header.Get("Access-Control-Allow-Credentials") != "true" {
			t.Errorf("%s: %d, %v", origin, a.Status, a.Header)
		}
		a = e.raw(request("OPTIONS", "/api/events", "", "Origin: "+origin, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type,x-api-key"))
		if a.Status != 204 || a.Header.Get("Access-Control-Allow-Origin") != origin || a.Header.Get("Access-Control-Allow-Methods") != "POST" ||
			a.Header.Get("Access-Control-Allow-Headers") != "content-type,x-api-key" || a.Header.Get("Access-Control-Max-Age") != "600" {
			t.Errorf("preflight of %s: %d, %v", origin, a.Status, a.Header)
		}
		e.whole("preflight", a)
		// An error must be readable for the page too.
		a = e.raw(request("GET", "/api/keys", "", "Origin: "+origin))
		if a.Status != 401 || a.Header.Get("Access-Control-Allow-Origin") != origin {
			t.Errorf("%s without a key: %d, %v", origin, a.Status, a.Header)
		}
	}
}

// TestOwnOriginBehindAProxy: the console is where PUBLIC_URL says, whatever
// Host and scheme the proxy in between asks with.
func TestOwnOriginBehindAProxy(t *testing.T) {
	t.Parallel()
	for public, origin := range map[string]string{
		"https://events.example.com": "https://events.example.com", "https://Events.Example.COM:443/in/": "https://events.example.com",
		"https://events.example.com:8443": "https://events.example.com:8443", "http://events.example.com:80": "http://events.example.com",
		"http://[2001:db8::1]:3000": "http://[2001:db8::1]:3000",
	} {
		e := startEdge(t, "PUBLIC_URL="+public, "TRUSTED_PROXIES=127.0.0.1", "RATE_LIMIT_ANONYMOUS=0")
		by := []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example", goodKey}
		a := e.raw(request("GET", "/api/events", "", append(by, "Origin: "+origin)...))
		if a.Status != 200 || a.Header.Get("Access-Control-Allow-Origin") != origin {
			t.Errorf("%s: %s got %d, %v", public, origin, a.Status, a.Header)
		}
		// Neither where the server listens nor what the request says it is.
		for _, other := range []string{"http://" + e.addr(), "http://test", "https://test", "https://evil.example"} {
			if a := e.raw(request("GET", "/api/events", "", append(by, "Origin: "+other)...)); a.Status != 403 {
				t.Errorf("%s: %s got %d, want 403", public, other, a.Status)
			}
		}
	}
}

// TestWebhooksHaveNoCORS: a vendor's Origin, whatever it is, changes nothing.
func TestWebhooksHaveNoCORS(t *testing.T) {
	t.Parallel()
	e := startEdge(t, corsSettings...)
	source := e.client("thk-test-0123456789abcdef0123456789abcdef").NewSource("lemlist", "")
	body := `{"_id":"act_1","type":"emailsOpened","createdAt":"2026-11-20T09:30:00.000Z","leadEmail":"ada@example.com"}`
	for _, origin := range []string{"null", "https://evil.example", "https://app.example.com"} {
		a := e.raw(request("POST", source.Path, body, "Origin: "+origin))
		if a.Status != 200 || a.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %s %v", origin, a.Status, a.Body, a.Header)
		}
		a = e.raw(request("OPTIONS", source.Path, "", "Origin: "+origin, "Access-Control-Request-Method: POST"))
		if a.Status != 204 || a.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s, OPTIONS: %d, %v", origin, a.Status, a.Header)
		}
	}
}

// TestDevelopmentAllowsLocalhost, any port of it, and nothing else.
func TestDevelopmentAllowsLocalhost(t *testing.T) {
	t.Parallel()
	e := startEdge(t, append([]string{"APP_ENV=development"}, corsSettings...)...)
	for origin, want := range map[string]int{
		"http://localhost": 200, "http://localhost:5173": 200, "https://localhost:65535": 200, "https://localhost": 200,
		"http://localhost:0": 403, "http://localhost:65536": 403, "http://localhost:": 403, "http://localhost:05173": 403, "http://localhost:+1": 403,
		"http://localhost.evil.example": 403, "http://localhost:5173.evil.example": 403, "http://localhost@evil.example": 403,
		"http://LOCALHOST:5173": 403, "http://localhost.": 403, "ftp://localhost": 403, "http://evil.localhost": 403, "null": 403, "https://evil.example": 403,
		"http://localhost:5173/": 403, "http://localhost5173": 403,
	} {
		if a := e.raw(request("GET", "/health", "", "Origin: "+origin)); a.Status != want {
			t.Errorf("%s: got %d, want %d", origin, a.Status, want)
		}
	}
}
