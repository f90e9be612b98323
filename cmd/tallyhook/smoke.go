package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"tallyhook/internal/smoke"
)

var errSmoke = errors.New("the smoke test failed")

// smokeFlags are what an operator may choose.
type smokeFlags struct {
	json, ready bool
	metricsURL  string
	timeout     time.Duration
}

func smokeCommand(environ []string, stdout io.Writer) *cobra.Command {
	var f smokeFlags
	cmd := &cobra.Command{
		Use:   "smoke",
		Short: "After a deployment: try every public path of a running server, and one event through the whole way",
		Long: "Tries the server at TALLYHOOK_URL with the admin key in TALLYHOOK_API_KEY, or in the file that\n" +
			"TALLYHOOK_API_KEY_FILE names: every public path; then a template, an instance and a signed source of its own, a webhook\n" +
			"that comes before its contact is enrolled, the enrollment that takes it in, and the numbers. The source and the template\n" +
			"are deleted again and the instance completed, also after a failure; one event and one enrollment stay.\n\n" +
			"Exit code 0 only when every step is ok.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := f.options(environ)
			if err != nil {
				return err
			}
			var unwritten error
			if !f.json {
				o.Report = func(s smoke.Step) {
					mark := "ok  "
					if !s.OK {
						mark = "FAIL"
					}
					_, err := fmt.Fprintf(stdout, "%s  %7.1f ms  %-22s %s\n", mark, s.TookMS, s.Name, s.Detail)
					unwritten = errors.Join(unwritten, err)
				}
			}
			result := smoke.Run(cmd.Context(), o)
			if f.json {
				out := struct {
					URL string `json:"url"`
					smoke.Result
				}{redacted(o.URL), result}
				if unwritten = json.MarshalWrite(stdout, out); unwritten == nil {
					_, unwritten = fmt.Fprintln(stdout)
				}
			}
			if failed := result.Failed(); len(failed) > 0 {
				return fmt.Errorf("%w at %s: %s: %s", errSmoke, redacted(o.URL), failed[0].Name, failed[0].Detail)
			}
			return unwritten
		},
	}
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	cmd.Flags().BoolVar(&f.ready, "ready", false, "ask /readyz and nothing else; needs no key")
	cmd.Flags().StringVar(&f.metricsURL, "metrics-url", "", "where METRICS_ADDR has put the metrics, as an URL (default TALLYHOOK_URL/metrics)")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 10*time.Second, "of each request, from 100ms to 1m")
	return cmd
}

// options refuses what has no meaning or no bound.
func (f *smokeFlags) options(environ []string) (smoke.Options, error) {
	o := smoke.Options{MetricsURL: f.metricsURL, Timeout: f.timeout, ReadyOnly: f.ready}
	var err error
	if o.URL, err = serverURL(environ); err != nil {
		return o, err
	}
	if f.timeout < 100*time.Millisecond || f.timeout > time.Minute {
		return o, fmt.Errorf("%w: --timeout is from 100ms to 1m", errUsage)
	}
	if u, err := url.Parse(f.metricsURL); f.metricsURL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		return o, fmt.Errorf("%w: --metrics-url is not an http or https URL", errUsage)
	}
	if f.ready {
		return o, nil
	}
	if o.Key, err = serverKey(environ); err == nil && o.Key == "" {
		err = fmt.Errorf("%w: TALLYHOOK_API_KEY is not set; smoke needs an admin key of the server at %s, or --ready", errUsage, redacted(o.URL))
	}
	return o, err
}
