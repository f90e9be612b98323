package testenv

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// requestTimeout bounds one request of a test.
const requestTimeout = time.Minute

// Client speaks to a server over real sockets.
type Client struct {
	URL string
	Key string // sent as X-API-Key; empty: none

	tb   testing.TB
	http *http.Client
}

// NewClient makes a client with connections of its own.
func NewClient(tb testing.TB, url, key string) *Client {
	tb.Helper()
	return &Client{URL: url, Key: key, tb: tb, http: &http.Client{Timeout: requestTimeout, Transport: &http.Transport{}}}
}

// Close closes the client's idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Answer is a response that was read to its end.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Header is one request header of a call.
type Header struct{ Name, Value string }

// Try sends a request. A body that is not bytes or text is sent as JSON. The
// error is that of the connection; when the answer had begun, its status is in
// the Answer nevertheless.
func (c *Client) Try(method, path string, body any, headers ...Header) (Answer, error) {
	var from io.Reader
	contentType := "application/json"
	switch b := body.(type) {
	case nil:
		contentType = ""
	case io.Reader:
		from = b // of unknown length: chunked
	case []byte:
		from = bytes.NewReader(b)
	case string:
		from = strings.NewReader(b)
	default:
		raw, err := json.Marshal(body)
		if err != nil {
			return Answer{}, err
		}
		from = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, c.URL+path, from)
	if err != nil {
		return Answer{}, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if c.Key != "" {
		req.Header.Set("X-API-Key", c.Key)
	}
	for _, h := range headers {
		req.Header.Set(h.Name, h.Value)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read to its end, or the error is returned
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	a.Body, err = io.ReadAll(resp.Body)
	return a, err
}

// Do sends a request and fails the test when there is no whole answer, or a
// status that was not expected. No status expected: any will do.
func (c *Client) Do(want int, method, path string, body any, headers ...Header) Answer {
	c.tb.Helper()
	a, err := c.Try(method, path, body, headers...)
	switch {
	case err != nil:
		c.tb.Fatalf("%s %s: %v", method, path, err)
	case want != 0 && a.Status != want:
		c.tb.Fatalf("%s %s: status %d, want %d: %s", method, path, a.Status, want, a.Body)
	}
	return a
}

// Get sends a GET that must be answered 200.
func (c *Client) Get(path string) Answer {
	c.tb.Helper()
	return c.Do(http.StatusOK, http.MethodGet, path, nil)
}

// Post sends JSON that must be answered with the status given.
func (c *Client) Post(want int, path string, body any, headers ...Header) Answer {
	c.tb.Helper()
	return c.Do(want, http.MethodPost, path, body, headers...)
}

// Rows reads a list to its end, page by page.
func (c *Client) Rows(path string) []Value {
	c.tb.Helper()
	glue := "?"
	if strings.Contains(path, "?") {
		glue = "&"
	}
	var rows []Value
	for cursor := ""; ; {
		a := c.Get(path + glue + "limit=1000" + cursor)
		rows = append(rows, a.At("data").List()...)
		next := a.At("next_cursor").Text()
		if next == "" {
			return rows
		}
		cursor = "&cursor=" + next
	}
}

// Value is a part of a JSON answer.
type Value struct{ v any }

// At reads a part of the answer by its path, such as "data.results.0.id".
func (a Answer) At(path string) Value {
	var v any
	dec := json.NewDecoder(bytes.NewReader(a.Body))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return Value{}
	}
	return Value{v}.At(path)
}

// At reads a part of the value.
func (v Value) At(path string) Value {
	for name := range strings.SplitSeq(path, ".") {
		switch of := v.v.(type) {
		case map[string]any:
			v = Value{of[name]}
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(of) {
				return Value{}
			}
			v = Value{of[i]}
		default:
			return Value{}
		}
	}
	return v
}

// Text is the value as text; empty when it is null or not there.
func (v Value) Text() string {
	if v.v == nil {
		return ""
	}
	if s, ok := v.v.(string); ok {
		return s
	}
	return fmt.Sprint(v.v)
}

// Int is the value as a whole number; -1 when it is none.
func (v Value) Int() int64 {
	if n, ok := v.v.(json.Number); ok {
		if i, err := n.Int64(); err == nil {
			return i
		}
	}
	return -1
}

// List are the elements of an array.
func (v Value) List() []Value {
	of, _ := v.v.([]any)
	list := make([]Value, len(of))
	for i := range of {
		list[i] = Value{of[i]}
	}
	return list
}

// Map are the members of an object.
func (v Value) Map() map[string]Value {
	of, _ := v.v.(map[string]any)
	m := make(map[string]Value, len(of))
	for name := range of {
		m[name] = Value{of[name]}
	}
	return m
}

// Sign makes the Standard Webhooks headers of a body.
func Sign(secret, id string, at time.Time, body []byte) ([]Header, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return nil, fmt.Errorf("decode secret: %w", err)
	}
	seconds := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + seconds + "."))
	mac.Write(body)
	return []Header{
		{"webhook-id", id},
		{"webhook-timestamp", seconds},
		{"webhook-signature", "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))},
	}, nil
}
