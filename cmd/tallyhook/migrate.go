package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"tallyhook/internal/app"
	"tallyhook/internal/config"
)

func migrateCommand(environ []string, stdout io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use: "migrate", Short: "Bring the schema up to date, or show where it is",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	sub := func(use, short string, up bool) *cobra.Command {
		c := &cobra.Command{
			Use: use, Short: short, Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := config.Load(config.FromFlags(cmd.Flags()), environ)
				if err != nil {
					return err
				}
				steps, err := app.Migrate(cmd.Context(), cfg, up)
				if err != nil {
					return err
				}
				for _, m := range steps {
					state := "pending"
					if !m.AppliedAt.IsZero() {
						state = "applied " + m.AppliedAt.Format(time.RFC3339)
					}
					if _, err := fmt.Fprintf(stdout, "%04d  %s\n", m.Version, state); err != nil {
						return err
					}
				}
				return nil
			},
		}
		config.RegisterFlags(c.Flags())
		return c
	}
	cmd.AddCommand(sub("up", "Apply what is pending", true), sub("status", "List the steps of the schema and change nothing", false))
	return cmd
}
