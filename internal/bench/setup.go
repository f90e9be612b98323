package bench

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Target is the server that is measured.
type Target struct {
	URL string
	Key string // an admin key
	PID int    // 0: the server's processor time and memory are not read
}

// api speaks to a server as a client does.
type api struct {
	target Target
	http   http.Client
}

func newAPI(t Target) *api {
	t.URL = strings.TrimRight(t.URL, "/")
	return &api{target: t, http: http.Client{Timeout: 2 * answerTimeout, Transport: &http.Transport{DisableCompression: true}}}
}

func (a *api) close() { a.http.CloseIdleConnections() }

// call sends in as JSON and reads the data of the answer into out.
func (a *api) call(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	_, err = a.send(ctx, method, path, body, out)
	return err
}

// send sends a body and tells how long the answer took to arrive whole.
func (a *api) send(ctx context.Context, method, path string, body []byte, out any) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.target.URL+path, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-API-Key", a.target.Key)
	start := time.Now()
	resp, err := a.http.Do(req)
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	took := time.Since(start)
	if err != nil {
		return took, fmt.Errorf("%s %s: read answer: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return took, fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, answer)
	}
	if out == nil {
		return took, nil
	}
	envelope := struct {
		Data any `json:"data"`
	}{out}
	if err := json.Unmarshal(answer, &envelope); err != nil {
		return took, fmt.Errorf("%s %s: read answer: %w", method, path, err)
	}
	return took, nil
}

// received is how many events the server says it has taken in since its start.
func (a *api) received(ctx context.Context) (uint64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.target.URL+"/metrics", nil)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	var sum float64
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "tallyhook_events_received_total{") {
			f := strings.Fields(line)
			v, err := strconv.ParseFloat(f[len(f)-1], 64)
			if err != nil {
				return 0, fmt.Errorf("read metrics: %w", err)
			}
			sum += v
		}
	}
	return uint64(sum), nil
}

type ref struct {
	Provider string `json:"provider"`
	Kind     string `json:"kind"`
	Value    string `json:"value"`
}

type contact struct {
	Email string `json:"email"`
	Refs  []ref  `json:"refs,omitempty"`
}

type identified struct {
	ID string `json:"id"`
}

// instance makes an active campaign instance of the run.
func (a *api) instance(ctx context.Context, name string) (string, error) {
	var template, instance identified
	err := a.call(ctx, http.MethodPost, "/api/campaigns/templates", map[string]any{
		"name": name, "type": "email",
		"steps": []map[string]any{
			{"step_number": 1, "channel": "email", "subject": "Hello"},
			{"step_number": 2, "channel": "email", "subject": "Once more"},
		},
	}, &template)
	if err != nil {
		return "", err
	}
	err = a.call(ctx, http.MethodPost, "/api/campaigns/instances", map[string]string{"template_id": template.ID, "name": name}, &instance)
	if err != nil {
		return "", err
	}
	return instance.ID, a.call(ctx, http.MethodPatch, "/api/campaigns/instances/"+instance.ID, map[string]string{"status": "active"}, nil)
}

// enroll makes the enrollments of the mix.
func (a *api) enroll(ctx context.Context, m *Mix) error {
	instance, err := a.instance(ctx, "bench-"+m.run)
	if err != nil {
		return err
	}
	contacts := make([]contact, enrollments)
	for i := range contacts {
		contacts[i] = contact{m.Address(i), []ref{{vendor, "message", m.Message(i)}}}
	}
	var got struct {
		Created int `json:"created"`
	}
	if err := a.call(ctx, http.MethodPost, "/api/campaigns/instances/"+instance+"/enrollments/bulk", contacts, &got); err != nil {
		return err
	}
	if got.Created != enrollments {
		return fmt.Errorf("%d of %d contacts were enrolled", got.Created, enrollments)
	}
	return nil
}

// direct is the shot at the API.
func (a *api) direct(m *Mix, array int) shot {
	return shot{url: a.target.URL + "/api/events", header: [][2]string{{"X-API-Key", a.target.Key}}, array: array, mix: m}
}

// signed makes a source and gives the shot at its webhook.
func (a *api) signed(ctx context.Context, m *Mix) (shot, error) {
	var source struct {
		URL    string `json:"url"`
		Secret string `json:"secret"`
	}
	err := a.call(ctx, http.MethodPost, "/api/sources", map[string]string{"provider": "generic", "name": "bench-" + m.run}, &source)
	if err != nil {
		return shot{}, err
	}
	// The URL is the one for vendors; the server is measured where we reach it.
	public, err := url.Parse(source.URL)
	if err != nil {
		return shot{}, errors.New("the URL of the new source cannot be read")
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(source.Secret, "whsec_"))
	if err != nil {
		return shot{}, errors.New("the secret of the new source cannot be read")
	}
	return shot{url: a.target.URL + public.EscapedPath(), sign: key, mix: m}, nil
}
