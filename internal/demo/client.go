package demo

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
)

const (
	requestTimeout = 15 * time.Second // of one attempt
	lastRequest    = time.Second      // that Stop leaves to a request under way
	longestPause   = 30 * time.Second // between attempts, whatever the server asks for
	maxAnswer      = 8 << 20          // bytes
)

// client speaks to the server as any customer's system does. It is used by
// several goroutines; notice must be safe for that.
type client struct {
	url    string
	key    string
	http   *http.Client
	notice func(text string) // told once when an outage begins, once when it ends
	pause  time.Duration     // before the first further attempt
}

func newClient(o Options, notice func(string)) *client {
	return &client{
		url: strings.TrimRight(o.URL, "/"), key: o.Key, notice: notice,
		pause: time.Duration(float64(250*time.Millisecond) / o.Speed),
		http: &http.Client{
			Transport: &http.Transport{ // no proxy: the server is this process or its neighbour
				DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
				MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// refusal is an answer that says no for good.
type refusal struct {
	status int
	what   string // what was asked for
	detail string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the server refuses to %s: %d %s", r.what, r.status, r.detail)
}

// errKey says that the demo's API key is no good (any more).
var errKey = errors.New("the demo's key is refused")

// problem is the server's own explanation.
type problem struct {
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Errors []struct {
		Location string `json:"location"`
		Message  string `json:"message"`
	} `json:"errors"`
}

func explain(status int, body []byte) string {
	var p problem
	if err := jsonv2.Unmarshal(body, &p); err != nil || p.Title+p.Detail == "" {
		return http.StatusText(status)
	}
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	for _, e := range p.Errors {
		text += "; " + e.Location + " " + e.Message
	}
	return text
}

// call asks the API. in nil sends no body; out nil reads no answer.
func (c *client) call(ctx context.Context, what, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = write(in); err != nil {
			return err
		}
	}
	answer, err := c.do(ctx, what, method, c.url+path, body, func(h http.Header) { h.Set("X-API-Key", c.key) })
	if r, ok := errors.AsType[*refusal](err); ok && (r.status == http.StatusUnauthorized || r.status == http.StatusForbidden) {
		return fmt.Errorf("%w: %w", errKey, err)
	}
	if err != nil || out == nil {
		return err
	}
	if err := jsonv2.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read the answer to %s: %w", what, err)
	}
	return nil
}

// hook is a source to send to.
type hook struct {
	path   string // /webhooks/{token}
	basic  string // user:password
	secret string // whsec_...
}

// counts are the outcomes of one webhook's events.
type counts struct {
	Received  int `json:"received"`
	Applied   int `json:"applied"`
	Duplicate int `json:"duplicate"`
	Orphaned  int `json:"orphaned"`
	Ignored   int `json:"ignored"`
	Dead      int `json:"dead"`
	Spooled   int `json:"spooled"`
}

// send posts a webhook as its vendor does.
func (c *client) send(ctx context.Context, to hook, p post) (counts, error) {
	sign := func(h http.Header) {
		switch p.source {
		case postmarkSource:
			h.Set("User-Agent", "Postmark")
			h.Set("Authorization", basicAuth(to.basic))
		case lemlistSource:
			h.Set("User-Agent", "lemlist-webhooks")
		case genericSource: // each attempt signs its own time, as the specification asks
			at := strconv.FormatInt(time.Now().Unix(), 10)
			h.Set("Webhook-Id", p.id)
			h.Set("Webhook-Timestamp", at)
			h.Set("Webhook-Signature", signature(to.secret, p.id, at, p.body))
		}
	}
	answer, err := c.do(ctx, "take a webhook of "+p.source, http.MethodPost, c.url+to.path, p.body, sign)
	if err != nil {
		return counts{}, err
	}
	var out data[counts]
	if err := jsonv2.Unmarshal(answer, &out); err != nil {
		return counts{}, fmt.Errorf("read the answer to a webhook: %w", err)
	}
	return out.Data, nil
}

type data[T any] struct {
	Data T `json:"data"`
}

type list[T any] struct {
	Data []T     `json:"data"`
	Next *string `json:"next_cursor"`
}

// signature signs by Standard Webhooks.
func signature(secret, id, at string, body []byte) string {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return "" // the server will say that it is missing
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// do asks until the server says yes or no. When ctx ends, the request under
// way may finish for a moment, and no other is begun.
func (c *client) do(ctx context.Context, what, method, to string, body []byte, header func(http.Header)) ([]byte, error) {
	pause := c.pause
	out := false // an outage was told
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		status, after, answer, err := c.try(ctx, method, to, body, header)
		var why string
		switch {
		case err != nil:
			why = "does not answer"
			if _, isURL := errors.AsType[*url.Error](err); !isURL {
				return nil, err
			}
		case status == http.StatusTooManyRequests:
			why = "asks to slow down (429)"
		case status >= 500:
			why = fmt.Sprintf("cannot take it now (%d %s)", status, explain(status, answer))
		case status >= 300:
			return nil, &refusal{status, what, explain(status, answer)}
		default:
			if out {
				c.notice("The server answers again.")
			}
			return answer, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !out {
			c.notice("The server " + why + ": the demo keeps trying.")
			out = true
		}
		if !sleep(ctx, min(max(pause, after), longestPause)) {
			return nil, ctx.Err()
		}
		pause = min(2*pause, 20*c.pause)
	}
}

func (c *client) try(ctx context.Context, method, to string, body []byte, header func(http.Header)) (status int, after time.Duration, answer []byte, err error) {
	rc, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastRequest, cancel) })()
	r, err := http.NewRequestWithContext(rc, method, to, bytes.NewReader(body))
	if err != nil {
		return 0, 0, nil, errors.New("the server's URL cannot be used") // not a *url.Error, which is tried again
	}
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	header(r.Header)
	res, err := c.http.Do(r)
	if err != nil {
		return 0, 0, nil, err
	}
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return 0, 0, nil, &url.Error{Op: method, URL: to, Err: err}
	}
	if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 {
		after = time.Duration(s) * time.Second
	}
	return res.StatusCode, after, answer, nil
}

// sleep waits, and tells whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
