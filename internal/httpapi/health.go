package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// component is the state of one part: its status and whatever else it tells.
type component map[string]any

// Schema names the one member that every component has.
func (component) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type:                 huma.TypeObject,
		Properties:           map[string]*huma.Schema{"status": {Type: huma.TypeString, Enum: []any{"up", "down", "disabled", "degraded"}}},
		Required:             []string{"status"},
		AdditionalProperties: true,
	}
}

type healthView struct {
	Status     string         `json:"status" enum:"healthy,degraded,unhealthy"`
	Service    string         `json:"service" example:"sales-automation-api"`
	Version    string         `json:"version"`
	Components componentsView `json:"components"`
	Timestamp  time.Time      `json:"timestamp"`
}

type componentsView struct {
	Database component `json:"database"`
	Redis    component `json:"redis"`
	Queue    component `json:"queue"`
}

type healthOutput struct {
	Status int
	Body   healthView
}

func (s *server) health(ctx context.Context, _ *struct{}) (*healthOutput, error) {
	h := s.Health.Health(ctx)
	part := func(name, missing string) component {
		if c := h.Components[name]; c != nil && c["status"] != nil {
			return c
		}
		return component{"status": missing}
	}
	out := &healthOutput{Status: http.StatusOK, Body: healthView{
		Status: h.Status, Service: "sales-automation-api", Version: h.Version,
		Components: componentsView{part("database", "down"), part("redis", "disabled"), part("queue", "down")},
		Timestamp:  s.clock(),
	}}
	if out.Body.Version == "" {
		out.Body.Version = s.opt.Version
	}
	if h.Status == "unhealthy" {
		out.Status = http.StatusServiceUnavailable
	}
	return out, nil
}

func (s *server) livez(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok") }

func (s *server) readyz(w http.ResponseWriter, _ *http.Request) {
	if !s.Health.Ready() {
		w.Header().Set("Retry-After", "5")
		text(w, http.StatusServiceUnavailable, "not ready")
		return
	}
	text(w, http.StatusOK, "ready")
}

func (s *server) metrics(w http.ResponseWriter, r *http.Request) { s.MetricsHandler.ServeHTTP(w, r) }
