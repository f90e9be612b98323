package app_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// TestCrashWhileIndexing kills the program while it writes the index of
// identities to disk, which begins with the 65,536th event. Whatever the index
// has lost, a duplicate is known as one, and a search finds what is there.
func TestCrashWhileIndexing(t *testing.T) {
	t.Parallel()
	const requests, each = 68, 1000
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d; the same again: go test ./internal/app -run CrashWhileIndexing -seed %d", seed, seed)
	random := rand.New(rand.NewPCG(seed, 1))

	o := testenv.Options{Dir: t.TempDir(), Env: []string{"LOG_LEVEL=warn"}}
	path := filepath.Join(o.Dir, "tallyhook.db")
	server := testenv.Start(t, o)
	c := server.Client("")
	instance := c.NewInstance("index", nil)
	c.Post(201, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": "ada@example.com"})

	// send gives the numbers of new events and of duplicates; ok is false when
	// there was no answer.
	send := func(c *testenv.Client, n int) (applied, duplicate int64, ok bool) {
		var body bytes.Buffer
		for i := range each {
			fmt.Fprintf(&body, `%c{"event_type":"opened","channel":"email","email":"ada@example.com","timestamp":"2026-11-%02dT03:04:05Z",`+
				`"provider_event_id":"e-%d-%d","provider_message_id":"m-%d-%d"}`, "[,"[min(i, 1)], 1+n%20, n, i, n, i)
		}
		body.WriteByte(']')
		a, err := c.Try("POST", "/api/events", body.Bytes())
		if err != nil || a.Status == 503 {
			return 0, 0, false
		}
		applied, duplicate = a.At("data.applied").Int(), a.At("data.duplicate").Int()
		if a.Status != 200 || applied+duplicate != each {
			t.Errorf("request %d: status %d, %d applied, %d duplicate: %.300s", n, a.Status, applied, duplicate, a.Body)
		}
		return applied, duplicate, true
	}

	var url atomic.Value
	url.Store(server.URL)
	var answered atomic.Int64
	var sender sync.WaitGroup
	sender.Go(func() {
		c := testenv.NewClient(t, "", testenv.AdminKey)
		defer c.Close()
		for n := 0; n < requests && !t.Failed(); {
			c.URL = url.Load().(string)
			if _, _, ok := send(c, n); ok {
				n++
				answered.Add(1)
				continue
			}
			select {
			case <-t.Context().Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	for _, from := range []int64{20, 66, requests, requests, requests} {
		testenv.Poll(2*time.Minute, func() bool { return answered.Load() >= from || t.Failed() })
		after := time.Duration(random.IntN(1200)) * time.Millisecond
		wait(after)
		server.Kill()
		t.Logf("killed with %d requests answered, %v later; %d generations, %d rows of them", answered.Load(), after,
			generations(t, path), testenv.Count(t, path, `SELECT count(*) FROM identity`))
		server = testenv.Start(t, o)
		url.Store(server.URL)
	}
	sender.Wait()
	testenv.Eventually(t, 3*time.Minute, "the first generation is written", func() bool { return generations(t, path) == 1 })

	c = server.Client("")
	for n := range requests {
		if n == requests/2 {
			server.Kill()
			server = testenv.Start(t, o)
			c = server.Client("")
		}
		var applied, duplicate int64
		testenv.Eventually(t, time.Minute, "it is answered again", func() (ok bool) {
			applied, duplicate, ok = send(c, n)
			return ok
		})
		if applied != 0 || duplicate != each {
			t.Fatalf("request %d again: %d applied, %d duplicate; all were there", n, applied, duplicate)
		}
	}
	for range 50 {
		id := fmt.Sprintf("m-%d-%d", random.IntN(requests), random.IntN(each))
		if rows := c.Rows("/api/events?message_id=" + id); len(rows) != 1 {
			t.Errorf("a search for the message %s finds %d events, want 1", id, len(rows))
		}
	}
	if got := c.Get("/api/campaigns/instances/" + instance + "/performance").At("data.totals.opened").Int(); got != requests*each {
		t.Errorf("%d opens are counted, want %d", got, requests*each)
	}
	balanced(t, c)
}

func generations(t *testing.T, path string) int64 {
	t.Helper()
	return testenv.Count(t, path, `SELECT count(*) FROM generation`)
}

// wait lets a time pass that is an input of the test, such as the point of a crash.
func wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}
