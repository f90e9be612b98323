package app

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// TestSlowStreamsAreCut: what holds for HTTP/1 holds for each stream of
// HTTP/2, and for a connection on which no stream is ever whole.
func TestSlowStreamsAreCut(t *testing.T) {
	t.Parallel()
	short := patience{header: 300 * time.Millisecond, read: 600 * time.Millisecond, write: 600 * time.Millisecond, idle: 300 * time.Millisecond}
	read, wrote := make(chan error, 1), make(chan error, 1)
	large := strings.Repeat("x", 64<<20)
	ts := httptest.NewUnstartedServer(nil)
	ts.Config = newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			_, err := io.WriteString(w, large)
			wrote <- err
			return
		}
		_, err := io.ReadAll(r.Body)
		if r.ContentLength != 0 {
			read <- err
		}
	}), short)
	ts.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	ts.EnableHTTP2 = true
	ts.StartTLS()
	t.Cleanup(ts.Close)

	// A body that does not come to its end.
	body, feed := io.Pipe()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, ts.URL+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp, err := ts.Client().Do(req); err == nil {
			_ = resp.Body.Close() // it is cut either way
		}
	}()
	if _, err := io.WriteString(feed, "abc"); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err == nil { // whichever of the stream's two times is over first
		t.Error("a slow body came to its end, want it cut")
	}
	if err := feed.Close(); err != nil {
		t.Error(err)
	}
	<-done

	// An answer that nobody takes, beyond what the windows hold.
	get, err := http.NewRequestWithContext(context.Background(), http.MethodGet, ts.URL+"/large", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := ts.Client().Do(get)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-wrote; err == nil {
		t.Error("an answer of 64 MiB was written to a client that reads nothing")
	}
	_ = resp.Body.Close() // it was cut

	for what, begin := range map[string]string{
		"Nothing": "", "Preface": preface, "HalfAHeader": preface + frame(headersFrame, 0, getHeaders), "HalfAFrame": preface + frame(headersFrame, endHeaders, getHeaders)[:12],
		"Continued": preface + frame(headersFrame, 0, getHeaders) + frame(continuationFrame, 0, ""),
	} {
		raw := dialSlow(t, ts.Listener.Addr())
		conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) // httptest's own certificate
		if _, err := io.WriteString(conn, begin); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection is still open", what)
		}
		_ = conn.Close() // the server has closed it
	}
}

// What a client of HTTP/2 writes, byte by byte.
const (
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" // and its settings: none

	headersFrame, continuationFrame = 1, 9
	endHeaders                      = 4
	getHeaders                      = "\x82\x87\x84\x41\x04test" // GET https://test/ in HPACK
)

// frame is one on the first stream.
func frame(kind, flags byte, payload string) string {
	n := len(payload)
	return string([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, 0, 0, 0, 1}) + payload
}
