package app_test

import (
	"crypto/tls"
	"io"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// What a client of HTTP/2 writes, byte by byte.
const (
	h2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" // and its settings: none

	h2Headers, h2Reset, h2Settings, h2Ping, h2Window, h2Continuation = 1, 3, 4, 6, 8, 9
	h2EndStream, h2EndHeaders                                        = 1, 4

	h2Get  = "\x82\x87\x44\x06/livez\x41\x04test"      // GET https://test/livez in HPACK
	h2Post = "\x83\x87\x44\x0b/api/events\x41\x04test" // POST https://test/api/events
)

func h2Frame(kind, flags byte, stream uint32, payload string) string {
	n := len(payload)
	return string([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream)}) + payload
}

// TestHTTP2Floods: whatever one connection does, the server keeps serving
// others, and when it is over nothing of it is left.
func TestHTTP2Floods(t *testing.T) {
	t.Parallel()
	e := startTLS(t, "RATE_LIMIT_ANONYMOUS=0")
	before := e.metric("go_goroutines")
	name := strings.Repeat("x", 100)
	for what, flood := range map[string]func(i uint32) string{
		"RapidReset": func(i uint32) string {
			return h2Frame(h2Headers, h2EndHeaders|h2EndStream, 2*i+1, h2Get) + h2Frame(h2Reset, 0, 2*i+1, "\x00\x00\x00\x08")
		},
		"Continuation": func(i uint32) string {
			if i == 0 {
				return h2Frame(h2Headers, 0, 1, h2Get)
			}
			return h2Frame(h2Continuation, 0, 1, strings.Repeat("\x00\x64"+name+"\x64"+name, 50))
		},
		"EmptyContinuation": func(i uint32) string {
			if i == 0 {
				return h2Frame(h2Headers, 0, 1, h2Get)
			}
			return h2Frame(h2Continuation, 0, 1, "")
		},
		"OpenStreams": func(i uint32) string { return h2Frame(h2Headers, h2EndHeaders, 2*i+1, h2Post) },
		"Settings":    func(uint32) string { return h2Frame(h2Settings, 0, 0, "") },
		"Pings":       func(uint32) string { return h2Frame(h2Ping, 0, 0, "12345678") },
		"ZeroWindows": func(i uint32) string {
			return h2Frame(h2Headers, h2EndHeaders|h2EndStream, 2*i+1, h2Get) + h2Frame(h2Window, 0, 2*i+1, "\x00\x00\x00\x00")
		},
		"NotHTTP2": func(uint32) string { return "GET / HTTP/1.1\r\nHost: test\r\n\r\n" },
	} {
		config := e.cert.Clone()
		config.NextProtos = []string{"h2"}
		raw := e.dial()
		conn := tls.Client(raw, config)
		if _, err := io.WriteString(conn, h2Preface); err != nil {
			t.Fatal(err)
		}
		read := make(chan int64, 1)
		go func() {
			n, _ := io.Copy(io.Discard, conn) // until it is closed
			read <- n
		}()
		sent := 0
		for i := range uint32(20_000) {
			if _, err := io.WriteString(conn, flood(i)); err != nil {
				break // the server has had enough
			}
			sent++
		}
		if a := e.rawTLS(request("GET", "/livez", "")); a.Status != 200 {
			t.Errorf("%s: meanwhile another connection is answered %d", what, a.Status)
		}
		_ = raw.Close() // the server may have
		t.Logf("%s: %d sent, %d bytes came back", what, sent, <-read)
	}
	testenv.Eventually(t, time.Minute, "nothing is left of the floods", func() bool {
		return e.metric("go_goroutines") < before+20 && e.metric("tallyhook_http_requests_in_flight") <= 1
	})
	if strings.Contains(e.log.String(), `"msg":"panic"`) {
		t.Error("a flood made a handler panic")
	}
}
