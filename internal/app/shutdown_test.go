package app_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// TestShutdownUnderLoad stops the server while clients send as fast as they
// can: whatever was answered is whole and is there afterwards.
func TestShutdownUnderLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := testenv.Start(t, testenv.Options{Dir: dir})
	var answered sync.Map // id to true
	var count, cut atomic.Int64
	var clients sync.WaitGroup
	for n := range 8 {
		c := server.Client("")
		clients.Go(func() {
			for i := 0; ; i++ {
				var events []any
				for j := range 20 {
					events = append(events, opened(fmt.Sprintf("load-%d-%d-%d", n, i, j)))
				}
				a, err := c.Try("POST", "/api/events", events)
				switch {
				case a.Status == 202 && err == nil:
					for _, r := range a.At("data.results").List() {
						answered.Store(r.At("id").Text(), true)
						count.Add(1)
					}
				case a.Status == 503:
				case err != nil && a.Status != 0:
					cut.Add(1)
					t.Errorf("an answer was cut: status %d, %v", a.Status, err)
					return
				case err != nil:
					return // the server is gone
				default:
					t.Errorf("status %d: %s", a.Status, a.Body)
					return
				}
			}
		})
	}
	testenv.Eventually(t, time.Minute, "the load is on", func() bool { return count.Load() > 500 })
	server.Signal(syscall.SIGTERM)
	probe := testenv.NewClient(t, server.URL, "")
	defer probe.Close()
	testenv.Eventually(t, time.Minute, "the log says that the shutdown begins", func() bool {
		return strings.Contains(server.Log(), "shutdown begins") || server.Ended()
	})
	testenv.Eventually(t, time.Minute, "readyz is 503 or refused", func() bool {
		a, err := probe.Try("GET", "/readyz", nil)
		return err != nil || a.Status == 503
	})
	if code := server.Wait(2 * time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	clients.Wait()
	steps := stepsOf(server.Log())
	want := []string{"not ready", "close listener, finish requests", "commit what is in flight", "settle workers", "flush", "close store"}
	if strings.Join(steps, "; ") != strings.Join(want, "; ") {
		t.Errorf("steps in the log: got %q, want %q", steps, want)
	}

	server = testenv.Start(t, testenv.Options{Dir: dir})
	c := server.Client("")
	there := map[string]bool{}
	for _, row := range c.Rows("/api/events") {
		there[row.At("id").Text()] = true
	}
	missing := 0
	answered.Range(func(id, _ any) bool {
		if !there[id.(string)] {
			missing++
		}
		return true
	})
	if missing > 0 {
		t.Errorf("%d of %d acknowledged events are not there after the restart", missing, count.Load())
	}
	balanced(t, c)
}

// opened is an event that waits for its enrollment.
func opened(id string) map[string]any {
	return map[string]any{
		"event_type": "opened", "channel": "email", "provider_event_id": id, "email": id + "@example.com", "timestamp": "2026-01-02T03:04:05Z",
	}
}

func balanced(t *testing.T, c *testenv.Client) {
	t.Helper()
	b := c.Get("/api/admin/balance").At("data")
	if b.At("difference").Int() != 0 || len(b.At("counters").List()) > 0 {
		t.Errorf("balance: difference %d, %d counters drift", b.At("difference").Int(), len(b.At("counters").List()))
	}
}

// stepsOf reads the names of the shutdown's steps out of the log; each has its time.
func stepsOf(log string) []string {
	var steps []string
	for line := range strings.Lines(log) {
		var entry struct {
			Msg    string `json:"msg"`
			Step   string `json:"step"`
			TookMS *int64 `json:"took_ms"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && strings.HasPrefix(entry.Msg, "shutdown step") && entry.TookMS != nil {
			steps = append(steps, entry.Step)
		}
	}
	return steps
}

// TestShutdownIgnoresIdleConnections: neither one that waits for its next
// request nor one that never sent any holds the end up.
func TestShutdownIgnoresIdleConnections(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{})
	for range 20 {
		server.Client("").Get("/health") // each client keeps its connection
	}
	for range 20 {
		conn := dial(t, server)
		defer conn.Close() //nolint:errcheck // nothing was written
	}
	if code := server.Stop(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func dial(t *testing.T, server *testenv.Server) net.Conn {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(context.Background(), "tcp", strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	return conn
}

// TestShutdownWaitsForRequestInFlight: a request whose body is still coming in
// when the signal comes is served to its end, and durable.
func TestShutdownWaitsForRequestInFlight(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := testenv.Start(t, testenv.Options{Dir: dir})
	conn, rest := halfRequest(t, server)
	defer conn.Close() //nolint:errcheck // the answer was read
	server.Signal(syscall.SIGTERM)
	testenv.Eventually(t, time.Minute, "the shutdown begins", func() bool { return strings.Contains(server.Log(), `"step":"not ready"`) })
	if _, err := conn.Write([]byte(rest)); err != nil {
		t.Fatalf("send the rest: %v", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("the request in flight got no answer: %v", err)
	}
	defer resp.Body.Close() //nolint:errcheck // the status is all that matters
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("the request in flight was answered %d, want 202", resp.StatusCode)
	}
	if code := server.Wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	server = testenv.Start(t, testenv.Options{Dir: dir})
	if n := len(server.Client("").Rows("/api/events?email=half@example.com")); n != 1 {
		t.Errorf("the event in flight is there %d times, want 1", n)
	}
}

// halfRequest sends a part of a request and gives the rest of it.
func halfRequest(t *testing.T, server *testenv.Server) (net.Conn, string) {
	t.Helper()
	body := `{"event_type":"opened","channel":"email","provider_event_id":"half","email":"half@example.com"}`
	conn := dial(t, server)
	head := fmt.Sprintf("POST /api/events HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nX-API-Key: %s\r\nContent-Length: %d\r\n\r\n",
		testenv.AdminKey, len(body))
	if _, err := conn.Write([]byte(head + body[:20])); err != nil {
		t.Fatalf("send a part: %v", err)
	}
	inFlight(t, server)
	return conn, body[20:]
}

// inFlight waits until the server is reading the half request: two requests
// are in flight then, this one and the scrape.
func inFlight(t *testing.T, server *testenv.Server) {
	t.Helper()
	c := server.Client("")
	testenv.Eventually(t, time.Minute, "the request has begun", func() bool {
		return strings.Contains(string(c.Get("/metrics").Body), "tallyhook_http_requests_in_flight 2")
	})
}

// TestShutdownTimeout: a client that hangs does not hold the end up for longer
// than SHUTDOWN_TIMEOUT; the exit code says that something was not settled.
func TestShutdownTimeout(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{Env: []string{"SHUTDOWN_TIMEOUT=500ms"}})
	conn, _ := halfRequest(t, server)
	defer conn.Close() //nolint:errcheck // it is meant to hang
	if code := server.Stop(time.Minute); code != 1 {
		t.Errorf("exit code %d, want 1: a request was not settled", code)
	}
	if !strings.Contains(server.Log(), "shutdown step failed") {
		t.Error("the log does not name the step that failed")
	}
}

// TestShutdownSecondSignal: whoever asks twice does not wait.
func TestShutdownSecondSignal(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{Env: []string{"SHUTDOWN_TIMEOUT=5m"}})
	conn, _ := halfRequest(t, server)
	defer conn.Close() //nolint:errcheck // it is meant to hang
	server.Signal(syscall.SIGTERM)
	testenv.Eventually(t, time.Minute, "the shutdown begins", func() bool { return strings.Contains(server.Log(), "shutdown begins") })
	server.Signal(syscall.SIGINT)
	if code := server.Wait(2 * time.Minute); code != -1 {
		t.Errorf("exit code %d, want -1: ended by the second signal", code)
	}
}
