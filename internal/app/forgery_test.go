package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// counted is a server on a PostgreSQL that counts its statements, and on a
// Redis that counts its commands.
type counted struct {
	*testing.T
	pg     *testenv.Postgres
	redis  *testenv.Redis
	url    string // of the database
	server *testenv.Server
}

func newCounted(t *testing.T, env ...string) *counted {
	t.Helper()
	c := &counted{
		T: t, redis: testenv.StartRedis(t, testenv.RedisOptions{}),
		pg: testenv.StartPostgres(t, testenv.PostgresOptions{Settings: []string{"shared_preload_libraries=pg_stat_statements"}}),
	}
	c.url = c.pg.Database(t, "counted")
	testenv.SQL(t, c.url, "CREATE EXTENSION pg_stat_statements")
	c.server = testenv.Start(t, testenv.Options{Env: append([]string{
		"DATABASE_URL=" + c.url, "REDIS_URL=redis://" + c.redis.Addr, "SECRETS_KEY=" + secretsKey, "LOG_LEVEL=error",
	}, env...)})
	return c
}

// statements is how often the database was asked something of this form.
func (c *counted) statements(like string) int64 {
	c.Helper()
	return testenv.SQLNumber(c, c.url, `SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements
		WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query NOT LIKE '%pg_stat_statements%' AND query LIKE '`+like+`'`)
}

// commands is how many commands Redis has run.
func (c *counted) commands() int64 { return c.redis.InfoInt("total_commands_processed") }

// flood sends n forged requests, each made of its number, and wants each to be
// refused. It tells how many of each kind of lookup they cost: of a source by
// its token and by its id, of a key; and how many statements and commands there
// were of any kind.
func (c *counted) flood(what string, n int, send func(client *testenv.Client, i int) testenv.Answer) map[string]int64 {
	c.Helper()
	forms := map[string]string{"token": "%FROM source WHERE token_hash%", "id": "%FROM source WHERE id%", "key": "%FROM api_key WHERE hash%", "writes": "%INSERT INTO event%", "all": "%"}
	before := map[string]int64{}
	for name, like := range forms {
		before[name] = c.statements(like)
	}
	commands := c.commands()
	client := testenv.NewClient(c, c.server.URL, "")
	defer client.Close()
	start, answers := time.Now(), map[int]int{}
	for i := range n {
		a := send(client, i)
		answers[a.Status]++
		if a.Status != http.StatusUnauthorized && a.Status != http.StatusNotFound && a.Status != http.StatusTooManyRequests {
			c.Fatalf("%s: got %d %.200s", what, a.Status, a.Body)
		}
	}
	took := time.Since(start)
	cost := map[string]int64{}
	for name, like := range forms {
		cost[name] = c.statements(like) - before[name]
	}
	cost["redis"] = c.commands() - commands
	c.Logf("%s: %d requests in %v, answered %v, cost %v", what, n, took.Round(time.Millisecond), answers, cost)
	// What the server does by itself, whoever asks or not, goes by time; the
	// factor is for a busy machine, where a poll may be late and then in a hurry.
	own := int64(took.Seconds()+1) * 60
	if cost["redis"] > own && cost["redis"] >= int64(n) || cost["all"] > own && cost["all"] >= int64(n) {
		c.Errorf("%s: %d statements and %d commands for %d forged requests", what, cost["all"], cost["redis"], n)
	}
	return cost
}

// TestForgeriesCostNoLookup counts what a flood of forged requests costs the
// database and Redis, without any limit that would hold it back: nothing. A
// source that is known is read again when its time in the cache is over, and
// that is all.
func TestForgeriesCostNoLookup(t *testing.T) {
	t.Parallel()
	const n = 2000
	c := newCounted(t)
	admin := c.server.Client("")
	source := admin.NewSource("generic", "")
	body := []byte(`{"event_type":"opened","channel":"email","email":"ada@example.com"}`)
	signed := func(secret string, extra ...testenv.Header) []testenv.Header {
		h, err := testenv.Sign(secret, "msg_1", time.Now(), body)
		if err != nil {
			t.Fatal(err)
		}
		return append(h, extra...)
	}
	forged := signed(wrongSecret("generic"))
	byID := signed(wrongSecret("generic"), testenv.Header{Name: "X-Source-ID", Value: source.ID})
	admin.Do(401, http.MethodPost, source.Path, body, forged...) // it is in the cache from here on
	client := testenv.NewClient(t, c.server.URL, "")
	defer client.Close()
	client.Do(401, http.MethodPost, "/api/events", body, byID...)

	none := func(what string, cost map[string]int64, kinds ...string) {
		t.Helper()
		for _, kind := range kinds {
			if cost[kind] != 0 {
				t.Errorf("%s: %d statements of the kind %s, want none", what, cost[kind], kind)
			}
		}
	}
	// A cached source lives for 30 seconds.
	refreshed := func(what string, cost int64, took time.Duration) {
		t.Helper()
		if most := 2 + int64(took/(10*time.Second)); cost > most {
			t.Errorf("%s: the source was read %d times, want at most %d", what, cost, most)
		}
	}

	cost := c.flood("guessed tokens", n, func(client *testenv.Client, i int) testenv.Answer {
		token := fmt.Sprintf("%0*d", len(source.Path)-len("/webhooks/"), i)
		if i%2 == 0 { // all but a few characters are right
			at := len("/webhooks/") + i%(len(source.Path)-len("/webhooks/"))
			other := "x"
			if source.Path[at] == 'x' {
				other = "y"
			}
			token = strings.TrimPrefix(source.Path[:at]+other+source.Path[at+1:], "/webhooks/")
		}
		return client.Do(404, http.MethodPost, "/webhooks/"+token, body, forged...)
	})
	none("guessed tokens", cost, "token", "id", "key", "writes")

	start := time.Now()
	cost = c.flood("wrong signatures", n, func(client *testenv.Client, _ int) testenv.Answer {
		return client.Do(401, http.MethodPost, source.Path, body, forged...)
	})
	none("wrong signatures", cost, "key", "writes")
	refreshed("wrong signatures", cost["token"]+cost["id"], time.Since(start))

	start = time.Now()
	cost = c.flood("wrong signatures by X-Source-ID", n, func(client *testenv.Client, _ int) testenv.Answer {
		return client.Do(401, http.MethodPost, "/api/events", body, byID...)
	})
	none("wrong signatures by X-Source-ID", cost, "key", "writes")
	refreshed("wrong signatures by X-Source-ID", cost["token"]+cost["id"], time.Since(start))

	cost = c.flood("keys that cannot be ours", n, func(client *testenv.Client, i int) testenv.Answer {
		return client.Do(401, http.MethodGet, "/api/events", nil, testenv.Header{Name: "X-API-Key", Value: fmt.Sprintf("thk_%043d", i)})
	})
	none("keys that cannot be ours", cost, "token", "id", "key", "writes")
}

// TestGuessesCostOnlyTheirBudget: what could be a key, or a source's id, is
// looked up as often as its address may ask, and no more.
func TestGuessesCostOnlyTheirBudget(t *testing.T) {
	t.Parallel()
	const n, budget = 1000, 20
	c := newCounted(t, fmt.Sprintf("RATE_LIMIT_ANONYMOUS=%d/24h", budget))
	body := []byte(`{"event_type":"opened","channel":"email","email":"ada@example.com"}`)
	headers, err := testenv.Sign(wrongSecret("generic"), "msg_1", time.Now(), body)
	if err != nil {
		t.Fatal(err)
	}
	cost := c.flood("keys and ids that could be ours", n, func(client *testenv.Client, i int) testenv.Answer {
		if i%2 == 0 {
			return client.Do(0, http.MethodGet, "/api/events", nil, testenv.Header{Name: "X-API-Key", Value: fmt.Sprintf("a-key-of-somebody-%d", i)})
		}
		id := fmt.Sprintf("0199a1c0-7c1e-7d3a-9d4e-%012d", i)
		return client.Do(0, http.MethodPost, "/api/events", body, append(headers, testenv.Header{Name: "X-Source-ID", Value: id})...)
	})
	if got := cost["key"] + cost["id"] + cost["token"]; got != budget {
		t.Errorf("%d lookups, want %d", got, budget)
	}
	if cost["writes"] != 0 {
		t.Errorf("%d rows were written", cost["writes"])
	}
}
