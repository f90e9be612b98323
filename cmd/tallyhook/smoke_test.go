package main_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

type smokeReport struct {
	OK    bool
	URL   string
	Steps []struct {
		Name, Detail string
		OK           bool
	}
}

// smoke runs the verb and reads its JSON.
func smoke(t *testing.T, url, key string, args ...string) (testenv.Result, smokeReport) {
	t.Helper()
	got := testenv.Run(t, t.TempDir(), []string{"TALLYHOOK_URL=" + url, "TALLYHOOK_API_KEY=" + key}, append([]string{"smoke", "--json", "--timeout", "1m"}, args...)...)
	var report smokeReport
	if err := json.Unmarshal([]byte(got.Stdout), &report); err != nil {
		t.Fatalf("smoke --json: %v: code %d\n%s%s", err, got.Code, got.Stdout, got.Stderr)
	}
	return got, report
}

func failedNames(r smokeReport) string {
	var names []string
	for _, s := range r.Steps {
		if !s.OK {
			names = append(names, s.Name)
		}
	}
	return strings.Join(names, ", ")
}

// nothingLeft: what a run made is deleted or completed.
func nothingLeft(t *testing.T, c *testenv.Client) {
	t.Helper()
	for _, path := range []string{"/api/sources", "/api/campaigns/templates"} {
		if rows := c.Rows(path); len(rows) != 0 {
			t.Errorf("%s still has %d rows", path, len(rows))
		}
	}
	for _, i := range c.Rows("/api/campaigns/instances") {
		if got := i.At("status").Text(); got != "completed" {
			t.Errorf("instance %s is %s, want completed", i.At("name").Text(), got)
		}
	}
}

func TestSmoke(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{})
	c := server.Client("")
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(testenv.AdminKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := testenv.Run(t, t.TempDir(), []string{"TALLYHOOK_URL=" + server.URL + "/", "TALLYHOOK_API_KEY_FILE=" + keyFile}, "smoke")
	if text.Code != 0 || text.Stderr != "" {
		t.Fatalf("code %d\n%s%s", text.Code, text.Stdout, text.Stderr)
	}
	line := regexp.MustCompile(`^ok    +\d+\.\d ms  (GET /\S+|[a-z ]+?)  +\S.*$`)
	var steps []string
	for l := range strings.Lines(text.Stdout) {
		m := line.FindStringSubmatch(strings.TrimRight(l, "\n"))
		if m == nil {
			t.Fatalf("not a line about a step: %q", l)
		}
		steps = append(steps, m[1])
	}
	want := "GET /health, GET /livez, GET /readyz, GET /metrics, GET /openapi.json, GET /docs, make a template, make an instance, " +
		"start the instance, make a source, send an early webhook, send it once more, find it waiting, enroll its contact, " +
		"read the event back, read the performance, delete the source, complete the instance, delete the template"
	if got := strings.Join(steps, ", "); got != want {
		t.Errorf("steps:\n got %s\nwant %s", got, want)
	}
	if strings.Contains(text.Stdout, testenv.AdminKey) || regexp.MustCompile(`/webhooks/\S|whsec_`).MatchString(text.Stdout) {
		t.Errorf("the output shows a key, a token or a secret:\n%s", text.Stdout)
	}
	nothingLeft(t, c)

	got, report := smoke(t, server.URL, testenv.AdminKey)
	if got.Code != 0 || !report.OK || report.URL != server.URL || len(report.Steps) != len(steps) {
		t.Errorf("the second run: code %d, %+v", got.Code, report)
	}
	nothingLeft(t, c)
	if a := c.Get("/api/admin/balance"); a.At("data.difference").Int() != 0 || a.At("data.tenants.0.ledger.received").Int() != 4 || a.At("data.tenants.0.ledger.applied").Int() != 2 {
		t.Errorf("two runs leave two applied events and two duplicates, got %s", a.Body)
	}
}

// TestSmokeMetricsElsewhere: METRICS_ADDR moves /metrics, and the run says so.
func TestSmokeMetricsElsewhere(t *testing.T) {
	t.Parallel()
	port := strconv.Itoa(testenv.FreePort(t))
	server := testenv.Start(t, testenv.Options{Env: []string{"METRICS_ADDR=127.0.0.1:" + port}})
	got, report := smoke(t, server.URL, testenv.AdminKey)
	if got.Code != 0 || !strings.Contains(report.Steps[3].Detail, "--metrics-url") {
		t.Errorf("without --metrics-url: code %d, %+v", got.Code, report.Steps[3])
	}
	got, report = smoke(t, server.URL, testenv.AdminKey, "--metrics-url", "http://127.0.0.1:"+port+"/metrics")
	if got.Code != 0 || report.Steps[3].Detail != "database up, balance difference 0" {
		t.Errorf("with --metrics-url: code %d, %+v", got.Code, report.Steps[3])
	}
}

// TestSmokeFails: what is wrong is said in one line, the exit code is 1, and
// nothing is left behind.
func TestSmokeFails(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{})
	c := server.Client("")
	_, campaigns := c.NewKey("campaigns alone", "campaigns:read", "campaigns:write", "events:read")
	var followed atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	t.Cleanup(target.Close)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(elsewhere.Close)
	redirect := httptest.NewServer(http.RedirectHandler(target.URL, http.StatusPermanentRedirect))
	t.Cleanup(redirect.Close)
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(release); silent.Close() })
	for name, test := range map[string]struct {
		url, key string
		args     []string
		failed   string   // steps
		says     []string // the line on standard error
	}{
		"WrongKey":         {url: server.URL, key: "wrong-0123456789abcdef0123456789abcdef", failed: "make a template", says: []string{"make a template: 401", "API key"}},
		"KeyWithoutScope":  {url: server.URL, key: campaigns, failed: "make a source", says: []string{"make a source: 403"}},
		"NothingListening": {url: "http://" + testenv.FreeAddr(t), key: testenv.AdminKey, failed: "GET /health", says: []string{"no answer", "connection refused"}},
		"NeverAnswers": {
			url: silent.URL, key: testenv.AdminKey, args: []string{"--timeout", "200ms"}, failed: "GET /health",
			says: []string{"no answer: nothing within 200ms"},
		},
		"SomethingElse": {
			url: elsewhere.URL, key: testenv.AdminKey, failed: "GET /health, GET /metrics, GET /openapi.json, GET /docs, make a template",
			says: []string{"GET /health", "not the JSON of this API"},
		},
		"Redirect": {
			url: redirect.URL, key: testenv.AdminKey,
			failed: "GET /health, GET /livez, GET /readyz, GET /metrics, GET /openapi.json, GET /docs, make a template",
			says:   []string{"GET /health"},
		},
		"NotReady": {url: redirect.URL, args: []string{"--ready"}, failed: "GET /readyz", says: []string{"308", "TALLYHOOK_URL"}},
	} {
		got, report := smoke(t, test.url, test.key, test.args...)
		if got.Code != 1 || report.OK || failedNames(report) != test.failed {
			t.Errorf("%s: code %d, failed %q, want 1, %q", name, got.Code, failedNames(report), test.failed)
		}
		if strings.Count(got.Stderr, "\n") != 1 || !strings.HasPrefix(got.Stderr, "tallyhook: the smoke test failed at "+test.url+": ") {
			t.Errorf("%s: standard error: %q, want one line", name, got.Stderr)
		}
		for _, w := range test.says {
			if !strings.Contains(got.Stderr, w) {
				t.Errorf("%s: standard error: %q, want it to say %q", name, got.Stderr, w)
			}
		}
	}
	if followed.Load() != 0 {
		t.Error("a redirect was followed, with the key")
	}
	nothingLeft(t, c)
	if got := testenv.Run(t, t.TempDir(), []string{"TALLYHOOK_URL=" + server.URL}, "smoke", "--ready"); got.Code != 0 || got.Stderr != "" {
		t.Errorf("smoke --ready without a key: code %d\n%s%s", got.Code, got.Stdout, got.Stderr)
	}

	server.Stop(2 * time.Minute)
	got := testenv.Run(t, t.TempDir(), []string{"TALLYHOOK_URL=" + server.URL}, "smoke", "--ready")
	if got.Code != 1 || !strings.Contains(got.Stderr, "connection refused") {
		t.Errorf("smoke --ready of a server that has ended: code %d, %q", got.Code, got.Stderr)
	}
}

func TestSmokeUsage(t *testing.T) {
	t.Parallel()
	key := "TALLYHOOK_API_KEY=" + testenv.AdminKey
	for name, test := range map[string]struct {
		env  []string
		args []string
		says string
	}{
		"NoKey":       {says: "TALLYHOOK_API_KEY"},
		"NoKeyFile":   {env: []string{"TALLYHOOK_API_KEY_FILE=/nowhere/key"}, says: "TALLYHOOK_API_KEY_FILE"},
		"NoURL":       {env: []string{key, "TALLYHOOK_URL=example.com"}, says: "TALLYHOOK_URL"},
		"Hasty":       {env: []string{key}, args: []string{"--timeout", "1ms"}, says: "100ms to 1m"},
		"MetricsURL":  {env: []string{key}, args: []string{"--metrics-url", ":9091"}, says: "--metrics-url"},
		"UnknownFlag": {env: []string{key}, args: []string{"--mirrors"}, says: "--mirrors"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			oneLine(t, testenv.Run(t, t.TempDir(), test.env, append([]string{"smoke"}, test.args...)...), 2, test.says)
		})
	}
}
