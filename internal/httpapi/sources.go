package httpapi

import (
	"context"
	"time"

	"tallyhook/internal/access"
	"tallyhook/internal/provider"
)

// settingsBody are a source's further requirements.
type settingsBody struct {
	BasicAuth    string                    `json:"basic_auth,omitempty" maxLength:"4096" doc:"user:password, required on each request; masked when shown."`
	Headers      map[string]string         `json:"headers,omitempty" doc:"Headers required on each request; values are masked when shown."`
	AllowedCIDRs []string                  `json:"allowed_cidrs,omitempty" maxItems:"256" doc:"Client addresses or ranges." example:"[\"203.0.113.0/24\"]"`
	Agents       map[string]provider.Agent `json:"agents,omitempty" doc:"PhantomBuster: what the runs of each agent are events of."`
	TopicARNs    []string                  `json:"topic_arns,omitempty" maxItems:"64" doc:"Amazon SES: the SNS topics that events are taken from. A subscription to one of them is confirmed by itself." example:"[\"arn:aws:sns:eu-west-1:123456789012:mail\"]"`
	Accept       provider.Accept           `json:"accept,omitzero" doc:"What is taken, for an account that sends more than outreach; the rest is kept as ignored. Each list that is given must have an entry that the event tells."`
	OnUnmatched  string                    `json:"on_unmatched,omitempty" enum:"park,ignore,enroll" doc:"What becomes of an event without an enrollment: it waits (park, the default), is kept as ignored for good, or enrolls whom it tells of in the active instance that its campaign is mapped to. An ambiguous one waits in any case."`
}

// SourceView is a source on the wire: no token, no secret.
type SourceView struct {
	ID             string       `json:"id" format:"uuid"`
	Provider       string       `json:"provider"`
	Name           string       `json:"name"`
	HasSecret      bool         `json:"has_secret"`
	Settings       settingsBody `json:"settings"`
	Received       int64        `json:"received" doc:"Events taken in, duplicates included."`
	Rejected       int64        `json:"rejected" doc:"Requests refused since this process started."`
	LastReceivedAt *time.Time   `json:"last_received_at"`
	LastRejectedAt *time.Time   `json:"last_rejected_at"`
	CreatedAt      time.Time    `json:"created_at"`
	UpdatedAt      time.Time    `json:"updated_at"`
}

func viewSource(v access.SourceView) SourceView {
	return SourceView{
		ID: v.ID.String(), Provider: v.Provider, Name: v.Name, HasSecret: v.HasSecret, Settings: settingsBody(v.Settings),
		Received: v.Received, Rejected: v.Rejected, LastReceivedAt: optionalTime(v.LastReceivedAt),
		LastRejectedAt: optionalTime(v.LastRejectedAt), CreatedAt: v.CreatedAt.UTC(), UpdatedAt: v.UpdatedAt.UTC(),
	}
}

// createdSource is a new source with what is shown this once.
type createdSource struct {
	SourceView
	URL     string `json:"url" doc:"Where the provider sends to. It holds the source's token: treat it as a secret. Shown only now."`
	Secret  string `json:"secret,omitempty" doc:"The secret that was made; shown only now."`
	Warning string `json:"warning,omitempty"`
}

type createSourceInput struct {
	Body struct {
		Provider providerName `json:"provider" example:"generic"`
		Name     string       `json:"name" minLength:"1" maxLength:"255" example:"Our own sender"`
		Secret   string       `json:"secret,omitempty" maxLength:"4096" doc:"The vendor's secret, signing key or public key. Made where the scheme needs one and none is given."`
		Settings settingsBody `json:"settings,omitzero"`
	}
}

func (s *server) createSource(ctx context.Context, in *createSourceInput) (*created[createdSource], error) {
	c, err := s.Access.CreateSource(ctx, caller(ctx), access.SourceInput{
		Provider: string(in.Body.Provider), Name: in.Body.Name, Secret: in.Body.Secret, Settings: provider.Settings(in.Body.Settings),
	})
	if err != nil {
		return nil, err
	}
	return replyCreated("/api/sources/"+c.ID.String(), createdSource{viewSource(c.SourceView), c.URL, c.Secret, c.Warning}), nil
}

func (s *server) listSources(ctx context.Context, in *struct{ PageParams }) (*many[SourceView], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	rows, next, err := s.Access.Sources(ctx, tenant(ctx), p)
	if err != nil {
		return nil, err
	}
	return replyList(rows, next, viewSource), nil
}

func (s *server) getSource(ctx context.Context, in *IDParam) (*one[SourceView], error) {
	id, err := parseID("source", in.ID)
	if err != nil {
		return nil, err
	}
	v, err := s.Access.Source(ctx, tenant(ctx), id)
	if err != nil {
		return nil, err
	}
	return reply(viewSource(v)), nil
}

type patchSourceInput struct {
	IDParam
	Body struct {
		Name     *string       `json:"name,omitempty" minLength:"1" maxLength:"255"`
		Secret   *string       `json:"secret,omitempty" maxLength:"4096"`
		Settings *settingsBody `json:"settings,omitempty" doc:"Replaces all settings."`
	}
}

func (s *server) patchSource(ctx context.Context, in *patchSourceInput) (*one[SourceView], error) {
	id, err := parseID("source", in.ID)
	if err != nil {
		return nil, err
	}
	patch := access.SourcePatch{Name: in.Body.Name, Secret: in.Body.Secret}
	if in.Body.Settings != nil {
		settings := provider.Settings(*in.Body.Settings)
		patch.Settings = &settings
	}
	v, err := s.Access.PatchSource(ctx, caller(ctx), id, patch)
	if err != nil {
		return nil, err
	}
	return reply(viewSource(v)), nil
}

func (s *server) deleteSource(ctx context.Context, in *IDParam) (*nothing, error) {
	id, err := parseID("source", in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.Access.DeleteSource(ctx, caller(ctx), id); err != nil {
		return nil, err
	}
	return &nothing{}, nil
}

type rejectionView struct {
	At      time.Time `json:"at"`
	Reason  string    `json:"reason"`
	Status  int       `json:"status"`
	Headers []string  `json:"headers" nullable:"false" doc:"Names only."`
}

func (s *server) listRejections(ctx context.Context, in *IDParam) (*many[rejectionView], error) {
	id, err := parseID("source", in.ID)
	if err != nil {
		return nil, err
	}
	rows, err := s.Access.Rejections(ctx, tenant(ctx), id)
	if err != nil {
		return nil, err
	}
	return replyList(rows, 0, func(r access.Rejection) rejectionView {
		return rejectionView{r.At.UTC(), r.Reason, r.Status, r.Headers}
	}), nil
}

type providerView struct {
	Name   string   `json:"name"`
	Title  string   `json:"title"`
	Scheme string   `json:"scheme" doc:"How its webhooks are authenticated."`
	Events []string `json:"events" nullable:"false" doc:"The provider's own event names that are understood."`
	Setup  string   `json:"setup" doc:"Where to click and what to paste."`
}

func (s *server) listProviders(context.Context, *struct{}) (*many[providerView], error) {
	return replyList(provider.All(), 0, func(p *provider.Provider) providerView {
		return providerView{p.Name, p.Title, p.Scheme, p.Events, p.Setup}
	}), nil
}
