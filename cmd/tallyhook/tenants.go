package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

// tenantRow is a tenant as the server shows it.
type tenantRow struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status string `json:"status"`
	APIKey string `json:"api_key"`
}

func printTenant(w io.Writer, n tenantRow) error {
	_, err := fmt.Fprintf(w, "%s  %-9s  %s\n", n.ID, n.Status, n.Name)
	return err
}

func tenantsCommand(environ []string, stdout io.Writer) *cobra.Command {
	var name string
	limits := map[string]*int{}
	create := verb[tenantRow]{
		use: "create", short: "Create a tenant with its first admin key, which is printed once",
		run: func(ctx context.Context, c *client, _ []string) (any, error) {
			given := map[string]int{}
			for limit, n := range limits {
				if *n != 0 {
					given[limit] = *n
				}
			}
			a, err := c.do(ctx, http.MethodPost, "/api/admin/tenants", map[string]any{"name": name, "limits": given})
			return a.Data, err
		},
		text: func(w io.Writer, n tenantRow) error {
			if err := printTenant(w, n); err != nil {
				return err
			}
			_, err := fmt.Fprintf(w, "%s\nIts admin key is shown only now.\n", n.APIKey)
			return err
		},
	}.command(environ, stdout)
	create.Flags().StringVar(&name, "name", "", "its name")
	for limit, flag := range map[string]string{
		"requests_per_second": "requests-per-second", "webhooks_per_second": "webhooks-per-second",
		"max_keys": "max-keys", "max_sources": "max-sources", "max_instances": "max-instances",
	} {
		limits[limit] = create.Flags().Int(flag, 0, "a limit of the tenant (default none)")
	}

	list := verb[[]tenantRow]{
		use: "list", short: "List tenants",
		run: func(ctx context.Context, c *client, _ []string) (any, error) {
			return c.list(ctx, "/api/admin/tenants")
		},
		text: func(w io.Writer, rows []tenantRow) error {
			for _, n := range rows {
				if err := printTenant(w, n); err != nil {
					return err
				}
			}
			return nil
		},
	}.command(environ, stdout)

	change := func(act, short string) *cobra.Command {
		return verb[tenantRow]{
			use: act + " ID", short: short, args: oneID,
			run: func(ctx context.Context, c *client, args []string) (any, error) {
				a, err := c.do(ctx, http.MethodPost, "/api/admin/tenants/"+url.PathEscape(args[0])+"/"+act, nil)
				return a.Data, err
			},
			text: printTenant,
		}.command(environ, stdout)
	}
	return under("tenants", "Create, list, suspend and resume tenants of a running server; takes the default tenant's admin key", create, list,
		change("suspend", "Take nothing of a tenant any more; its vendors are told to send again"), change("resume", "Let a suspended tenant act again"))
}
