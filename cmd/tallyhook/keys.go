package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// keyRow is an API key as the server shows it.
type keyRow struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Prefix     string     `json:"prefix"`
	Scopes     []string   `json:"scopes"`
	ExpiresAt  *time.Time `json:"expires_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
	RevokedAt  *time.Time `json:"revoked_at"`
	ReplacedBy *string    `json:"replaced_by"`
	Key        string     `json:"key"`
	GraceEnds  *time.Time `json:"grace_ends"`
}

// state says in a word whether a key is good.
func (k keyRow) state() string {
	switch {
	case k.RevokedAt != nil:
		return "revoked"
	case k.ExpiresAt != nil && !time.Now().Before(*k.ExpiresAt):
		return "expired"
	case k.ReplacedBy != nil:
		return "rotated"
	}
	return "live"
}

func keysCommand(environ []string, stdout io.Writer) *cobra.Command {
	var name, grace string
	var scopes, allowed []string
	var days int
	create := verb[keyRow]{
		use: "create", short: "Create an API key; it is printed once",
		run: func(ctx context.Context, c *client, _ []string) (any, error) {
			body := map[string]any{"name": name, "scopes": scopes}
			if len(allowed) > 0 {
				body["allowed_ips"] = allowed
			}
			if days > 0 {
				body["expires_in_days"] = days
			}
			a, err := c.do(ctx, http.MethodPost, "/api/keys", body)
			return a.Data, err
		},
		text: printNewKey,
	}.command(environ, stdout)
	create.Flags().StringVar(&name, "name", "", "what it is for")
	create.Flags().StringSliceVar(&scopes, "scope", nil, "what it may do, such as events:write; may be given several times")
	create.Flags().StringSliceVar(&allowed, "allow", nil, "an address or range that it may be used from (default everywhere); may be given several times")
	create.Flags().IntVar(&days, "expires-in-days", 0, "when it ends (default never)")

	list := verb[[]keyRow]{
		use: "list", short: "List API keys",
		run: func(ctx context.Context, c *client, _ []string) (any, error) { return c.list(ctx, "/api/keys") },
		text: func(w io.Writer, rows []keyRow) error {
			for _, k := range rows {
				if _, err := fmt.Fprintf(w, "%s  %-7s  %-10s  expires %-20s  used %-20s  %s: %s\n",
					k.ID, k.state(), k.Prefix, moment(k.ExpiresAt), moment(k.LastUsedAt), k.Name, strings.Join(k.Scopes, " ")); err != nil {
					return err
				}
			}
			return nil
		},
	}.command(environ, stdout)

	rotate := verb[keyRow]{
		use: "rotate ID", short: "Make a key in place of another, which stays valid for a grace time", args: oneID,
		run: func(ctx context.Context, c *client, args []string) (any, error) {
			a, err := c.do(ctx, http.MethodPost, "/api/keys/"+url.PathEscape(args[0])+"/rotate", map[string]any{"grace": grace})
			return a.Data, err
		},
		text: func(w io.Writer, k keyRow) error {
			if err := printNewKey(w, k); err != nil {
				return err
			}
			_, err := fmt.Fprintf(w, "the old key is valid until %s\n", moment(k.GraceEnds))
			return err
		},
	}.command(environ, stdout)
	rotate.Flags().StringVar(&grace, "grace", "24h", "how long the old key stays valid, from 0s to 720h")

	revoke := verb[map[string]string]{
		use: "revoke ID", short: "End an API key at once", args: oneID,
		run: func(ctx context.Context, c *client, args []string) (any, error) {
			_, err := c.do(ctx, http.MethodDelete, "/api/keys/"+url.PathEscape(args[0]), nil)
			return map[string]string{"revoked": args[0]}, err
		},
		text: func(w io.Writer, v map[string]string) error {
			_, err := fmt.Fprintln(w, "revoked "+v["revoked"])
			return err
		},
	}.command(environ, stdout)
	return under("keys", "Create, list, rotate and revoke API keys of a running server", create, list, rotate, revoke)
}

func printNewKey(w io.Writer, k keyRow) error {
	_, err := fmt.Fprintf(w, "%s  %s: %s\n%s\nThe key is shown only now.\n", k.ID, k.Name, strings.Join(k.Scopes, " "), k.Key)
	return err
}

// moment is a time for people; a dash when there is none.
func moment(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
