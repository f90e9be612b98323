package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"
)

// handshakeRecord is the first byte of a TLS connection.
const handshakeRecord = 0x16

// tlsListener takes both TLS and plain connections on one port, so that who
// comes without TLS can be sent there rather than be left with a broken
// connection. The first byte tells them apart. It is waited for beside the
// loop that accepts, and so is the handshake, for as long as a header may take.
type tlsListener struct {
	net.Listener
	config  *tls.Config
	patient time.Duration
	refusal refusal

	ready  chan net.Conn
	failed chan error    // of Accept below
	closed chan struct{} // by Close
	once   sync.Once

	mu      sync.Mutex // guards waiting
	waiting map[net.Conn]struct{}
	serving sync.WaitGroup
}

func listenTLS(below net.Listener, config *tls.Config, patient time.Duration, r refusal) *tlsListener {
	l := &tlsListener{
		Listener: below, config: config, patient: patient, refusal: r,
		ready: make(chan net.Conn), failed: make(chan error, 1), closed: make(chan struct{}), waiting: map[net.Conn]struct{}{},
	}
	l.serving.Go(l.accept)
	return l
}

func (l *tlsListener) accept() {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			if temporary(err) && l.pause() {
				continue
			}
			l.failed <- err
			return
		}
		l.mu.Lock()
		select {
		case <-l.closed: // Close has ended those that wait, and does not know this one
			_ = conn.Close()
		default:
			l.waiting[conn] = struct{}{}
			l.serving.Go(func() { l.sort(conn) })
		}
		l.mu.Unlock()
	}
}

// temporary tells errors of accepting that pass, such as too many open files.
func temporary(err error) bool {
	te, ok := err.(interface{ Temporary() bool })
	return ok && te.Temporary()
}

func (l *tlsListener) pause() bool {
	select {
	case <-l.closed:
		return false
	case <-time.After(50 * time.Millisecond):
		return true
	}
}

// sort hands a connection on as what its first byte says it is.
func (l *tlsListener) sort(conn net.Conn) {
	out, err := l.begin(conn)
	l.mu.Lock()
	delete(l.waiting, conn)
	l.mu.Unlock()
	if err != nil {
		_ = conn.Close() // it said nothing in time, or no TLS that we speak, or is gone
		return
	}
	select {
	case l.ready <- out:
	case <-l.closed:
		_ = conn.Close() // nobody takes it any more
	}
}

// begin waits for the first byte, and for the handshake where it is one.
func (l *tlsListener) begin(conn net.Conn) (net.Conn, error) {
	if err := conn.SetDeadline(time.Now().Add(l.patient)); err != nil {
		return nil, err
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(conn, first); err != nil {
		return nil, err
	}
	begun := &begun{Conn: conn, rest: io.MultiReader(bytes.NewReader(first), conn)}
	var out net.Conn = &fronted{Conn: begun, refusal: l.refusal}
	if first[0] == handshakeRecord {
		spoken := tls.Server(begun, l.config)
		if err := spoken.HandshakeContext(context.Background()); err != nil { // its deadline is the connection's
			return nil, err
		}
		out = spoken
		if spoken.ConnectionState().NegotiatedProtocol != "h2" {
			out = &frontedTLS{fronted{Conn: spoken, refusal: l.refusal, secure: true}, spoken}
		}
	}
	return out, conn.SetDeadline(time.Time{})
}

// Accept implements net.Listener.
func (l *tlsListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case err := <-l.failed:
		l.failed <- err // for the next one who asks
		return nil, err
	}
}

// Close implements net.Listener: it ends the connections too that have not
// said anything yet, and returns when nothing of the listener runs any more.
func (l *tlsListener) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closed)
		err = l.Listener.Close()
		l.mu.Lock()
		for conn := range l.waiting {
			_ = conn.Close()
		}
		l.mu.Unlock()
		l.serving.Wait()
	})
	return err
}

// begun is a connection of which the first byte was read already.
type begun struct {
	net.Conn
	rest io.Reader
}

// Read implements net.Conn.
func (b *begun) Read(p []byte) (int, error) { return b.rest.Read(p) }
