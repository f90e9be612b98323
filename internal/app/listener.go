package app

import (
	"bytes"
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
// loop that accepts, for as long as a header may take.
type tlsListener struct {
	net.Listener
	config  *tls.Config
	patient time.Duration

	ready  chan net.Conn
	failed chan error    // of Accept below
	closed chan struct{} // by Close
	once   sync.Once

	mu      sync.Mutex // guards waiting
	waiting map[net.Conn]struct{}
	serving sync.WaitGroup
}

func listenTLS(below net.Listener, config *tls.Config, patient time.Duration) *tlsListener {
	l := &tlsListener{
		Listener: below, config: config, patient: patient,
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
	first := make([]byte, 1)
	err := conn.SetReadDeadline(time.Now().Add(l.patient))
	if err == nil {
		_, err = io.ReadFull(conn, first)
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	l.mu.Lock()
	delete(l.waiting, conn)
	l.mu.Unlock()
	if err != nil {
		_ = conn.Close() // it said nothing in time, or is gone
		return
	}
	var out net.Conn = &begun{Conn: conn, rest: io.MultiReader(bytes.NewReader(first), conn)}
	if first[0] == handshakeRecord {
		out = tls.Server(out, l.config)
	}
	select {
	case l.ready <- out:
	case <-l.closed:
		_ = conn.Close() // nobody takes it any more
	}
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
