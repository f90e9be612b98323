package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// TestDoctor: well, then not.
func TestDoctor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "tallyhook.db")
	env := []string{"DATABASE_URL=sqlite:" + path}
	if got := testenv.Run(t, dir, env, "doctor"); got.Code != 1 || !strings.Contains(got.Stdout, "FAIL  database") {
		t.Errorf("without a database: code %d\n%s%s", got.Code, got.Stdout, got.Stderr)
	}

	server := testenv.Start(t, testenv.Options{Dir: dir})
	c := server.Client("")
	instance := c.NewInstance("Doctor", nil)
	c.Post(201, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": "ada@example.com"})
	event := map[string]any{"event_type": "opened", "channel": "email", "email": "ada@example.com", "provider_event_id": "1"}
	c.Post(201, "/api/events", event)
	c.Post(200, "/api/events", event)
	c.Post(202, "/api/events", map[string]any{"event_type": "opened", "channel": "email", "email": "bob@example.com"})

	well := func(when string) {
		t.Helper()
		got := testenv.Run(t, dir, env, "doctor")
		if got.Code != 0 || strings.Contains(got.Stdout, "FAIL") || !strings.Contains(got.Stdout, "received 3 = applied 1 + orphaned 1 + dead 0 + ignored 0 + duplicates 1") {
			t.Errorf("%s: code %d\n%s%s", when, got.Code, got.Stdout, got.Stderr)
		}
	}
	well("beside a server")
	if code := server.Stop(2 * time.Minute); code != 0 {
		t.Fatalf("exit code %d, want 0", code)
	}
	well("without a server")
	var report struct {
		OK     bool
		Checks []struct {
			Name, Detail string
			OK           bool
		}
	}
	got := testenv.Run(t, dir, env, "doctor", "--json")
	if err := json.Unmarshal([]byte(got.Stdout), &report); err != nil || !report.OK || len(report.Checks) < 4 {
		t.Errorf("doctor --json: %v\n%s", err, got.Stdout)
	}

	for name, damage := range map[string]struct{ harm, heal string }{
		"Ledger":     {"UPDATE ledger SET received = received + 1", "UPDATE ledger SET received = received - 1"},
		"State":      {"UPDATE ledger SET applied = applied - 1, dead = dead + 1", "UPDATE ledger SET applied = applied + 1, dead = dead - 1"},
		"Counter":    {"UPDATE counter SET count = count + 1", "UPDATE counter SET count = count - 1"},
		"Duplicates": {"UPDATE event SET duplicates = duplicates + 1 WHERE duplicates > 0", "UPDATE event SET duplicates = duplicates - 1 WHERE duplicates > 0"},
	} {
		testenv.Exec(t, path, damage.harm)
		got := testenv.Run(t, dir, env, "doctor")
		if got.Code != 1 || !strings.Contains(got.Stdout, "FAIL  balance") || got.Stderr != "tallyhook: not all is well\n" {
			t.Errorf("%s is wrong, and the doctor says: code %d\n%s%s", name, got.Code, got.Stdout, got.Stderr)
		}
		testenv.Exec(t, path, damage.heal)
	}
	well("mended")
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := []string{"DATABASE_URL=sqlite:" + filepath.Join(dir, "tallyhook.db")}
	oneLine(t, testenv.Run(t, dir, env, "migrate", "status"), 1, "tallyhook.db")
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("migrate status has made %d files (error %v)", len(files), err)
	}
	step := regexp.MustCompile(`^(\d{4}  applied \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n)+$`)
	up := testenv.Run(t, dir, env, "migrate", "up")
	if up.Code != 0 || !step.MatchString(up.Stdout) {
		t.Errorf("migrate up: code %d\n%s%s", up.Code, up.Stdout, up.Stderr)
	}
	status := testenv.Run(t, dir, env, "migrate", "status")
	if status.Code != 0 || status.Stdout != up.Stdout {
		t.Errorf("migrate status: code %d\n%s%s\nafter migrate up:\n%s", status.Code, status.Stdout, status.Stderr, up.Stdout)
	}
	testenv.Start(t, testenv.Options{Dir: dir}).Client("").Get("/api/events")
}
