package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"tallyhook/internal/app"
	"tallyhook/internal/config"
)

var errUnwell = errors.New("not all is well")

func doctorCommand(environ []string, stdout io.Writer) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check settings, schema and the balance of every event; exit 0 only when all is well",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(config.FromFlags(cmd.Flags()), environ)
			if err != nil {
				return err
			}
			checks, err := app.Doctor(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			well := true
			for _, c := range checks {
				well = well && c.OK
			}
			if asJSON {
				if err := json.MarshalWrite(stdout, map[string]any{"ok": well, "checks": checks}, json.Deterministic(true)); err != nil {
					return err
				}
				_, err = fmt.Fprintln(stdout)
			} else {
				for _, c := range checks {
					mark := "ok  "
					if !c.OK {
						mark = "FAIL"
					}
					if _, err = fmt.Fprintf(stdout, "%s  %-10s %s\n", mark, c.Name, c.Detail); err != nil {
						return err
					}
				}
			}
			if err == nil && !well {
				err = errUnwell
			}
			return err
		},
	}
	config.RegisterFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
