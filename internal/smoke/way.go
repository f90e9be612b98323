package smoke

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// made is what a run has made so far, by id; empty: not yet, or not any more.
type made struct {
	template, instance, source string
	active                     bool // the instance

	path, secret string // of the source's webhook
	event        string
	enrollment   string
}

type data[T any] struct {
	Data T `json:"data"`
}

type withID struct {
	ID string `json:"id"`
}

// runName names what a run makes. The chance part keeps two runs of one moment
// apart: the address follows from the name, and an address that two enrollments
// have is ambiguous.
func runName(at time.Time) string {
	return "smoke-" + at.UTC().Format("20060102T150405") + "-" + strings.ToLower(rand.Text()[:6])
}

// address is the run's contact. Nobody can have one in .invalid (RFC 2606).
func (r *run) address() string { return r.name + "@tallyhook.invalid" }

// way takes one event through everything, and stops at the first step that
// fails.
func (r *run) way(ctx context.Context) {
	for _, s := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"make a template", r.makeTemplate},
		{"make an instance", r.makeInstance},
		{"start the instance", r.startInstance},
		{"make a source", r.makeSource},
		{"send an early webhook", r.sendEarly},
		{"send it once more", r.sendAgain},
		{"find it waiting", r.findWaiting},
		{"enroll its contact", r.enroll},
		{"read the event back", r.readBack},
		{"read the performance", r.performance},
	} {
		if r.step(ctx, s.name, s.do) != nil {
			return
		}
	}
}

// tidy takes away what was made. The event, its enrollment and the completed
// instance stay: the API deletes none of them, and the account must not forget.
func (r *run) tidy(ctx context.Context) {
	if r.made.source != "" {
		_ = r.step(ctx, "delete the source", r.deleting("/api/sources/"+r.made.source)) // it was reported
	}
	if r.made.active {
		_ = r.step(ctx, "complete the instance", func(ctx context.Context) (string, error) {
			return "completed", r.client.call(ctx, http.MethodPatch, "/api/campaigns/instances/"+r.made.instance, map[string]string{"status": "completed"}, nil)
		})
	}
	if r.made.template != "" {
		_ = r.step(ctx, "delete the template", r.deleting("/api/campaigns/templates/"+r.made.template))
	}
}

func (r *run) deleting(path string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		return "deleted", r.client.call(ctx, http.MethodDelete, path, nil, nil)
	}
}

func (r *run) makeTemplate(ctx context.Context) (string, error) {
	var out data[withID]
	err := r.client.call(ctx, http.MethodPost, "/api/campaigns/templates", map[string]any{
		"name": r.name, "type": "email", "description": "Made by tallyhook smoke, and deleted by it.",
		"steps": []map[string]any{{"step_number": 1, "channel": "email", "subject": "Smoke"}},
	}, &out)
	r.made.template = out.Data.ID
	return r.name, err
}

func (r *run) makeInstance(ctx context.Context) (string, error) {
	var out data[withID]
	err := r.client.call(ctx, http.MethodPost, "/api/campaigns/instances",
		map[string]string{"template_id": r.made.template, "name": r.name}, &out)
	r.made.instance = out.Data.ID
	return out.Data.ID, err
}

func (r *run) startInstance(ctx context.Context) (string, error) {
	err := r.client.call(ctx, http.MethodPatch, "/api/campaigns/instances/"+r.made.instance, map[string]string{"status": "active"}, nil)
	r.made.active = err == nil
	return "active", err
}

func (r *run) makeSource(ctx context.Context) (string, error) {
	var out data[struct {
		ID      string `json:"id"`
		URL     string `json:"url"`
		Secret  string `json:"secret"`
		Warning string `json:"warning"`
	}]
	if err := r.client.call(ctx, http.MethodPost, "/api/sources", map[string]string{"provider": "generic", "name": r.name}, &out); err != nil {
		return "", err
	}
	r.made.source, r.made.secret = out.Data.ID, out.Data.Secret
	public, token, ok := strings.Cut(out.Data.URL, "/webhooks/")
	if !ok || token == "" {
		return "", errors.New("the answer has no webhook URL")
	}
	// The token is asked for where the run speaks to: the public address may
	// not be reachable from here.
	r.made.path = "/webhooks/" + token
	detail := "vendors are given " + public
	if out.Data.Warning != "" {
		detail += "; warning: " + out.Data.Warning
	}
	return detail, nil
}

// counts are the outcomes of one webhook's events.
type counts struct {
	Received  int `json:"received"`
	Applied   int `json:"applied"`
	Duplicate int `json:"duplicate"`
	Orphaned  int `json:"orphaned"`
	Dead      int `json:"dead"`
	Spooled   int `json:"spooled"`
}

// send sends the run's one event as its vendor would.
func (r *run) send(ctx context.Context) (counts, error) {
	body, err := json.Marshal(map[string]string{
		"event_type": "delivered", "channel": "email", "email": r.address(), "provider_event_id": r.name,
		"timestamp": r.began.UTC().Format(time.RFC3339),
	}, json.Deterministic(true))
	if err != nil {
		return counts{}, err
	}
	headers, err := sign(r.made.secret, "msg_"+r.name, time.Now(), body)
	if err != nil {
		return counts{}, err
	}
	a, err := r.client.do(ctx, http.MethodPost, r.client.url+r.made.path, body, headers)
	if err != nil {
		return counts{}, err
	}
	if a.status != http.StatusOK {
		return counts{}, a.refused()
	}
	var out data[counts]
	err = a.read(&out)
	if err == nil && out.Data.Spooled > 0 {
		err = errors.New("accepted into the spool: the database is away; it is stored when that is back, so the source stays needed until then")
	}
	return out.Data, err
}

func (r *run) sendEarly(ctx context.Context) (string, error) {
	c, err := r.send(ctx)
	if err == nil && (c.Received != 1 || c.Orphaned != 1) {
		err = fmt.Errorf("want it to wait for its enrollment, got %+v", c)
	}
	return "signed, accepted, and waits for its enrollment", err
}

func (r *run) sendAgain(ctx context.Context) (string, error) {
	c, err := r.send(ctx)
	if err == nil && (c.Received != 1 || c.Duplicate != 1) {
		err = fmt.Errorf("want a duplicate, got %+v", c)
	}
	return "known as a duplicate", err
}

// eventView is what is read of an event.
type eventView struct {
	ID           string `json:"id"`
	State        string `json:"state"`
	EnrollmentID string `json:"enrollment_id"`
	Duplicates   int    `json:"duplicates"`
	Timeline     []struct {
		What string `json:"what"`
	} `json:"timeline"`
}

func (r *run) findWaiting(ctx context.Context) (string, error) {
	var out data[[]eventView]
	if err := r.client.call(ctx, http.MethodGet, "/api/events?source_id="+url.QueryEscape(r.made.source), nil, &out); err != nil {
		return "", err
	}
	if len(out.Data) != 1 || out.Data[0].State != "orphaned" {
		return "", fmt.Errorf("want one event that is orphaned, got %+v", out.Data)
	}
	r.made.event = out.Data[0].ID
	return r.made.event, nil
}

func (r *run) enroll(ctx context.Context) (string, error) {
	var out data[struct {
		ID      string `json:"id"`
		Adopted int    `json:"adopted"`
	}]
	err := r.client.call(ctx, http.MethodPost, "/api/campaigns/instances/"+r.made.instance+"/enrollments",
		map[string]string{"email": r.address()}, &out)
	if err == nil && out.Data.Adopted != 1 {
		err = fmt.Errorf("want the waiting event adopted, got %d adopted", out.Data.Adopted)
	}
	r.made.enrollment = out.Data.ID
	return "the waiting event is adopted", err
}

func (r *run) readBack(ctx context.Context) (string, error) {
	var out data[eventView]
	if err := r.client.call(ctx, http.MethodGet, "/api/events/"+r.made.event, nil, &out); err != nil {
		return "", err
	}
	var told []string
	for _, t := range out.Data.Timeline {
		told = append(told, t.What)
	}
	e, timeline := out.Data, strings.Join(told, ", ")
	if e.State != "applied" || e.EnrollmentID != r.made.enrollment || e.Duplicates != 1 {
		return "", fmt.Errorf("want it applied to enrollment %s with 1 duplicate, got %s to %q with %d", r.made.enrollment, e.State, e.EnrollmentID, e.Duplicates)
	}
	for _, want := range []string{"received", "parked", "adopted"} {
		if !slices.Contains(told, want) {
			return "", fmt.Errorf("applied, but its timeline does not tell that it was %s: %s", want, timeline)
		}
	}
	return "applied; " + timeline, nil
}

func (r *run) performance(ctx context.Context) (string, error) {
	var out data[struct {
		Totals  map[string]int64 `json:"totals"`
		Uniques map[string]int64 `json:"uniques"`
	}]
	err := r.client.call(ctx, http.MethodGet, "/api/campaigns/instances/"+r.made.instance+"/performance", nil, &out)
	if err == nil && (out.Data.Totals["delivered"] != 1 || out.Data.Uniques["delivered"] != 1) {
		err = fmt.Errorf("want 1 delivered, once, got totals %v, uniques %v", out.Data.Totals, out.Data.Uniques)
	}
	return "1 delivered, counted once", err
}
