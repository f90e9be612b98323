package deploytest_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyhook/internal/telemetry"
	"tallyhook/internal/testenv"
)

// metrics are those that the server exports, with their labels.
func metrics(t *testing.T) map[string][]string {
	t.Helper()
	reg := prometheus.NewRegistry()
	telemetry.NewMetrics(reg, "test")
	reg.MustRegister(
		telemetry.NewStoreCollector(func() (telemetry.Snapshot, error) { return telemetry.Snapshot{}, nil }),
		telemetry.NewSpoolCollector(func() (events, bytes int64) { return 0, 0 }),
		telemetry.NewRedisUp(func() bool { return true }),
	)
	descs := make(chan *prometheus.Desc)
	go func() {
		reg.Describe(descs)
		close(descs)
	}()
	form := regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)
	all := map[string][]string{"up": nil}
	for d := range descs {
		if m := form.FindStringSubmatch(d.String()); m != nil {
			all[m[1]] = strings.Split(m[2], ",")
		}
	}
	if len(all) < 25 {
		t.Fatalf("%d metrics were found, which cannot be all", len(all))
	}
	return all
}

// checkExpr: an expression names metrics and labels that exist. A misspelt one
// would never fire, and nobody would know.
func checkExpr(t *testing.T, known map[string][]string, where, expr string) {
	t.Helper()
	part := regexp.MustCompile(`\b(tallyhook_\w+|process_\w+|go_\w+|up)\b(?:\{((?:"[^"]*"|[^}"])*)\})?`)
	label := regexp.MustCompile(`(\w+) *(?:=~|!~|!=|=) *"`)
	found := part.FindAllStringSubmatch(expr, -1)
	if len(found) == 0 {
		t.Errorf("%s names no metric: %s", where, expr)
	}
	for _, m := range found {
		name := m[1]
		allowed := []string{"job", "instance"}
		if _, ok := known[name]; !ok {
			name = regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
			allowed = append(allowed, "le")
		}
		labels, ok := known[name]
		if !ok {
			t.Errorf("%s names %s, which is not exported", where, m[1])
			continue
		}
		if !strings.Contains(m[2], `job="tallyhook"`) {
			t.Errorf("%s takes %s of every job: %s", where, m[1], expr)
		}
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(labels, l[1]) && !slices.Contains(allowed, l[1]) {
				t.Errorf("%s asks for the label %s of %s, which has %v", where, l[1], m[1], labels)
			}
		}
	}
}

func TestAlertsAreWhole(t *testing.T) {
	t.Parallel()
	known := metrics(t)
	examples := read(t, "deploy/prometheus/alerts_test.yml") + read(t, "deploy/prometheus/alerts_week_test.yml")
	rules := document(t, "deploy/prometheus/alerts.yml").at("groups.0.rules").list()
	for _, r := range rules {
		name := r.at("alert").text()
		checkExpr(t, known, name, r.at("expr").text())
		if s := r.at("labels.severity").text(); s != "critical" && s != "warning" {
			t.Errorf("%s has the severity %q", name, s)
		}
		if r.at("for").text() == "" && name != "TallyhookRestarting" {
			t.Errorf("%s fires on a single look", name)
		}
		for _, a := range []string{"summary", "description"} {
			if r.at("annotations."+a).text() == "" {
				t.Errorf("%s has no %s", name, a)
			}
		}
		runbook := r.at("annotations.runbook").text()
		if _, err := os.Stat(filepath.Join(testenv.Root(), runbook)); err != nil || !strings.HasPrefix(runbook, "docs/runbooks/") {
			t.Errorf("%s: runbook %q: %v", name, runbook, err)
		} else if !strings.Contains(read(t, runbook), name) {
			t.Errorf("%s does not say that %s leads to it", runbook, name)
		}
		if !strings.Contains(examples, name) {
			t.Errorf("%s has no example in which it fires", name)
		}
	}
	if len(rules) < 12 {
		t.Errorf("%d rules were found, which cannot be all", len(rules))
	}
}

// TestPromtool: the rules are valid, and fire when their examples say.
func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool := filepath.Join(testenv.Root(), ".tools", "promtool")
	if _, err := os.Stat(promtool); err != nil {
		if promtool, err = exec.LookPath("promtool"); err != nil {
			t.Fatal("promtool is missing: scripts/promtool puts it into .tools, or apt-get install -y prometheus")
		}
	}
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"},
		{"check", "rules", "alerts.yml"},
		{"test", "rules", "alerts_test.yml", "alerts_week_test.yml"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		cmd := exec.CommandContext(ctx, promtool, args...)
		cmd.Dir = filepath.Join(testenv.Root(), "deploy", "prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		cancel()
	}
}

func TestDashboardIsWhole(t *testing.T) {
	t.Parallel()
	known := metrics(t)
	var v any
	if err := json.Unmarshal([]byte(read(t, "deploy/grafana/dashboards/tallyhook.json")), &v); err != nil {
		t.Fatal(err)
	}
	board := node{v}
	uid := document(t, "deploy/grafana/provisioning/datasources/prometheus.yml").at("datasources.0.uid").text()
	ids := map[string]bool{}
	shown := ""
	for _, p := range board.at("panels").list() {
		title := p.at("title").text()
		if ids[p.at("id").text()] {
			t.Errorf("two panels have the id %s", p.at("id").text())
		}
		ids[p.at("id").text()] = true
		if got := p.at("datasource.uid").text(); got != uid {
			t.Errorf("panel %s asks the source %q, which is not provisioned", title, got)
		}
		for _, q := range p.at("targets").list() {
			checkExpr(t, known, "panel "+title, q.at("expr").text())
			shown += q.at("expr").text() + "\n"
		}
		for _, m := range regexp.MustCompile(`docs/[a-z/-]+\.md`).FindAllString(p.at("description").text(), -1) {
			if _, err := os.Stat(filepath.Join(testenv.Root(), m)); err != nil {
				t.Errorf("panel %s: %v", title, err)
			}
		}
	}
	for _, name := range []string{
		"events_total", "http_request_duration_seconds_bucket", "orphans", "orphan_oldest_age_seconds", "dead_letters_stored",
		"balance_difference", "database_up", "redis_up", "spool_events", "spool_bytes", "commit_duration_seconds_bucket",
	} {
		if !strings.Contains(shown, "tallyhook_"+name+"{") {
			t.Errorf("no panel shows tallyhook_%s", name)
		}
	}
	compose := document(t, "docker-compose.yml").at("services.grafana.volumes").texts()
	path := document(t, "deploy/grafana/provisioning/dashboards/tallyhook.yml").at("providers.0.options.path").text()
	if !slices.Contains(compose, "./deploy/grafana/dashboards:"+path+":ro") {
		t.Errorf("Grafana looks for dashboards in %s, which is not mounted: %v", path, compose)
	}
}
