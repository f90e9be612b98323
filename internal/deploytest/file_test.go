package deploytest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"tallyhook/internal/testenv"
)

func TestMain(m *testing.M) {
	m.Run()
	if err := testenv.RemoveBinary(); err != nil {
		fmt.Fprintln(os.Stderr, "remove the test's program:", err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(testenv.Root(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// node is a part of a YAML or JSON document.
type node struct{ v any }

// documents reads a YAML file, in which a key that stands twice is an error.
func documents(t *testing.T, name string) []node {
	t.Helper()
	dec := yaml.NewDecoder(strings.NewReader(read(t, name)))
	var all []node
	for {
		var v any
		switch err := dec.Decode(&v); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, node{v})
	}
}

// document reads a file of one document.
func document(t *testing.T, name string) node {
	t.Helper()
	all := documents(t, name)
	if len(all) != 1 {
		t.Fatalf("%s has %d documents, want 1", name, len(all))
	}
	return all[0]
}

// object finds the one document of a kind in deploy/kubernetes.
func object(t *testing.T, file, kind, name string) node {
	t.Helper()
	for _, d := range documents(t, "deploy/kubernetes/"+file) {
		if d.at("kind").text() == kind && d.at("metadata.name").text() == name {
			return d
		}
	}
	t.Fatalf("deploy/kubernetes/%s has no %s called %s", file, kind, name)
	return node{}
}

// at reads a part by its path; a number counts in a list.
func (n node) at(path string) node {
	for name := range strings.SplitSeq(path, ".") {
		switch of := n.v.(type) {
		case map[string]any:
			n = node{of[name]}
		case []any:
			var i int
			if _, err := fmt.Sscan(name, &i); err != nil || i < 0 || i >= len(of) {
				return node{}
			}
			n = node{of[i]}
		default:
			return node{}
		}
	}
	return n
}

func (n node) text() string {
	if n.v == nil {
		return ""
	}
	return fmt.Sprint(n.v)
}

func (n node) list() []node {
	of, _ := n.v.([]any)
	all := make([]node, len(of))
	for i := range of {
		all[i] = node{of[i]}
	}
	return all
}

func (n node) texts() []string {
	var all []string
	for _, e := range n.list() {
		all = append(all, e.text())
	}
	return all
}

func (n node) fields() map[string]node {
	of, _ := n.v.(map[string]any)
	all := make(map[string]node, len(of))
	for name := range of {
		all[name] = node{of[name]}
	}
	return all
}

// seconds reads a duration; a bare number is of seconds.
func (n node) seconds(t *testing.T) time.Duration {
	t.Helper()
	s := n.text()
	if regexp.MustCompile(`^\d+$`).MatchString(s) {
		s += "s"
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("not a duration: %q", n.text())
	}
	return d
}

// byName gives the element of a list whose field name is this.
func (n node) byName(t *testing.T, name string) node {
	t.Helper()
	for _, e := range n.list() {
		if e.at("name").text() == name {
			return e
		}
	}
	t.Fatalf("there is no %q", name)
	return node{}
}

// TestFilesParse: every file of deploy is one that its reader can read.
func TestFilesParse(t *testing.T) {
	t.Parallel()
	parsed := 0
	err := filepath.WalkDir(filepath.Join(testenv.Root(), "deploy"), func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(testenv.Root(), at)
		if err != nil {
			return err
		}
		switch filepath.Ext(at) {
		case ".yml", ".yaml":
			parsed++
			if len(documents(t, rel)) == 0 {
				t.Errorf("%s is empty", rel)
			}
		case ".json":
			parsed++
			if !json.Valid([]byte(read(t, rel))) {
				t.Errorf("%s is not JSON", rel)
			}
		case ".service", ".sysusers", ".conf":
		default:
			t.Errorf("%s is of a kind that this test does not know", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if parsed < 10 {
		t.Errorf("%d files were found, which cannot be all", parsed)
	}
	document(t, "docker-compose.yml")
	listed := document(t, "deploy/kubernetes/kustomization.yaml").at("resources").texts()
	for _, name := range listed {
		for _, d := range documents(t, "deploy/kubernetes/"+name) {
			if d.at("kind").text() == "Secret" {
				t.Errorf("%s would write the example's empty secrets over yours", name)
			}
		}
	}
	if len(listed) != 4 {
		t.Errorf("the kustomization lists %v", listed)
	}
}

// instruction is a line of the Dockerfile.
type instruction struct{ word, rest string }

// instructions reads the Dockerfile's last stage, or all of it.
func instructions(t *testing.T, lastStage bool) []instruction {
	t.Helper()
	var all []instruction
	text := strings.ReplaceAll(read(t, "Dockerfile"), "\\\n", " ")
	for line := range strings.Lines(text) {
		word, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.HasPrefix(word, "#") {
			continue
		}
		if word == "FROM" && lastStage {
			all = nil
		}
		all = append(all, instruction{word, strings.TrimSpace(rest)})
	}
	return all
}

// one gives the rest of the only instruction of a kind in the last stage.
func one(t *testing.T, word string) string {
	t.Helper()
	var found []string
	for _, i := range instructions(t, true) {
		if i.word == word {
			found = append(found, i.rest)
		}
	}
	if len(found) != 1 {
		t.Fatalf("the image has %d instructions %s, want 1", len(found), word)
	}
	return found[0]
}

// words reads the form of an instruction that needs no shell.
func words(t *testing.T, form string) []string {
	t.Helper()
	var all []string
	if err := json.NewDecoder(bytes.NewReader([]byte(form))).Decode(&all); err != nil {
		t.Fatalf("%q needs a shell, and the image has none: %v", form, err)
	}
	return all
}

// unit reads the systemd unit: the values of each key, in order.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for line := range strings.Lines(read(t, "deploy/systemd/tallyhook.service")) {
		line = strings.TrimSpace(line)
		if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			all[name] = append(all[name], value)
		}
	}
	return all
}
