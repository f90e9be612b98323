package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tallyhook/internal/bench"
)

var errBench = errors.New("the bench found problems")

// benchFlags are what an operator may choose.
type benchFlags struct {
	self, quick, json, markdown bool
	bench.Options
}

func benchCommand(environ []string, stdout, stderr io.Writer) *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine with a server of its own, or put a load on a running server",
		Long: "With --self: start a server on temporary data, measure durable ingestion and adoption, and, in the same run,\n" +
			"what this machine does without it. Everything is removed again.\n\n" +
			"Without: put a load on the server at TALLYHOOK_URL with the admin key in TALLYHOOK_API_KEY. Events and an instance\n" +
			"stay there, so use a server that is for testing.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.complete(cmd); err != nil {
				return err
			}
			f.Progress, f.Version = stderr, version
			ctx := cmd.Context()
			var r *bench.Report
			var err error
			if f.self {
				if f.Executable, err = os.Executable(); err != nil {
					return fmt.Errorf("find this program: %w", err)
				}
				r, err = bench.Self(ctx, f.Options)
			} else {
				r, err = loadRunning(ctx, environ, f.Options)
			}
			if err != nil {
				return err
			}
			if err := f.write(stdout, r); err != nil {
				return err
			}
			if len(r.Problems) > 0 {
				return fmt.Errorf("%w: %s", errBench, strings.Join(r.Problems, "; "))
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.self, "self", false, "measure a server of its own, and the yardsticks")
	fs.BoolVar(&f.quick, "quick", false, "with --self: cells of 1s, and 0 and 10000 orphans")
	fs.DurationVar(&f.Duration, "duration", 0, "of each cell, at most 10m (default 5s with --self, else 10s)")
	fs.IntSliceVar(&f.Connections, "connections", nil, "how many, a cell for each (default 1,32,256 with --self, else 32)")
	fs.IntVar(&f.Array, "array", 0, "events in an array, at most 1000 (default 100 with --self, else single events)")
	fs.Float64Var(&f.Rate, "rate", 0, "without --self: requests a second, sent whether or not the earlier ones are answered")
	fs.IntSliceVar(&f.Orphans, "orphans", nil, "with --self: how many are parked beside an adoption (default 0,100000,1000000)")
	fs.StringSliceVar(&f.Only, "only", nil, "with --self: some of "+strings.Join(bench.Parts(), ", "))
	fs.StringVar(&f.Dir, "dir", "", "with --self: folder for the temporary data (default the system's)")
	fs.StringVar(&f.LogLevel, "log-level", "info", "with --self: the server's LOG_LEVEL")
	fs.BoolVar(&f.json, "json", false, "print JSON")
	fs.BoolVar(&f.markdown, "markdown", false, "print Markdown")
	cmd.AddCommand(&cobra.Command{
		Use: "yardstick-http", Short: "Serve the yardstick that stores nothing", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return bench.ServeYardstick(cmd.Context(), stderr) },
	})
	return cmd
}

// complete fills in the defaults, which depend on the way of use, and refuses
// what has no meaning or no bound.
func (f *benchFlags) complete(cmd *cobra.Command) error {
	selfOnly := []string{"quick", "orphans", "only", "dir", "log-level"}
	given := cmd.Flags().Changed
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{errUsage}, args...)...)
	}
	for _, name := range selfOnly {
		if !f.self && given(name) {
			return wrong("--%s goes with --self", name)
		}
	}
	if f.self && given("rate") {
		return wrong("--rate does not go with --self, which finds the rate")
	}
	if f.json && f.markdown {
		return wrong("--json and --markdown exclude each other")
	}
	duration, connections, orphans := 10*time.Second, []int{32}, []int(nil)
	if f.self {
		duration, connections, orphans = 5*time.Second, []int{1, 32, 256}, []int{0, 100_000, 1_000_000}
		if f.quick {
			duration, orphans = time.Second, []int{0, 10_000}
		}
		if !given("array") {
			f.Array = 100
		}
	} else {
		f.LogLevel = ""
	}
	if !given("duration") {
		f.Duration = duration
	}
	if !given("connections") {
		f.Connections = connections
	}
	if !given("orphans") {
		f.Orphans = orphans
	}
	f.Repetitions = 200
	slices.Sort(f.Orphans)
	outside := func(least, most int) func(int) bool { return func(n int) bool { return n < least || n > most } }
	switch {
	case f.Duration < 10*time.Millisecond || f.Duration > 10*time.Minute:
		return wrong("--duration is from 10ms to 10m")
	case len(f.Connections) == 0 || slices.ContainsFunc(f.Connections, outside(1, 4096)):
		return wrong("--connections are from 1 to 4096")
	case f.Array < 0 || f.Array > 1000 || f.self && f.Array == 0:
		return wrong("--array is from 1 to 1000")
	case f.Rate < 0 || f.Rate > 1e6 || given("rate") && f.Rate < 1:
		return wrong("--rate is from 1 to 1000000")
	case slices.ContainsFunc(f.Orphans, outside(0, 100_000_000)):
		return wrong("--orphans are from 0 to 100000000")
	}
	for _, part := range f.Only {
		if !slices.Contains(bench.Parts(), part) {
			return wrong("--only knows %s, not %q", strings.Join(bench.Parts(), ", "), part)
		}
	}
	return nil
}

func (f *benchFlags) write(w io.Writer, r *bench.Report) error {
	switch {
	case f.json:
		return r.WriteJSON(w)
	case f.markdown:
		return r.WriteMarkdown(w)
	}
	return r.WriteText(w)
}

func loadRunning(ctx context.Context, environ []string, o bench.Options) (*bench.Report, error) {
	at, err := serverURL(environ)
	if err != nil {
		return nil, err
	}
	t := bench.Target{URL: at, Key: variable(environ, "TALLYHOOK_API_KEY")}
	if t.Key == "" {
		return nil, fmt.Errorf("%w: TALLYHOOK_API_KEY is not set; bench needs an admin key of the server at %s, or --self", errUsage, redacted(at))
	}
	return bench.Load(ctx, t, o)
}
