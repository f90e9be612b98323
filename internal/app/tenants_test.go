package app_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// newTenant makes a tenant and speaks to the server as its admin.
func (e *edge) newTenant(limits map[string]any) (id string, admin *testenv.Client) {
	e.Helper()
	a := e.client(testenv.AdminKey).Post(201, "/api/admin/tenants", map[string]any{"name": "acme", "limits": limits})
	return a.At("data.id").Text(), e.client(a.At("data.api_key").Text())
}

// TestSuspendedTenant loses nothing: its vendors are told to send again, and
// what they send again is taken when it is resumed.
func TestSuspendedTenant(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_API=0")
	operator := e.client(testenv.AdminKey)
	id, admin := e.newTenant(nil)
	source := admin.NewSource("generic", "")
	brevo := admin.NewSource("brevo", "")
	mine := operator.NewSource("generic", "")
	e.signed(200, source, "msg_1", true)

	path := "/api/admin/tenants/" + id
	a := operator.Do(200, "POST", path+"/suspend", nil)
	if a.At("data.status").Text() != "suspended" || a.At("data.suspended_at").Text() == "" {
		t.Errorf("got %s", a.Body)
	}
	operator.Do(409, "POST", path+"/suspend", nil)
	if a := admin.Do(403, "GET", "/api/events", nil); !strings.Contains(a.At("detail").Text(), "suspended") {
		t.Errorf("its key: got %s", a.Body)
	}
	if a := e.signed(503, source, "msg_2", true); a.Header.Get("Retry-After") != "600" {
		t.Errorf("its vendor: got Retry-After %q", a.Header.Get("Retry-After"))
	}
	e.signed(401, source, "forged", false) // a stranger does not learn of it
	// In the dialect of a vendor that drops an event on any 5xx.
	if a := operator.Do(429, "POST", brevo.Path, `{"event":"delivered","email":"a@example.com"}`); a.Header.Get("Retry-After") != "600" {
		t.Errorf("Brevo: got Retry-After %q", a.Header.Get("Retry-After"))
	}
	e.signed(200, mine, "msg_3", true) // others go on

	operator.Do(200, "POST", path+"/resume", nil)
	operator.Do(409, "POST", path+"/resume", nil)
	e.signed(200, source, "msg_2", true)
	if rows := admin.Rows("/api/events"); len(rows) != 2 {
		t.Errorf("it has %d events, want both", len(rows))
	}

	// The operator cannot lock itself out.
	first := operator.Rows("/api/admin/tenants")[1]
	if first.At("name").Text() != "default" {
		t.Fatalf("got %v", first.Map())
	}
	operator.Do(409, "POST", "/api/admin/tenants/"+first.At("id").Text()+"/suspend", nil)
	operator.Do(409, "PATCH", "/api/admin/tenants/"+first.At("id").Text(), map[string]any{"limits": map[string]any{"max_keys": 1}})
}

// TestTenantQuotas refuses one more than the tenant may have, by name.
func TestTenantQuotas(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_API=0")
	id, admin := e.newTenant(map[string]any{"max_keys": 2, "max_sources": 1, "max_instances": 1})
	admin.NewKey("second", "events:read")
	admin.NewSource("generic", "")
	admin.NewInstance("i", nil)
	template := admin.Get("/api/campaigns/templates").At("data.0.id").Text()
	for quota, try := range map[string]struct {
		path string
		body map[string]any
	}{
		"max_keys":      {"/api/keys", map[string]any{"name": "k", "scopes": []any{"admin"}}},
		"max_sources":   {"/api/sources", map[string]any{"name": "s", "provider": "generic"}},
		"max_instances": {"/api/campaigns/instances", map[string]any{"name": "i", "template_id": template}},
	} {
		if a := admin.Post(403, try.path, try.body); !strings.Contains(a.At("detail").Text(), quota) {
			t.Errorf("%s: got %s", quota, a.Body)
		}
	}
	e.client(testenv.AdminKey).Do(200, "PATCH", "/api/admin/tenants/"+id, map[string]any{"limits": map[string]any{"max_keys": 3}})
	admin.NewKey("third", "events:read")
	admin.NewSource("generic", "") // the other limits are lifted
}

// TestTenantRates bound all keys, and all sources, of a tenant together. How
// fast this machine is decides when, not whether: it is asked, eight at once, until it refuses.
func TestTenantRates(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_API=0", "RATE_LIMIT_WEBHOOK=0")
	_, admin := e.newTenant(map[string]any{"requests_per_second": 1, "webhooks_per_second": 1})
	made := func(path string, body map[string]any) (a testenv.Answer) {
		testenv.Eventually(t, time.Minute, "let through", func() bool {
			a = admin.Do(0, "POST", path, body)
			return a.Status == 201
		})
		return a
	}
	second := e.client(made("/api/keys", map[string]any{"name": "k", "scopes": []any{"events:read"}}).At("data.key").Text())
	var refused testenv.Answer
	atOnce := func(what string, calls ...func() (testenv.Answer, error)) {
		t.Helper()
		testenv.Eventually(t, time.Minute, what, func() bool {
			answers := make([]testenv.Answer, 8)
			var wg sync.WaitGroup
			for i := range answers {
				wg.Go(func() {
					var err error
					if answers[i], err = calls[i%len(calls)](); err != nil {
						t.Errorf("%s: %v", what, err)
					}
				})
			}
			wg.Wait()
			i := slices.IndexFunc(answers, func(a testenv.Answer) bool { return a.Status == 429 })
			if i >= 0 {
				refused = answers[i]
			}
			return i >= 0
		})
	}
	get := func(c *testenv.Client) func() (testenv.Answer, error) {
		return func() (testenv.Answer, error) { return c.Try("GET", "/api/events", nil) }
	}
	atOnce("refused", get(admin), get(second))
	if !strings.Contains(refused.At("detail").Text(), "requests_per_second") || refused.Header.Get("Retry-After") != "1" ||
		refused.Header.Get("RateLimit-Policy") != `"tenant";q=1;w=1` {
		t.Errorf("got %v %s", refused.Header, refused.Body)
	}
	token := func() string {
		_, path, _ := strings.Cut(made("/api/sources", map[string]any{"name": "s", "provider": "lemlist"}).At("data.url").Text(), "/webhooks/")
		return "/webhooks/" + path
	}
	one, other := token(), token()
	body := `{"_id":"act_1","type":"emailsOpened","leadEmail":"a@example.com"}`
	anybody := e.client("")
	send := func(path string) func() (testenv.Answer, error) {
		return func() (testenv.Answer, error) { return anybody.Try("POST", path, body) }
	}
	atOnce("a webhook refused", send(one), send(other))
	if !strings.Contains(refused.At("detail").Text(), "webhooks_per_second") {
		t.Errorf("got %s", refused.Body)
	}
	for range 5 {
		e.client(testenv.AdminKey).Get("/api/events") // the operator is not held for it
	}
	if got := e.metric(`tallyhook_rate_limited_total{kind="tenant"}`); got < 2 {
		t.Errorf("counted %v", got)
	}
}

// TestKeyRotation: the new key is shown once, the old one is good until its
// grace ends, and the metric does not warn of it.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_API=0", "TRUSTED_PROXIES=127.0.0.0/8")
	admin := e.client(testenv.AdminKey)
	a := admin.Post(201, "/api/keys", map[string]any{
		"name": "job", "scopes": []any{"events:read"}, "expires_in_days": 10, "allowed_ips": []any{"127.0.0.1", "192.0.2.0/24"},
	})
	id, old := a.At("data.id").Text(), e.client(a.At("data.key").Text())
	end, err := time.Parse(time.RFC3339, a.At("data.expires_at").Text())
	if err != nil {
		t.Fatal(err)
	}
	expiry := func(want int64) {
		t.Helper()
		testenv.Eventually(t, time.Minute, "the metric follows", func() bool {
			return int64(e.metric("tallyhook_key_expiry_timestamp_seconds")) == want
		})
	}
	expiry(end.Unix())

	admin.Do(400, "POST", "/api/keys/"+id+"/rotate", map[string]any{"grace": "soon"})
	admin.Do(400, "POST", "/api/keys/"+id+"/rotate", map[string]any{"grace": "-1s"})
	admin.Do(400, "POST", "/api/keys/"+id+"/rotate", map[string]any{"grace": "721h"})
	a = admin.Post(201, "/api/keys/"+id+"/rotate", map[string]any{"grace": "1h"})
	next := e.client(a.At("data.key").Text())
	if a.At("data.replaces").Text() != id || a.At("data.name").Text() != "job" || a.At("data.allowed_ips.1").Text() != "192.0.2.0/24" {
		t.Errorf("got %s", a.Body)
	}
	old.Get("/api/events")
	next.Get("/api/events")
	next.Do(403, "GET", "/api/keys", nil)
	next.Do(403, "GET", "/api/events", nil, testenv.Header{Name: "X-Forwarded-For", Value: "198.51.100.1"})
	admin.Do(409, "POST", "/api/keys/"+id+"/rotate", map[string]any{})
	newEnd, err := time.Parse(time.RFC3339, a.At("data.expires_at").Text())
	if err != nil || newEnd.Before(end) {
		t.Errorf("the new key ends at %v, want as long as the old one was made for (%v), %v", newEnd, end, err)
	}
	expiry(newEnd.Unix())

	a = admin.Post(201, "/api/keys/"+a.At("data.id").Text()+"/rotate", map[string]any{"grace": "0s"})
	next.Do(401, "GET", "/api/events", nil)
	last := e.client(a.At("data.key").Text())
	last.Get("/api/events")
	admin.Do(204, "DELETE", "/api/keys/"+a.At("data.id").Text(), nil)
	last.Do(401, "GET", "/api/events", nil)
	admin.Do(404, "POST", "/api/keys/"+a.At("data.id").Text()+"/rotate", map[string]any{})
	expiry(0)
	for _, wrong := range []string{"", "x", "1.2.3", "192.0.2.0/33", "fe80::1%eth0", "::ffff:192.0.2.1/95"} {
		admin.Do(400, "POST", "/api/keys", map[string]any{"name": "k", "scopes": []any{"admin"}, "allowed_ips": []any{wrong}})
	}
}

// TestSecretsAreShownAgainToTheSameRequest, and are nowhere in clear.
func TestSecretsAreShownAgainToTheSameRequest(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_API=0")
	admin := e.client(testenv.AdminKey)
	rotated, _ := admin.NewKey("rotated", "events:read")
	var secrets []string
	for name, try := range map[string]struct {
		path, secret string
		body         map[string]any
	}{
		"Key":      {"/api/keys", "key", map[string]any{"name": "k", "scopes": []any{"admin"}}},
		"Source":   {"/api/sources", "url", map[string]any{"name": "s", "provider": "generic"}},
		"Tenant":   {"/api/admin/tenants", "api_key", map[string]any{"name": "n"}},
		"Rotation": {"/api/keys/" + rotated + "/rotate", "key", map[string]any{"grace": "0s"}},
	} {
		once := testenv.Header{Name: "Idempotency-Key", Value: "once-" + name}
		first := admin.Post(201, try.path, try.body, once)
		secret := first.At("data." + try.secret).Text()
		if secret == "" {
			t.Fatalf("%s: no %s in %s", name, try.secret, first.Body)
		}
		secrets = append(secrets, secret[strings.LastIndexByte(secret, '/')+1:])
		again := admin.Post(201, try.path, try.body, once)
		if !bytes.Equal(first.Body, again.Body) {
			t.Errorf("%s: got %s, want what was answered first: %s", name, again.Body, first.Body)
		}
		try.body["name"] = "another"
		if name == "Rotation" {
			try.body = map[string]any{"grace": "1s"}
		}
		admin.Post(409, try.path, try.body, once)
	}
	if n := len(admin.Rows("/api/keys")); n != 4 { // API_KEY, rotated and its successor, k
		t.Errorf("there are %d keys, want 4", n)
	}
	files, err := filepath.Glob(filepath.Join(e.dir, "*"))
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range secrets {
			if bytes.Contains(raw, []byte(secret)) || strings.Contains(e.log.String(), secret) {
				t.Errorf("%s, or the log, has a secret in clear", filepath.Base(file))
			}
		}
	}
}

// TestAuditLog says who did what and from where, to each tenant its own, and
// tells no secret.
func TestAuditLog(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_API=0", "TRUSTED_PROXIES=127.0.0.0/8")
	admin := e.client(testenv.AdminKey)
	from := []testenv.Header{{Name: "X-Forwarded-For", Value: "192.0.2.7"}, {Name: "X-Request-ID", Value: "req-7"}}
	a := admin.Post(201, "/api/keys", map[string]any{"name": "job", "scopes": []any{"events:write"}}, from...)
	id, key := a.At("data.id").Text(), a.At("data.key").Text()
	b := admin.Post(201, "/api/sources", map[string]any{"name": "s", "provider": "generic"}, from...)
	source := b.At("data.id").Text()
	admin.Do(200, "PATCH", "/api/sources/"+source, map[string]any{"name": "t", "settings": map[string]any{"basic_auth": "u:hush-hush"}}, from...)
	admin.Do(204, "DELETE", "/api/sources/"+source, nil, from...)
	admin.Do(200, "PUT", "/api/suppressions/ada@example.com", nil, from...)
	tenant, other := e.newTenant(nil)
	admin.Do(200, "POST", "/api/admin/tenants/"+tenant+"/suspend", nil, from...)
	admin.Do(200, "POST", "/api/admin/tenants/"+tenant+"/resume", nil, from...)
	admin.Do(204, "DELETE", "/api/keys/"+id, nil, from...)
	admin.Do(404, "DELETE", "/api/keys/"+id, nil, from...) // nothing happened: no line

	var got []string
	list := admin.Get("/api/admin/audit")
	for _, row := range list.At("data").List() {
		got = append(got, row.At("action").Text())
		if action := row.At("action").Text(); action != "tenant.create" && row.At("actor").Text() != "system" &&
			(row.At("remote").Text() != "192.0.2.7" || row.At("request_id").Text() != "req-7" || !strings.HasPrefix(row.At("actor").Text(), "key:")) {
			t.Errorf("%s: got %v", action, row.Map())
		}
	}
	want := "[key.revoke tenant.resume tenant.suspend tenant.create suppression.put source.delete source.update source.create key.create key.create]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	for _, secret := range []string{key, "hush-hush", "ada@example.com", b.At("data.secret").Text()} {
		if strings.Contains(string(list.Body), secret) {
			t.Errorf("the log tells %q", secret)
		}
	}
	for query, n := range map[string]int{
		"action=key": 3, "action=key.revoke": 1, "actor=system": 1, "since=2100-01-01T00:00:00Z": 0, "until=2100-01-01T00:00:00Z": 10, "limit=2": 2,
	} {
		if rows := admin.Get("/api/admin/audit?" + query).At("data").List(); len(rows) != n {
			t.Errorf("%s: got %d lines, want %d", query, len(rows), n)
		}
	}
	if rows := admin.Rows("/api/admin/audit"); len(rows) != 10 {
		t.Errorf("page by page: got %d lines", len(rows))
	}
	if rows := other.Rows("/api/admin/audit"); len(rows) != 0 {
		t.Errorf("another tenant sees %d lines", len(rows))
	}
	other.NewKey("k", "events:read")
	if rows := other.Rows("/api/admin/audit"); len(rows) != 1 {
		t.Errorf("a tenant sees %d lines of its own, want 1", len(rows))
	}
}
