package app_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// TestKeysAndScopes tries a key of each scope on every route, restarts the
// server, and revokes.
func TestKeysAndScopes(t *testing.T) {
	t.Parallel()
	o := testenv.Options{Dir: t.TempDir(), Env: []string{"LOG_LEVEL=warn"}}
	server := testenv.Start(t, o)
	admin := server.Client("")
	scopes := []string{"campaigns:read", "campaigns:write", "events:read", "events:write", "dlq:read", "dlq:write", "admin"}
	ids, keys := map[string]string{}, map[string]string{}
	for _, s := range scopes {
		ids[s], keys[s] = admin.NewKey(s, s)
	}
	try := func(server *testenv.Server) {
		t.Helper()
		for _, op := range operations(t, server.Client("")) {
			for _, s := range scopes {
				c := server.Client(keys[s])
				// An id that names nothing and a body that says nothing: the key
				// decides, and nothing is changed.
				var body any
				if op.json() {
					body = "{}"
				}
				a := c.Do(0, op.method, op.at(nobody), body)
				c.Close()
				mayNot := !op.public && op.scope != "" && op.scope != s && s != "admin"
				if mayNot != (a.Status == 403) || a.Status == 401 || a.Status >= 500 && op.id != "getReadyz" {
					t.Errorf("%s with the scope %s: status %d; the route asks for %q: %s", op, s, a.Status, op.scope, a.Body)
				}
			}
		}
	}
	try(server)
	if code := server.Stop(2 * time.Minute); code != 0 {
		t.Fatalf("exit code %d, want 0", code)
	}
	server = testenv.Start(t, o)
	admin = server.Client("")
	try(server)

	for _, s := range scopes {
		c := server.Client(keys[s])
		c.Do(http.StatusOK, http.MethodGet, "/api/providers", nil)
		admin.Do(http.StatusNoContent, http.MethodDelete, "/api/keys/"+ids[s], nil)
		c.Do(http.StatusUnauthorized, http.MethodGet, "/api/providers", nil) // at once
	}
	for _, row := range admin.Rows("/api/keys") {
		if row.At("key").Text() != "" || row.At("hash").Text() != "" {
			t.Errorf("a list shows more of a key than it may: %v", row.Map())
		}
	}
	server.Kill()
	server = testenv.Start(t, o)
	for _, s := range scopes {
		server.Client(keys[s]).Do(http.StatusUnauthorized, http.MethodGet, "/api/providers", nil)
	}
}

// TestSignedEvents: a signature of a generic source stands for an API key on
// the routes that submit events, and there alone.
func TestSignedEvents(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{Env: []string{"LOG_LEVEL=warn"}})
	source := server.Client("").NewSource("generic", "")
	c := testenv.NewClient(t, server.URL, "")
	t.Cleanup(c.Close)
	body, err := json.Marshal(opened("signed"))
	if err != nil {
		t.Fatal(err)
	}
	sign := func(secret string, at time.Time, payload []byte) []testenv.Header {
		h, err := testenv.Sign(secret, "msg_1", at, payload)
		if err != nil {
			t.Fatal(err)
		}
		return append(h, testenv.Header{Name: "X-Source-ID", Value: source.ID})
	}
	now := time.Now()
	for name, test := range map[string]struct {
		path    string
		headers []testenv.Header
		want    int
	}{
		"AnotherSecret":  {"/api/events", sign("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3", now, body), 401},
		"AnotherBody":    {"/api/events", sign(source.Secret, now, []byte("{}")), 401},
		"TooOld":         {"/api/events", sign(source.Secret, now.Add(-6*time.Minute), body), 401},
		"TooNew":         {"/api/events", sign(source.Secret, now.Add(6*time.Minute), body), 401},
		"NoSource":       {"/api/events", sign(source.Secret, now, body)[:3], 401},
		"AnotherRoute":   {"/api/campaigns/templates", sign(source.Secret, now, body), 401},
		"AndAWrongKey":   {"/api/events", append(sign(source.Secret, now, body), testenv.Header{Name: "X-API-Key", Value: "thk_wrong"}), 401},
		"WithinFiveMins": {"/api/events", sign(source.Secret, now.Add(-4*time.Minute), body), 202},
	} {
		if a := c.Do(0, "POST", test.path, body, test.headers...); a.Status != test.want {
			t.Errorf("%s: status %d, want %d: %s", name, a.Status, test.want, a.Body)
		}
	}
	a := c.Do(http.StatusOK, "POST", "/api/campaigns/events/webhook", body, sign(source.Secret, now, body)...)
	if a.At("duplicate").Text() != "true" {
		t.Errorf("the same event on the other route: %s", a.Body)
	}
}
