package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tallyhook/internal/testenv"
)

// documented are the blocks of commands below a heading of docs/operations.md,
// with its example places replaced by the test's: old, new, old, new. Each must
// be there, and there must be as many blocks as are wanted.
func documented(t *testing.T, heading string, want int, places ...string) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(testenv.Root(), "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(raw), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("docs/operations.md has no heading %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n#")
	var blocks []string
	inside := false
	for line := range strings.Lines(text) {
		command, indented := strings.CutPrefix(line, "    ")
		switch {
		case indented && inside:
			blocks[len(blocks)-1] += command
		case indented:
			blocks = append(blocks, command)
		}
		inside = indented
	}
	if len(blocks) != want {
		t.Fatalf("docs/operations.md has %d blocks of commands below %q, want %d", len(blocks), heading, want)
	}
	all := strings.Join(blocks, "")
	for i := 0; i < len(places); i += 2 {
		if !strings.Contains(all, places[i]) {
			t.Fatalf("docs/operations.md does not name %q below %q", places[i], heading)
		}
	}
	for i := range blocks {
		blocks[i] = strings.NewReplacer(places...).Replace(blocks[i])
	}
	return blocks
}

// shell runs commands as a person would, with tallyhook in the path, and gives
// what they said. The first that fails fails the test.
func shell(t *testing.T, env []string, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), env...)
	path := os.Getenv("PATH")
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(testenv.Binary(t))+string(os.PathListSeparator)+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s%v\n%s", script, err, out)
	}
	return string(out)
}
