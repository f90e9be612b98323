package app_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// TestDatabaseDiskFull: PostgreSQL has no room left, on a real file system
// that is full: for its tables (it refuses writes with SQLSTATE 53100 and can
// be read), and for its write-ahead log (it panics, recovers, and stays down
// when even that needs room). What is answered 2xx meanwhile is in the spool,
// also over a crash of the server, and counts once when there is room again.
func TestDatabaseDiskFull(t *testing.T) {
	t.Parallel()
	for name, on := range map[string]struct {
		disk   func(*testenv.Disk) testenv.PostgresOptions
		failed string // what PostgreSQL says of it
		reads  bool
	}{
		"Tables": {func(d *testenv.Disk) testenv.PostgresOptions { return testenv.PostgresOptions{Tables: d} }, "ERROR:  could not extend file", true},
		"Log":    {func(d *testenv.Disk) testenv.PostgresOptions { return testenv.PostgresOptions{Log: d} }, "PANIC:  could not write to file", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := testenv.StartDisk(t, 64<<20)
			f := newFull(t, newClusterOn(t, on.disk(disk), 1))
			before := f.event().At("data.id").Text()
			disk.Fill()
			f.untilSpooled(20)
			f.unhealthy()
			f.refused()
			if !f.c.pg.Said(t, on.failed) || !f.c.pg.Said(t, "No space left on device") {
				t.Errorf("PostgreSQL's log has nothing of %q: its disk was not full", on.failed)
			}
			if on.reads {
				f.client.Get("/api/events/" + before)
				stranger := testenv.NewClient(t, f.client.URL, testenv.AdminKey+"-unknown")
				stranger.Do(401, "GET", "/api/events/"+before, nil)
				stranger.Close()
			}
			f.c.kill(f.c.replicas[0])
			f.c.start(f.c.replicas[0])
			f.at(f.c.client(0))
			f.untilSpooled(20)
			f.unhealthy()

			disk.Free()
			f.c.pg.Revive(t)
			f.c.settled()
			if got := f.client.Get("/api/campaigns/instances/" + f.instance + "/performance").At("data.totals.opened").Int(); got != f.acknowledged {
				t.Errorf("%d opens are counted, want the %d that were acknowledged", got, f.acknowledged)
			}
			f.client.Get("/api/events/" + before)
			f.c.balanced()
		})
	}
}

// full sends to a cluster whose database has a full disk.
type full struct {
	t            *testing.T
	c            *cluster
	client       *testenv.Client
	random       *rand.Rand
	instance     string
	source       testenv.Source
	sent         int
	acknowledged int64 // events that count as opens when all is well
}

func newFull(t *testing.T, c *cluster) *full {
	t.Helper()
	c.settled()
	f := &full{t: t, c: c, random: rand.New(rand.NewPCG(1, 0))}
	f.at(c.client(0))
	f.instance = f.client.NewInstance("full disk", nil)
	f.client.Post(201, "/api/campaigns/instances/"+f.instance+"/enrollments", map[string]any{"email": "ada@example.com"})
	f.source = f.client.NewSource("generic", "")
	// The source is to be in the replica's snapshot.
	c.stop(c.replicas[0])
	c.start(c.replicas[0])
	f.at(c.client(0))
	return f
}

func (f *full) at(client *testenv.Client) { f.client = client }

// padding takes room that no compression saves: a page of a table and more.
func (f *full) padding() string {
	text := make([]byte, 16<<10)
	for i := range text {
		text[i] = byte('a' + f.random.IntN(26))
	}
	return string(text)
}

func (f *full) body() map[string]any {
	f.sent++
	return map[string]any{
		"event_type": "opened", "channel": "email", "email": "ada@example.com", "provider_event_id": fmt.Sprintf("full-%d", f.sent),
		"metadata": map[string]any{"padding": f.padding()},
	}
}

// event sends one with the key; it must be taken, whatever the database does.
func (f *full) event() testenv.Answer {
	f.t.Helper()
	a := f.client.Do(0, "POST", "/api/events", f.body())
	if a.Status != 201 && a.Status != 202 {
		f.t.Fatalf("an event is answered %d: %.500s", a.Status, a.Body)
	}
	f.acknowledged++
	return a
}

// webhook sends a signed one; it must be taken.
func (f *full) webhook() testenv.Answer {
	f.t.Helper()
	f.sent++
	body := fmt.Appendf(nil, `{"event_type":"opened","channel":"email","email":"ada@example.com","provider_event_id":"full-%d"}`, f.sent)
	headers, err := testenv.Sign(f.source.Secret, fmt.Sprintf("msg_%d", f.sent), time.Now(), body)
	if err != nil {
		f.t.Fatal(err)
	}
	a := f.client.Post(200, f.source.Path, body, headers...)
	f.acknowledged++
	return a
}

// untilSpooled sends until so many of either kind were answered spooled: some
// still find room in a page that is there.
func (f *full) untilSpooled(n int64) {
	f.t.Helper()
	var events, webhooks int64
	testenv.Eventually(f.t, 2*time.Minute, "events are taken into the spool", func() bool {
		if f.event().At("data.state").Text() == "spooled" {
			events++
		}
		webhooks += f.webhook().At("data.spooled").Int()
		return events >= n && webhooks >= n
	})
}

// unhealthy waits until health says 503 and why.
func (f *full) unhealthy() {
	f.t.Helper()
	testenv.Eventually(f.t, 2*time.Minute, "health says that the database is down and the spool is filling", func() bool {
		a := f.client.Do(0, "GET", "/health", nil)
		return a.Status == 503 && a.At("status").Text() == "unhealthy" && a.At("components.database.status").Text() == "down" &&
			a.At("components.database.detail").Text() != "" && a.At("components.database.spool.events").Int() > 0
	})
}

// refused waits until a request that has no spool is refused, and may be tried
// again.
func (f *full) refused() {
	f.t.Helper()
	path := "/api/campaigns/instances/" + f.instance + "/enrollments"
	for n := 0; ; n++ {
		a := f.client.Do(0, "POST", path, map[string]any{
			"email": fmt.Sprintf("p%d@example.com", n), "metadata": map[string]any{"padding": f.padding()},
		})
		switch {
		case a.Status == 503 && a.Header.Get("Retry-After") != "":
			return
		case a.Status != 201 || n > 1000:
			f.t.Fatalf("an enrollment is answered %d (Retry-After %q): %s", a.Status, a.Header.Get("Retry-After"), a.Body[:min(len(a.Body), 500)])
		}
	}
}
