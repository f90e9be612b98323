package testenv

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// FreeAddr is a loopback address that nobody listens on just now.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	return "127.0.0.1:" + strconv.Itoa(FreePort(tb))
}

// FreePort finds a loopback port that nobody listens on just now.
func FreePort(tb testing.TB) int {
	tb.Helper()
	port, err := freePort()
	if err != nil {
		tb.Fatalf("find a free port: %v", err)
	}
	return port
}

const firstPort, ports = 20_000, 12_000 // 32,768 is where the kernel begins

// freePort takes one at random from below those that the kernel gives to
// outgoing connections: a server that is down for a moment finds its port
// free when it is started again.
func freePort() (int, error) {
	var last error
	for range 100 {
		port := firstPort + rand.IntN(ports)                                           //nolint:gosec // nobody is to be kept from guessing it
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) //nolint:noctx // closed at once
		if err == nil {
			return port, l.Close()
		}
		last = err
	}
	return 0, last
}
