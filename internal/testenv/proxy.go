package testenv

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands between a client and a server over TCP and does what a network
// does to them. It works for any protocol, and ends with the test.
type Proxy struct {
	Addr string // where clients connect

	tb       testing.TB
	target   string
	listener net.Listener
	running  sync.WaitGroup
	ended    chan struct{}

	mu      sync.Mutex
	conns   map[net.Conn]bool
	refuse  bool
	latency time.Duration
	flow    chan struct{} // closed while bytes flow
}

// StartProxy starts a proxy before the server at target.
func StartProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("listen for the proxy: %v", err)
	}
	p := &Proxy{
		Addr: l.Addr().String(), tb: tb, target: target, listener: l,
		ended: make(chan struct{}), conns: map[net.Conn]bool{}, flow: make(chan struct{}),
	}
	close(p.flow)
	p.running.Go(p.accept)
	tb.Cleanup(p.close)
	return p
}

func (p *Proxy) close() {
	close(p.ended)
	if err := p.listener.Close(); err != nil {
		p.tb.Errorf("close the proxy: %v", err)
	}
	p.Cut()
	p.running.Wait()
}

// Cut resets every connection there is; new ones are let through.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		reset(c)
	}
	clear(p.conns)
}

// Refuse resets every connection, also new ones, until it is told otherwise.
func (p *Proxy) Refuse(refuse bool) {
	p.mu.Lock()
	p.refuse = refuse
	p.mu.Unlock()
	if refuse {
		p.Cut()
	}
}

// Latency has everything that is sent, in both directions, arrive later.
func (p *Proxy) Latency(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = d
}

// Stall holds everything that is sent, and closes nothing, until it is
// told otherwise.
func (p *Proxy) Stall(stall bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flow:
		if stall {
			p.flow = make(chan struct{})
		}
	default:
		if !stall {
			close(p.flow)
		}
	}
}

// reset closes a connection so that its peer sees an error, not an end.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it may be closed already, and then there is nothing to reset
	}
	_ = c.Close()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				p.tb.Errorf("accept for the proxy: %v", err)
			}
			return
		}
		p.running.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	d := net.Dialer{Timeout: 5 * time.Second}
	server, err := d.Dial("tcp", p.target)
	if err != nil {
		reset(client)
		return
	}
	if !p.keep(client, server) {
		reset(client)
		reset(server)
		return
	}
	p.running.Go(func() { p.pump(client, server) })
	p.pump(server, client)
}

// keep notes the connections of a pair; false while they are refused.
func (p *Proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.ended:
		return false
	default:
	}
	if p.refuse {
		return false
	}
	for _, c := range conns {
		p.conns[c] = true
	}
	return true
}

// pump carries bytes one way, and closes both ends when either is gone.
func (p *Proxy) pump(to, from net.Conn) {
	defer func() {
		p.mu.Lock()
		delete(p.conns, to)
		delete(p.conns, from)
		p.mu.Unlock()
		_ = to.Close()
		_ = from.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !p.hold() {
				return
			}
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				reset(to)
			}
			return
		}
	}
}

// hold waits as long as the network is slow; false when the proxy ends.
func (p *Proxy) hold() bool {
	p.mu.Lock()
	flow, latency := p.flow, p.latency
	p.mu.Unlock()
	if latency > 0 {
		timer := time.NewTimer(latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.ended:
			return false
		}
	}
	select {
	case <-flow:
		return true
	case <-p.ended:
		return false
	}
}
