package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tallyhook/internal/provider"
)

// Bounds of the certificates that are kept. SNS has one for each region, and
// changes it once a year under a new address.
const (
	certificateTTL     = 24 * time.Hour
	certificateLimit   = 64
	certificateTimeout = 5 * time.Second // SNS waits 15 s for an answer
	failureTTL         = 10 * time.Second
	fetchesAtOnce      = 2
)

// Fetch gets what is at an address. It follows no redirection, and bounds what
// it reads.
type Fetch func(ctx context.Context, address string) ([]byte, error)

// Certificates are the signing certificates of vendors that sign with one,
// fetched when they are first needed.
//
// Guarantees: nothing is fetched that provider.CheckCertificateURL refuses; two
// fetches at most run at once; one that has failed is not tried again for 10
// seconds; what is kept is bounded.
type Certificates struct {
	fetch  Fetch
	now    func() time.Time
	known  *cache[string, []byte]
	failed *cache[string, struct{}]
	turns  chan struct{}
}

// NewCertificates makes an empty store of certificates.
func NewCertificates(fetch Fetch, now func() time.Time) *Certificates {
	return &Certificates{
		fetch: fetch, now: now, turns: make(chan struct{}, fetchesAtOnce),
		known:  newCache[string, []byte](certificateTTL, certificateLimit),
		failed: newCache[string, struct{}](failureTTL, certificateLimit),
	}
}

// Get gives the certificate at an address, in PEM. An error means that it
// cannot be had just now. What is fetched and is no certificate is given as it
// is, for the verification to refuse, and not kept.
func (c *Certificates) Get(ctx context.Context, address string) ([]byte, error) {
	if err := provider.CheckCertificateURL(address); err != nil {
		return nil, fmt.Errorf("check address: %w", err)
	}
	if coded, ok, err := c.look(address); ok || err != nil {
		return coded, err
	}
	ctx, cancel := context.WithTimeout(ctx, certificateTimeout)
	defer cancel()
	select {
	case c.turns <- struct{}{}:
		defer func() { <-c.turns }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait to fetch: %w", ctx.Err())
	}
	if coded, ok, err := c.look(address); ok || err != nil { // somebody was faster
		return coded, err
	}
	coded, err := c.fetch(ctx, address)
	if err != nil {
		_, stamp, _ := c.failed.get(address, c.now())
		c.failed.put(address, struct{}{}, stamp, c.now())
		return nil, fmt.Errorf("fetch: %w", err)
	}
	if _, err := provider.CertificateKey(coded); err == nil {
		_, stamp, _ := c.known.get(address, c.now())
		c.known.put(address, coded, stamp, c.now())
	}
	return coded, nil
}

func (c *Certificates) look(address string) (coded []byte, ok bool, err error) {
	if coded, _, ok = c.known.get(address, c.now()); ok {
		return coded, true, nil
	}
	if _, _, failed := c.failed.get(address, c.now()); failed {
		return nil, false, errors.New("fetching has failed a moment ago")
	}
	return nil, false, nil
}
