package main_test

import (
	"encoding/json"
	"strings"
	"testing"

	"tallyhook/internal/testenv"
)

// operate runs a verb against a server, and reads its JSON where that is asked
// for and the verb succeeds.
func operate(t *testing.T, url, key string, code int, args ...string) (testenv.Result, any) {
	t.Helper()
	got := testenv.Run(t, t.TempDir(), []string{"TALLYHOOK_URL=" + url, "TALLYHOOK_API_KEY=" + key}, args...)
	if got.Code != code {
		t.Fatalf("%v: exit code %d, want %d\n%s%s", args, got.Code, code, got.Stdout, got.Stderr)
	}
	var v any
	if code == 0 && args[len(args)-1] == "--json" {
		if err := json.Unmarshal([]byte(got.Stdout), &v); err != nil {
			t.Fatalf("%v: %v: %s", args, err, got.Stdout)
		}
	}
	return got, v
}

// field is one of an object's texts.
func field(t *testing.T, v any, name string) string {
	t.Helper()
	of, ok := v.(map[string]any)
	text, is := of[name].(string)
	if !ok || !is {
		t.Fatalf("no %s in %v", name, v)
	}
	return text
}

// TestKeysVerbs makes, rotates and revokes a key of a running server.
func TestKeysVerbs(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{Env: []string{"LOG_LEVEL=warn"}})
	_, v := operate(t, server.URL, testenv.AdminKey, 0, "keys", "create", "--name", "CI", "--scope", "events:read,events:write", "--expires-in-days", "5", "--allow", "127.0.0.0/8", "--json")
	id := field(t, v, "id")
	server.Client(field(t, v, "key")).Get("/api/events")
	got, _ := operate(t, server.URL, testenv.AdminKey, 0, "keys", "rotate", id, "--grace", "0s")
	lines := strings.Split(got.Stdout, "\n")
	if len(lines) < 4 || !strings.HasPrefix(lines[1], "thk_") {
		t.Fatalf("got %q", got.Stdout)
	}
	server.Client(field(t, v, "key")).Do(401, "GET", "/api/events", nil)
	server.Client(lines[1]).Get("/api/events")
	next, _, _ := strings.Cut(lines[0], " ")
	operate(t, server.URL, testenv.AdminKey, 0, "keys", "revoke", next)
	server.Client(lines[1]).Do(401, "GET", "/api/events", nil)
	got, _ = operate(t, server.URL, testenv.AdminKey, 0, "keys", "list")
	for _, want := range []string{id + "  expired", next + "  revoked", "live"} {
		if !strings.Contains(got.Stdout, want) {
			t.Errorf("the list has no %q: %s", want, got.Stdout)
		}
	}
	if _, v := operate(t, server.URL, testenv.AdminKey, 0, "keys", "list", "--json"); len(v.([]any)) != 3 { //nolint:forcetypeassert // a panic fails the test as well
		t.Errorf("got %v", v)
	}

	got, _ = operate(t, server.URL, testenv.AdminKey, 1, "keys", "revoke", next)
	if !strings.Contains(got.Stderr, "404") {
		t.Errorf("got %s", got.Stderr)
	}
	got, _ = operate(t, server.URL, "a key that nobody has made", 1, "keys", "list")
	if !strings.Contains(got.Stderr, "401") || strings.Contains(got.Stderr, "nobody has made") {
		t.Errorf("got %s", got.Stderr)
	}
	operate(t, server.URL, "", 2, "keys", "list")
	operate(t, server.URL, testenv.AdminKey, 2, "keys", "revoke")
	operate(t, server.URL, testenv.AdminKey, 2, "keys", "list", "what")
	operate(t, server.URL, testenv.AdminKey, 2, "keys", "what")
	operate(t, server.URL, testenv.AdminKey, 0, "keys")
	operate(t, "http://127.0.0.1:1", testenv.AdminKey, 1, "keys", "list")
	operate(t, "ftp://127.0.0.1", testenv.AdminKey, 2, "keys", "list")
}

// TestTenantsVerbs makes, suspends and resumes a tenant of a running server.
func TestTenantsVerbs(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{Env: []string{"LOG_LEVEL=warn"}})
	_, v := operate(t, server.URL, testenv.AdminKey, 0, "tenants", "create", "--name", "acme", "--max-keys", "1", "--json")
	id, admin := field(t, v, "id"), server.Client(field(t, v, "api_key"))
	admin.Post(403, "/api/keys", map[string]any{"name": "k", "scopes": []any{"admin"}})
	operate(t, server.URL, testenv.AdminKey, 0, "tenants", "suspend", id)
	admin.Do(403, "GET", "/api/keys", nil)
	got, _ := operate(t, server.URL, testenv.AdminKey, 0, "tenants", "list")
	if !strings.Contains(got.Stdout, id+"  suspended  acme") {
		t.Errorf("got %s", got.Stdout)
	}
	operate(t, server.URL, testenv.AdminKey, 0, "tenants", "resume", id)
	admin.Get("/api/keys")
	operate(t, server.URL, admin.Key, 1, "tenants", "list")
}
