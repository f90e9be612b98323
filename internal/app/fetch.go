package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Bounds of what is fetched from a vendor. The addresses are checked by who
// asks; a redirection would lead around that check, so none is followed.
const (
	fetchTimeout = 5 * time.Second
	fetchLimit   = 64 << 10 // bytes
)

// fetch gets what is at an address of a vendor.
func fetch(ctx context.Context, address string) (body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: fetchTimeout, MaxResponseHeaderBytes: fetchLimit,
	}
	client := http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("get: %w", errors.Unwrap(err)) // without the address, which may hold a token
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get: answered %d", res.StatusCode)
	}
	if body, err = io.ReadAll(io.LimitReader(res.Body, fetchLimit+1)); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if len(body) > fetchLimit {
		return nil, fmt.Errorf("the answer is larger than %d bytes", fetchLimit)
	}
	return body, nil
}

// call makes the request that a vendor asks for, and has no use for the answer.
func call(ctx context.Context, address string) error {
	_, err := fetch(ctx, address)
	return err
}
