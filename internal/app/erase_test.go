package app_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

const (
	erasedAddress = "ada.lovelace@example.com"
	erasedPhone   = "555-0100-ada"
)

// eventsOf is an array of n opens of one address, with what is personal in
// every field that may hold it. The same first makes the same events.
func eventsOf(address string, first, n int) []byte {
	var body bytes.Buffer
	for i := range n {
		fmt.Fprintf(&body, `%c{"event_type":"opened","channel":"email","email":%q,"timestamp":"2026-11-20T03:04:05Z","provider_event_id":"%s-%d","metadata":{"phone":%q}}`,
			"[,"[min(i, 1)], address, address[:3], first+i, "555-0100-"+address[:3])
	}
	body.WriteByte(']')
	return body.Bytes()
}

// traces are the files of a folder that hold something of the erased contact.
func traces(t *testing.T, pattern string) (found []string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, trace := range []string{erasedAddress, erasedPhone} {
			if bytes.Contains(b, []byte(trace)) {
				found = append(found, filepath.Base(f)+" has "+trace)
			}
		}
	}
	return found
}

// erasedOn waits until an erasure is done and gives its last answer.
func erasedOn(t *testing.T, c *testenv.Client, id string) (a testenv.Answer) {
	t.Helper()
	testenv.Eventually(t, 2*time.Minute, "the erasure is done", func() bool {
		a = c.Get("/api/contacts/erasures/" + id)
		return a.At("data.status").Text() == "done"
	})
	return a
}

// TestEraseUnderLoadAndKill erases a contact with thousands of events while
// others are sent, and kills the program in the middle of it, twice. In the
// end nothing of the contact is left in any file, and every number is as it was.
func TestEraseUnderLoadAndKill(t *testing.T) {
	t.Parallel()
	const arrays = 5
	o := testenv.Options{Dir: t.TempDir(), Env: []string{"LOG_LEVEL=info"}}
	path := filepath.Join(o.Dir, "tallyhook.db")
	server := testenv.Start(t, o)
	c := server.Client("")
	instance, other := c.NewInstance("erased", nil), c.NewInstance("load", nil)
	enrollment := c.Post(201, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{
		"email": erasedAddress, "contact_id": "crm-ada", "metadata": map[string]any{"phone": erasedPhone},
	}).At("data.id").Text()
	c.Post(201, "/api/campaigns/instances/"+other+"/enrollments", map[string]any{"email": "bob@example.com"})
	for n := range arrays {
		c.Post(200, "/api/events", eventsOf(erasedAddress, n*1000, 1000))
	}
	c.Post(200, "/api/events", strings.ReplaceAll(string(eventsOf(erasedAddress, 0, 1)), `"opened"`, `"unsubscribed"`))
	performance := func(c *testenv.Client) string {
		return fmt.Sprint(c.Get("/api/campaigns/instances/" + instance + "/performance").At("data"))
	}
	before := performance(c)
	if len(traces(t, path+"*")) == 0 {
		t.Fatal("the contact is in no file before it is erased: this test proves nothing")
	}

	var url atomic.Value
	url.Store(server.URL)
	var sent, refused atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			to := testenv.NewClient(t, url.Load().(string), testenv.AdminKey)
			a, err := to.Try("POST", "/api/events", eventsOf("bob@example.com", n*10, 10))
			to.Close()
			if err != nil || a.Status != 200 {
				refused.Add(1)
				continue
			}
			sent.Add(1)
		}
	})
	a := c.Post(202, "/api/contacts/erase", map[string]any{"email": strings.ToUpper(erasedAddress)})
	id := a.At("data.id").Text()
	if got := a.Header.Get("Location"); got != "/api/contacts/erasures/"+id {
		t.Errorf("Location %q does not lead to the erasure", got)
	}
	for range 2 {
		seen := c.Get("/api/contacts/erasures/" + id).At("data.events").Int()
		testenv.Poll(time.Minute, func() bool {
			a := c.Get("/api/contacts/erasures/" + id)
			return a.At("data.events").Int() > seen || a.At("data.status").Text() == "done"
		})
		server.Kill()
		server = testenv.Start(t, o)
		c = server.Client("")
		t.Logf("killed; %d of %d events were erased by then", c.Get("/api/contacts/erasures/"+id).At("data.events").Int(), arrays*1000+1)
		url.Store(server.URL)
	}
	if got := erasedOn(t, c, id).At("data.events").Int(); got != arrays*1000+1 {
		t.Errorf("%d events were erased, want %d", got, arrays*1000+1)
	}
	more := sent.Load() + 5
	testenv.Eventually(t, time.Minute, "others go on", func() bool { return sent.Load() >= more })
	close(stop)
	load.Wait()
	t.Logf("beside it %d requests were accepted, %d had no answer while the server was away", sent.Load(), refused.Load())

	if got := performance(c); got != before {
		t.Errorf("performance changed\nfrom %s\nto   %s", before, got)
	}
	if got := c.Get("/api/campaigns/enrollments/" + enrollment).At("data"); got.At("email").Text() != "" || got.At("status").Text() != "unsubscribed" {
		t.Errorf("the enrollment is %v", got)
	}
	if rows := c.Rows("/api/events?email=" + erasedAddress); len(rows) != 0 {
		t.Errorf("%d events are found by the address", len(rows))
	}
	a = c.Post(200, "/api/events", eventsOf(erasedAddress, 0, 1000))
	if got := a.At("data.duplicate").Int(); got != 1000 {
		t.Errorf("%d of 1,000 resent events are duplicates", got)
	}
	a = c.Post(200, "/api/events", eventsOf(erasedAddress, 1_000_000, 10))
	if got := a.At("data.ignored").Int(); got != 10 {
		t.Errorf("%d of 10 new events of the contact are ignored: %s", got, a.Body)
	}
	if got := c.Get("/api/suppressions/" + erasedAddress).At("data.reason").Text(); got != "unsubscribed" {
		t.Errorf("the address is suppressed as %q, want unsubscribed", got)
	}
	if csv := c.Get("/api/suppressions?format=csv"); bytes.Contains(csv.Body, []byte("@")) {
		t.Errorf("the list shows the address: %s", csv.Body)
	}
	c.Do(409, "POST", "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": erasedAddress})
	if b := c.Get("/api/admin/balance"); b.At("data.difference").Int() != 0 {
		t.Errorf("the balance is off: %s", b.Body)
	}
	log := server.Log()
	if code := server.Stop(time.Minute); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	if found := traces(t, path+"*"); found != nil {
		t.Errorf("of the contact is left: %v", found)
	}
	if strings.Contains(log, erasedAddress) || strings.Contains(log, erasedPhone) {
		t.Error("the log holds something of the contact")
	}
	if n := testenv.Count(t, path, `SELECT count(*) FROM audit WHERE action = 'contact.erase'`); n != 1 {
		t.Errorf("the audit log has %d lines of the erasure, want 1", n)
	}
}

// TestEraseWhileSpooled cuts the database off before and after a contact is
// erased: what waits in the spool comes back without anything personal, and
// nothing of it stays in the spool's files.
func TestEraseWhileSpooled(t *testing.T) {
	t.Parallel()
	cl := newCluster(t, 1)
	c := cl.client(0)
	instance := c.NewInstance("erased", nil)
	c.Post(201, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": erasedAddress})
	c.Post(200, "/api/events", eventsOf(erasedAddress, 0, 20))
	c.Get("/api/campaigns/instances/" + instance) // its key is known by now

	spool := func(first int) {
		cl.pgWay.Refuse(true)
		cl.pgWay.Cut()
		testenv.Eventually(t, 2*time.Minute, "events are spooled", func() bool {
			a, err := c.Try("POST", "/api/events", eventsOf(erasedAddress, first, 20))
			return err == nil && a.At("data.spooled").Int() == 20
		})
		if traces(t, filepath.Join(cl.replicas[0].opt.Dir, "spool0", "*")) == nil {
			t.Fatal("the contact is not in the spool: this test proves nothing")
		}
		cl.pgWay.Refuse(false)
	}
	spool(100)
	var id string
	testenv.Eventually(t, 2*time.Minute, "the erasure is taken", func() bool {
		a, err := c.Try("POST", "/api/contacts/erase", map[string]any{"email": erasedAddress})
		id = a.At("data.id").Text()
		return err == nil && a.Status == 202
	})
	erasedOn(t, c, id)
	cl.settled()
	spool(200)
	cl.settled()

	if rows := c.Rows("/api/events?email=" + erasedAddress); len(rows) != 0 {
		t.Errorf("%d events are found by the address", len(rows))
	}
	rows := c.Rows("/api/events")
	if len(rows) != 60 {
		t.Errorf("%d events are stored, want 60", len(rows))
	}
	for _, r := range rows {
		if r.At("email").Text() != "" || r.At("metadata.phone").Text() != "" {
			t.Fatalf("an event still holds the contact: %v", r)
		}
	}
	a := c.Post(200, "/api/events", eventsOf(erasedAddress, 100, 20))
	if got := a.At("data.duplicate").Int(); got != 20 {
		t.Errorf("%d of 20 resent events are duplicates: %s", got, a.Body)
	}
	if b := c.Get("/api/admin/balance"); b.At("data.difference").Int() != 0 {
		t.Errorf("the balance is off: %s", b.Body)
	}
	if found := traces(t, filepath.Join(cl.replicas[0].opt.Dir, "spool0", "*")); found != nil {
		t.Errorf("in the spool is left: %v", found)
	}
}

// TestEraseAsksForSomebody holds the ways of asking wrongly.
func TestEraseAsksForSomebody(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_API=0")
	c := e.client(testenv.AdminKey)
	c.Post(400, "/api/contacts/erase", map[string]any{})
	c.Post(400, "/api/contacts/erase", map[string]any{"email": "not an address"})
	c.Do(404, "GET", "/api/contacts/erasures/"+nobody, nil)
	_, key := c.NewKey("writes", "campaigns:write", "events:write", "dlq:write")
	other := e.client(key)
	other.Post(403, "/api/contacts/erase", map[string]any{"email": erasedAddress})
	a := c.Post(202, "/api/contacts/erase", map[string]any{"email": "nobody@example.com"})
	erasedOn(t, c, a.At("data.id").Text())
	if got := c.Get("/api/suppressions/nobody@example.com").At("data.reason").Text(); got != "manual" {
		t.Errorf("who was erased is suppressed as %q, want manual", got)
	}
}
