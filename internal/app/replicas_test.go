package app_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// shortMinutes is how long the storm of every run of the tests goes on, in
// minutes; make chaos MINUTES=60 does more.
const shortMinutes = 0.4

// fast is a schedule short enough that some orphans are buried meanwhile.
const fast = "RETRY_SCHEDULE=300ms,600ms,1200ms"

// TestStorm mixes every fault at random, from a seed, on two replicas under
// load: replicas killed and restarted in good order, PostgreSQL killed, paused,
// cut off and out of connections, Redis killed, paused, flushed, slow and cut
// off. In the end what the database holds is held against what was sent and
// answered.
func TestStorm(t *testing.T) {
	t.Parallel()
	minutes := shortMinutes
	if v := os.Getenv("TALLYHOOK_CHAOS_MINUTES"); v != "" {
		n, err := strconv.ParseFloat(v, 64)
		if err != nil || n <= 0 {
			t.Fatalf("TALLYHOOK_CHAOS_MINUTES is %q, want a number of minutes", v)
		}
		minutes = n
	}
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%v minutes, seed %d; the same faults again: make chaos SEED=%d MINUTES=%v", minutes, seed, seed, minutes)
	random := rand.New(rand.NewPCG(seed, 0))
	c := newCluster(t, 2, fast, "TX_TIMEOUT=2s", "ORPHANED_QUEUE_BATCH_SIZE=20")
	st := newStorm(t, seed, c.client(0))
	st.at(c.urls()...)
	var workers sync.WaitGroup
	for n := range 4 {
		workers.Go(func() { st.work(n) })
	}
	faults := 0
	for end := time.Now().Add(time.Duration(minutes * float64(time.Minute))); time.Now().Before(end) && !t.Failed(); faults++ {
		st.grow()
		before := st.acknowledged()
		name := c.fault(random, st)
		t.Logf("fault %d, %s: %s", faults, name, st.progress())
		c.heal()
		st.at(c.urls()...)
		// Not the next one before something was taken in since.
		testenv.Poll(20*time.Second, func() bool { return st.acknowledged() >= before+20 || t.Failed() })
	}
	c.heal()
	st.rest(300 * time.Millisecond)
	st.end()
	workers.Wait()
	if t.Failed() {
		return
	}
	c.settled()
	client := c.client(0)
	st.enrollRest(client)
	st.settle(client)
	t.Logf("after %d faults: %s", faults, st.progress())
	st.verify(client)
	for _, r := range c.replicas {
		c.stop(r)
	}
	doctor := testenv.Run(t, c.replicas[0].opt.Dir, c.replicas[0].opt.Env, "doctor")
	if doctor.Code != 0 {
		t.Errorf("tallyhook doctor: exit code %d, want 0\n%s%s", doctor.Code, doctor.Stdout, doctor.Stderr)
	}
}

// fault does one thing of what can go wrong, for a while.
func (c *cluster) fault(random *rand.Rand, st *storm) string {
	c.t.Helper()
	r := c.replicas[random.IntN(len(c.replicas))]
	while := time.Duration(200+random.IntN(2800)) * time.Millisecond
	short := time.Duration(100+random.IntN(900)) * time.Millisecond
	during := func(name string, begin, end func()) string {
		begin()
		st.rest(while)
		end()
		return fmt.Sprintf("%s for %v", name, while)
	}
	switch random.IntN(13) {
	case 0, 1:
		c.kill(r)
		st.at(c.urls()...)
		st.rest(short)
		return "a replica killed"
	case 2:
		st.at(other(c.replicas, r)...)
		c.stop(r)
		return "a replica stopped in good order"
	case 3:
		for _, r := range c.replicas {
			c.kill(r)
		}
		st.at()
		return "all replicas killed"
	case 4:
		return during("PostgreSQL killed", func() { c.must(c.pg.Kill()) }, func() { c.pg.Restart(c.t) })
	case 5:
		return during("PostgreSQL restarted in good order", func() { c.must(c.pg.Stop()) }, func() { c.pg.Restart(c.t) })
	case 6:
		return during("PostgreSQL paused", func() { c.pg.Pause(c.t) }, func() { c.pg.Resume(c.t) })
	case 7:
		c.pgWay.Cut()
		return during("PostgreSQL cut off", func() { c.pgWay.Refuse(true) }, func() { c.pgWay.Refuse(false) })
	case 8:
		return during("Redis killed", c.redis.Kill, c.redis.Restart)
	case 9:
		return during("Redis paused", func() { c.redis.Pause() }, func() { c.redis.Continue() })
	case 10:
		c.redis.Do("FLUSHALL")
		return "Redis flushed"
	case 11:
		return during("Redis slow", func() { c.redisWay.Latency(300 * time.Millisecond) }, func() { c.redisWay.Latency(0) })
	default:
		c.pgWay.Cut()
		c.redisWay.Cut()
		c.kill(r)
		st.at(c.urls()...)
		return during("everything cut off and a replica killed", func() { c.redisWay.Refuse(true); c.pgWay.Refuse(true) },
			func() { c.redisWay.Refuse(false); c.pgWay.Refuse(false) })
	}
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func other(all []*replica, but *replica) []string {
	var urls []string
	for _, r := range all {
		if r != but {
			urls = append(urls, r.url)
		}
	}
	return urls
}

// TestRollingRestart: while one replica after the other is restarted, a client
// that tries once more, at another replica, is answered by no 5xx.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	instance := c.client(0).NewInstance("rolling", nil)
	c.client(0).Post(201, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": "ada@example.com"})
	var over atomic.Bool
	var senders sync.WaitGroup
	var sent, again atomic.Int64
	for n := range 4 {
		senders.Go(func() {
			client := testenv.NewClient(t, "", testenv.AdminKey)
			defer client.Close()
			for i := 0; !over.Load() && !t.Failed(); i++ {
				body := map[string]any{
					"event_type": "opened", "channel": "email", "email": "ada@example.com", "provider_event_id": fmt.Sprintf("r%d-%d", n, i),
				}
				at := (n + i) % 2
				client.URL = c.replicas[at].url
				a, err := client.Try("POST", "/api/events", body)
				if err != nil || a.Status/100 == 5 {
					again.Add(1)
					client.URL = c.replicas[1-at].url
					a, err = client.Try("POST", "/api/events", body)
				}
				if err != nil || a.Status/100 != 2 {
					t.Errorf("the second try: status %d, error %v: %s", a.Status, err, a.Body)
				}
				sent.Add(1)
			}
		})
	}
	for range 2 {
		for _, r := range c.replicas {
			before := sent.Load()
			testenv.Poll(30*time.Second, func() bool { return sent.Load() > before+50 || t.Failed() })
			c.stop(r)
			before = sent.Load()
			testenv.Poll(30*time.Second, func() bool { return sent.Load() > before+50 || t.Failed() })
			c.start(r)
		}
	}
	over.Store(true)
	senders.Wait()
	t.Logf("%d events, %d of them at the second try", sent.Load(), again.Load())
	c.settled()
	if got := c.client(1).Get("/api/campaigns/instances/" + instance + "/performance").At("data.totals.opened").Int(); got != sent.Load() {
		t.Errorf("%d opens are counted, want %d", got, sent.Load())
	}
	c.balanced()
}

func (c *cluster) balanced() {
	c.t.Helper()
	b := c.client(0).Get("/api/admin/balance").At("data")
	if d := b.At("difference").Int(); d != 0 || len(b.At("counters").List()) != 0 {
		c.t.Errorf("balance: difference %d, counters that drift: %d", d, len(b.At("counters").List()))
	}
}

// TestKilledReplicasLeasesComeBack: what a replica had claimed when it was
// killed is retried by another one.
func TestKilledReplicasLeasesComeBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, "RETRY_SCHEDULE=500ms,500ms,500ms,1h", "ORPHANED_QUEUE_BATCH_SIZE=500")
	client := c.client(0)
	var items []any
	for i := range 400 {
		items = append(items, map[string]any{
			"event_type": "opened", "channel": "email", "email": fmt.Sprintf("p%d@example.com", i), "provider_event_id": fmt.Sprintf("k%d", i),
		})
	}
	client.Post(202, "/api/events", items)
	// Both claim by now; whatever this one holds at its end has to come back.
	testenv.Eventually(t, time.Minute, "the replicas are at it", func() bool {
		for _, row := range client.Rows("/api/events?state=orphaned") {
			if row.At("attempts").Int() > 0 {
				return true
			}
		}
		return false
	})
	c.kill(c.replicas[1])
	testenv.Eventually(t, 3*time.Minute, "every orphan has spent its first three attempts", func() bool {
		rows := client.Rows("/api/events?state=orphaned")
		for _, row := range rows {
			if row.At("attempts").Int() < 3 {
				return false
			}
		}
		return len(rows) == 400
	})
	for _, row := range client.Rows("/api/events?state=orphaned") {
		if n := row.At("attempts").Int(); n != 3 {
			t.Errorf("%s has spent %d attempts, want 3", row.At("id").Text(), n)
		}
	}
	c.balanced()
}

// TestRedisAwayFromTheServer: health says so and what still works, ingestion,
// adoption and retries go on, and it all comes back without a restart.
func TestRedisAwayFromTheServer(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, "RETRY_SCHEDULE=400ms,400ms,400ms,400ms,400ms,1h")
	c.settled()
	client := c.client(0)
	instance := client.NewInstance("redis away", nil)
	for name, fault := range map[string]struct{ begin, end func() }{
		"Killed":  {c.redis.Kill, c.redis.Restart},
		"Paused":  {func() { c.redis.Pause() }, func() { c.redis.Continue() }},
		"Cut":     {func() { c.redisWay.Refuse(true); c.redisWay.Cut() }, func() { c.redisWay.Refuse(false) }},
		"Flushed": {func() { c.redis.Do("FLUSHALL"); c.redisWay.Refuse(true); c.redisWay.Cut() }, func() { c.redisWay.Refuse(false) }},
	} {
		fault.begin()
		testenv.Eventually(t, time.Minute, name+": health says degraded", func() bool {
			a := client.Get("/health")
			return a.At("status").Text() == "degraded" && a.At("components.redis.status").Text() == "down" &&
				a.At("components.queue.backend").Text() == "sql-fallback" && a.At("components.database.status").Text() == "up"
		})
		email := name + "@example.com"
		early := client.Post(202, "/api/events", map[string]any{"event_type": "opened", "channel": "email", "email": email}).At("data.id").Text()
		testenv.Eventually(t, time.Minute, name+": it is retried", func() bool {
			return client.Get("/api/events/"+early).At("data.attempts").Int() > 0
		})
		a := client.Post(201, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": email})
		if a.At("data.adopted").Int() != 1 {
			t.Errorf("%s: adopted %d, want 1", name, a.At("data.adopted").Int())
		}
		late := client.Post(202, "/api/events", map[string]any{"event_type": "opened", "channel": "email", "email": "late-" + email}).At("data.id").Text()
		fault.end()
		c.settled()
		before := client.Get("/api/events/" + late).At("data.attempts").Int()
		testenv.Eventually(t, time.Minute, name+": Redis works the queue again", func() bool {
			row := client.Get("/api/events/" + late).At("data")
			return row.At("attempts").Int() > before || row.At("attempts").Int() == 5
		})
	}
	c.balanced()
}

// TestDatabaseAwayFromTheServer: webhooks and events are taken into the spool,
// also by a replica that starts meanwhile, also over a crash, and are applied
// once when the database is back.
func TestDatabaseAwayFromTheServer(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, fast)
	c.settled()
	client := c.client(0)
	instance := client.NewInstance("database away", nil)
	client.Post(201, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": "ada@example.com"})
	source := client.NewSource("generic", "")
	// Both replicas are to have the source in their snapshots.
	for _, r := range c.replicas {
		c.stop(r)
		c.start(r)
	}
	sent := 0
	send := func(url, when string) {
		t.Helper()
		k := testenv.NewClient(t, url, testenv.AdminKey)
		defer k.Close()
		sent++
		a := k.Do(0, "POST", "/api/events", map[string]any{
			"event_type": "opened", "channel": "email", "email": "ada@example.com", "provider_event_id": fmt.Sprintf("e%d", sent),
		})
		if a.Status != 202 || a.At("data.state").Text() != "spooled" {
			t.Errorf("%s: an event is answered %d: %s", when, a.Status, a.Body)
		}
		sent++
		body := []byte(fmt.Sprintf(`{"event_type":"opened","channel":"email","email":"ada@example.com","provider_event_id":"w%d"}`, sent))
		h, err := testenv.Sign(source.Secret, fmt.Sprintf("msg_%d", sent), time.Now(), body)
		if err != nil {
			t.Fatal(err)
		}
		k.Key = ""
		a = k.Do(0, "POST", source.Path, body, h...)
		if a.Status != 200 || a.At("data.spooled").Int() != 1 {
			t.Errorf("%s: a webhook is answered %d: %s", when, a.Status, a.Body)
		}
		a = k.Do(0, "POST", "/webhooks/"+source.Path[len("/webhooks/"):]+"x", body, h...)
		if a.Status != 404 && a.Status != 503 {
			t.Errorf("%s: an unknown source is answered %d: %s", when, a.Status, a.Body)
		}
		k.Key = testenv.AdminKey + "-unknown"
		a = k.Do(0, "POST", "/api/events", map[string]any{"event_type": "opened", "channel": "email", "email": "x@example.com"})
		if a.Status != 503 || a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: an unknown key is answered %d (Retry-After %q): %s", when, a.Status, a.Header.Get("Retry-After"), a.Body)
		}
	}
	c.must(c.pg.Kill())
	unhealthy := func(url string) {
		t.Helper()
		k := testenv.NewClient(t, url, "")
		defer k.Close()
		testenv.Eventually(t, time.Minute, "health says unhealthy", func() bool {
			a, err := k.Try("GET", "/health", nil)
			return err == nil && a.Status == 503 && a.At("components.database.status").Text() == "down"
		})
	}
	unhealthy(c.replicas[0].url)
	send(c.replicas[0].url, "while the database is away")
	c.kill(c.replicas[0])
	c.kill(c.replicas[1])
	c.start(c.replicas[0]) // on its snapshot and what it had spooled
	c.start(c.replicas[1])
	unhealthy(c.replicas[1].url)
	send(c.replicas[1].url, "on a replica that started meanwhile")
	send(c.replicas[0].url, "after a crash")
	c.pg.Restart(t)
	c.settled()
	// And paused: connections stay, and nobody answers.
	c.pg.Pause(t)
	unhealthy(c.replicas[0].url)
	send(c.replicas[0].url, "while the database is paused")
	c.pg.Resume(t)
	c.settled()
	// It answers, but lets nobody in.
	hold := testenv.TakeConnections(t, c.database)
	unhealthy(c.replicas[0].url)
	send(c.replicas[0].url, "while the database has no connection left")
	hold()
	c.settled()
	client = c.client(0)
	if got := client.Get("/api/campaigns/instances/" + instance + "/performance").At("data.totals.opened").Int(); got != int64(sent) {
		t.Errorf("%d opens are counted, want %d", got, sent)
	}
	c.balanced()
}

// TestUnsafeRedis: a Redis that may throw the queue away is told of by health
// and doctor, and --strict does not start on it.
func TestUnsafeRedis(t *testing.T) {
	t.Parallel()
	redis := testenv.StartRedis(t, testenv.RedisOptions{NoAppendOnly: true, MaxMemory: "64mb", Policy: "allkeys-lru"})
	o := testenv.Options{Dir: t.TempDir(), Env: []string{"REDIS_URL=redis://" + redis.Addr}}
	server := testenv.Start(t, o)
	testenv.Eventually(t, time.Minute, "health tells what is unsafe", func() bool {
		a := server.Client("").Get("/health")
		text := string(a.Body)
		return a.At("status").Text() == "degraded" && a.At("components.redis.status").Text() == "degraded" &&
			strings.Contains(text, "noeviction") && strings.Contains(text, "appendonly")
	})
	env := append([]string{"DATABASE_URL=sqlite:" + o.Dir + "/tallyhook.db"}, o.Env...)
	if doctor := testenv.Run(t, o.Dir, env, "doctor"); doctor.Code != 1 || !strings.Contains(doctor.Stdout, "noeviction") {
		t.Errorf("doctor: exit code %d, want 1\n%s", doctor.Code, doctor.Stdout)
	}
	if code := server.Stop(2 * time.Minute); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	strict := testenv.Run(t, o.Dir, append(env, "PORT=0"), "serve", "--strict")
	if strict.Code != 1 || !strings.Contains(strict.Stderr, "noeviction") {
		t.Errorf("serve --strict: exit code %d, want 1\n%s", strict.Code, strict.Stderr)
	}
	redis.Kill()
	strict = testenv.Run(t, o.Dir, append(env, "PORT=0"), "serve", "--strict")
	if strict.Code != 1 || !strings.Contains(strict.Stderr, "redis is down") {
		t.Errorf("serve --strict without Redis: exit code %d, want 1\n%s", strict.Code, strict.Stderr)
	}
}
