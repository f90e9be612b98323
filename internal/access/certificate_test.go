package access_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyhook/internal/access"
)

const certificateURL = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-own.pem"

func certificate(t *testing.T) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 1024) // short: it is for a test, and it is quick
	if err != nil {
		t.Fatal(err)
	}
	form := x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, &form, &form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// vendorSite answers with what it has, and counts who asks.
type vendorSite struct {
	body  []byte
	err   error
	asked atomic.Int64
	now   atomic.Int64 // seconds
}

func (v *vendorSite) fetch(context.Context, string) ([]byte, error) {
	v.asked.Add(1)
	return v.body, v.err
}

func (v *vendorSite) clock() time.Time { return time.Unix(1_770_000_000+v.now.Load(), 0) }

func TestCertificates(t *testing.T) {
	t.Parallel()
	site := &vendorSite{body: certificate(t)}
	c := access.NewCertificates(site.fetch, site.clock)
	get := func(address string, want int64) error {
		t.Helper()
		_, err := c.Get(t.Context(), address)
		if got := site.asked.Load(); got != want {
			t.Errorf("%s: %d fetches, want %d", address, got, want)
		}
		return err
	}
	if err := get(certificateURL, 1); err != nil {
		t.Fatal(err)
	}
	if err := get(certificateURL, 1); err != nil {
		t.Error("the second time:", err)
	}
	site.now.Add(24 * 3600)
	if err := get(certificateURL, 2); err != nil {
		t.Error("a day later:", err)
	}
	for _, address := range []string{"https://evil.example/a.pem", "http://sns.eu-west-1.amazonaws.com/a.pem", ""} {
		if get(address, 2) == nil {
			t.Errorf("%q was fetched", address)
		}
	}

	// One that fails is not tried again at once, and not for ever given up.
	site.err = errors.New("timeout")
	for range 3 {
		if get(certificateURL+"2.pem", 3) == nil {
			t.Error("a fetch that failed gave a certificate")
		}
	}
	site.err = nil
	site.now.Add(11)
	if err := get(certificateURL+"2.pem", 4); err != nil {
		t.Error("after the failure:", err)
	}

	// What is no certificate is given to be refused, and not kept.
	site.body = []byte("<html>")
	if err := get(certificateURL+"3.pem", 5); err != nil {
		t.Error(err)
	}
	site.body = certificate(t)
	if err := get(certificateURL+"3.pem", 6); err != nil {
		t.Error(err)
	}
}

// TestCertificatesAtOnce: a burst of webhooks costs a fetch or two, and what
// is kept stays bounded whatever addresses are asked for.
func TestCertificatesAtOnce(t *testing.T) {
	t.Parallel()
	site := &vendorSite{body: certificate(t)}
	c := access.NewCertificates(site.fetch, site.clock)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := c.Get(t.Context(), certificateURL); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := site.asked.Load(); n < 1 || n > 2 {
		t.Errorf("%d fetches, want 1 or 2", n)
	}
	for i := range 1000 {
		if _, err := c.Get(t.Context(), fmt.Sprintf("https://sns.eu-west-1.amazonaws.com/%d.pem", i)); err != nil {
			t.Fatal(err)
		}
	}
	before := site.asked.Load()
	if _, err := c.Get(t.Context(), "https://sns.eu-west-1.amazonaws.com/0.pem"); err != nil || site.asked.Load() != before+1 {
		t.Errorf("the first of a thousand is still kept, or cannot be had: %v", err)
	}
}

func TestCertificatesGiveUp(t *testing.T) {
	t.Parallel()
	started := make(chan struct{}, 2)
	release := make(chan struct{})
	c := access.NewCertificates(func(context.Context, string) ([]byte, error) {
		started <- struct{}{}
		<-release
		return nil, errors.New("late")
	}, time.Now)
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			if _, err := c.Get(context.WithoutCancel(t.Context()), fmt.Sprintf("https://sns.eu-west-1.amazonaws.com/%d.pem", i)); err == nil {
				t.Error("no error")
			}
		})
		<-started
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Get(ctx, certificateURL); !errors.Is(err, context.Canceled) {
		t.Errorf("behind two that hang: got %v", err)
	}
	close(release)
	wg.Wait()
}
