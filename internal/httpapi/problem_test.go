package httpapi_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/campaign"
	"tallyhook/internal/fault"
	"tallyhook/internal/httpapi"
)

func failing(err error) func(*httpapi.Services, *httpapi.Options) {
	return func(s *httpapi.Services, _ *httpapi.Options) {
		s.Campaigns = fakeCampaigns{template: func() (campaign.Template, error) { return campaign.Template{}, err }}
	}
}

func TestProblemOfEachKind(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err    error
		status int
		detail string
	}{
		"Internal":        {fault.New(fault.Internal, "SELECT secret FROM t"), 500, "something went wrong on our side"},
		"Bare":            {errors.New("SELECT secret FROM t"), 500, "something went wrong on our side"},
		"Invalid":         {fault.New(fault.Invalid, "the shape is wrong"), 400, "the shape is wrong"},
		"Unauthenticated": {fault.New(fault.Unauthenticated, "who are you"), 401, "who are you"},
		"Forbidden":       {fault.New(fault.Forbidden, "not yours"), 403, "not yours"},
		"NotFound":        {fault.New(fault.NotFound, "no template"), 404, "no template"},
		"Conflict":        {fault.New(fault.Conflict, "allowed: active"), 409, "allowed: active"},
		"TooLarge":        {fault.New(fault.TooLarge, ""), 413, "too large"},
		"Unsupported":     {fault.New(fault.Unsupported, ""), 415, "content type"},
		"Throttled":       {fault.New(fault.Throttled, ""), 429, "too many"},
		"Unavailable":     {fault.Wrap(fault.Unavailable, "read", errors.New("dial tcp 10.0.0.1")), 503, "temporarily"},
		"Deadline":        {context.DeadlineExceeded, 503, "temporarily"},
		"Data":            {fault.New(fault.Data, "SELECT secret FROM t"), 400, "cannot be stored"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newAPI(t, failing(c.err)).call("GET", "/api/campaigns/templates/"+someID, "")
			p := r.problem(c.status)
			if !strings.Contains(p.Detail, c.detail) {
				t.Errorf("got detail %q, want it to hold %q", p.Detail, c.detail)
			}
			for _, inner := range []string{"SELECT", "dial tcp"} {
				if strings.Contains(r.body, inner) {
					t.Errorf("the answer shows the inside: %s", r.body)
				}
			}
			if retry := r.header.Get("Retry-After"); (retry != "") != (c.status == 429 || c.status == 503) {
				t.Errorf("got Retry-After %q with status %d", retry, c.status)
			}
			if (r.header.Get("WWW-Authenticate") != "") != (c.status == 401) {
				t.Errorf("got WWW-Authenticate %q with status %d", r.header.Get("WWW-Authenticate"), c.status)
			}
		})
	}
}

func TestProblemKeepsSecrets(t *testing.T) {
	t.Parallel()
	err := fault.BadInput(
		fault.Field{Location: "body.secret", Message: "is too short", Value: "hunter2"},
		fault.Field{Location: "body.settings.basic_auth", Message: "has no colon", Value: "hunter2"},
		fault.Field{Location: "body.settings.headers.X", Message: "is wrong", Value: "hunter2"},
		fault.Field{Location: "body.name", Message: "is taken", Value: "shown"},
	)
	r := newAPI(t, failing(err)).call("GET", "/api/campaigns/templates/"+someID, "")
	p := r.problem(400)
	if len(p.Errors) != 4 || p.Errors[3].Value != "shown" || strings.Contains(r.body, "hunter2") {
		t.Errorf("got %s", r.body)
	}
	// huma's own findings neither.
	r = newAPI(t, nil).call("POST", "/api/sources", `{"provider":"generic","secret":["hunter2"],"settings":{"headers":{"X":["hunter2"]}}}`)
	p = r.problem(400)
	if !p.names("body.secret") || !p.names("body.name") || strings.Contains(r.body, "hunter2") {
		t.Errorf("got %s", r.body)
	}
}

func TestRetryAfterIsTheErrors(t *testing.T) {
	t.Parallel()
	err := &fault.Error{Kind: fault.Unavailable, RetryAfter: 1500 * time.Millisecond}
	r := newAPI(t, failing(err)).call("GET", "/api/campaigns/templates/"+someID, "")
	if got := r.header.Get("Retry-After"); got != "2" {
		t.Errorf("got Retry-After %q, want 2", got)
	}
}

func TestPanicIsOneLineAnd500(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(s *httpapi.Services, _ *httpapi.Options) {
		s.Campaigns = fakeCampaigns{template: func() (campaign.Template, error) { panic("the inside") }}
	})
	r := a.call("GET", "/api/campaigns/templates/"+someID, "")
	r.problem(500)
	if strings.Contains(r.body, "inside") {
		t.Errorf("the answer shows the panic: %s", r.body)
	}
	if n := strings.Count(a.log.String(), `"msg":"panic"`); n != 1 {
		t.Errorf("got %d lines of the panic, want 1: %s", n, a.log)
	}
	if strings.Contains(a.log.String(), "the inside") {
		t.Errorf("the log tells what a handler panicked with: %s", a.log)
	}
}

// TestServerLivesAfterAPanic: over a socket, with the same connection.
func TestServerLivesAfterAPanic(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(s *httpapi.Services, _ *httpapi.Options) {
		s.Campaigns = fakeCampaigns{template: func() (campaign.Template, error) { panic("the inside") }}
	})
	srv := httptest.NewServer(a.handler)
	t.Cleanup(srv.Close)
	for range 3 {
		for path, want := range map[string]int{"/api/campaigns/templates/" + someID: 500, "/livez": 200} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-API-Key", adminKey)
			resp, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
			if resp.StatusCode != want || resp.Header.Get("X-Request-ID") == "" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: got %d %v, want %d with its headers", path, resp.StatusCode, resp.Header, want)
			}
		}
	}
	if n := strings.Count(a.log.String(), `"msg":"panic"`); n != 3 {
		t.Errorf("got %d lines of 3 panics", n)
	}
}
