package testenv

import (
	"net/http"
	"strings"
)

// Source is a source as it was made.
type Source struct {
	ID     string
	Path   string // of its webhook: /webhooks/{token}
	Secret string
}

// NewSource makes a source; secret may be empty.
func (c *Client) NewSource(provider, secret string) Source {
	c.tb.Helper()
	body := map[string]any{"provider": provider, "name": provider}
	if secret != "" {
		body["secret"] = secret
	}
	a := c.Post(http.StatusCreated, "/api/sources", body)
	s := Source{ID: a.At("data.id").Text(), Secret: a.At("data.secret").Text()}
	if s.Secret == "" {
		s.Secret = secret
	}
	_, token, ok := strings.Cut(a.At("data.url").Text(), "/webhooks/")
	if !ok {
		c.tb.Fatalf("the source has no webhook URL: %s", a.Body)
	}
	s.Path = "/webhooks/" + token
	return s
}

// NewInstance makes a template and an active instance of it, and gives the
// instance's id. providerCampaigns may be nil.
func (c *Client) NewInstance(name string, providerCampaigns map[string]string) string {
	c.tb.Helper()
	template := c.Post(http.StatusCreated, "/api/campaigns/templates", map[string]any{
		"name": name, "type": "email", "steps": []any{map[string]any{"step_number": 1, "channel": "email", "subject": "Hello"}},
	}).At("data.id").Text()
	body := map[string]any{"template_id": template, "name": name}
	if providerCampaigns != nil {
		body["provider_campaigns"] = providerCampaigns
	}
	id := c.Post(http.StatusCreated, "/api/campaigns/instances", body).At("data.id").Text()
	c.Do(http.StatusOK, http.MethodPatch, "/api/campaigns/instances/"+id, map[string]any{"status": "active"})
	return id
}

// NewKey makes an API key with scopes and gives its id and the key.
func (c *Client) NewKey(name string, scopes ...string) (id, key string) {
	c.tb.Helper()
	a := c.Post(http.StatusCreated, "/api/keys", map[string]any{"name": name, "scopes": scopes})
	return a.At("data.id").Text(), a.At("data.key").Text()
}
