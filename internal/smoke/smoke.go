// Package smoke tries a deployment from outside, as its callers would: every
// public path, then one event through the whole way, from an early signed
// webhook to the number in the report.
//
// Guarantees: every request and the whole run have an end; what a run makes is
// named smoke-TIME and taken away again as far as the API takes anything away,
// also when a step failed or the run was interrupted; no key, secret or token
// is in what it reports.
package smoke

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	wholeRun = 2 * time.Minute  // the longest that the steps may take together
	tidyRun  = 30 * time.Second // the longest that taking away may take
)

// Options say what to try.
type Options struct {
	URL        string        // where the server answers, without a slash at its end
	Key        string        // an admin key; not needed when ReadyOnly
	MetricsURL string        // where METRICS_ADDR has moved the metrics; empty: URL/metrics
	Timeout    time.Duration // of one request
	ReadyOnly  bool          // ask /readyz and nothing else

	// Report is told of each step when it is done; nil: of none.
	Report func(Step)
}

// Step is one thing that was tried.
type Step struct {
	Name   string  `json:"name"`
	OK     bool    `json:"ok"`
	TookMS float64 `json:"took_ms"`
	Detail string  `json:"detail"` // what was seen, or what is wrong
}

// Result is a whole run.
type Result struct {
	OK    bool   `json:"ok"`
	Steps []Step `json:"steps"`
}

// Failed lists the steps that failed.
func (r Result) Failed() []Step {
	var failed []Step
	for _, s := range r.Steps {
		if !s.OK {
			failed = append(failed, s)
		}
	}
	return failed
}

// run is one run under way.
type run struct {
	opt    Options
	client *client
	began  time.Time
	name   string // of whatever the run makes
	steps  []Step
	made   made
}

// Run tries everything and says what it saw. A public path that answers wrongly
// does not keep the others from being tried; a server that does not answer at
// all does, and so does a step of the event's way, since the next builds on it.
func Run(ctx context.Context, o Options) Result {
	began := time.Now()
	r := &run{opt: o, client: newClient(o), began: began, name: runName(began)}
	defer r.client.close()
	whole, cancel := context.WithTimeout(ctx, wholeRun)
	defer cancel()
	if o.ReadyOnly {
		_ = r.step(whole, "GET /readyz", r.readyz) // it was reported
	} else if r.public(whole) {
		r.way(whole)
		tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyRun)
		defer cancel()
		r.tidy(tidy)
	}
	result := Result{Steps: r.steps}
	result.OK = len(result.Failed()) == 0
	return result
}

// step does one thing and reports it. An error is what is wrong, for a person.
func (r *run) step(ctx context.Context, name string, do func(context.Context) (string, error)) error {
	start := time.Now()
	detail, err := do(ctx)
	s := Step{Name: name, OK: err == nil, TookMS: float64(time.Since(start).Microseconds()) / 1000, Detail: detail}
	if err != nil {
		s.Detail = err.Error()
	}
	r.steps = append(r.steps, s)
	if r.opt.Report != nil {
		r.opt.Report(s)
	}
	return err
}

// public tries every path that needs no key, and tells whether the server
// answers at all.
func (r *run) public(ctx context.Context) bool {
	for _, s := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"GET /health", r.health},
		{"GET /livez", r.livez},
		{"GET /readyz", r.readyz},
		{"GET /metrics", r.metrics},
		{"GET /openapi.json", r.openAPI},
		{"GET /docs", r.docs},
	} {
		if unanswered(r.step(ctx, s.name, s.do)) {
			return false
		}
	}
	return true
}

func (r *run) health(ctx context.Context) (string, error) {
	var h struct {
		Status     string                    `json:"status"`
		Version    string                    `json:"version"`
		Components map[string]map[string]any `json:"components"`
	}
	a, err := r.client.get(ctx, r.opt.URL+"/health")
	if err != nil {
		return "", err
	}
	if err := a.read(&h); err != nil {
		return "", err
	}
	parts := []string{h.Status + ", version " + h.Version}
	for _, name := range []string{"database", "redis", "queue"} {
		part := fmt.Sprintf("%s %v", name, h.Components[name]["status"])
		if detail, ok := h.Components[name]["detail"].(string); ok && h.Components[name]["status"] != "disabled" {
			part += " (" + detail + ")"
		}
		parts = append(parts, part)
	}
	seen := strings.Join(parts, "; ")
	if a.status != http.StatusOK || h.Status != "healthy" {
		return "", fmt.Errorf("%d %s", a.status, seen)
	}
	return seen, nil
}

// livez also compares the clocks, since a signature is good for 5 minutes
// either way, and half a minute is far off for machines that keep time.
func (r *run) livez(ctx context.Context) (string, error) {
	a, err := r.client.ok(ctx, r.opt.URL+"/livez")
	if err != nil {
		return "", err
	}
	at, err := http.ParseTime(a.header.Get("Date"))
	if err != nil {
		return "lives", nil //nolint:nilerr // a proxy may leave the date out
	}
	if off := time.Since(at).Round(time.Second); off.Abs() > 30*time.Second {
		return "", fmt.Errorf("lives, but its clock and the one here are %v apart; past 5 minutes signed webhooks are refused", off.Abs())
	}
	return "lives, and its clock is right", nil
}

func (r *run) readyz(ctx context.Context) (string, error) {
	_, err := r.client.ok(ctx, r.opt.URL+"/readyz")
	return "takes requests", err
}

// metrics looks at the two gauges that must be right on any day. Where the
// metrics were moved away or closed at the proxy, that is no failure.
func (r *run) metrics(ctx context.Context) (string, error) {
	from := r.opt.MetricsURL
	if from == "" {
		from = r.opt.URL + "/metrics"
	}
	a, err := r.client.get(ctx, from)
	if err != nil {
		return "", err
	}
	if closed := a.status == http.StatusNotFound || a.status == http.StatusForbidden; closed && r.opt.MetricsURL == "" {
		return fmt.Sprintf("not served here (%d); --metrics-url checks them where METRICS_ADDR has put them", a.status), nil
	}
	if a.status != http.StatusOK {
		return "", a.refused()
	}
	for _, want := range []struct{ name, value string }{{"tallyhook_database_up", "1"}, {"tallyhook_balance_difference", "0"}} {
		if got := gauge(string(a.body), want.name); got != want.value {
			return "", fmt.Errorf("%s is %q, want %s", want.name, got, want.value)
		}
	}
	return "database up, balance difference 0", nil
}

// gauge finds a metric without labels; empty when it is not there.
func gauge(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (r *run) openAPI(ctx context.Context) (string, error) {
	var d struct {
		OpenAPI string         `json:"openapi"`
		Paths   map[string]any `json:"paths"`
	}
	a, err := r.client.ok(ctx, r.opt.URL+"/openapi.json")
	if err != nil {
		return "", err
	}
	if err := a.read(&d); err != nil {
		return "", err
	}
	if !strings.HasPrefix(d.OpenAPI, "3.1") || d.Paths["/webhooks/{token}"] == nil {
		return "", fmt.Errorf("not the description of this API: version %q, %d paths", d.OpenAPI, len(d.Paths))
	}
	return fmt.Sprintf("OpenAPI %s, %d paths", d.OpenAPI, len(d.Paths)), nil
}

func (r *run) docs(ctx context.Context) (string, error) {
	a, err := r.client.ok(ctx, r.opt.URL+"/docs")
	if err != nil {
		return "", err
	}
	if kind := a.header.Get("Content-Type"); !strings.HasPrefix(kind, "text/html") || len(a.body) == 0 {
		return "", fmt.Errorf("%d bytes of %q, want a page", len(a.body), kind)
	}
	return fmt.Sprintf("a page of %d KiB", len(a.body)>>10), nil
}
