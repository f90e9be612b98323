package httpapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/httpapi"
	"tallyhook/internal/store"
)

const oneEvent = `{"event_type":"opened","channel":"email","email":"ada@example.com","provider_event_id":"e1"}`

func outcome(o event.Outcome, s event.State) func(event.Event) store.Result {
	return func(e event.Event) store.Result { return store.Result{ID: e.ID, Outcome: o, State: s} }
}

func TestPostOneEvent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		outcome event.Outcome
		state   event.State
		status  int
		texts   []string
	}{
		"Applied":   {event.OutcomeApplied, event.Applied, 201, []string{`"data":{`}},
		"Duplicate": {event.OutcomeDuplicate, event.Applied, 200, []string{`"duplicate":true`}},
		"Orphaned":  {event.OutcomeOrphaned, event.Orphaned, 202, []string{`"message":"Event queued for retry"`, `"retryable":true`}},
		"Ignored":   {event.OutcomeIgnored, event.Ignored, 200, []string{`"retryable":false`}},
		"Dead":      {event.OutcomeDead, event.Dead, 202, []string{`"retryable":false`, "dead letter"}},
		"Spooled":   {event.OutcomeSpooled, event.Spooled, 202, []string{`"state":"spooled"`, `"retryable":true`, "until the database is back"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, path := range []string{"/api/events", "/api/campaigns/events/webhook"} {
				a := newAPI(t, nil)
				a.acceptor.answer = outcome(c.outcome, c.state)
				r := a.call("POST", path, oneEvent).want(c.status, c.texts...)
				e := a.acceptor.got[0]
				if e.ID == uuid.Nil || e.Tenant != 1 || e.Scope != "api:api" || e.Provider != "api" || e.Kind != "opened" ||
					!e.ReceivedAt.Equal(now()) || !e.OccurredAt.Equal(now()) || !e.OccurredAtEstimated || string(e.Payload) != oneEvent {
					t.Errorf("accepted %+v", e)
				}
				want := ""
				if c.status == 201 {
					want = "/api/events/" + e.ID.String()
				}
				if (c.status == 200 && c.outcome == event.OutcomeDuplicate) != strings.Contains(r.body, `"duplicate":`) {
					t.Errorf("got %s", r.body)
				}
				if got := r.header.Get("Location"); got != want {
					t.Errorf("got Location %q, want %q", got, want)
				}
			}
		})
	}
}

func TestPostOneEventFails(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	if p := a.call("POST", "/api/events", `{"event_type":"smiled","email":"x"}`).problem(400); !p.names("body.event_type") || !p.names("body.channel") || !p.names("body.email") {
		t.Errorf("got %+v", p)
	}
	a.acceptor.err = &fault.Error{Kind: fault.Unavailable}
	if r := a.call("POST", "/api/events", oneEvent); r.problem(503).Status != 503 || r.header.Get("Retry-After") == "" {
		t.Errorf("got %+v", r)
	}
}

func TestPostArray(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	type answer struct {
		Data struct {
			Received, Applied, Duplicate, Orphaned, Ignored, Dead, Rejected int
			Results                                                         []struct {
				Index              int
				Outcome, ID, Error string
			}
		}
	}
	body := `[` + oneEvent + `,{"event_type":"x"},` + oneEvent + `]`
	got := decode[answer](a.call("POST", "/api/events", body).want(200)).Data
	if got.Received != 2 || got.Applied != 2 || got.Rejected != 1 || len(got.Results) != 3 || got.Results[1].Outcome != "rejected" ||
		!strings.Contains(got.Results[1].Error, "body[1].event_type") || got.Results[2].Index != 2 || got.Results[2].ID == "" {
		t.Errorf("got %+v", got)
	}
	a.acceptor.answer = outcome(event.OutcomeOrphaned, event.Orphaned)
	a.call("POST", "/api/events", body).want(202, `"orphaned":2`, `"rejected":1`)
	a.call("POST", "/api/events", `[]`).problem(400)
	a.call("POST", "/api/events", `[`+strings.Repeat(oneEvent+",", 1000)+oneEvent+`]`).problem(400)
	a.call("POST", "/api/events", `[{"a":1`).problem(400)
	n := len(a.acceptor.got)
	a.call("POST", "/api/events", `[{"a":1}]`).want(200, `"rejected":1`, `"received":0`)
	if len(a.acceptor.got) != n {
		t.Error("nothing was valid, and something was accepted")
	}
}

func TestPostSigned(t *testing.T) {
	t.Parallel()
	source := uuid.MustParse(someID)
	signed := []string{"X-API-Key", "", "webhook-id", "msg_1", "webhook-timestamp", "1", "webhook-signature", "v1,x", "X-Source-ID", someID}
	a := newAPI(t, func(s *httpapi.Services, _ *httpapi.Options) {
		s.Receiver = fakeReceiver{opened: access.Opened{ID: source, Tenant: 7}}
	})
	a.call("POST", "/api/events", `{"event_type":"opened","channel":"email","email":"ada@example.com"}`, signed...).want(201)
	e := a.acceptor.got[0]
	if e.Tenant != 7 || e.SourceID != source || e.Scope != someID || e.Provider != "generic" || len(e.IdentityParts) != 3 || e.IdentityParts[1] != "msg_1" {
		t.Errorf("accepted %+v", e)
	}
	// A source cannot do what a key can.
	a.call("GET", "/api/events", "", signed...).problem(401)

	for kind, want := range map[fault.Kind]int{fault.Unauthenticated: 401, fault.NotFound: 401, fault.Unavailable: 503} {
		a := newAPI(t, func(s *httpapi.Services, _ *httpapi.Options) {
			s.Receiver = fakeReceiver{err: fault.New(kind, "")}
		})
		a.call("POST", "/api/events", oneEvent, signed...).problem(want)
		a.call("POST", "/api/events", oneEvent, append(signed, "X-Source-ID", "none")...).problem(401)
	}
}

func TestEventReadsBack(t *testing.T) {
	t.Parallel()
	r := newAPI(t, nil).call("GET", "/api/events/"+someID, "").want(200,
		`"id":"`+someID+`"`, `"source_id":null`, `"provider":"postmark"`, `"event_type":"opened"`, `"occurred_at":"2026-11-24T10:00:00Z"`,
		`"state":"orphaned"`, `"reason":"no_enrollment"`, `"enrollment_id":null`, `"duplicates":2`, `"attempts":0`, `"next_attempt_at":null`,
		`"machine":false`, `"metadata":null`, `"payload":{"a":1}`, `"timeline":[{"at":`, `"what":"parked"`)
	if strings.Contains(r.body, `"bounce"`) || strings.Contains(r.body, `"url"`) {
		t.Errorf("got fields that were not told: %s", r.body)
	}
}

func TestWebhookAnswersAndDialects(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind   fault.Kind
		status int
	}{
		"BadSignature": {fault.Unauthenticated, 401}, "Unknown": {fault.NotFound, 404}, "Throttled": {fault.Throttled, 429},
		"Down": {fault.Unavailable, 503}, "Defect": {fault.Internal, 503}, "Data": {fault.Data, 503}, "TooLarge": {fault.TooLarge, 413},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var reasons []string
			a := newAPI(t, func(s *httpapi.Services, _ *httpapi.Options) {
				s.Receiver = fakeReceiver{err: fault.New(c.kind, ""), req: newRequest()}
				s.Observer.WebhookRejected = func(_, reason string) { reasons = append(reasons, reason) }
			})
			r := a.call("POST", "/webhooks/tok", "x", "X-API-Key", "")
			r.problem(c.status)
			if retry := r.header.Get("Retry-After"); (retry != "") != (c.status == 429 || c.status == 503) {
				t.Errorf("got Retry-After %q with %d", retry, c.status)
			}
			if len(reasons) != 1 {
				t.Errorf("got reasons %v, want one", reasons)
			}
		})
	}
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	a.call("POST", "/webhooks/a%2Fb?x=1", "raw bytes", "X-API-Key", "", "Content-Type", "", "Host", "evil.example").
		want(200, `{"data":{"received":0,"applied":0,"duplicate":0,"orphaned":0,"ignored":0,"dead":0,"spooled":0}}`)
	if got := *a.request; got.URL != "https://hooks.example.com/webhooks/a%2Fb?x=1" || string(got.Body) != "raw bytes" || got.RemoteAddr != "192.0.2.1" || got.Method != http.MethodPost {
		t.Errorf("the receiver got %+v", got)
	}
	get := a.call("GET", "/webhooks/tok", "", "X-API-Key", "").want(200)
	if other := a.call("GET", "/webhooks/other", "", "X-API-Key", ""); other.body != get.body {
		t.Error("the check tells tokens apart")
	}
	a.call("HEAD", "/webhooks/tok", "").want(200)
	if r := a.call("OPTIONS", "/webhooks/tok", "").want(204); !strings.Contains(r.header.Get("Allow"), "POST") || r.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("got %v", r.header)
	}
}
