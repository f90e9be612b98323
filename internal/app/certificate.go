package app

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"tallyhook/internal/fault"
)

// reloadEvery is how often the files are looked at, at most: in the course of
// a handshake or a scrape, so that nothing runs in the background.
const reloadEvery = 2 * time.Second

// certificate is what TLS_CERT and TLS_KEY hold. A changed pair is taken for
// new connections; those that are open stay as they are. While the files do
// not make a pair (the second is still being written), the former one serves.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu        sync.Mutex // guards what follows
	looked    time.Time
	cert, key []byte // what the pair was made of
	bad       string // why the last look failed; logged when it changes
	pair      *tls.Certificate
}

// loadCertificate fails with one line when there is no pair to begin with.
func loadCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, looked: time.Now()}
	if err := c.read(); err != nil {
		return nil, fault.New(fault.Invalid, "TLS_CERT and TLS_KEY cannot be used: %v", err)
	}
	return c, nil
}

// config is how the server speaks TLS: 1.2 and newer, HTTP/2 preferred.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil },
	}
}

// expiry is when the pair in use ends; the zero time without TLS.
func (c *certificate) expiry() time.Time {
	if c == nil {
		return time.Time{}
	}
	return c.current().Leaf.NotAfter
}

func (c *certificate) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if age := now.Sub(c.looked); age >= 0 && age < reloadEvery {
		return c.pair
	}
	c.looked = now
	before := c.pair
	err := c.read()
	switch {
	case err == nil && c.pair != before:
		c.log.Info("certificate taken up", slog.Time("expires", c.pair.Leaf.NotAfter))
	case err != nil && err.Error() != c.bad:
		c.log.Error("changed certificate cannot be used, the former one serves on", slog.Any("error", err))
	}
	c.bad = ""
	if err != nil {
		c.bad = err.Error()
	}
	return c.pair
}

// read looks at the files, and makes a pair of them when they have changed.
func (c *certificate) read() error {
	cert, err := os.ReadFile(c.certFile)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	if c.pair != nil && bytes.Equal(cert, c.cert) && bytes.Equal(key, c.key) {
		return nil
	}
	pair, err := tls.X509KeyPair(cert, key) // checks that they belong together, and fills Leaf
	if err != nil {
		return err
	}
	c.cert, c.key, c.pair = cert, key, &pair
	return nil
}
