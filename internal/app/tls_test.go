package app_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/app"
	"tallyhook/internal/config"
	"tallyhook/internal/fault"
	"tallyhook/internal/testenv"
)

// https makes a client of its own connections.
func (e *edge) https() *http.Client {
	transport := &http.Transport{TLSClientConfig: e.cert.Clone(), ForceAttemptHTTP2: true}
	e.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// get asks over TLS and gives the response with its body read.
func (e *edge) get(c *http.Client, path string) *http.Response {
	e.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, e.app.URL()+path, nil)
	if err != nil {
		e.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		e.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		e.Error(err)
	}
	if err := resp.Body.Close(); err != nil {
		e.Error(err)
	}
	return resp
}

func TestTLS(t *testing.T) {
	t.Parallel()
	e := startTLS(t, "RATE_LIMIT_ANONYMOUS=0")
	if !strings.HasPrefix(e.app.URL(), "https://") || e.app.Config().PublicURL != e.app.URL() {
		t.Errorf("URL %s, PUBLIC_URL %s", e.app.URL(), e.app.Config().PublicURL)
	}
	resp := e.get(e.https(), "/health") //nolint:bodyclose // get has read and closed it
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		t.Errorf("got %d over %s, want 200 over HTTP/2", resp.StatusCode, resp.Proto)
	}
	if got := resp.Header.Get("Strict-Transport-Security"); got != "max-age=31536000" {
		t.Errorf("HSTS %q", got)
	}
	if a := e.rawTLS(request("GET", "/health", "")); a.Status != 200 {
		t.Errorf("HTTP/1.1 over TLS: got %d", a.Status)
	}
	old := tls.Client(e.dial(), &tls.Config{RootCAs: e.cert.RootCAs, ServerName: "test", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if err := old.HandshakeContext(context.Background()); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	if err := old.Close(); err != nil {
		t.Log(err) // it was refused
	}
}

// TestRedirect: without TLS one is sent to PUBLIC_URL, whatever the Host header
// says; webhooks and probes are served.
func TestRedirect(t *testing.T) {
	t.Parallel()
	e := startTLS(t, "PUBLIC_URL=https://events.example.com", "RATE_LIMIT_ANONYMOUS=0", "TRUSTED_PROXIES=10.0.0.1")
	for path, want := range map[string]string{
		"/api/events?a=b%20c": "/api/events?a=b%20c", "/": "/", "//evil.example/x": "//evil.example/x", "/nowhere": "/nowhere",
		"/api/%0d%0aSet-Cookie:x": "/api/%0D%0ASet-Cookie:x", "http://evil.example/docs": "/docs", "/metrics": "/metrics", "/webhooksx": "/webhooksx",
	} {
		a := e.raw(strings.Replace(request("POST", path, "{}"), "Host: test", "Host: evil.example", 1))
		if got := a.Header.Get("Location"); a.Status != 308 || !strings.EqualFold(got, "https://events.example.com"+want) || len(a.Body) != 0 {
			t.Errorf("%s: got %d to %q, want 308 to %q", path, a.Status, got, want)
		}
		e.whole(path, a)
		if a.Header.Get("Strict-Transport-Security") != "" {
			t.Errorf("%s: HSTS without TLS", path)
		}
	}
	// A stranger's word that it was TLS before the proxy is not believed.
	if a := e.raw(request("GET", "/docs", "", "X-Forwarded-Proto: https")); a.Status != 308 {
		t.Errorf("X-Forwarded-Proto of a stranger: got %d", a.Status)
	}
	for path, want := range map[string]int{"/health": 200, "/livez": 200, "/readyz": 200, "/webhooks/sometoken": 200} {
		if a := e.raw(request("GET", path, "")); a.Status != want {
			t.Errorf("%s: got %d, want %d", path, a.Status, want)
		}
	}
	if a := e.raw(request("POST", "/webhooks/sometoken", "{}")); a.Status != 404 {
		t.Errorf("a webhook: got %d, want 404", a.Status)
	}
}

// TestForwardedProto: behind a proxy that speaks TLS nobody is sent round in
// circles.
func TestForwardedProto(t *testing.T) {
	t.Parallel()
	e := startTLS(t, "RATE_LIMIT_ANONYMOUS=0", "TRUSTED_PROXIES=127.0.0.1")
	for proto, want := range map[string]int{"https": 200, "http": 308, "http, https": 200, "https, http": 308, "": 308} {
		if a := e.raw(request("GET", "/docs", "", "X-Forwarded-Proto: "+proto)); a.Status != want {
			t.Errorf("%q: got %d, want %d", proto, a.Status, want)
		}
	}
}

// TestCertificateReload: a changed pair serves new connections, half a change
// does not, and the open connection stays through all of it.
func TestCertificateReload(t *testing.T) {
	t.Parallel()
	e := startTLS(t, "RATE_LIMIT_ANONYMOUS=0")
	open := e.https()
	first := e.get(open, "/livez").TLS.PeerCertificates[0] //nolint:bodyclose // get has read and closed it
	served := func() string {
		return e.get(e.https(), "/livez").TLS.PeerCertificates[0].Subject.CommonName //nolint:bodyclose // get has read and closed it
	}

	if err := os.WriteFile(filepath.Join(e.dir, "tls.key"), []byte("half of a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, time.Minute, "the broken pair is seen", func() bool {
		name := served()
		if name != "first" {
			t.Fatalf("%s is served, want the former one while the new pair is broken", name)
		}
		return strings.Contains(e.log.String(), "the former one serves on")
	})
	until := time.Now().Add(48 * time.Hour).Truncate(time.Second)
	e.trust(pair(t, e.dir, "second", until))
	testenv.Eventually(t, time.Minute, "the new pair is served", func() bool { return served() == "second" })
	if got := e.metric("tallyhook_certificate_expiry_timestamp_seconds"); got != float64(until.Unix()) {
		t.Errorf("expiry %v, want %v", got, until.Unix())
	}
	if again := e.get(open, "/livez").TLS.PeerCertificates[0]; !again.Equal(first) { //nolint:bodyclose // get has read and closed it
		t.Error("the open connection was dropped for the new pair")
	}
	if n := strings.Count(e.log.String(), "the former one serves on"); n > 3 { // the cut key, and at most the new one before its certificate
		t.Errorf("the broken pair is logged %d times", n)
	}
}

func TestBadCertificateStopsTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	start := func() {
		t.Helper()
		cfg, err := config.Load(nil, []string{"PORT=0", "DATABASE_URL=sqlite:" + dir + "/t.db", "TLS_CERT=" + cert, "TLS_KEY=" + key})
		if err != nil {
			t.Fatal(err)
		}
		_, err = app.New(context.Background(), cfg, app.Options{Logger: nobodyLogs()})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "TLS_CERT") || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want one line about TLS_CERT", err)
		}
	}
	start() // no files
	pair(t, dir, "one", time.Now().Add(time.Hour))
	other := t.TempDir()
	pair(t, other, "other", time.Now().Add(time.Hour))
	key = filepath.Join(other, "tls.key")
	start() // a key of another certificate
}
