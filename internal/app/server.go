package app

import (
	"net/http"
	"time"
)

// patience is how long a slow client is waited for.
type patience struct {
	header time.Duration // until the last byte of the header, the TLS handshake included
	read   time.Duration // until the last byte of the body
	write  time.Duration // until the last byte of the answer was taken
	idle   time.Duration // between two requests
}

// usual is generous with a slow line and bounds what an idle one may cost.
var usual = patience{header: 10 * time.Second, read: time.Minute, write: time.Minute, idle: 2 * time.Minute} //nolint:gochecknoglobals // a constant

// maxHeader bounds the header of a request, in bytes, its path and query
// included; net/http adds 4 KiB of its own.
const maxHeader = 64 << 10

// maxStreams bounds how many requests one HTTP/2 connection may have at once.
const maxStreams = 100

func newServer(h http.Handler, p patience) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: p.header, ReadTimeout: p.read, WriteTimeout: p.write, IdleTimeout: p.idle,
		MaxHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			SendPingTimeout:      p.read, PingTimeout: p.header, // who does not answer one is gone
			WriteByteTimeout: p.write,
		},
		// OPTIONS * is answered by our layers like everything else.
		DisableGeneralOptionsHandler: true,
	}
}
