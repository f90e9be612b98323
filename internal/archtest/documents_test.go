package archtest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyhook/internal/telemetry"
)

const root = "../.."

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatalf("%s is missing: %v", name, err)
	}
	return string(b)
}

// documents are the texts that people read, by their path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			rel, err := filepath.Rel(root, name)
			if err != nil {
				t.Fatal(err)
			}
			all[rel] = read(t, rel)
		}
	}
	for _, name := range []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs/configuration.md", "docs/operations.md"} {
		if all[name] == "" {
			t.Errorf("%s is missing or empty", name)
		}
	}
	return all
}

// TestDocumentsNameRealPaths: a guide that names files which are gone is worse
// than none.
func TestDocumentsNameRealPaths(t *testing.T) {
	t.Parallel()
	code := regexp.MustCompile("`([^`\n]+)`")
	link := regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)
	named := 0
	for name, text := range documents(t) {
		for _, m := range code.FindAllStringSubmatch(text, -1) {
			if inTree(m[1]) {
				named++
				if !exists(m[1]) {
					t.Errorf("%s names `%s`, which is not there", name, m[1])
				}
			}
		}
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			if !exists(filepath.Join(filepath.Dir(name), m[1])) {
				t.Errorf("%s links to %s, which is not there", name, m[1])
			}
		}
	}
	if named < 10 {
		t.Errorf("the documents name %d paths, which cannot be all", named)
	}
}

// inTree tells a path of this repository from a command, a route or a setting.
func inTree(s string) bool {
	first, _, sub := strings.Cut(s, "/")
	if strings.ContainsAny(s, " *<>{}$") || !sub {
		return false
	}
	return slices.Contains([]string{"cmd", "internal", "docs", "scripts", "deploy"}, first)
}

func exists(name string) bool {
	_, err := os.Stat(filepath.Join(root, filepath.FromSlash(name)))
	return err == nil
}

// TestTreeIsWhole: the tree of ARCHITECTURE.md has every package, and no other.
func TestTreeIsWhole(t *testing.T) {
	t.Parallel()
	_, tree, ok := strings.Cut(read(t, "ARCHITECTURE.md"), "## The tree")
	if !ok {
		t.Fatal("ARCHITECTURE.md has no part: The tree")
	}
	tree, _, _ = strings.Cut(tree, "\n## ")
	var shown []string
	for _, m := range regexp.MustCompile(`(?m)^ {4}((?:cmd|internal)/\S+)`).FindAllStringSubmatch(tree, -1) {
		shown = append(shown, m[1])
	}
	all := packages(t)
	for _, name := range shown {
		if all[name] == nil {
			t.Errorf("the tree shows %s, which is not there", name)
		}
	}
	for name := range all {
		if !slices.Contains(shown, name) {
			t.Errorf("the tree does not show %s", name)
		}
	}
}

// TestDocumentsNameRealTargets: every "make x" of a document is one.
func TestDocumentsNameRealTargets(t *testing.T) {
	t.Parallel()
	var targets []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z]+):`).FindAllStringSubmatch(read(t, "Makefile"), -1) {
		targets = append(targets, m[1])
	}
	// In code, or a line of a code block: "make" is also a word.
	use := regexp.MustCompile("(?m)(?:`|^ {4}|^\\$ |^)make ([a-z]+)")
	found := 0
	for name, text := range documents(t) {
		for _, m := range use.FindAllStringSubmatch(text, -1) {
			found++
			if !slices.Contains(targets, m[1]) {
				t.Errorf("%s says make %s, which the Makefile does not have", name, m[1])
			}
		}
	}
	if found < 3 {
		t.Errorf("the documents name %d targets of make, which cannot be all", found)
	}
}

// TestDocumentsNameRealMetrics: every tallyhook_x of a document is exported.
func TestDocumentsNameRealMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	telemetry.NewMetrics(reg, "test")
	reg.MustRegister(telemetry.NewStoreCollector(func() (telemetry.Snapshot, error) { return telemetry.Snapshot{}, nil }))
	reg.MustRegister(telemetry.NewCertificateExpiry(func() time.Time { return time.Time{} }))
	reg.MustRegister(telemetry.NewSpoolCollector(func() (events, bytes int64) { return 0, 0 }), telemetry.NewRedisUp(func() bool { return true }))
	known := describe(reg)
	suffix := regexp.MustCompile(`_(bucket|sum|count)$`)
	for name, text := range documents(t) {
		for _, metric := range regexp.MustCompile(`\btallyhook_[a-z0-9_]*[a-z0-9]`).FindAllString(text, -1) {
			if !known[metric] && !known[suffix.ReplaceAllString(metric, "")] {
				t.Errorf("%s names the metric %s, which is not exported", name, metric)
			}
		}
	}
	if len(known) < 15 {
		t.Errorf("telemetry describes %d metrics, which cannot be all", len(known))
	}
}

// describe lists the names of the metrics, also of those that have no value yet.
func describe(reg *prometheus.Registry) map[string]bool {
	descs := make(chan *prometheus.Desc)
	go func() {
		reg.Describe(descs)
		close(descs)
	}()
	fqName := regexp.MustCompile(`fqName: "([^"]+)"`)
	names := map[string]bool{}
	for d := range descs {
		if m := fqName.FindStringSubmatch(d.String()); m != nil {
			names[m[1]] = true
		}
	}
	return names
}

// TestSecurityNamesRealTests: the threat table says which test proves a row.
func TestSecurityNamesRealTests(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	define := regexp.MustCompile(`(?m)^func (Test[A-Z]\w+)\(`)
	for _, pattern := range []string{"internal/*/*_test.go", "internal/*/*/*_test.go", "cmd/*/*_test.go"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range define.FindAllSubmatch(b, -1) {
				known[string(m[1])] = true
			}
		}
	}
	named := regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(read(t, "SECURITY.md"), -1)
	for _, name := range named {
		if !known[name] {
			t.Errorf("SECURITY.md names %s, which is not there", name)
		}
	}
	if len(named) < 20 {
		t.Errorf("SECURITY.md names %d tests, which cannot be all", len(named))
	}
}
