package app_test

import (
	"io"
	"strings"
	"testing"
)

// TestAnnouncedBodies: who announces bodies and does not send them takes no
// room from those who do.
func TestAnnouncedBodies(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_ANONYMOUS=0", "RATE_LIMIT_API=0")
	for range 200 { // 400 MiB announced, where 256 MiB may be in hand
		conn := e.dial()
		t.Cleanup(func() { _ = conn.Close() }) // the server may have closed it
		if _, err := io.WriteString(conn, "POST /api/events HTTP/1.1\r\nHost: test\r\nContent-Length: 2097152\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
	}
	body := "[" + strings.Repeat(" ", 200_000) + `{"event_type":"opened","channel":"email","email":"ada@example.com"}]`
	for range 20 {
		if a := e.raw(request("POST", "/api/events", body, goodKey)); a.Status/100 != 2 {
			t.Fatalf("got %d %.200s, want it taken", a.Status, a.Body)
		}
	}
}
