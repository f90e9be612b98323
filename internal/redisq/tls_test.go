package redisq_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/redisq"
	"tallyhook/internal/testenv"
)

// certificate makes a key and a certificate for 127.0.0.1 that vouches for
// itself.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, data []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", cert), write("key.pem", "PRIVATE KEY", der)
}

// TestTLS: the certificate is checked, and one that nobody vouches for is
// refused.
func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	addr := testenv.FreeAddr(t)
	_, port, _ := strings.Cut(addr, ":")
	testenv.StartRedis(t, testenv.RedisOptions{Args: []string{
		"--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no",
	}})
	open(t, redisq.Options{URL: "rediss://" + addr + "?ca=" + cert})
	q, err := redisq.New(redisq.Options{URL: "rediss://" + addr, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	testenv.Eventually(t, upTimeout, "the unknown certificate is refused", func() bool {
		return strings.Contains(q.State().Reason, "certificate")
	})
	same(t, "up", q.State().Up, false)
}
