package smoke

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 8 << 20

// client speaks to the server.
type client struct {
	url, key string
	timeout  time.Duration
	http     *http.Client
}

func newClient(o Options) *client {
	return &client{url: o.URL, key: o.Key, timeout: o.Timeout, http: &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true},
		// A redirect would carry the key to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// noAnswer is a request that was not answered whole.
type noAnswer struct{ err error }

func (e *noAnswer) Error() string { return "no answer: " + e.err.Error() }
func (e *noAnswer) Unwrap() error { return e.err }

func unanswered(err error) bool {
	_, ok := errors.AsType[*noAnswer](err)
	return ok
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// get asks without a key.
func (c *client) get(ctx context.Context, from string) (answer, error) {
	return c.do(ctx, http.MethodGet, from, nil, nil)
}

// ok is get for what must be answered 200.
func (c *client) ok(ctx context.Context, from string) (answer, error) {
	a, err := c.get(ctx, from)
	if err == nil && a.status != http.StatusOK {
		err = a.refused()
	}
	return a, err
}

// call asks the API with the key, and reads the answer into out where out is
// not nil. Any answer but a 2xx is an error.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	a, err := c.do(ctx, method, c.url+path, body, map[string]string{"X-API-Key": c.key})
	if err != nil {
		return err
	}
	if a.status < 200 || a.status > 299 {
		return a.refused()
	}
	if out == nil {
		return nil
	}
	return a.read(out)
}

func (c *client) do(ctx context.Context, method, to string, body []byte, header map[string]string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return answer{}, errors.New("the URL cannot be used")
	}
	req.Header.Set("User-Agent", "tallyhook-smoke")
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, &noAnswer{c.explain(ctx, err)}
	}
	defer resp.Body.Close() //nolint:errcheck // it was read to its end, or the error is returned
	a := answer{status: resp.StatusCode, header: resp.Header}
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return a, &noAnswer{c.explain(ctx, err)}
	}
	return a, nil
}

// explain takes the URL, which may hold a token, out of an error.
func (c *client) explain(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("nothing within %v", c.timeout)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// read decodes the answer.
func (a answer) read(out any) error {
	if err := json.Unmarshal(a.body, out); err != nil {
		return fmt.Errorf("%d with a body of %d bytes that is not the JSON of this API", a.status, len(a.body))
	}
	return nil
}

// refused says why an answer is not the one that was wanted, in the server's
// own words where it has some.
func (a answer) refused() error {
	text := strconv.Itoa(a.status) + " " + http.StatusText(a.status)
	var p struct {
		Detail string `json:"detail"`
	}
	switch {
	case a.status >= 300 && a.status < 400:
		text += ": it points elsewhere; TALLYHOOK_URL must be where the server itself answers"
	case json.Unmarshal(a.body, &p) == nil && p.Detail != "":
		text += ": " + p.Detail
	}
	return errors.New(text)
}

// sign makes the headers of a Standard Webhook.
func sign(secret, id string, at time.Time, body []byte) (map[string]string, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return nil, errors.New("the source's secret is not one of Standard Webhooks")
	}
	seconds := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + seconds + "."))
	mac.Write(body)
	return map[string]string{
		"webhook-id": id, "webhook-timestamp": seconds,
		"webhook-signature": "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)),
	}, nil
}
