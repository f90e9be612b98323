package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
)

// answerWait bounds one request of a verb, and answerBytes its answer.
const (
	answerWait  = time.Minute
	answerBytes = 64 << 20
)

// errRefused is what a server has answered in place of a success.
var errRefused = errors.New("the server refused")

// client speaks to a running server as TALLYHOOK_URL and TALLYHOOK_API_KEY say.
type client struct {
	url, key string
	http     http.Client
}

func newClient(environ []string) (*client, error) {
	c := &client{http: http.Client{Timeout: answerWait}}
	var err error
	if c.url, err = serverURL(environ); err != nil {
		return nil, err
	}
	if c.key, err = serverKey(environ); err == nil && c.key == "" {
		err = fmt.Errorf("%w: TALLYHOOK_API_KEY is not set; it takes an admin key of the server at %s", errUsage, redacted(c.url))
	}
	return c, err
}

// answer is the body of a success.
type answer struct {
	Data jsontext.Value `json:"data"`
	Next *string        `json:"next_cursor"`
}

// do sends a request and reads its answer. A body of nil is none.
func (c *client) do(ctx context.Context, method, path string, body any) (a answer, err error) {
	var from io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return a, fmt.Errorf("encode the request: %w", err)
		}
		from = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, from)
	if err != nil {
		return a, fmt.Errorf("%w: TALLYHOOK_URL: %w", errUsage, err)
	}
	req.Header.Set("X-API-Key", c.key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return a, fmt.Errorf("ask %s: %w", redacted(c.url), err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	switch {
	case err != nil:
		return a, fmt.Errorf("read the answer of %s: %w", redacted(c.url), err)
	case resp.StatusCode >= http.StatusMultipleChoices:
		var p struct {
			Detail string `json:"detail"`
		}
		if json.Unmarshal(raw, &p) != nil || p.Detail == "" {
			p.Detail = "no reason is given; is this a Tallyhook server?"
		}
		return a, fmt.Errorf("%w: %d: %s", errRefused, resp.StatusCode, p.Detail)
	case len(raw) == 0:
		return a, nil
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return a, fmt.Errorf("read the answer of %s: %w", redacted(c.url), err)
	}
	return a, nil
}

// list reads a list to its end.
func (c *client) list(ctx context.Context, path string) ([]jsontext.Value, error) {
	all := []jsontext.Value{}
	for query := (url.Values{"limit": {"1000"}}); ; {
		a, err := c.do(ctx, http.MethodGet, path+"?"+query.Encode(), nil)
		if err != nil {
			return nil, err
		}
		var rows []jsontext.Value
		if err := json.Unmarshal(a.Data, &rows); err != nil {
			return nil, fmt.Errorf("read the list: %w", err)
		}
		all = append(all, rows...)
		if a.Next == nil {
			return all, nil
		}
		query.Set("cursor", *a.Next)
	}
}

// verb is a command that speaks to a running server. Its run gives what --json
// prints, and text prints the same for people.
type verb[T any] struct {
	use, short string
	args       cobra.PositionalArgs // nil: none
	run        func(ctx context.Context, c *client, args []string) (any, error)
	text       func(w io.Writer, v T) error
}

func (v verb[T]) command(environ []string, stdout io.Writer) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: v.use, Short: v.short, Args: v.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newClient(environ)
			if err != nil {
				return err
			}
			defer c.http.CloseIdleConnections()
			got, err := v.run(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			raw, err := json.Marshal(got)
			if err != nil {
				return fmt.Errorf("encode the answer: %w", err)
			}
			if asJSON {
				_, err = fmt.Fprintln(stdout, string(raw))
				return err
			}
			var read T
			if err := json.Unmarshal(raw, &read); err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
			return v.text(stdout, read)
		},
	}
	if cmd.Args == nil {
		cmd.Args = noArgs
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// oneID wants the id of what the verb acts on.
func oneID(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: %s takes one id", errUsage, cmd.CommandPath())
	}
	return nil
}

// under groups verbs, and lists them when none is given.
func under(use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(verbs...)
	return cmd
}
