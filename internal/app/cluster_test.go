package app_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// secretsKey is what the replicas of a test share.
const secretsKey = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// cluster is some replicas of the real program on one PostgreSQL and one
// Redis, each reached through a proxy that a fault can cut.
type cluster struct {
	t        *testing.T
	pg       *testenv.Postgres
	redis    *testenv.Redis
	pgWay    *testenv.Proxy
	redisWay *testenv.Proxy
	replicas []*replica
	database string // its URL, past the proxy
}

// replica is one of them; a restart keeps its port and its spool.
type replica struct {
	opt    testenv.Options
	url    string
	server *testenv.Server
	up     bool
}

func newCluster(t *testing.T, n int, env ...string) *cluster {
	t.Helper()
	return newClusterOn(t, testenv.PostgresOptions{}, n, env...)
}

// newClusterOn is newCluster on a PostgreSQL that differs.
func newClusterOn(t *testing.T, pg testenv.PostgresOptions, n int, env ...string) *cluster {
	t.Helper()
	pg.Settings = append(slices.Clip(pg.Settings), "max_connections=60")
	c := &cluster{t: t, pg: testenv.StartPostgres(t, pg), redis: testenv.StartRedis(t, testenv.RedisOptions{})}
	database := c.pg.Database(t, "cluster")
	c.database = database
	c.pgWay, c.redisWay = testenv.StartProxy(t, c.pg.Addr()), testenv.StartProxy(t, c.redis.Addr)
	dir := t.TempDir()
	for i := range n {
		port := testenv.FreePort(t)
		c.replicas = append(c.replicas, &replica{
			url: fmt.Sprintf("http://127.0.0.1:%d", port),
			opt: testenv.Options{Dir: dir, Env: append([]string{
				fmt.Sprintf("PORT=%d", port), "DATABASE_URL=" + through(database, c.pg.Addr(), c.pgWay.Addr),
				"REDIS_URL=redis://" + c.redisWay.Addr, "SECRETS_KEY=" + secretsKey,
				"SPOOL_DIR=" + filepath.Join(dir, fmt.Sprintf("spool%d", i)), "LOG_LEVEL=warn",
				"RATE_LIMIT_ANONYMOUS=0", "RATE_LIMIT_API=0", "RATE_LIMIT_WEBHOOK=0",
			}, env...)},
		})
	}
	for _, r := range c.replicas {
		c.start(r)
	}
	return c
}

// through is a URL that leads to the same place by another way.
func through(url, addr, way string) string { return strings.Replace(url, addr, way, 1) }

// start starts a replica and waits until it is ready.
func (c *cluster) start(r *replica) {
	c.t.Helper()
	r.server = testenv.Start(c.t, r.opt)
	r.up = true
}

// kill ends a replica as a crash would.
func (c *cluster) kill(r *replica) {
	r.up = false
	r.server.Kill()
}

// stop ends a replica in good order.
func (c *cluster) stop(r *replica) {
	c.t.Helper()
	r.up = false
	if code := r.server.Stop(2 * time.Minute); code != 0 {
		c.t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
}

// urls are of the replicas that are up.
func (c *cluster) urls() []string {
	var all []string
	for _, r := range c.replicas {
		if r.up {
			all = append(all, r.url)
		}
	}
	return all
}

// client speaks to a replica with the admin key.
func (c *cluster) client(i int) *testenv.Client { return c.replicas[i].server.Client("") }

// heal ends every fault and starts what is not running.
func (c *cluster) heal() {
	c.t.Helper()
	for _, way := range []*testenv.Proxy{c.pgWay, c.redisWay} {
		way.Refuse(false)
		way.Stall(false)
		way.Latency(0)
	}
	for _, r := range c.replicas {
		if !r.up {
			c.start(r)
		}
	}
}

// settled waits until every replica is healthy, works the queue in Redis
// again, and has an empty spool.
func (c *cluster) settled() {
	c.t.Helper()
	for i := range c.replicas {
		client := c.client(i)
		testenv.Eventually(c.t, 2*time.Minute, fmt.Sprintf("replica %d is healthy", i), func() bool {
			a, err := client.Try("GET", "/health", nil)
			return err == nil && a.Status == 200 && a.At("status").Text() == "healthy" &&
				a.At("components.queue.backend").Text() == "redis" && a.At("components.database.spool.events").Int() == 0
		})
	}
}
