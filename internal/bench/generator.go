package bench

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
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
		{"webhook-id", id},
		{"webhook-timestamp", at},
		{"webhook-signature", "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))},
	}
}

// load is what a run of the generator gave.
type load struct {
	requests uint64
	events   uint64 // of requests with a 2xx answer
	warm     uint64 // the same before it was counted
	refused  uint64 // requests answered 429 or 503: the server asks to slow down
	errs     uint64 // requests with any other answer than 2xx, or none
	sample   string // what the first of the two said
	took     time.Duration
	latency  Histogram // of requests with a 2xx answer
}

// failed counts a request by its status; 0 means that there was no answer.
func (l *load) failed(status int, what string) {
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		l.refused++
	} else {
		l.errs++
	}
	if l.sample == "" {
		l.sample = what
	}
}

// warmedBy takes over what happened before counting began and still matters.
func (l *load) warmedBy(w *load) {
	l.errs += w.errs
	l.refused += w.refused
	l.warm = w.events
	if w.sample != "" {
		l.sample = w.sample
	}
}

func (l *load) merge(o *load) {
	l.requests += o.requests
	l.events += o.events
	l.errs += o.errs
	l.refused += o.refused
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
		ans, err := c.post(ctx, &s)
		if err == nil && ans.status != http.StatusAccepted {
			err = fmt.Errorf("an array of orphans was answered %d %s", ans.status, ans.sample)
		}
		if err != nil {
			return fmt.Errorf("park orphans: %w", err)
		}
	}
	return nil
}

// conn is one kept-alive HTTP/1.1 connection. It is much leaner than
// net/http's client, which would take the greater part of a small machine that
// client and server share.
type conn struct {
	url *url.URL
	nc  net.Conn
	in  *bufio.Reader

	release func() bool // of what ends nc with the context

	out  []byte
	body []byte
	seq  uint64
}

func (c *conn) close() {
	if c.nc != nil {
		c.release()
		_ = c.nc.Close() // nothing is in flight
		c.nc = nil
	}
}

func (c *conn) until(ctx context.Context, s *shot, until time.Time, l *load) {
	for ctx.Err() == nil && time.Now().Before(until) {
		start := time.Now()
		ans, err := c.post(ctx, s)
		took := time.Since(start)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			l.failed(0, err.Error())
			pause(ctx, 10*time.Millisecond) // a server that is gone is not asked in a busy loop
		case ans.status/100 != 2:
			l.failed(ans.status, ans.sample)
			pause(ctx, ans.retryAfter)
		default:
			l.latency.Add(took)
			l.events += uint64(s.events()) //nolint:gosec // a small count
		}
		l.requests++
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// answer is what matters of a server's answer.
type answer struct {
	status     int
	sample     string        // the text, when it is no 2xx
	retryAfter time.Duration // what it asks for, at most a second
}

// post sends the next request and waits for its answer. After an error the
// connection is made anew.
func (c *conn) post(ctx context.Context, s *shot) (answer, error) {
	if err := c.dial(ctx); err != nil {
		return answer{}, err
	}
	c.body = s.body(c.body[:0])
	c.render(s)
	ans, err := c.send()
	if err != nil {
		c.close()
	}
	return ans, err
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
	nc := c.nc
	c.release = context.AfterFunc(ctx, func() { _ = nc.Close() }) // what waits on it sees it
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
		header = append(slices.Clip(header), signature(s.sign, fmt.Sprintf("msg_%p_%d", c, c.seq), time.Now(), c.body)...)
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

func (c *conn) send() (answer, error) {
	if err := c.nc.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return answer{}, fmt.Errorf("send: %w", err)
	}
	if _, err := c.nc.Write(c.out); err != nil {
		return answer{}, fmt.Errorf("send: %w", err)
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	ans := answer{status: resp.StatusCode}
	if resp.StatusCode/100 != 2 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // a sample for a human
		ans.sample = resp.Status + ": " + string(b)
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n >= 0 {
			ans.retryAfter = min(time.Duration(n)*time.Second, time.Second)
		}
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	if resp.Close {
		c.close()
	}
	return ans, nil
}
