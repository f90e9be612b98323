package app

import (
	"bytes"
	"crypto/tls"
	"net"
	"strconv"
	"strings"

	"tallyhook/internal/httpapi"
)

// refusal writes the answer to what is no request: see httpapi.Malformed.
type refusal func(status int, why string, secure bool) []byte

func (a *App) refusal() refusal {
	return httpapi.Malformed(a.observer(), httpapi.Options{Logger: a.log})
}

// frontListener gives connections whose bare refusals are dressed.
type frontListener struct {
	net.Listener
	refusal refusal
}

// Accept implements net.Listener.
func (l *frontListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &fronted{Conn: conn, refusal: l.refusal}, nil
}

// fronted is a connection that speaks HTTP/1. What is no request, net/http
// refuses by itself, with a line of text written straight to the connection:
// there is no handler then, and no other place to see it than here. Such an
// answer is put in our form.
type fronted struct {
	net.Conn
	refusal refusal
	secure  bool
}

// Write implements net.Conn.
func (f *fronted) Write(p []byte) (int, error) {
	status, why, bare := bareRefusal(p)
	if !bare {
		return f.Conn.Write(p)
	}
	if _, err := f.Conn.Write(f.refusal(status, why, f.secure)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite lets net/http end its half first, so that a client can read the
// answer before the connection is gone.
func (f *fronted) CloseWrite() error {
	if half, ok := f.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// frontedTLS is one over TLS. HTTP/2 is none of them: there net/http resets
// what is no request.
type frontedTLS struct {
	fronted
	spoken *tls.Conn
}

// ConnectionState tells net/http that the connection is TLS.
func (f *frontedTLS) ConnectionState() tls.ConnectionState { return f.spoken.ConnectionState() }

// bareRefusal recognises net/http's own refusals by their headers, which no
// answer of a handler has: those begin with the security headers. Nor is it
// ever a part of a body, where lines do not end so.
func bareRefusal(p []byte) (status int, why string, ok bool) {
	if !bytes.HasPrefix(p, []byte("HTTP/1.")) {
		return 0, "", false
	}
	head, _, ok := bytes.Cut(p, []byte("\r\n\r\n"))
	if !ok {
		return 0, "", false
	}
	line, headers, _ := strings.Cut(string(head), "\r\n")
	_, said, _ := strings.Cut(line, " ") // behind the version
	code, text, _ := strings.Cut(said, " ")
	switch {
	case headers == "Content-Type: text/plain; charset=utf-8\r\nConnection: close":
	case code == "417" && strings.HasPrefix(headers, "Connection: close\r\nDate: "):
	default:
		return 0, "", false
	}
	status, err := strconv.Atoi(code)
	_, why, _ = strings.Cut(text, ": ")
	return status, why, err == nil && status >= 400
}
