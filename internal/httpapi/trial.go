package httpapi

import (
	"context"

	"tallyhook/internal/ingest"
	"tallyhook/internal/provider"
)

// The outcomes of a test that are none of an event.
const trialRefused = "refused"

// trialView is what became of a source's sample.
type trialView struct {
	Outcome   string `json:"outcome" enum:"ignored,spooled,refused" doc:"ignored: it came through, and its event is kept without any effect. spooled: the same, and the database is away. refused: the source would refuse such a webhook."`
	Status    int    `json:"status" doc:"What the provider would be answered."`
	Signed    bool   `json:"signed" doc:"Whether the sample was authenticated as the provider does it, with the source's own secret. false: nobody but the provider can, and the way to the signature and behind it was tried."`
	EventID   string `json:"event_id,omitempty" format:"uuid" doc:"The event of the sample: GET /api/events/{id}."`
	EventType string `json:"event_type,omitempty" doc:"What the sample was read as, before it was set aside; none: the provider tells nothing that is canonical."`
	Channel   string `json:"channel,omitempty"`
	Detail    string `json:"detail" doc:"The same for a person."`
}

func viewTrial(t ingest.Trial) trialView {
	v := trialView{Status: 200, Signed: t.Unsigned == ""}
	switch {
	case t.Refused != nil:
		v.Outcome, v.Status = trialRefused, t.Provider.Status(provider.RefuseAuth)
		v.Detail = "such a webhook would be refused: " + t.Refused.Error()
		return v
	case t.Unsigned != "":
		v.Detail = "the sample was read and kept, but not signed: " + t.Unsigned
	default:
		v.Detail = "the sample was verified, read and kept"
	}
	v.Outcome, v.EventID = string(t.Result.Outcome), t.Result.ID.String()
	v.EventType, v.Channel = string(t.Type), string(t.Channel)
	return v
}

// testSource tries a source with a sample. The URL's token is stored as a hash,
// so that the sample cannot come by it; everything behind it is tried.
func (s *server) testSource(ctx context.Context, in *IDParam) (*one[trialView], error) {
	id, err := parseID("source", in.ID)
	if err != nil {
		return nil, err
	}
	if _, err := s.Access.Source(ctx, tenant(ctx), id); err != nil { // is it the caller's?
		return nil, err
	}
	t, err := s.Receiver.Try(ctx, id, s.opt.PublicURL+"/webhooks/test")
	if err != nil {
		return nil, err
	}
	return reply(viewTrial(t)), nil
}
