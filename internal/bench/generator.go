package bench

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// answerTimeout bounds one request.
const answerTimeout = 30 * time.Second

// shot says what a load sends where.
type shot struct {
	url    string
	header [][2]string
	sign   []byte // of a Standard Webhooks secret; nil: nothing is signed
	array  int    // events in a request; 0: one, not in an array
	mix    *Mix
	parked bool // orphans only
}

func (s *shot) events() int { return max(s.array, 1) }

func (s *shot) body(buf []byte) []byte {
	if s.parked {
		return s.mix.AppendOrphans(buf, s.events())
	}
	return s.mix.Append(buf, s.events(), s.array > 0)
}

// signature gives the three Standard Webhooks headers of a body.
func signature(secret []byte, id string, now time.Time, body []byte) [][2]string {
	at := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(body)
	return [][2]string{
		{"webhook-id", id}, {"webhook-timestamp", at},
		{"webhook-signature", "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))},
	}
}

// load is what a run of the generator gave.
type load struct {
	requests uint64
	events   uint64 // of requests with a 2xx answer
	warm     uint64 // the same before it was counted
	errs     uint64 // requests without a 2xx answer
	sample   string // what the first of them said
	took     time.Duration
	latency  Histogram
}

func (l *load) failed(what string) {
	l.errs++
	if l.sample == "" {
		l.sample = what
	}
}

// warmedBy takes over what happened before counting began and still matters.
func (l *load) warmedBy(w *load) {
	l.errs += w.errs
	l.warm = w.events
	if w.sample != "" {
		l.sample = w.sample
	}
}

func (l *load) merge(o *load) {
	l.requests += o.requests
	l.events += o.events
	l.errs += o.errs
	if l.sample == "" {
		l.sample = o.sample
	}
	l.latency.Merge(&o.latency)
}

// closedLoop sends over a number of connections, each with one request in
// flight and the next one as soon as it is answered, for d. Before it counts,
// it does the same for a tenth of d. begin is called between the two.
func closedLoop(ctx context.Context, s shot, connections int, d time.Duration, begin func()) (*load, error) {
	u, err := url.Parse(s.url)
	if err != nil {
		return nil, fmt.Errorf("read URL: %w", err)
	}
	conns := make([]*conn, connections)
	for i := range conns {
		conns[i] = &conn{url: u}
	}
	defer func() {
		for _, c := range conns {
			c.close()
		}
	}()
	all := func(d time.Duration) *load {
		start := time.Now()
		until := start.Add(d)
		parts := make([]load, connections)
		var wg sync.WaitGroup
		for i := range parts {
			wg.Go(func() { conns[i].until(ctx, &s, until, &parts[i]) })
		}
		wg.Wait()
		sum := &load{took: time.Since(start)}
		for i := range parts {
			sum.merge(&parts[i])
		}
		return sum
	}
	warm := all(min(d/10, time.Second))
	if begin != nil {
		begin()
	}
	sum := all(d)
	sum.warmedBy(warm)
	return sum, ctx.Err()
}

// park sends n orphans in arrays of at most 1,000.
func park(ctx context.Context, s shot, n int) error {
	u, err := url.Parse(s.url)
	if err != nil {
		return fmt.Errorf("read URL: %w", err)
	}
	c := &conn{url: u}
	defer c.close()
	for s.parked = true; n > 0; n -= s.array {
		s.array = min(n, 1000)
		if err := c.dial(ctx); err != nil {
			return err
		}
		c.body = s.body(c.body[:0])
		c.render(&s)
		status, sample, err := c.send(ctx)
		if err == nil && status != http.StatusAccepted {
			err = fmt.Errorf("an array of orphans was answered %d %s", status, sample)
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return fmt.Errorf("park orphans: %w", err)
		}
	}
	return nil
}

// conn is one kept-alive HTTP/1.1 connection. It is much leaner than
// net/http's client, which would take the greater part of a small machine that
// client and server share.
type conn struct {
	url  *url.URL
	nc   net.Conn
	in   *bufio.Reader
	out  []byte
	body []byte
	seq  uint64
}

func (c *conn) close() {
	if c.nc != nil {
		_ = c.nc.Close() //nolint:errcheck // nothing is in flight
		c.nc = nil
	}
}

func (c *conn) until(ctx context.Context, s *shot, until time.Time, l *load) {
	for ctx.Err() == nil && time.Now().Before(until) {
		if err := c.dial(ctx); err != nil {
			if ctx.Err() == nil {
				l.failed(err.Error())
			}
			select { // a server that is gone must not be asked in a busy loop
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		c.body = s.body(c.body[:0])
		c.render(s)
		start := time.Now()
		status, sample, err := c.send(ctx)
		l.latency.Add(time.Since(start))
		l.requests++
		switch {
		case err != nil:
			c.close()
			if ctx.Err() == nil {
				l.failed(err.Error())
			}
		case status/100 != 2:
			l.failed(sample)
		default:
			l.events += uint64(s.events()) //nolint:gosec // a small count
		}
	}
}

func (c *conn) dial(ctx context.Context) error {
	if c.nc != nil {
		return nil
	}
	port := c.url.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[c.url.Scheme]
	}
	addr := net.JoinHostPort(c.url.Hostname(), port)
	var err error
	plain := &net.Dialer{Timeout: answerTimeout}
	if c.url.Scheme == "https" {
		c.nc, err = (&tls.Dialer{NetDialer: plain}).DialContext(ctx, "tcp", addr)
	} else {
		c.nc, err = plain.DialContext(ctx, "tcp", addr)
	}
	if err != nil {
		c.nc = nil
		return fmt.Errorf("connect: %w", err)
	}
	c.in = bufio.NewReader(c.nc)
	return nil
}

func (c *conn) render(s *shot) {
	c.out = append(c.out[:0], "POST "...)
	c.out = append(c.out, c.url.RequestURI()...)
	c.out = append(c.out, " HTTP/1.1\r\nHost: "...)
	c.out = append(c.out, c.url.Host...)
	c.out = append(c.out, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	c.out = strconv.AppendInt(c.out, int64(len(c.body)), 10)
	header := s.header
	if s.sign != nil {
		c.seq++
		header = append(header[:len(header):len(header)], signature(s.sign, fmt.Sprintf("msg_%p_%d", c, c.seq), time.Now(), c.body)...)
	}
	for _, h := range header {
		c.out = append(c.out, "\r\n"...)
		c.out = append(c.out, h[0]...)
		c.out = append(c.out, ": "...)
		c.out = append(c.out, h[1]...)
	}
	c.out = append(c.out, "\r\n\r\n"...)
	c.out = append(c.out, c.body...)
}

func (c *conn) send(ctx context.Context) (status int, sample string, err error) {
	if err := c.nc.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return 0, "", err
	}
	if _, err := c.nc.Write(c.out); err != nil {
		return 0, "", fmt.Errorf("send: %w", err)
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, "", errors.Join(fmt.Errorf("read answer: %w", err), ctx.Err())
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) //nolint:errcheck // a sample for a human
		sample = resp.Status + ": " + string(b)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, "", fmt.Errorf("read answer: %w", err)
	}
	if resp.Close {
		c.close()
	}
	return resp.StatusCode, sample, nil
}
