package app_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/provider"
	"tallyhook/internal/testenv"
)

// TestRotation is the story of a vendor's settings that are changed while it
// goes on sending, for each provider: both secrets and both URLs are taken until
// the grace time ends.
func TestRotation(t *testing.T) {
	t.Parallel()
	cloud := newAWS(t)
	server := testenv.Start(t, testenv.Options{Env: append(cloud.env(), "LOG_LEVEL=error")})
	c := server.Client("")
	n := 0
	for name, v := range vendors(cloud) {
		s := &rotationStory{providerStory{t, c, v, name, v.source(c, name), server.URL, "", "", ""}, &n}
		s.secrets()
		s.urls()
	}
	balanced(t, c)
}

type rotationStory struct {
	providerStory
	count *int
}

// wants sends another webhook, signed with a secret, and wants that status.
func (s *rotationStory) wants(status int, when, secret string) {
	s.Helper()
	if got := s.try(secret); got != status {
		s.Errorf("%s, %s: status %d, want %d", s.name, when, got, status)
	}
}

func (s *rotationStory) try(secret string) int {
	s.Helper()
	*s.count++
	s.n = fmt.Sprint(*s.count)
	return s.send(ids{email: s.address()}, secret).Status
}

func (s *rotationStory) rotate(want int, what string, body map[string]any) testenv.Answer {
	s.Helper()
	return s.c.Post(want, "/api/sources/"+s.source.ID+"/rotate-"+what, body)
}

func (s *rotationStory) secrets() {
	s.Helper()
	first := s.source.Secret
	if first == "" {
		s.rotate(http.StatusConflict, "secret", map[string]any{"secret": "x"})
		return
	}
	second := wrongSecret(s.name)
	given := second
	if s.name == "sendgrid" {
		given = sendgridPublic(second)
	}
	if s.name != "generic" && s.name != "calendly" {
		a := s.rotate(http.StatusBadRequest, "secret", map[string]any{"grace": "1h"})
		if got := a.At("errors.0.location").Text(); got != "body.secret" {
			s.Errorf("%s, without a secret: %s", s.name, a.Body)
		}
	}
	a := s.rotate(http.StatusOK, "secret", map[string]any{"grace": "24h", "secret": given})
	if strings.Contains(string(a.Body), given) || a.At("data.url").Text() != "" {
		s.Errorf("%s: a secret that was given is shown: %s", s.name, a.Body)
	}
	s.wants(http.StatusOK, "the former secret in its grace time", first)
	s.wants(http.StatusOK, "the new secret", second)
	a = s.rotate(http.StatusBadRequest, "secret", map[string]any{"grace": "0s", "secret": given})
	if got := a.At("errors.0.message").Text(); got != "is the present one" {
		s.Errorf("%s: %s", s.name, a.Body)
	}

	// Back to the first one, with no grace for the second.
	given = first
	s.rotate(http.StatusOK, "secret", map[string]any{"grace": "0s", "secret": given})
	s.wants(http.StatusOK, "the first secret again", first)
	s.wants(s.refusal(), "the second secret without grace", second)
}

// refusal is how a provider is told that its signature is wrong.
func (*rotationStory) refusal() int { return http.StatusUnauthorized }

func (s *rotationStory) urls() {
	s.Helper()
	former := s.source.Path
	a := s.rotate(http.StatusOK, "url", map[string]any{})
	ends, err := time.Parse(time.RFC3339Nano, a.At("data.former_ends_at").Text())
	if left := time.Until(ends); err != nil || left < 12*time.Hour || left > 24*time.Hour {
		s.Errorf("%s: without a grace: %s", s.name, a.Body)
	}
	_, token, _ := strings.Cut(a.At("data.url").Text(), "/webhooks/")
	current := "/webhooks/" + token
	for _, path := range []string{former, current} {
		s.source.Path = path
		s.wants(http.StatusOK, "in the grace time", s.source.Secret)
	}
	s.rotate(http.StatusOK, "url", map[string]any{"grace": "0s"})
	for _, path := range []string{former, current} {
		s.source.Path = path
		if got := s.try(s.source.Secret); got == http.StatusOK || (s.name == "lemlist" && got == http.StatusNotFound) {
			s.Errorf("%s: an ended URL is answered %d", s.name, got)
		}
	}
}

// TestRotationRunsOut: a grace time ends by itself, for a made secret and a URL.
func TestRotationRunsOut(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{Env: []string{"LOG_LEVEL=error"}})
	c := server.Client("")
	v := vendors(nil)["generic"]
	n := 0
	s := &rotationStory{providerStory{t, c, v, "generic", v.source(c, "generic"), server.URL, "", "", ""}, &n}
	first := s.source.Secret
	a := s.rotate(http.StatusOK, "secret", map[string]any{"grace": "1s"})
	second := a.At("data.secret").Text()
	if !strings.HasPrefix(second, "whsec_") || second == first {
		t.Fatalf("got %s", a.Body)
	}
	testenv.Eventually(t, time.Minute, "the former secret is refused", func() bool { return s.try(first) == http.StatusUnauthorized })
	s.wants(http.StatusOK, "the new secret", second)

	a = s.rotate(http.StatusOK, "url", map[string]any{"grace": "1s"})
	testenv.Eventually(t, time.Minute, "the former URL is refused", func() bool { return s.try(second) == http.StatusNotFound })
	_, token, _ := strings.Cut(a.At("data.url").Text(), "/webhooks/")
	s.source.Path = "/webhooks/" + token
	s.wants(http.StatusOK, "the new URL", second)

	for _, grace := range []string{"-1s", "721h", "a day", "30d"} {
		for _, what := range []string{"secret", "url"} {
			a := s.rotate(http.StatusBadRequest, what, map[string]any{"grace": grace})
			if got := a.At("errors.0.location").Text(); got != "body.grace" {
				t.Errorf("grace %q: %s", grace, a.Body)
			}
		}
	}
	c.Post(http.StatusNotFound, "/api/sources/01936000-0000-7000-8000-000000000001/rotate-url", map[string]any{})
	reader := server.Client(c.Post(http.StatusCreated, "/api/keys", map[string]any{"name": "r", "scopes": []string{"events:read"}}).At("data.key").Text())
	reader.Post(http.StatusForbidden, "/api/sources/"+s.source.ID+"/rotate-url", map[string]any{})
	reader.Do(http.StatusForbidden, http.MethodPost, "/api/sources/"+s.source.ID+"/test", nil)
}

// TestSourceTest: each source can be tried with a sample, which tells the truth
// and leaves no effect.
func TestSourceTest(t *testing.T) {
	t.Parallel()
	cloud := newAWS(t)
	server := testenv.Start(t, testenv.Options{Env: append(cloud.env(), "LOG_LEVEL=error")})
	c := server.Client("")
	for name, v := range vendors(cloud) {
		source := v.source(c, name)
		path := "/api/sources/" + source.ID
		for range 2 { // each sample is an event of its own
			a := c.Do(http.StatusOK, http.MethodPost, path+"/test", nil).At("data")
			signed := a.At("signed").Text() == "true"
			if a.At("outcome").Text() != "ignored" || a.At("status").Int() != 200 || signed != (name != "sendgrid" && name != "ses") {
				t.Errorf("%s: got %v", name, a)
			}
			if got := a.At("event_type").Text(); (got == "") != (name == "hubspot") {
				t.Errorf("%s: read as %q", name, got)
			}
			e := c.Get("/api/events/" + a.At("event_id").Text()).At("data")
			if e.At("state").Text() != "ignored" || e.At("event_type").Text() != "" || e.At("source_id").Text() != source.ID || e.At("duplicates").Int() != 0 {
				t.Errorf("%s: the event is %v", name, e)
			}
			if source.Secret != "" && strings.Contains(fmt.Sprint(e), source.Secret) {
				t.Errorf("%s: the secret is in the event", name)
			}
		}
		shown := c.Get(path).At("data")
		if shown.At("received").Int() != 2 || shown.At("rejected").Int() != 0 || shown.At("last_received_at").Text() == "" || shown.At("last_rejected_at").Text() != "" {
			t.Errorf("%s: the source is %v", name, shown)
		}
	}
	if rows := c.Rows("/api/suppressions"); len(rows) != 0 {
		t.Errorf("%d addresses are suppressed", len(rows))
	}

	// What would be refused is told, and is no rejection.
	for name, source := range map[string]map[string]any{
		"NoSecret": {"provider": "hubspot", "name": "s"},
		"NoKey":    {"provider": "sendgrid", "name": "s"},
		"TwoWays":  {"provider": "instantly", "name": "s", "secret": "x", "settings": map[string]any{"basic_auth": "a:b"}},
	} {
		path := "/api/sources/" + c.Post(http.StatusCreated, "/api/sources", source).At("data.id").Text()
		a := c.Do(http.StatusOK, http.MethodPost, path+"/test", nil)
		if a.At("data.outcome").Text() != "refused" || a.At("data.status").Int() != 401 || a.At("data.event_id").Text() != "" || a.At("data.detail").Text() == "" {
			t.Errorf("%s: %s", name, a.Body)
		}
		if got := c.Get(path).At("data.rejected").Int(); got != 0 {
			t.Errorf("%s: %d rejections", name, got)
		}
	}
	// A sender's public key signs nothing here.
	public := c.Post(http.StatusCreated, "/api/sources", map[string]any{
		"provider": "generic", "name": "s", "secret": "whpk_MCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
	})
	a := c.Do(http.StatusOK, http.MethodPost, "/api/sources/"+public.At("data.id").Text()+"/test", nil)
	if a.At("data.signed").Text() != "false" || a.At("data.outcome").Text() != "ignored" {
		t.Errorf("a public key: %s", a.Body)
	}
	balanced(t, c)
}

// TestRotatedWhileDatabaseIsAway: a replica that starts without the database
// takes both secrets and both URLs from its snapshot; what it does not know it
// refuses in the vendor's dialect, since the token says whose it is.
func TestRotatedWhileDatabaseIsAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	client := c.client(0)
	v := vendors(nil)["generic"]
	n := 0
	s := &rotationStory{providerStory{t, client, v, "generic", v.source(client, "generic"), c.replicas[0].url, "", "", ""}, &n}
	a := s.rotate(http.StatusOK, "secret", map[string]any{"grace": "720h"})
	secrets := []string{s.source.Secret, a.At("data.secret").Text()}
	_, token, _ := strings.Cut(s.rotate(http.StatusOK, "url", map[string]any{"grace": "720h"}).At("data.url").Text(), "/webhooks/")
	paths := []string{s.source.Path, "/webhooks/" + token}

	late := c.replicas[1]
	c.stop(late) // which writes its snapshot
	c.start(late)
	c.stop(late)
	dialect := map[string]int{"brevo": http.StatusTooManyRequests, "postmark": http.StatusServiceUnavailable}
	unknown := map[string]testenv.Source{}
	for name := range dialect {
		unknown[name] = vendors(nil)[name].source(client, name)
	}
	c.must(c.pg.Kill())
	c.start(late)
	away := testenv.NewClient(t, late.url, "")
	defer away.Close()
	s.c = away
	for _, path := range paths {
		for _, secret := range secrets {
			s.source.Path = path
			s.wants(http.StatusOK, "without the database", secret)
		}
	}
	s.wants(http.StatusUnauthorized, "without the database", wrongSecret("generic"))
	for name, status := range dialect {
		a := away.Do(status, http.MethodPost, unknown[name].Path, "{}")
		if a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After: %s", name, a.Body)
		}
	}
	c.pg.Restart(t)
	c.settled()
	c.balanced()
}

// TestProvidersAreListed: each provider says how it is set up, and has a page
// that says more, how it is tried and rotated too.
func TestProvidersAreListed(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{Env: []string{"LOG_LEVEL=error"}})
	rows := server.Client("").Get("/api/providers").At("data").List()
	if len(rows) != len(provider.All()) || len(rows) != 19 {
		t.Fatalf("%d providers are listed", len(rows))
	}
	for i, p := range provider.All() {
		row := rows[i]
		if row.At("name").Text() != p.Name || row.At("title").Text() != p.Title || row.At("scheme").Text() != p.Scheme ||
			row.At("setup").Text() != p.Setup || len(row.At("events").List()) != len(p.Events) {
			t.Errorf("%s: got %v", p.Name, row)
		}
		page, err := os.ReadFile(filepath.Join(testenv.Root(), "docs", "providers", p.Name+".md"))
		if err != nil {
			t.Error(err)
			continue
		}
		wants := []string{"# ", "## Set up", "\"provider\":\"" + p.Name + "\"", "## Test and rotate", "/test`", "/rotate-url`"}
		if p.Name != "ses" {
			wants = append(wants, "/rotate-secret`")
		}
		for _, want := range wants {
			if !strings.Contains(string(page), want) {
				t.Errorf("the page of %s does not say %q", p.Name, want)
			}
		}
	}
	server.Client("wrong").Do(http.StatusUnauthorized, http.MethodGet, "/api/providers", nil)
}

// TestSourceSettingsAreChecked: what could never be met is refused, by its name.
func TestSourceSettingsAreChecked(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{Env: []string{"LOG_LEVEL=error"}})
	c := server.Client("")
	made := c.Post(http.StatusCreated, "/api/sources", map[string]any{"provider": "postmark", "name": "s"}).At("data.id").Text()
	for name, tt := range map[string]struct{ settings, want string }{
		"BasicAuth":   {`{"basic_auth":"nobody"}`, "body.settings.basic_auth"},
		"Headers":     {`{"headers":{"a b":"c"}}`, "body.settings.headers"},
		"HeaderType":  {`{"headers":{"X-A":1}}`, "body.settings.headers"},
		"CIDRs":       {`{"allowed_cidrs":["10.0.0.0/33"]}`, "body.settings.allowed_cidrs"},
		"CIDRsType":   {`{"allowed_cidrs":"10.0.0.0/8"}`, "body.settings.allowed_cidrs"},
		"Topics":      {`{"topic_arns":["mail"]}`, "body.settings.topic_arns"},
		"Agents":      {`{"agents":{"1":{"event_type":"danced"}}}`, "body.settings.agents"},
		"AgentsEmpty": {`{"agents":{"1":{}}}`, "body.settings.agents"},
		"Streams":     {`{"accept":{"streams":[" a"]}}`, "body.settings.accept"},
		"Tags":        {`{"accept":{"tags":[""]}}`, "body.settings.accept"},
		"Campaigns":   {`{"accept":{"campaigns":["c"]}}`, "body.settings.accept"}, // Postmark tells none
		"AcceptOther": {`{"accept":{"colours":["red"]}}`, "body.settings.accept"},
		"OnUnmatched": {`{"on_unmatched":"drop"}`, "body.settings.on_unmatched"},
		"Unknown":     {`{"colour":"red"}`, "body.settings.colour"},
	} {
		for path, ask := range map[string]struct{ method, body string }{
			"/api/sources":         {http.MethodPost, `{"provider":"postmark","name":"s","settings":` + tt.settings + `}`},
			"/api/sources/" + made: {http.MethodPatch, `{"settings":` + tt.settings + `}`},
		} {
			a := c.Do(http.StatusBadRequest, ask.method, path, ask.body)
			if got := a.At("errors.0.location").Text(); !strings.HasPrefix(got, tt.want) || a.At("errors.0.message").Text() == "" {
				t.Errorf("%s, %s: %s", ask.method, name, a.Body)
			}
		}
	}
	settings := map[string]any{
		"basic_auth": "ada:a-password", "headers": map[string]string{"X-Team": "blue-value"}, "allowed_cidrs": []string{"10.0.0.0/8"},
		"topic_arns": []string{}, "agents": map[string]any{}, "accept": map[string]any{"streams": []string{"outreach"}}, "on_unmatched": "ignore",
	}
	c.Do(http.StatusOK, http.MethodPatch, "/api/sources/"+made, map[string]any{"settings": settings})
	for _, a := range []testenv.Answer{c.Get("/api/sources/" + made), c.Get("/api/sources")} {
		if text := string(a.Body); strings.Contains(text, "a-password") || strings.Contains(text, "blue-value") || !strings.Contains(text, "outreach") {
			t.Errorf("got %s", text)
		}
	}
	c.Do(http.StatusNoContent, http.MethodDelete, "/api/sources/"+made, nil)
	c.Do(http.StatusNotFound, http.MethodGet, "/api/sources/"+made, nil)
	c.Do(http.StatusNotFound, http.MethodPost, "/api/sources/"+made+"/test", nil)
}

// TestRejectionsAreShown: a source shows its refused requests, by the names of
// their headers, and what it has taken.
func TestRejectionsAreShown(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{Env: []string{"LOG_LEVEL=error"}})
	c := server.Client("")
	v := vendors(nil)["hubspot"]
	n := 0
	s := &rotationStory{providerStory{t, c, v, "hubspot", v.source(c, "hubspot"), server.URL, "", "", ""}, &n}
	path := "/api/sources/" + s.source.ID
	if a := c.Get(path).At("data"); a.At("received").Int() != 0 || a.At("rejected").Int() != 0 || a.At("last_received_at").Text() != "" || a.At("last_rejected_at").Text() != "" {
		t.Errorf("a new source is %v", a)
	}
	s.wants(http.StatusOK, "the right secret", s.source.Secret)
	const refused = 60
	for range refused {
		s.wants(http.StatusUnauthorized, "the wrong secret", wrongSecret("hubspot"))
	}
	for _, a := range []testenv.Value{c.Get(path).At("data"), c.Get("/api/sources").At("data.0")} {
		if a.At("received").Int() != 1 || a.At("rejected").Int() != refused || a.At("last_received_at").Text() == "" || a.At("last_rejected_at").Text() == "" {
			t.Errorf("the source is %v", a)
		}
	}
	rows := c.Get(path + "/rejections").At("data").List()
	if len(rows) != 50 { // they are bounded
		t.Fatalf("%d rejections are kept", len(rows))
	}
	last := rows[0]
	text := fmt.Sprint(last)
	if last.At("status").Int() != 401 || last.At("reason").Text() == "" || last.At("at").Text() == "" || !strings.Contains(text, "X-Hubspot-Signature-V3") {
		t.Errorf("got %v", last)
	}
	if strings.Contains(text, "application/json") { // a header's value
		t.Errorf("a header's value is kept: %v", last)
	}
}
