package app_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// TestRetention lets events grow old in the database, kills the server while it removes them, and holds what is left, what is resent and
// what is too old against what was there.
func TestRetention(t *testing.T) {
	t.Parallel()
	const arrays = 4
	o := testenv.Options{Dir: t.TempDir(), Env: []string{"LOG_LEVEL=info", "RETENTION_EVENTS=30d"}}
	path := filepath.Join(o.Dir, "tallyhook.db")
	server := testenv.Start(t, o)
	c := server.Client("")
	instance := c.NewInstance("old", nil)
	c.Post(201, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": erasedAddress})
	for n := range arrays {
		c.Post(200, "/api/events", eventsOf(erasedAddress, n*1000, 1000))
	}
	orphan := c.Post(202, "/api/events", map[string]any{"event_type": "opened", "channel": "email", "email": "nobody@example.com"}).At("data.id").Text()
	if got := c.Post(200, "/api/events", eventsOf(erasedAddress, 0, 1000)).At("data.duplicate").Int(); got != 1000 {
		t.Fatalf("%d of 1,000 resent events are duplicates", got)
	}
	performance := func() string {
		return fmt.Sprint(c.Get("/api/campaigns/instances/" + instance + "/performance").At("data"))
	}
	before := performance()

	if code := server.Stop(time.Minute); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	testenv.Exec(t, path, fmt.Sprintf(`UPDATE event SET received_at = received_at - %d`, (32*24*time.Hour).Microseconds()))
	server = testenv.Start(t, o)
	testenv.Eventually(t, 2*time.Minute, "old events are being removed", func() bool {
		return testenv.Count(t, path, `SELECT count(*) FROM retired`) > 0
	})
	server.Kill()
	left := testenv.Count(t, path, `SELECT count(*) FROM event`)
	server = testenv.Start(t, o)
	c = server.Client("")
	t.Logf("killed with %d of %d events left", left, arrays*1000+1)
	testenv.Eventually(t, 2*time.Minute, "old events are removed", func() bool {
		return testenv.Count(t, path, `SELECT count(*) FROM event`) == 1
	})
	testenv.Eventually(t, 2*time.Minute, "health tells of it", func() bool {
		return c.Get("/health").At("components.database.retention.last_run").Text() != ""
	})

	if got := performance(); got != before {
		t.Errorf("performance changed\nfrom %s\nto   %s", before, got)
	}
	if got := c.Get("/api/events/" + orphan).At("data.state").Text(); got != "orphaned" {
		t.Errorf("the orphan is %q", got)
	}
	a := c.Post(200, "/api/events", eventsOf(erasedAddress, 0, 1000))
	if got := a.At("data.duplicate").Int(); got != 1000 {
		t.Errorf("%d of 1,000 resent events are duplicates: %.300s", got, a.Body)
	}
	if got := c.Post(200, "/api/events", eventsOf(erasedAddress, 1_000_000, 10)).At("data.applied").Int(); got != 10 {
		t.Errorf("%d of 10 new events are applied", got)
	}
	old := strings.ReplaceAll(string(eventsOf(erasedAddress, 2_000_000, 10)), "2026-11-20", "2026-01-20")
	if got := c.Post(200, "/api/events", old).At("data.dead").Int(); got != 10 {
		t.Errorf("%d of 10 events of before the horizon are dead", got)
	}
	if got := c.Get("/api/admin/dlq/stats").At("data.by_reason.too_old").Int(); got != 10 {
		t.Errorf("%d dead letters are too_old, want 10", got)
	}
	b := c.Get("/api/admin/balance")
	if b.At("data.difference").Int() != 0 {
		t.Errorf("the balance is off: %s", b.Body)
	}
	if got := b.At("data.tenants.0.ledger.archived").Int(); got != (arrays+2)*1000 {
		t.Errorf("%d are archived, want %d", got, (arrays+2)*1000)
	}
	if code := server.Stop(time.Minute); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	doctor := testenv.Run(t, o.Dir, []string{"DATABASE_URL=sqlite:" + path}, "doctor")
	if doctor.Code != 0 {
		t.Errorf("tallyhook doctor: exit code %d, want 0\n%s%s", doctor.Code, doctor.Stdout, doctor.Stderr)
	}
	if n := testenv.Count(t, path, `SELECT count(*) FROM audit WHERE action = 'retention'`); n == 0 {
		t.Error("the audit log does not tell of it")
	}
}
