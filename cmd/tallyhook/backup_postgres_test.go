package main_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// TestBackupPostgres is docs/operations.md, Backup and Restore on PostgreSQL,
// by its own commands: a dump taken under load, restored into a new database
// and served there, with a Redis that has lost everything.
func TestBackupPostgres(t *testing.T) {
	t.Parallel()
	pg := testenv.StartPostgres(t, testenv.PostgresOptions{})
	redis := testenv.StartRedis(t, testenv.RedisOptions{})
	dir, backup := t.TempDir(), t.TempDir()
	key := filepath.Join(dir, "secrets_key")
	if err := os.WriteFile(key, []byte(strings.Repeat("0123456789abcdef", 4)), 0o600); err != nil {
		t.Fatal(err)
	}
	database := pg.Empty(t)
	start := func(database, spool string) *testenv.Server {
		t.Helper()
		return testenv.Start(t, testenv.Options{Dir: dir, Env: []string{
			"DATABASE_URL=" + database, "SECRETS_KEY_FILE=" + key, "REDIS_URL=redis://" + redis.Addr, "SPOOL_DIR=" + filepath.Join(dir, spool), "LOG_LEVEL=warn",
		}})
	}
	server := start(database, "spool")
	c := server.Client("")
	instance := c.NewInstance("Backup", nil)
	for i := range 5 {
		c.Post(201, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": fmt.Sprintf("p%d@example.com", i)})
	}
	source := c.NewSource("generic", "")
	early := c.Do(0, http.MethodPost, "/api/events", map[string]any{"event_type": "replied", "channel": "email", "email": "early@example.com"}).At("data.id").Text()

	l := startLoad(c)
	defer l.end(t)
	testenv.Eventually(t, time.Minute, "300 events are acknowledged", func() bool { return len(l.soFar()) >= 300 })
	before := l.soFar()
	restored := pg.URL("restored")
	blocks := documented(t, "### PostgreSQL", 2, "/backup/", backup+"/",
		"postgres://tallyhook@db.example.com/restored", restored, "/etc/tallyhook/secrets_key", key)
	shell(t, append(pg.Env(), "DATABASE_URL="+database), blocks[0])
	count := len(l.soFar())
	testenv.Eventually(t, time.Minute, "the load goes on", func() bool { return len(l.soFar()) > count })
	l.end(t)
	if code := server.Stop(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	redis.Do("FLUSHALL")

	if out := shell(t, pg.Env(), blocks[1]); !strings.Contains(out, "difference 0") {
		t.Errorf("doctor of what was restored: %s", out)
	}
	server = start(restored, "spool of the restored")
	c = server.Client("")
	for rest := before; len(rest) > 0; {
		n := min(1000, len(rest))
		a := c.Do(0, http.MethodPost, "/api/events", rest[:n])
		if got := a.At("data.duplicate").Int(); got != int64(n) {
			t.Fatalf("of %d events acknowledged before the dump, %d are known after it: %.300s", n, got, a.Body)
		}
		rest = rest[n:]
	}
	testenv.Eventually(t, time.Minute, "the orphans of the restored database are in Redis, which does the work", func() bool {
		a := c.Get("/health")
		orphans := a.At("components.queue.depth").Int()
		return a.At("status").Text() == "healthy" && a.At("components.queue.backend").Text() == "redis" && orphans > 0 && parked(redis) == orphans
	})
	a := c.Post(201, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": "early@example.com"})
	if got := a.At("data.adopted").Int(); got != 1 {
		t.Errorf("enrolling whom an early event of the backup is about adopts %d, want 1", got)
	}
	if got := c.Get("/api/events/" + early).At("data.state").Text(); got != "applied" {
		t.Errorf("the early event is %q, want applied", got)
	}
	body := []byte(`{"event_type":"clicked","channel":"email","email":"p1@example.com"}`)
	headers, err := testenv.Sign(source.Secret, "msg_after", time.Now(), body)
	if err != nil {
		t.Fatal(err)
	}
	if a := c.Post(200, source.Path, body, headers...); a.At("data.applied").Int() != 1 {
		t.Errorf("a webhook to the restored source: %s", a.Body)
	}
	if d := c.Get("/api/admin/balance").At("data.difference").Int(); d != 0 {
		t.Errorf("balance: difference %d, want 0", d)
	}
	if code := server.Stop(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// parked counts what the queue in Redis holds.
func parked(redis *testenv.Redis) int64 {
	var n int64
	for key := range strings.FieldsSeq(redis.Do("KEYS", "*:{*}:q:*")) {
		var members int64
		if _, err := fmt.Sscan(redis.Do("ZCARD", key), &members); err == nil {
			n += members
		}
	}
	return n
}
