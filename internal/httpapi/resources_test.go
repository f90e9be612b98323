package httpapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/httpapi"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
)

func newRequest() *provider.Request { return &provider.Request{} }

const enrollmentAt = "/api/campaigns/enrollments/" + someID

// withEnrollments makes an edge whose enrollment has these statuses, one for
// each look at it, the last for ever.
func withEnrollments(t testing.TB, statuses ...campaign.Status) *api {
	t.Helper()
	return newAPI(t, func(s *httpapi.Services, _ *httpapi.Options) {
		s.Enrollments = fakeEnrollments{status: func() campaign.Status {
			now := statuses[0]
			if len(statuses) > 1 {
				statuses = statuses[1:]
			}
			return now
		}}
	})
}

func TestUnsubscribeIsAManualEvent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", enrollmentAt + "/unsubscribe", "", 200},
		{"DELETE", enrollmentAt, "", 204},
		{"PATCH", enrollmentAt, `{"status":"unsubscribed"}`, 200},
	} {
		a := withEnrollments(t, campaign.StatusActive, campaign.StatusUnsubscribed)
		a.call(c.method, c.path, c.body).want(c.status)
		if len(a.acceptor.got) != 1 {
			t.Fatalf("%s %s: accepted %d events, want 1", c.method, c.path, len(a.acceptor.got))
		}
		e := a.acceptor.got[0]
		if e.Type != event.Unsubscribed || e.Provider != "manual" || e.Kind != "manual" || e.Scope != "manual" || e.EnrollmentID != someID ||
			e.Email != "ada@example.com" || e.Channel != event.Email || e.IdentityParts[1] != e.ID.String() || !e.OccurredAt.Equal(now()) ||
			e.Tenant != 1 || e.Check() != nil || len(e.Payload) == 0 {
			t.Errorf("accepted %+v", e)
		}
	}
}

func TestPatchStatus(t *testing.T) {
	t.Parallel()
	p := withEnrollments(t, campaign.StatusActive).call("PATCH", enrollmentAt, `{"status":"completed"}`).problem(400)
	if !p.names("body.status") || !strings.Contains(p.Detail, "unsubscribed or active") {
		t.Errorf("got %+v", p)
	}
	for name, c := range map[string]struct {
		statuses []campaign.Status
		status   int
		events   int
	}{
		"Resumes":           {[]campaign.Status{campaign.StatusUnsubscribed, campaign.StatusActive}, 200, 1},
		"IsActive":          {[]campaign.Status{campaign.StatusActive}, 200, 0},
		"Bounced":           {[]campaign.Status{campaign.StatusBounced}, 409, 0},
		"Complained":        {[]campaign.Status{campaign.StatusComplained}, 409, 0},
		"Completed":         {[]campaign.Status{campaign.StatusCompleted}, 409, 0},
		"BouncedBelow":      {[]campaign.Status{campaign.StatusUnsubscribed, campaign.StatusBounced}, 409, 1},
		"StaysUnsubscribed": {[]campaign.Status{campaign.StatusUnsubscribed}, 409, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := withEnrollments(t, c.statuses...)
			a.call("PATCH", enrollmentAt, `{"status":"active"}`).want(c.status)
			if len(a.acceptor.got) != c.events {
				t.Errorf("accepted %d events, want %d", len(a.acceptor.got), c.events)
			}
			for _, e := range a.acceptor.got {
				if !e.Lifts() {
					t.Errorf("the event lifts nothing: %+v", e)
				}
			}
		})
	}
}

func enrolling(t testing.TB, f func(in []campaign.Enrollment, merge bool) []store.Enrolled) *api {
	t.Helper()
	return newAPI(t, func(s *httpapi.Services, _ *httpapi.Options) {
		s.Enrollments = fakeEnrollments{enroll: f, status: func() campaign.Status { return campaign.StatusActive }}
	})
}

func TestEnroll(t *testing.T) {
	t.Parallel()
	id := uuid.MustParse(someID)
	path := "/api/campaigns/instances/" + someID + "/enrollments"
	for name, c := range map[string]struct {
		result store.Enrolled
		body   string
		status int
		texts  []string
	}{
		"Created":  {store.Enrolled{ID: id, Adopted: 3, Adopting: 4}, `{"email":"ada@example.com"}`, 201, []string{`"adopted":3`, `"adopting":4`}},
		"Conflict": {store.Enrolled{ID: id, Conflict: true}, `{"email":"ada@example.com"}`, 409, []string{`"enrollment_id":"` + someID}},
		"Merged":   {store.Enrolled{ID: id, Conflict: true, Merged: true}, `{"email":"ada@example.com","on_conflict":"merge"}`, 200, []string{`"merged":true`}},
		"Failed":   {store.Enrolled{Err: fault.New(fault.Conflict, "the instance is completed")}, `{"email":"ada@example.com"}`, 409, []string{"completed"}},
		"Nobody":   {store.Enrolled{}, `{"metadata":{}}`, 400, []string{"names nobody"}},
		"BadRef":   {store.Enrolled{}, `{"refs":[{"provider":"p","kind":"x","value":"v"}]}`, 400, []string{"body.refs[0].kind"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := enrolling(t, func(_ []campaign.Enrollment, merge bool) []store.Enrolled {
				if merge != c.result.Merged {
					t.Errorf("got merge %t", merge)
				}
				return []store.Enrolled{c.result}
			})
			r := a.call("POST", path, c.body).want(c.status, c.texts...)
			if c.status == 201 && r.header.Get("Location") != enrollmentAt {
				t.Errorf("got Location %q", r.header.Get("Location"))
			}
		})
	}
}

func TestBulk(t *testing.T) {
	t.Parallel()
	path := "/api/campaigns/instances/" + someID + "/enrollments/bulk"
	a := enrolling(t, func(in []campaign.Enrollment, merge bool) []store.Enrolled {
		out := make([]store.Enrolled, len(in))
		for i := range in {
			out[i] = store.Enrolled{ID: uuid.MustParse(someID), Conflict: in[i].ContactID == "old", Merged: merge}
		}
		return out
	})
	type answer struct {
		Data struct {
			Received, Created, Merged, Conflict, Error int
			Results                                    []struct {
				Index             int
				Status, ID, Error string
			}
		}
	}
	items := []string{
		`{"contact_id":"new"}`, `{"contact_id":"old"}`, `{"contact_id":"old","on_conflict":"merge"}`, `{"contact_id":1}`, `{"nobody":1}`, `{"metadata":{"a":1,"a":2}}`,
	}
	for _, form := range [][2]string{
		{"[" + strings.Join(items, ",") + "]", "application/json"},
		{"\n" + strings.Join(items, "\r\n\n") + "\n", "application/x-ndjson; charset=utf-8"},
	} {
		got := decode[answer](a.call("POST", path, form[0], "Content-Type", form[1]).want(200)).Data
		var all []string
		for i, r := range got.Results {
			if r.Index != i {
				t.Errorf("result %d has the index %d", i, r.Index)
			}
			all = append(all, r.Status)
		}
		if s := strings.Join(all, " "); s != "created conflict merged error error error" {
			t.Errorf("%s: got %s", form[1], s)
		}
		if got.Received != 6 || got.Created != 1 || got.Conflict != 1 || got.Merged != 1 || got.Error != 3 {
			t.Errorf("got %+v", got)
		}
		if e := got.Results[4].Error; !strings.Contains(e, "body[4]") || !strings.Contains(e, "nobody") || strings.Contains(e, "httpapi") {
			t.Errorf("got error %q", e)
		}
	}
	// One broken line fails alone; a broken array cannot be divided.
	a.call("POST", path, "{\"contact_id\":\"a\"}\n{\n", "Content-Type", "application/x-ndjson").want(200, `"created":1`, `"error":1`)
	a.call("POST", path, `[{"contact_id":"a"},{`).problem(400)
	a.call("POST", path, `[]`).problem(400)
	a.call("POST", path, `[{}] x`).problem(400)
	a.call("POST", path+"?on_conflict=what", `[{}]`).problem(400)
	most := strings.Repeat(",{\"contact_id\":\"new\"}", 10_000)
	a.call("POST", path+"?on_conflict=merge", "["+most[1:]+"]").want(200, `"merged":10000`)
	a.call("POST", path, "["+most[1:]+most[:22]+"]").problem(400)
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	body := `{"name":"x","type":"email"}`
	post := func(body, key string) store.Idempotency {
		a.call("POST", "/api/campaigns/templates", body, "Idempotency-Key", key).want(201, `"path_type":"structured"`)
		return *a.idem
	}
	same := func(a, b store.Idempotency) bool { return a.Key == b.Key && a.Request == b.Request }
	first := post(body, "k1")
	if first.Key != "k1" || first.Request == [32]byte{} || !same(post(body, "k1"), first) {
		t.Errorf("got %+v, want the same for the same request", first)
	}
	if same(post(`{"name":"y","type":"email"}`, "k1"), first) || !same(post(body, ""), store.Idempotency{}) {
		t.Error("another request has the same idempotency, or none has one")
	}
	a.call("POST", "/api/campaigns/templates", body, "Idempotency-Key", strings.Repeat("k", 256)).problem(400)
}

func TestPages(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	type page struct {
		Data       []struct{ ID string }
		NextCursor string `json:"next_cursor"`
	}
	first := decode[page](a.call("GET", "/api/campaigns/templates?limit=7", "").want(200))
	second := decode[page](a.call("GET", "/api/campaigns/templates?cursor="+first.NextCursor, "").want(200))
	if len(first.Data) != 1 || first.NextCursor == "" || first.NextCursor == "7" || second.NextCursor == first.NextCursor {
		t.Errorf("got %+v and %+v", first, second)
	}
}

func TestSuppressionsCSV(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	all := "email,reason,since\nada@example.com,complained,2026-11-24T10:00:00Z\nbob@example.com,manual,2026-11-24T10:00:00Z\n"
	for _, r := range []*answer{
		a.call("GET", "/api/suppressions?format=csv", ""), a.call("GET", "/api/suppressions", "", "Accept", "text/csv, */*"),
	} {
		if r.want(200).body != all || !strings.HasPrefix(r.header.Get("Content-Type"), "text/csv") {
			t.Errorf("got %v %s", r.header, r.body)
		}
	}
	if r := a.call("GET", "/api/suppressions?format=csv&limit=1", ""); strings.Contains(r.body, "bob") {
		t.Errorf("got %s", r.body)
	}
	a.call("GET", "/api/suppressions", "", "Accept", "*/*").want(200, `"next_cursor":"`, `"reason":"complained"`)
	for _, q := range []string{"limit=0", "since=x", "cursor=x", "more=1"} {
		a.call("GET", "/api/suppressions?format=csv&"+q, "").problem(400)
	}
	a.call("GET", "/api/suppressions?format=xml", "").problem(400)
	a.call("GET", "/api/suppressions/nobody", "").problem(400)
}

func TestShownOnce(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	r := a.call("POST", "/api/keys", `{"name":"CI","scopes":["events:write"],"expires_in_days":1}`).
		want(201, `"key":"thk_new"`, `"expires_at":"2026-11-25T10:00:00Z"`, `"revoked_at":null`)
	if r.header.Get("Location") != "/api/keys/"+someID {
		t.Errorf("got Location %q", r.header.Get("Location"))
	}
	a.call("POST", "/api/sources", `{"provider":"generic","name":"n"}`).want(201, `"url":"https://hooks`, `"secret":"whsec_made"`)
	a.call("GET", "/api/providers", "", "X-API-Key", "dlq:read").want(200, `"name":"postmark"`, `"setup":`, `"next_cursor":null`)
	if p := a.call("POST", "/api/keys", `{"name":"CI","scopes":["root"]}`).problem(400); !p.names("body.scopes[0]") {
		t.Errorf("got %+v", p)
	}
	if p := a.call("POST", "/api/sources", `{"provider":"nobody","name":"n"}`).problem(400); !p.names("body.provider") {
		t.Errorf("got %+v", p)
	}
}

func TestBulkReplayNeedsOne(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	for _, body := range []string{`{}`, `{"ids":[]}`, `{"ids":["x"]}`, `{"ids":["` + someID + `"],"filter":{}}`, `{"filter":{"event_type":"x"}}`} {
		a.call("POST", "/api/admin/dlq/replay", body).problem(400)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	for status, code := range map[string]int{"healthy": 200, "degraded": 200, "unhealthy": 503} {
		a := newAPI(t, func(s *httpapi.Services, _ *httpapi.Options) {
			s.Health = fakeHealth{status: status, ready: status == "healthy"}
		})
		a.call("GET", "/health", "", "X-API-Key", "").want(code, fmt.Sprintf(`"status":%q`, status), `"service":"sales-automation-api"`,
			`"version":"1.2.3"`, `"database":{"status":"up"}`, `"redis":{"status":"disabled"}`, `"queue":{"backend":"sql","status":"up"}`,
			`"timestamp":"2026-11-24T10:00:00Z"`)
		a.call("GET", "/livez", "", "X-API-Key", "").want(200, "ok")
		want := 503
		if status == "healthy" {
			want = 200
		}
		a.call("GET", "/readyz", "", "X-API-Key", "").want(want)
	}
	newAPI(t, nil).call("GET", "/metrics", "").problem(404)
}
