package httpapi

import (
	"context"
	"time"

	"tallyhook/internal/access"
	"tallyhook/internal/fault"
)

// parseGrace reads how long the former one goes on working.
func parseGrace(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fault.BadInput(fault.Field{Location: "body.grace", Message: "must be a duration such as 90m, 24h or 0s", Value: text})
	}
	return d, nil
}

// rotatedSource is a source after a rotation with what is shown this once.
type rotatedSource struct {
	SourceView
	URL          string    `json:"url,omitempty" doc:"The new URL, where that was rotated. It holds the source's token: treat it as a secret. Shown only now."`
	Secret       string    `json:"secret,omitempty" doc:"The new secret, where it was made here; shown only now."`
	FormerEndsAt time.Time `json:"former_ends_at" doc:"The former one works until then."`
	Warning      string    `json:"warning,omitempty"`
}

func viewRotated(r access.Rotated) rotatedSource {
	return rotatedSource{viewSource(r.SourceView), r.URL, r.Secret, r.FormerEndsAt.UTC(), r.Warning}
}

type rotateSecretInput struct {
	IDParam
	Body struct {
		Grace  string `json:"grace,omitempty" maxLength:"32" default:"24h" example:"24h" doc:"How long the former one works on: a duration such as 90m or 24h, 0s to 720h. 0s ends it, and those before it, at once."`
		Secret string `json:"secret,omitempty" maxLength:"4096" doc:"The new secret, where the provider gives it out. Made where we may choose it and none is given."`
	}
}

func (s *server) rotateSecret(ctx context.Context, in *rotateSecretInput) (*one[rotatedSource], error) {
	id, err := parseID("source", in.ID)
	if err != nil {
		return nil, err
	}
	grace, err := parseGrace(in.Body.Grace)
	if err != nil {
		return nil, err
	}
	r, err := s.Access.RotateSecret(ctx, caller(ctx), id, in.Body.Secret, grace)
	if err != nil {
		return nil, err
	}
	return reply(viewRotated(r)), nil
}

type rotateURLInput struct {
	IDParam
	Body struct {
		Grace string `json:"grace,omitempty" maxLength:"32" default:"24h" example:"24h" doc:"How long the former one works on: a duration such as 90m or 24h, 0s to 720h. 0s ends it, and those before it, at once."`
	}
}

func (s *server) rotateURL(ctx context.Context, in *rotateURLInput) (*one[rotatedSource], error) {
	id, err := parseID("source", in.ID)
	if err != nil {
		return nil, err
	}
	grace, err := parseGrace(in.Body.Grace)
	if err != nil {
		return nil, err
	}
	r, err := s.Access.RotateURL(ctx, caller(ctx), id, grace)
	if err != nil {
		return nil, err
	}
	return reply(viewRotated(r)), nil
}
