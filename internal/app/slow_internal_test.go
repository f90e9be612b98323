package app

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// TestSlowClientsAreCut: whoever does not come to the end of a header, of a
// body or of a handshake, or does not take an answer, is cut, in the way that
// http.Server and our listener are set up; the times alone are shorter here.
func TestSlowClientsAreCut(t *testing.T) {
	t.Parallel()
	short := patience{header: 300 * time.Millisecond, read: 600 * time.Millisecond, write: 600 * time.Millisecond, idle: 300 * time.Millisecond}
	large := strings.Repeat("x", 64<<20)
	for name, tls := range map[string]bool{"Plain": false, "BesideTLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wrote := make(chan error, 1)
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/large" {
					_, err := io.WriteString(w, large)
					wrote <- err
					return
				}
				if _, err := io.ReadAll(r.Body); err != nil {
					http.Error(w, "cut", http.StatusBadRequest)
				}
			})
			var lc net.ListenConfig
			l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if tls {
				l = listenTLS(l, (&certificate{}).config(), short.header)
			}
			s := newServer(handler, short)
			s.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
			done := make(chan error, 1)
			go func() { done <- s.Serve(l) }()
			defer func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if err := <-done; !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
			}()
			for what, begin := range map[string]string{
				"Silent":    "",
				"OneByte":   "G",
				"Handshake": "\x16\x03\x01",
				"Header":    "GET / HTTP/1.1\r\nHost: test\r\nX-A: ",
				"Body":      "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nabc",
				"Chunk":     "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nabc",
				"Idle":      "GET / HTTP/1.1\r\nHost: test\r\n\r\n",
			} {
				conn := dialSlow(t, l.Addr())
				if _, err := io.WriteString(conn, begin); err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s: the connection is still open", what)
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
			}
			// An answer that nobody takes.
			conn := dialSlow(t, l.Addr())
			if _, err := io.WriteString(conn, "GET /large HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if err := <-wrote; err == nil {
				t.Error("an answer of 64 MiB was written to a client that reads nothing")
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			// And the server lives; on a busy machine we may be the slow client again.
			testenv.Eventually(t, time.Minute, "a request is answered", func() bool {
				conn := dialSlow(t, l.Addr())
				defer conn.Close() //nolint:errcheck // the answer was read, or there is none
				if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"); err != nil {
					return false
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					return false
				}
				if resp.StatusCode != http.StatusOK {
					t.Errorf("got status %d, want 200", resp.StatusCode)
				}
				return resp.Body.Close() == nil
			})
		})
	}
}

// dialSlow connects, with a deadline far beyond what the server waits.
func dialSlow(t *testing.T, to net.Addr) net.Conn {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(context.Background(), "tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestUsualPatience: each time is bounded, and in its order.
func TestUsualPatience(t *testing.T) {
	t.Parallel()
	s := newServer(http.NotFoundHandler(), usual)
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout < s.ReadHeaderTimeout || s.WriteTimeout <= 0 || s.IdleTimeout <= 0 || s.MaxHeaderBytes != 64<<10 {
		t.Errorf("got %+v", s)
	}
}
