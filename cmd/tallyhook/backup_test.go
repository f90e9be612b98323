package main_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// load posts events until it is stopped, and remembers what was acknowledged.
type load struct {
	stop    chan struct{}
	ended   sync.Once
	running sync.WaitGroup

	mu    sync.Mutex // guards what follows
	acked []map[string]any
	err   error
}

func startLoad(c *testenv.Client) *load {
	l := &load{stop: make(chan struct{})}
	l.running.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-l.stop:
				return
			default:
			}
			batch := make([]map[string]any, 20)
			for i := range batch {
				batch[i] = map[string]any{
					"event_type": "opened", "channel": "email", "provider_event_id": fmt.Sprintf("%d-%d", n, i),
					"timestamp": "2026-11-24T11:00:00Z", "email": fmt.Sprintf("p%d@example.com", i%10), // half are enrolled
				}
			}
			a, err := c.Try("POST", "/api/events", batch)
			if err == nil && a.Status >= 300 {
				err = fmt.Errorf("status %d: %s", a.Status, a.Body)
			}
			l.mu.Lock()
			if l.err == nil {
				l.err = err
			}
			l.acked = append(l.acked, batch...)
			l.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	return l
}

// soFar is what was acknowledged until now.
func (l *load) soFar() []map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clip(l.acked)
}

func (l *load) end(t *testing.T) {
	t.Helper()
	l.ended.Do(func() { close(l.stop) })
	l.running.Wait()
	if l.err != nil {
		t.Errorf("the load was refused: %v", l.err)
	}
}

// TestBackup is docs/operations.md, Backup and Restore, word for word: a backup
// taken under load, restored elsewhere with the key file.
func TestBackup(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("sqlite3"); err != nil {
		t.Fatalf("%v; install it with: apt-get install -y sqlite3", err)
	}
	dir, backup := t.TempDir(), t.TempDir()
	server := testenv.Start(t, testenv.Options{Dir: dir})
	c := server.Client("")
	instance := c.NewInstance("Backup", nil)
	for i := range 5 {
		c.Post(201, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": fmt.Sprintf("p%d@example.com", i)})
	}
	source := c.NewSource("generic", "")

	l := startLoad(c)
	defer l.end(t)
	testenv.Eventually(t, time.Minute, "300 events are acknowledged", func() bool { return len(l.soFar()) >= 300 })
	before := l.soFar()
	path := filepath.Join(backup, "tallyhook.db")
	script := documented(t, "### SQLite", 1, "/var/lib/tallyhook/", dir+"/", "/backup/", backup+"/")[0]
	commands := strings.SplitAfter(script, "\n") // the backup, the key, a look at both
	if len(commands) < 3 {
		t.Fatalf("docs/operations.md has too few commands: %s", script)
	}
	shell(t, nil, commands[0])
	count := len(l.soFar())
	testenv.Eventually(t, time.Minute, "the load goes on", func() bool { return len(l.soFar()) > count })
	l.end(t)

	env := []string{"PORT=0", "DATABASE_URL=sqlite:" + path}
	oneLine(t, testenv.Run(t, backup, env, "serve"), 1, "key file", path+".key")
	if out := shell(t, nil, strings.Join(commands[1:], "")); !strings.Contains(out, "difference 0") {
		t.Errorf("the documented look at the backup: %s", out)
	}
	doctor := func(when string) {
		t.Helper()
		if got := testenv.Run(t, backup, env, "doctor"); got.Code != 0 || !strings.Contains(got.Stdout, "difference 0") {
			t.Errorf("doctor %s: code %d\n%s%s", when, got.Code, got.Stdout, got.Stderr)
		}
	}
	doctor("of the backup")

	restored := testenv.Start(t, testenv.Options{Dir: backup})
	rc := restored.Client("")
	for len(before) > 0 {
		n := min(1000, len(before))
		a := rc.Do(0, http.MethodPost, "/api/events", before[:n])
		if got := a.At("data.duplicate").Int(); got != int64(n) {
			t.Fatalf("of %d events acknowledged before the backup, %d are known after it: %.300s", n, got, a.Body)
		}
		before = before[n:]
	}
	body := []byte(`{"event_type":"clicked","channel":"email","email":"p1@example.com"}`)
	headers, err := testenv.Sign(source.Secret, "msg_after", time.Now(), body)
	if err != nil {
		t.Fatal(err)
	}
	if a := rc.Post(200, source.Path, body, headers...); a.At("data.applied").Int() != 1 {
		t.Errorf("a webhook to the restored source: %s", a.Body)
	}
	if code := restored.Stop(2 * time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	doctor("after the restored server")
}
