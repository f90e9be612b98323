package app_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/app"
	"tallyhook/internal/config"
	"tallyhook/internal/testenv"
)

// edge is a server in this process, on a real socket with a real database, for
// tests of what stands before the data.
type edge struct {
	*testing.T
	app  *app.App
	dir  string
	log  *testenv.Log
	cert *tls.Config // to speak TLS to it; nil: it has none
}

// startEdge starts one with settings, "NAME=value", on top of a free port, a
// database of its own and testenv.AdminKey.
func startEdge(t *testing.T, env ...string) *edge {
	t.Helper()
	e := &edge{T: t, dir: t.TempDir(), log: &testenv.Log{}}
	e.start(env)
	return e
}

func (e *edge) start(env []string) {
	e.Helper()
	cfg, err := config.Load(nil, append([]string{
		"PORT=0", "API_KEY=" + testenv.AdminKey, "DATABASE_URL=sqlite:" + filepath.Join(e.dir, "t.db"),
	}, env...))
	if err != nil {
		e.Fatal(err)
	}
	ctx := context.Background()
	e.app, err = app.New(ctx, cfg, app.Options{Version: "test", Logger: slog.New(slog.NewJSONHandler(e.log, nil))})
	if err != nil {
		e.Fatal(err)
	}
	e.app.Start()
	e.Cleanup(func() {
		stop, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := e.app.Stop(stop); err != nil {
			e.Errorf("stop: %v", err)
		}
		if e.Failed() {
			log := e.log.String()
			e.Logf("the end of the server's log:\n%s", log[max(0, len(log)-3000):])
		}
	})
}

// addr is where it listens.
func (e *edge) addr() string {
	_, addr, _ := strings.Cut(e.app.URL(), "://")
	return addr
}

// client speaks to it without TLS, with the admin's key; "" for none.
func (e *edge) client(key string) *testenv.Client {
	c := testenv.NewClient(e, "http://"+e.addr(), key)
	e.Cleanup(c.Close)
	return c
}

func (e *edge) dial() net.Conn {
	e.Helper()
	var d net.Dialer
	conn, err := d.DialContext(context.Background(), "tcp", e.addr())
	if err != nil {
		e.Fatalf("connect: %v", err)
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		e.Fatal(err)
	}
	return conn
}

// raw sends the bytes of a request as they are and reads the answer. Status 0:
// the connection was closed without one.
func (e *edge) raw(request string) testenv.Answer {
	e.Helper()
	conn := e.dial()
	defer conn.Close() //nolint:errcheck // the answer was read
	return e.exchange(conn, request)
}

// rawTLS does the same over TLS.
func (e *edge) rawTLS(request string) testenv.Answer {
	e.Helper()
	conn := tls.Client(e.dial(), e.cert)
	defer conn.Close() //nolint:errcheck // the answer was read
	return e.exchange(conn, request)
}

func (e *edge) exchange(conn net.Conn, request string) testenv.Answer {
	e.Helper()
	if _, err := io.WriteString(conn, request); err != nil {
		e.Logf("the server closed before everything was sent, as it may: %v", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return testenv.Answer{}
	}
	defer resp.Body.Close() //nolint:errcheck // it is read below
	a := testenv.Answer{Status: resp.StatusCode, Header: resp.Header}
	if a.Body, err = io.ReadAll(resp.Body); err != nil {
		e.Errorf("the answer was cut: %v", err)
	}
	return a
}

// request writes a request; headers are whole lines.
func request(method, path, body string, headers ...string) string {
	text := method + " " + path + " HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
	for _, h := range headers {
		text += h + "\r\n"
	}
	if body != "" {
		text += "Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	return text + "\r\n" + body
}

// whole checks what every answer has: the security headers and a request id;
// and, of a refusal, a problem that names it.
func (e *edge) whole(what string, a testenv.Answer) {
	e.Helper()
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := a.Header.Get(name); got != want {
			e.Errorf("%s: %s is %q, want %q", what, name, got, want)
		}
	}
	if a.Header.Get("Content-Security-Policy") == "" || a.Header.Get("X-Request-ID") == "" {
		e.Errorf("%s: no policy or no request id", what)
	}
	if a.Status < 400 {
		return
	}
	var p struct {
		Type, Title, Detail string
		Status              int
		RequestID           string `json:"request_id"`
	}
	if err := json.Unmarshal(a.Body, &p); err != nil || a.Header.Get("Content-Type") != "application/problem+json" ||
		p.Type == "" || p.Title == "" || p.Detail == "" || p.Status != a.Status || p.RequestID != a.Header.Get("X-Request-ID") {
		e.Errorf("%s: not a whole problem: %d %q %s", what, a.Status, a.Header.Get("Content-Type"), a.Body)
	}
}

// metric reads one series, by its name with its labels; -1 when it is not there.
func (e *edge) metric(series string) float64 {
	e.Helper()
	resp := e.raw(request("GET", "/metrics", ""))
	if e.cert != nil {
		resp = e.rawTLS(request("GET", "/metrics", ""))
	}
	for line := range strings.Lines(string(resp.Body)) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				e.Fatal(err)
			}
			return v
		}
	}
	return -1
}

// pair writes a self-signed certificate and its key.
func pair(t *testing.T, dir, name string, until time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"test"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: der}, "tls.key": {Type: "PRIVATE KEY", Bytes: rawKey},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// startTLS starts one that speaks TLS.
func startTLS(t *testing.T, env ...string) *edge {
	t.Helper()
	e := &edge{T: t, dir: t.TempDir(), log: &testenv.Log{}}
	cert := pair(t, e.dir, "first", time.Now().Add(24*time.Hour))
	e.trust(cert)
	e.start(append([]string{"TLS_CERT=" + filepath.Join(e.dir, "tls.crt"), "TLS_KEY=" + filepath.Join(e.dir, "tls.key")}, env...))
	return e
}

func (e *edge) trust(cert *x509.Certificate) {
	if e.cert == nil {
		e.cert = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "test", MinVersion: tls.VersionTLS12}
	}
	e.cert.RootCAs.AddCert(cert)
}

func nobodyLogs() *slog.Logger { return slog.New(slog.DiscardHandler) }
