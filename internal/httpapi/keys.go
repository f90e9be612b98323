package httpapi

import (
	"context"
	"time"

	"tallyhook/internal/store"
)

// KeyView is an API key on the wire, without the key itself.
type KeyView struct {
	ID         string     `json:"id" format:"uuid"`
	Name       string     `json:"name"`
	Prefix     string     `json:"prefix" doc:"The key's first characters, to tell keys apart."`
	Scopes     []string   `json:"scopes" nullable:"false"`
	CreatedAt  time.Time  `json:"created_at"`
	ExpiresAt  *time.Time `json:"expires_at" doc:"null: never."`
	LastUsedAt *time.Time `json:"last_used_at"`
	RevokedAt  *time.Time `json:"revoked_at"`
}

func viewKey(k store.Key) KeyView {
	return KeyView{
		ID: k.ID.String(), Name: k.Name, Prefix: k.Prefix, Scopes: k.Scopes, CreatedAt: k.CreatedAt.UTC(),
		ExpiresAt: optionalTime(k.ExpiresAt), LastUsedAt: optionalTime(k.LastUsedAt), RevokedAt: optionalTime(k.RevokedAt),
	}
}

// createdKey is a new key with the key itself, shown this once.
type createdKey struct {
	KeyView
	Key string `json:"key" doc:"The key. It is not stored and is never shown again."`
}

type createKeyInput struct {
	Body struct {
		Name          string      `json:"name" minLength:"1" maxLength:"255" example:"CI"`
		Scopes        []scopeName `json:"scopes" minItems:"1" nullable:"false"`
		ExpiresInDays int         `json:"expires_in_days,omitempty" minimum:"1" maximum:"3650" doc:"Never, when absent."`
	}
}

func (s *server) createKey(ctx context.Context, in *createKeyInput) (*created[createdKey], error) {
	scopes := make([]string, 0, len(in.Body.Scopes))
	for _, sc := range in.Body.Scopes {
		scopes = append(scopes, string(sc))
	}
	var expires time.Time
	if in.Body.ExpiresInDays > 0 {
		expires = s.clock().AddDate(0, 0, in.Body.ExpiresInDays)
	}
	k, plain, err := s.Access.CreateKey(ctx, caller(ctx), in.Body.Name, scopes, expires)
	if err != nil {
		return nil, err
	}
	return replyCreated("/api/keys/"+k.ID.String(), createdKey{viewKey(k), plain}), nil
}

func (s *server) listKeys(ctx context.Context, in *struct{ PageParams }) (*many[KeyView], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	rows, next, err := s.Access.Keys(ctx, tenant(ctx), p)
	if err != nil {
		return nil, err
	}
	return replyList(rows, next, viewKey), nil
}

func (s *server) revokeKey(ctx context.Context, in *IDParam) (*nothing, error) {
	id, err := parseID("API key", in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.Access.RevokeKey(ctx, caller(ctx), id); err != nil {
		return nil, err
	}
	return &nothing{}, nil
}
