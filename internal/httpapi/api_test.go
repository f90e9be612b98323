package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/httpapi"
	"tallyhook/internal/ingest"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
)

const (
	adminKey = "thk_admin"
	someID   = "0199a1c0-7c1e-7d3a-9d4e-2f6b1c8a0e11"
)

func now() time.Time { return time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC) }

// The fakes below stand for the inside where only the mapping at the edge is
// looked at. A method that a test does not expect panics, which is a 500.

// Lower-case names for embedding: some interfaces are called like their methods.
type (
	anyEnrollments  = interface{ httpapi.Enrollments }
	anyEvents       = interface{ httpapi.Events }
	anySuppressions = interface{ httpapi.Suppressions }
)

type fakeAccess struct{ httpapi.Access }

func (fakeAccess) KnownKey(key string) bool {
	return key == adminKey || slices.Contains(access.Scopes(), key)
}

func (fakeAccess) KnownSource(id uuid.UUID) bool { return id == uuid.MustParse(someID) }

// Authenticate knows the admin's key, and keys that are named after one scope.
func (fakeAccess) Authenticate(_ context.Context, key string) (access.Principal, error) {
	p := access.Principal{Tenant: store.DefaultTenant, KeyID: uuid.MustParse(someID)}
	if key == adminKey {
		p.Scopes = []string{access.ScopeAdmin}
		return p, nil
	}
	if slices.Contains(access.Scopes(), key) {
		p.Scopes = []string{key}
		return p, nil
	}
	return access.Principal{}, fault.New(fault.Unauthenticated, "")
}

func (fakeAccess) CreateKey(_ context.Context, _ access.Principal, name string, scopes []string, expires time.Time) (store.Key, string, error) {
	return store.Key{ID: uuid.MustParse(someID), Name: name, Scopes: scopes, ExpiresAt: expires, CreatedAt: now()}, "thk_new", nil
}

func (fakeAccess) CreateSource(_ context.Context, _ access.Principal, in access.SourceInput) (access.CreatedSource, error) {
	c := access.CreatedSource{URL: "https://hooks.example.com/webhooks/tok", Secret: "whsec_made"}
	c.Source = store.Source{ID: uuid.MustParse(someID), Provider: in.Provider, Name: in.Name}
	return c, nil
}

type fakeCampaigns struct {
	httpapi.Campaigns
	template func() (campaign.Template, error)
	idem     *store.Idempotency
}

func (f fakeCampaigns) Template(context.Context, int64, uuid.UUID) (campaign.Template, error) {
	return f.template()
}

func (f fakeCampaigns) CreateTemplate(_ context.Context, t campaign.Template, idem store.Idempotency) (campaign.Template, error) {
	t.ID = uuid.MustParse(someID)
	*f.idem = idem
	return t, nil
}

func (f fakeCampaigns) Templates(_ context.Context, _ int64, p store.Page) ([]campaign.Template, int64, error) {
	return []campaign.Template{{ID: uuid.MustParse(someID)}}, p.After + int64(p.Limit), nil
}

func (fakeCampaigns) Instance(context.Context, int64, uuid.UUID) (campaign.Instance, error) {
	return campaign.Instance{ID: uuid.MustParse(someID), Status: campaign.Active}, nil
}

type fakeEnrollments struct {
	anyEnrollments
	status func() campaign.Status
	enroll func(in []campaign.Enrollment, merge bool) []store.Enrolled
}

func (f fakeEnrollments) Enrollment(_ context.Context, tenant int64, id uuid.UUID) (campaign.Enrollment, error) {
	return campaign.Enrollment{ID: id, Tenant: tenant, Email: "ada@example.com", Status: f.status()}, nil
}

func (f fakeEnrollments) Enroll(
	_ context.Context, _ int64, _ uuid.UUID, in []campaign.Enrollment, merge bool, _ store.Idempotency,
) ([]store.Enrolled, error) {
	return f.enroll(in, merge), nil
}

type fakeEvents struct{ anyEvents }

func (fakeEvents) Event(_ context.Context, _ int64, id uuid.UUID) (store.Record, error) {
	r := store.Record{State: event.Orphaned, Reason: store.ReasonNoEnrollment, Detail: "nobody owns it", Duplicates: 2}
	r.ID, r.Provider, r.Type, r.Channel, r.Machine = id, "postmark", event.Opened, event.Email, event.MachineNo
	r.OccurredAt, r.ReceivedAt, r.Payload = now(), now(), []byte(`{"a":1}`)
	return r, nil
}

func (fakeEvents) Timeline(context.Context, int64, uuid.UUID) ([]store.Moment, error) {
	return []store.Moment{{At: now(), What: "received"}, {At: now(), What: "parked", Detail: "no enrollment"}}, nil
}

type fakeAcceptor struct {
	mu     sync.Mutex
	got    []event.Event
	answer func(e event.Event) store.Result
	err    error
}

func (f *fakeAcceptor) Accept(_ context.Context, events []event.Event) ([]store.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, events...)
	results := make([]store.Result, len(events))
	for i, e := range events {
		results[i] = f.answer(e)
	}
	return results, f.err
}

type fakeReceiver struct {
	receipt ingest.Receipt
	err     error
	opened  access.Opened
	req     *provider.Request
}

func (f fakeReceiver) Receive(_ context.Context, _ string, req provider.Request) (ingest.Receipt, error) {
	*f.req = req
	return f.receipt, f.err
}

func (f fakeReceiver) SignedBy(context.Context, uuid.UUID, provider.Request) (access.Opened, error) {
	return f.opened, f.err
}

func (fakeReceiver) Try(context.Context, uuid.UUID, string) (ingest.Trial, error) {
	return ingest.Trial{}, nil
}

type fakeSuppressions struct{ anySuppressions }

func (fakeSuppressions) Suppressions(_ context.Context, _ int64, _ time.Time, p store.Page) ([]campaign.Suppression, int64, error) {
	if p.After == 0 {
		return []campaign.Suppression{{Email: "ada@example.com", ComplainedAt: now()}}, 7, nil
	}
	return []campaign.Suppression{{Email: "bob@example.com", ManualAt: now()}}, 0, nil
}

type fakeHealth struct {
	status string
	ready  bool
}

func (f fakeHealth) Health(context.Context) httpapi.HealthReport {
	return httpapi.HealthReport{
		Status: f.status, Version: "1.2.3", Components: map[string]map[string]any{"database": {"status": "up"}, "queue": {"status": "up", "backend": "sql"}},
	}
}
func (f fakeHealth) Ready() bool { return f.ready }

// api is the edge over fakes.
type api struct {
	t        testing.TB
	handler  http.Handler
	log      *bytes.Buffer
	acceptor *fakeAcceptor
	idem     *store.Idempotency
	request  *provider.Request
}

// newAPI builds it; change, when not nil, replaces some of the fakes.
func newAPI(t testing.TB, change func(*httpapi.Services, *httpapi.Options)) *api {
	t.Helper()
	a := &api{t: t, log: &bytes.Buffer{}, idem: &store.Idempotency{}, request: &provider.Request{}}
	a.acceptor = &fakeAcceptor{answer: func(e event.Event) store.Result {
		return store.Result{ID: e.ID, Outcome: event.OutcomeApplied, State: event.Applied}
	}}
	active := func() campaign.Status { return campaign.StatusActive }
	s := httpapi.Services{
		Campaigns: fakeCampaigns{idem: a.idem}, Enrollments: fakeEnrollments{status: active}, Events: fakeEvents{}, Acceptor: a.acceptor,
		Receiver: fakeReceiver{req: a.request}, Suppressions: fakeSuppressions{}, Access: fakeAccess{},
		Health: fakeHealth{status: "healthy", ready: true},
	}
	o := httpapi.Options{
		PublicURL: "https://hooks.example.com/", Version: "test", Now: now,
		Logger: slog.New(slog.NewJSONHandler(&lockedWriter{w: a.log}, nil)),
	}
	if change != nil {
		change(&s, &o)
	}
	h, err := httpapi.New(s, o)
	if err != nil {
		t.Fatal(err)
	}
	a.handler = h
	return a
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// call sends a request with the admin's key; headers are name, value pairs. A
// body goes as JSON unless a Content-Type is given.
func (a *api) call(method, target, body string, headers ...string) *answer {
	a.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req := httptest.NewRequestWithContext(a.t.Context(), method, target, r)
	req.Header.Set("X-API-Key", adminKey)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	return a.do(req)
}

func (a *api) do(req *http.Request) *answer {
	a.t.Helper()
	w := httptest.NewRecorder()
	a.handler.ServeHTTP(w, req)
	return &answer{t: a.t, what: req.Method + " " + req.URL.Path, code: w.Code, header: w.Header(), body: w.Body.String()}
}

type answer struct {
	t      testing.TB
	what   string
	code   int
	header http.Header
	body   string
}

// want checks the status and that the body holds every given text.
func (r *answer) want(status int, texts ...string) *answer {
	r.t.Helper()
	if r.code != status {
		r.t.Errorf("%s: got status %d, want %d; body %s", r.what, r.code, status, r.body)
	}
	for _, text := range texts {
		if !strings.Contains(r.body, text) {
			r.t.Errorf("%s: the body lacks %q: %s", r.what, text, r.body)
		}
	}
	return r
}

type problem struct {
	Type, Title, Detail string
	Status              int
	RequestID           string `json:"request_id"`
	Errors              []struct {
		Location, Message string
		Value             any
	}
}

// problem checks that the answer is one, whole, and gives it.
func (r *answer) problem(status int) problem {
	r.t.Helper()
	r.want(status)
	if ct := r.header.Get("Content-Type"); ct != "application/problem+json" {
		r.t.Errorf("%s: got content type %q, want application/problem+json", r.what, ct)
	}
	var p problem
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		r.t.Fatalf("%s: %v: %s", r.what, err, r.body)
	}
	if p.Type == "" || p.Title == "" || p.Status != status || p.Detail == "" || p.RequestID != r.header.Get("X-Request-ID") {
		r.t.Errorf("%s: an incomplete problem: %s", r.what, r.body)
	}
	return p
}

// names tells whether the problem names a location.
func (p problem) names(location string) bool {
	for _, e := range p.Errors {
		if e.Location == location {
			return true
		}
	}
	return false
}

func decode[T any](r *answer) T {
	r.t.Helper()
	var v T
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		r.t.Fatalf("%s: %v: %s", r.what, err, r.body)
	}
	return v
}

// concrete fills the parameters of a path.
func concrete(path string) string {
	return strings.NewReplacer("{id}", someID, "{email}", "ada@example.com", "{token}", "sometoken").Replace(path)
}
