package app_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/access"
	"tallyhook/internal/testenv"
)

// What a route asks for beside a scope.
const (
	anybody  = "anybody"  // no key
	anyKey   = "any key"  // of whatever scope
	operator = "operator" // the scope admin in the default tenant
)

// needs says for every route who may call it. It is written down a second time
// on purpose: a route that is new, or that has come to ask for less, fails the
// walk until somebody has thought about it.
func needs() map[string]string {
	all := map[string]string{}
	for need, ids := range map[string]string{
		anybody:                    "getHealth getLivez getReadyz getMetrics getOpenAPI getDocs postWebhook",
		anyKey:                     "listProviders",
		access.ScopeCampaignsRead:  "listTemplates getTemplate listCampaigns listInstances getInstance getPerformance listEnrollments getEnrollment listSuppressions getSuppression",
		access.ScopeCampaignsWrite: "createTemplate replaceTemplate deleteTemplate createInstance patchInstance createEnrollment createEnrollments patchEnrollment deleteEnrollment unsubscribeEnrollment addRefs putSuppression deleteSuppression",
		access.ScopeEventsRead:     "searchEvents getEvent listEnrollmentEvents",
		access.ScopeEventsWrite:    "postEvents postEventsWebhook assignEvent",
		access.ScopeDLQRead:        "listLetters getLetterStats getLetter getReplay",
		access.ScopeDLQWrite:       "replayLetters cancelReplay replayLetter ignoreLetter restoreLetter",
		access.ScopeAdmin:          "createSource listSources getSource patchSource deleteSource listRejections rotateSourceSecret rotateSourceURL testSource createKey listKeys rotateKey revokeKey listAudit eraseContact getErasure",
		operator:                   "createTenant listTenants getTenant patchTenant suspendTenant resumeTenant getBalance",
	} {
		for id := range strings.FieldsSeq(ids) {
			all[id] = need
		}
	}
	return all
}

// walk is a server with everything in it that has an id.
type walk struct {
	*edge
	admin *testenv.Client
	ops   []operation
	ids   map[string]string // by the path up to {id}
}

func startWalk(t *testing.T) *walk {
	t.Helper()
	w := &walk{edge: startEdge(t, "TRUSTED_PROXIES=127.0.0.0/8", "RATE_LIMIT_ANONYMOUS=0", "RATE_LIMIT_API=0", "LOG_LEVEL=error")}
	w.admin = w.client(testenv.AdminKey)
	w.ops = operations(t, w.admin)
	instance := w.admin.NewInstance("walk", nil)
	enrollment := w.admin.Post(201, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": "walk@example.com"}).At("data.id").Text()
	event := w.admin.Post(201, "/api/events", opened("walk")).At("data.id").Text()
	source := w.admin.NewSource("generic", "")
	garbage := []byte("no JSON")
	sign, err := testenv.Sign(source.Secret, "msg_1", time.Now(), garbage)
	if err != nil {
		t.Fatal(err)
	}
	w.admin.Do(200, "POST", source.Path, garbage, sign...)
	key, _ := w.admin.NewKey("walk", access.ScopeEventsRead)
	erasure := w.admin.Post(202, "/api/contacts/erase", map[string]any{"contact_id": "gone"}).At("data.id").Text()
	tenant := w.admin.Post(201, "/api/admin/tenants", map[string]any{"name": "walked"}).At("data.id").Text()
	w.admin.Do(200, "PUT", "/api/suppressions/ada@example.com", nil)
	w.ids = map[string]string{
		"/api/campaigns/templates/{id}":   w.admin.Get("/api/campaigns/templates").At("data.0.id").Text(),
		"/api/campaigns/instances/{id}":   instance,
		"/api/campaigns/enrollments/{id}": enrollment,
		"/api/events/{id}":                event,
		"/api/sources/{id}":               source.ID,
		"/api/keys/{id}":                  key,
		"/api/admin/dlq/{id}":             w.admin.Get("/api/admin/dlq").At("data.0.id").Text(),
		"/api/admin/dlq/replays/{id}":     w.admin.Post(202, "/api/admin/dlq/replay", map[string]any{"filter": map[string]any{}}).At("data.replay_id").Text(),
		"/api/admin/tenants/{id}":         tenant,
		"/api/contacts/erasures/{id}":     erasure,
	}
	return w
}

// call makes a request that changes nothing: an id that names nothing, and a
// body that says nothing.
func (w *walk) call(key string, op operation, headers ...testenv.Header) testenv.Answer {
	w.Helper()
	var body any
	if op.json() {
		body = "{}"
	}
	return w.client(key).Do(0, op.method, op.at(nobody), body, headers...)
}

// served tells whether the caller was let in. What the answer is then, to a
// request that means nothing, is the route's own affair.
func served(a testenv.Answer, op operation) bool {
	return a.Status != 401 && a.Status != 403 && (a.Status < 500 || op.id == "getReadyz")
}

// TestWalkEveryRoute tries every route that the server describes with a key of
// each scope, and with every key that is none.
func TestWalkEveryRoute(t *testing.T) {
	t.Parallel()
	w := startWalk(t)
	need := needs()
	keys := map[string]string{}
	for _, scope := range access.Scopes() {
		_, keys[scope] = w.admin.NewKey(scope, scope)
	}
	expiring, expired := w.admin.NewKey("expired", access.ScopeAdmin)
	w.admin.Post(201, "/api/keys/"+expiring+"/rotate", map[string]any{"grace": "0s"})
	revoking, revoked := w.admin.NewKey("revoked", access.ScopeAdmin)
	w.admin.Do(204, "DELETE", "/api/keys/"+revoking, nil)
	bound := w.admin.Post(201, "/api/keys", map[string]any{
		"name": "bound", "scopes": []any{access.ScopeAdmin}, "allowed_ips": []any{"192.0.2.0/28", "2001:db8::1"},
	}).At("data.key").Text()
	tenant := w.admin.Post(201, "/api/admin/tenants", map[string]any{"name": "suspended"})
	w.admin.Do(200, "POST", "/api/admin/tenants/"+tenant.At("data.id").Text()+"/suspend", nil)
	suspended := tenant.At("data.api_key").Text()
	from := func(addr string) testenv.Header { return testenv.Header{Name: "X-Forwarded-For", Value: addr} }

	for _, op := range w.ops {
		want, known := need[op.id]
		if !known {
			t.Errorf("%s (%s) is classified by nobody: say in needs who may call it", op, op.id)
			continue
		}
		delete(need, op.id)
		scope := want
		switch want {
		case anybody, anyKey:
			scope = ""
		case operator:
			scope = access.ScopeAdmin
		}
		if op.xscope != scope || op.only != (want == operator) || op.public != (want == anybody) {
			t.Errorf("%s is described with the scope %q, operator %v, public %v; want %s", op, op.xscope, op.only, op.public, want)
		}
		for has, key := range keys {
			may := scope == "" || has == scope || has == access.ScopeAdmin
			if a := w.call(key, op); may != served(a, op) || !may && (a.Status != 403 || !strings.Contains(string(a.Body), scope)) {
				t.Errorf("%s (for %s) with the scope %s: status %d: %s", op, want, has, a.Status, a.Body)
			}
		}
		for what, try := range map[string]struct {
			key    string
			from   string
			status int
			detail string
		}{
			"NoKey":            {"", "192.0.2.1", 401, "API key"},
			"Unknown":          {"a key that nobody has made", "192.0.2.1", 401, "API key"},
			"Expired":          {expired, "192.0.2.1", 401, "expired"},
			"Revoked":          {revoked, "192.0.2.1", 401, "revoked"},
			"ForbiddenAddress": {bound, "192.0.2.16", 403, "allowed_ips"},
			"AnotherV6":        {bound, "2001:db8::2", 403, "allowed_ips"},
			"AllowedAddress":   {bound, "192.0.2.15", 0, ""},
			"AllowedV6":        {bound, "2001:db8::1", 0, ""},
			"AllowedMapped":    {bound, "::ffff:192.0.2.7", 0, ""},
			"Suspended":        {suspended, "192.0.2.1", 403, "suspended"},
		} {
			a := w.call(try.key, op, from(try.from))
			if want == anybody || try.status == 0 {
				if !served(a, op) {
					t.Errorf("%s (for %s), %s: status %d: %s", op, want, what, a.Status, a.Body)
				}
				continue
			}
			if a.Status != try.status || !strings.Contains(a.At("detail").Text(), try.detail) {
				t.Errorf("%s, %s: status %d, want %d and %q: %s", op, what, a.Status, try.status, try.detail, a.Body)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(need)) {
		t.Errorf("there is no route %s any more", id)
	}
}

// TestWalkAsAnotherTenant tries every route with another tenant's admin key, on
// ids that are there: what is not its own is not there for it, and what is for
// the operator is refused by name.
func TestWalkAsAnotherTenant(t *testing.T) {
	t.Parallel()
	w := startWalk(t)
	key := w.admin.Post(201, "/api/admin/tenants", map[string]any{"name": "other"}).At("data.api_key").Text()
	other := w.client(key)
	need := needs()
	tried := 0
	for _, op := range w.ops {
		cut := strings.Index(op.path, "{id}")
		if cut < 0 && need[op.id] != operator {
			continue
		}
		path := op.path
		if cut >= 0 {
			id := w.ids[op.path[:cut]+"{id}"]
			if id == "" {
				t.Errorf("%s: this test makes nothing with such an id; add it to startWalk", op)
				continue
			}
			path = op.at(id)
			if op.method == http.MethodGet { // it is there
				w.admin.Get(path)
			}
		}
		tried++
		want := 404
		if need[op.id] == operator {
			want = 403
		}
		if a := other.Do(0, op.method, path, rightBody(t, op)); a.Status != want {
			t.Errorf("%s with another tenant's admin key: status %d, want %d: %s", op, a.Status, want, a.Body)
		}
	}
	if tried < 30 {
		t.Errorf("tried %d routes, which cannot be all", tried)
	}
	// Nor is it in any list, and nothing of it has changed.
	for _, list := range []string{
		"/api/campaigns", "/api/campaigns/templates", "/api/campaigns/instances", "/api/events", "/api/suppressions", "/api/sources", "/api/admin/dlq",
	} {
		if rows := other.Rows(list); len(rows) != 0 {
			t.Errorf("%s shows another tenant %d rows", list, len(rows))
		}
		if rows := w.admin.Rows(list); len(rows) != 1 {
			t.Errorf("%s has %d rows after the walk, want 1", list, len(rows))
		}
	}
	other.Do(404, "GET", "/api/suppressions/ada@example.com", nil)
	if rows := other.Rows("/api/keys"); len(rows) != 1 || rows[0].At("name").Text() != "first key" {
		t.Errorf("it sees the keys %v, want its own first one", fmt.Sprint(rows))
	}
	for _, row := range w.admin.Rows("/api/keys") {
		if row.At("id").Text() == w.ids["/api/keys/{id}"] && (row.At("revoked_at").Text() != "" || row.At("replaced_by").Text() != "") {
			t.Errorf("the key was ended by another tenant: %v", row.Map())
		}
	}
}
