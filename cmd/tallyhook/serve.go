package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"tallyhook/internal/app"
	"tallyhook/internal/config"
	"tallyhook/internal/demo"
	"tallyhook/internal/telemetry"
)

func serveCommand(environ []string, stderr io.Writer) *cobra.Command {
	var withDemo, strict bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: "Run the server. Without any setting it listens on 127.0.0.1:3000 and keeps its data in tallyhook.db\n" +
			"in the current folder. Each setting is a flag, or an environment variable of the same name.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(config.FromFlags(cmd.Flags()), environ)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), cfg, withDemo, strict, stderr)
		},
	}
	config.RegisterFlags(cmd.Flags())
	cmd.Flags().BoolVar(&withDemo, "demo", false, "add a campaign and play a stream of realistic webhooks into it")
	cmd.Flags().BoolVar(&strict, "strict", false, "refuse to start on a Redis that is down or not safe")
	return cmd
}

func serve(ctx context.Context, cfg config.Config, withDemo, strict bool, stderr io.Writer) error {
	start := time.Now()
	level := cfg.LogLevel
	if withDemo && !cfg.Given("LOG_LEVEL") {
		level = slog.LevelWarn // the demo prints a line a second of its own
	}
	log := telemetry.NewLogger(stderr, level, cfg.LogFormat)
	a, err := app.New(ctx, cfg, app.Options{Version: version, Logger: log, Strict: strict})
	if err != nil {
		return err
	}
	a.Start() //nolint:contextcheck // the workers outlive the signal: Stop ends them
	cfg = a.Config()
	for _, l := range cfg.Describe() {
		log.InfoContext(ctx, "setting", slog.String("name", l.Name), slog.String("value", l.Value), slog.String("origin", l.Origin))
	}
	log.InfoContext(ctx, "ready", slog.String("url", a.URL()), slog.Int64("took_ms", time.Since(start).Milliseconds()))
	if err := welcome(stderr, a, time.Since(start)); err != nil {
		return err
	}
	var play *demo.Play
	var revoke func()
	if withDemo {
		var key string
		key, revoke, err = a.TemporaryKey(ctx, "demo")
		if err != nil {
			log.ErrorContext(ctx, "demo key", slog.Any("error", err))
		} else {
			play = demo.Start(ctx, demo.Options{URL: a.URL(), Key: key, ShowKey: keyToPaste(a), Out: stderr, Logger: log})
		}
	}
	var failed error
	select {
	case <-ctx.Done():
		log.InfoContext(ctx, "shutdown begins", slog.String("deadline", cfg.ShutdownTimeout.String()))
	case failed = <-a.Failed():
	}
	if play != nil {
		play.Stop()
		revoke()
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.ShutdownTimeout)
	defer cancel()
	return errors.Join(failed, a.Stop(stop))
}

// keyToPaste is the key in the commands that are shown.
func keyToPaste(a *app.App) string {
	switch {
	case a.AdminKey() != "":
		return a.AdminKey()
	case a.Config().APIKey.Reveal() != "":
		return "$API_KEY"
	}
	return "YOUR_API_KEY"
}

// welcome tells what a newcomer needs: where it listens, where the data is,
// the key, and three lines that work when pasted.
func welcome(w io.Writer, a *app.App, took time.Duration) error {
	cfg := a.Config()
	data := a.Data()
	key := keyToPaste(a)
	keyLine := "in the store already; it was shown when it was made (a new one: set API_KEY)"
	switch {
	case a.AdminKey() != "":
		keyLine = key + "  (shown only now: keep it)"
	case cfg.APIKey.Reveal() != "":
		keyLine = "the one in API_KEY"
	}
	_, err := fmt.Fprintf(w, `
Tallyhook %s is ready in %d ms
  listening on  %s
  data in       %s
  admin key     %s

Try:
  curl %s/health
  curl -H "X-API-Key: %s" %s/api/campaigns
  curl -H "X-API-Key: %s" '%s/api/events?limit=3'
The API is described at %s/docs

`, version, took.Milliseconds(), a.URL(), data, keyLine, a.URL(), key, a.URL(), key, a.URL(), a.URL())
	return err
}
