package httpapi

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"tallyhook/internal/fault"
	"tallyhook/internal/limit"
	"tallyhook/internal/provider"
)

func describeWebhook(m *mount, op *huma.Operation) {
	op.Parameters = []*huma.Param{pathParam("token", "", "The token of the source, from its URL.")}
	op.Description = "The body and the authentication are the provider's own; GET /api/providers says what each needs. " +
		"Only 200 means that the events are safe. Refusals use the status that the provider understands."
	op.RequestBody = &huma.RequestBody{
		Content: map[string]*huma.MediaType{"*/*": {Schema: &huma.Schema{Description: "As the provider sends it."}}},
	}
	m.answer(op, http.StatusOK, "Every event is durable.", Data[countsView]{})
	for _, code := range []int{http.StatusUnauthorized, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests} {
		op.Responses[strconv.Itoa(code)] = m.problemResponse(code)
	}
}

// webhook takes a provider's webhook the whole way.
func (s *server) webhook(w http.ResponseWriter, r *http.Request) {
	receipt, err := s.Receiver.Receive(r.Context(), r.PathValue("token"), s.providerRequest(r))
	if err != nil {
		if kindOf(err) == fault.NotFound { // a guess, which counts like a wrong key
			if over := s.spend(w, limit.Anonymous, limit.Address(callOf(r.Context()).client)); over != nil {
				err = over
			}
		}
		kind := kindOf(err)
		name := ""
		if receipt.Provider != nil {
			name = receipt.Provider.Name
		}
		s.rejected(name, kind)
		p := s.fail(r.Context(), err)
		p.Status = receipt.Provider.Status(refusalOf(kind))
		p.Title = http.StatusText(p.Status)
		p.pause(retryAfter(p))
		tellExceeded(w, err)
		writeProblem(w, r, p)
		return
	}
	s.write(w, r, http.StatusOK, Data[countsView]{viewCounts(receipt.Counts)})
}

// retryAfter keeps the delay that the error asked for.
func retryAfter(p *Problem) time.Duration {
	d, err := time.ParseDuration(p.header.Get("Retry-After") + "s")
	if err != nil {
		return 0
	}
	return d
}

// refusalOf is what a kind means to a vendor. What is not the sender's fault
// is never told as such: it would stop sending.
func refusalOf(k fault.Kind) provider.Refusal {
	switch k {
	case fault.Unauthenticated, fault.Forbidden:
		return provider.RefuseAuth
	case fault.NotFound:
		return provider.RefuseUnknown
	case fault.TooLarge:
		return provider.RefuseTooLarge
	case fault.Throttled:
		return provider.RefuseThrottled
	case fault.Internal, fault.Unavailable, fault.Data, fault.Invalid, fault.Conflict, fault.Unsupported:
		return provider.RefuseUnavailable
	}
	return provider.RefuseUnavailable
}

func (s *server) rejected(name string, kind fault.Kind) {
	if f := s.Observer.WebhookRejected; f != nil {
		f(name, string(refusalOf(kind)))
	}
}

// webhookCheck answers the GET and HEAD with which vendors try an endpoint. It
// is the same for every token: it must not tell which ones exist.
func (s *server) webhookCheck(w http.ResponseWriter, _ *http.Request) {
	text(w, http.StatusOK, "This is a Tallyhook webhook endpoint. Send events with POST.\n")
}

func (s *server) webhookOptions(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Allow", "GET, HEAD, OPTIONS, POST")
	w.WriteHeader(http.StatusNoContent)
}

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	if _, err := io.WriteString(w, body); err != nil {
		return // the caller went away: there is nobody left to tell
	}
}
