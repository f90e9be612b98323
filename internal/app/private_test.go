package app_test

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// TestNothingPersonalInLogsAndMetrics runs through everything that meets
// people's data, in all providers' forms and with all that goes wrong, at the
// most talkative level, and then reads the log and the metrics.
func TestNothingPersonalInLogsAndMetrics(t *testing.T) {
	t.Parallel()
	cloud := newAWS(t)
	server := testenv.Start(t, testenv.Options{Env: append(cloud.env(), "LOG_LEVEL=debug", "RETRY_SCHEDULE=10ms,10ms", "TX_TIMEOUT=2s")})
	c := server.Client("")
	private := []string{"wilhelmina", "Wilhelmina", "personal.example", "linkedin.com/in", testenv.AdminKey, "whsec_", "thk_", "a-secret-of-theirs", "a-password"}
	instance := c.NewInstance("Private", nil)
	enrollments := "/api/campaigns/instances/" + instance + "/enrollments"

	n := 0
	for name, v := range vendors(cloud) {
		source := v.source(c, name)
		private = append(private, strings.TrimPrefix(source.Path, "/webhooks/"))
		n++
		s := &providerStory{t, c, v, name, source, server.URL, instance, instance, fmt.Sprint("wilhelmina", n)}
		who := ids{
			message: "message-wilhelmina-" + s.n, lead: "https://www.linkedin.com/in/wilhelmina-" + s.n, campaign: "wilhelmina-campaign",
			email: fmt.Sprintf("wilhelmina-%d@personal.example", n),
		}
		if name == "hubspot" { // its ids are numbers
			s.n = fmt.Sprint(n)
		}
		s.post(who)
		s.post(who) // a duplicate
		if v.secret != "" {
			s.send(who, wrongSecret(name))
		}
		for _, broken := range []string{`{"email":"wilhelmina@personal.example"`, `{"__proto__":{"email":"wilhelmina@personal.example"}}`, "wilhelmina@personal.example"} {
			w := webhook{t, source.Secret, server.URL + source.Path, s.n, []byte(broken)}
			var headers []testenv.Header
			if v.sign != nil {
				w.body, headers = v.sign(w)
			}
			c.Do(0, http.MethodPost, source.Path, w.body, headers...)
		}
		c.Do(404, http.MethodPost, source.Path+"x", "{}")
		c.Do(0, http.MethodGet, source.Path, nil)
		c.Do(405, http.MethodPut, source.Path, "{}")
	}

	// The API's ways in, and what it refuses.
	const email = "wilhelmina@personal.example"
	person := map[string]any{"email": email, "linkedin_url": "https://www.linkedin.com/in/wilhelmina", "metadata": map[string]any{"name": "Wilhelmina"}}
	id := c.Do(201, http.MethodPost, enrollments, person, testenv.Header{Name: "Idempotency-Key", Value: "wilhelmina"}).At("data.id").Text()
	c.Post(409, enrollments, person)
	c.Post(200, enrollments+"/bulk", []any{person, map[string]any{"email": "wilhelmina"}, 1})
	event := map[string]any{"event_type": "opened", "channel": "email", "email": email, "provider": "wilhelmina", "campaign": "wilhelmina", "metadata": person}
	c.Post(201, "/api/events", event)
	c.Post(200, "/api/events", []any{event, map[string]any{"event_type": email}, email})
	for _, bad := range []any{
		map[string]any{"event_type": email, "channel": "Wilhelmina", "email": []any{email}}, `{"email":"` + email, `{"` + email + `":1}`, map[string]any{"email": strings.Repeat("wilhelmina", 1000) + "@personal.example"},
	} {
		c.Post(400, "/api/events", bad)
	}
	c.Do(400, http.MethodPatch, "/api/campaigns/enrollments/"+id, map[string]any{"email": "wilhelmina"})
	c.Do(200, http.MethodPatch, "/api/campaigns/enrollments/"+id, map[string]any{"email": "wilhelmina-new@personal.example"})
	at := url.PathEscape(email)
	c.Do(200, http.MethodPut, "/api/suppressions/"+at, nil)
	c.Do(200, http.MethodGet, "/api/suppressions/"+at, nil)
	c.Do(204, http.MethodDelete, "/api/suppressions/"+at, nil)
	for _, path := range []string{
		"/api/events?email=" + url.QueryEscape(email), "/api/events?message_id=wilhelmina", "/api/events?cursor=wilhelmina", "/api/wilhelmina/" + at, "/api/events?" + url.QueryEscape(email) + "=1",
		"/api/events/" + at, "/api/suppressions/wilhelmina", "/api/events?x=%zzwilhelmina", "/wilhelmina%00",
	} {
		c.Do(0, http.MethodGet, path, nil)
	}
	_, key := c.NewKey("Wilhelmina", "events:read")
	private = append(private, key)
	for _, h := range []testenv.Header{
		{Name: "X-API-Key", Value: "wilhelmina-guesses-a-key-of-ours"},
		{Name: "Authorization", Value: "Basic d2lsaGVsbWluYTpwdw=="},
		{Name: "Origin", Value: "https://wilhelmina@personal.example"},
		{Name: "Origin", Value: "mailto:" + email},
		{Name: "User-Agent", Value: email},
		{Name: "Referer", Value: "https://personal.example/?" + email},
		{Name: "X-Forwarded-For", Value: email},
		{Name: "X-Request-ID", Value: email},
		{Name: "Content-Encoding", Value: email},
		{Name: "Content-Type", Value: email},
	} {
		c.Do(0, http.MethodPost, "/api/events", event, h)
	}
	private = append(private, "d2lsaGVsbWluYTpwdw")

	// What is buried, replayed, assigned.
	c.Post(202, "/api/events", map[string]any{"event_type": "clicked", "channel": "email", "email": "wilhelmina-late@personal.example", "url": "https://personal.example/wilhelmina"})
	var letter string
	testenv.Eventually(t, time.Minute, "an event is buried", func() bool {
		for _, row := range c.Get("/api/admin/dlq?reason=no_enrollment").At("data").List() {
			letter = row.At("id").Text()
		}
		return letter != ""
	})
	c.Post(200, "/api/admin/dlq/"+letter+"/replay", nil)
	c.Do(0, http.MethodPost, "/api/admin/dlq/replay", map[string]any{"filter": map[string]any{"email": email}})

	// And a database that refuses all of it.
	unlock := testenv.Lock(t, filepath.Join(server.Dir, "tallyhook.db"))
	c.Post(503, "/api/events", event)
	c.Do(503, http.MethodPost, enrollments, map[string]any{"email": "wilhelmina-3@personal.example"})
	unlock()

	metrics := string(c.Get("/metrics").Body)
	if code := server.Stop(time.Minute); code != 0 {
		t.Errorf("exit code %d", code)
	}
	log := server.Log()
	if lines := strings.Count(log, "\n"); lines < 200 || !strings.Contains(log, `"msg":"webhook refused"`) || !strings.Contains(log, `"msg":"request failed"`) || !strings.Contains(metrics, "tallyhook_") {
		t.Fatalf("%d lines of log, and %d bytes of metrics, cannot be all", lines, len(metrics))
	}
	address := regexp.MustCompile(`[\w.+-]+@[\w-]+\.[\w.-]+`)
	for where, text := range map[string]string{"log": log, "metrics": metrics} {
		for line := range strings.Lines(text) {
			for _, p := range private {
				if strings.Contains(line, p) {
					t.Errorf("the %s tells %q: %.300s", where, p, line)
				}
			}
			if a := address.FindString(line); a != "" {
				t.Errorf("the %s tells the address %q: %.300s", where, a, line)
			}
		}
	}
}
