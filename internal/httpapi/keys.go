package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/access"
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
	AllowedIPs []string   `json:"allowed_ips" nullable:"false" doc:"Addresses and ranges that it may be used from; none: from everywhere."`
	ReplacedBy *string    `json:"replaced_by" format:"uuid" doc:"The key that a rotation made in its place."`
}

func viewKey(k store.Key) KeyView {
	v := KeyView{
		ID: k.ID.String(), Name: k.Name, Prefix: k.Prefix, Scopes: k.Scopes, CreatedAt: k.CreatedAt.UTC(),
		ExpiresAt: optionalTime(k.ExpiresAt), LastUsedAt: optionalTime(k.LastUsedAt), RevokedAt: optionalTime(k.RevokedAt),
		AllowedIPs: make([]string, len(k.AllowedIPs)),
	}
	for i, p := range k.AllowedIPs {
		v.AllowedIPs[i] = p.String()
		if p.IsSingleIP() {
			v.AllowedIPs[i] = p.Addr().String()
		}
	}
	if k.ReplacedBy != uuid.Nil {
		id := k.ReplacedBy.String()
		v.ReplacedBy = &id
	}
	return v
}

// createdKey is a new key with the key itself, shown this once.
type createdKey struct {
	KeyView
	Key string `json:"key" doc:"The key. It is shown again only to the same request with the same Idempotency-Key, within a day."`
}

type createKeyInput struct {
	IdempotencyParam
	Body struct {
		Name          string      `json:"name" minLength:"1" maxLength:"255" example:"CI"`
		Scopes        []scopeName `json:"scopes" minItems:"1" nullable:"false"`
		ExpiresInDays int         `json:"expires_in_days,omitempty" minimum:"1" maximum:"3650" doc:"Never, when absent."`
		AllowedIPs    []string    `json:"allowed_ips,omitempty" maxItems:"100" doc:"Client addresses and ranges that it may be used from; from everywhere, when absent. The client's address is that behind TRUSTED_PROXIES." example:"[\"203.0.113.0/24\"]"`
	}
}

func (s *server) createKey(ctx context.Context, in *createKeyInput) (*created[createdKey], error) {
	scopes := make([]string, 0, len(in.Body.Scopes))
	for _, sc := range in.Body.Scopes {
		scopes = append(scopes, string(sc))
	}
	k, plain, err := s.Access.MakeKey(ctx, caller(ctx), access.KeyInput{
		Name: in.Body.Name, Scopes: scopes, Expires: s.inDays(in.Body.ExpiresInDays), AllowedIPs: in.Body.AllowedIPs, Idempotency: idempotency(ctx, in.IdempotencyKey),
	})
	if err != nil {
		return nil, err
	}
	return replyCreated("/api/keys/"+k.ID.String(), createdKey{viewKey(k), plain}), nil
}

// inDays is a time so many days from now; none for 0.
func (s *server) inDays(n int) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return s.clock().AddDate(0, 0, n)
}

// rotatedKey is a key that has taken the place of another.
type rotatedKey struct {
	createdKey
	Replaces  string    `json:"replaces" format:"uuid"`
	GraceEnds time.Time `json:"grace_ends" doc:"Until when the replaced key is valid."`
}

type rotateKeyInput struct {
	IDParam
	IdempotencyParam
	Body struct {
		Grace         string `json:"grace,omitempty" maxLength:"20" default:"24h" doc:"How long the old key stays valid, as 30m or 24h; 0s ends it at once. At most 720h." example:"24h"`
		ExpiresInDays int    `json:"expires_in_days,omitempty" minimum:"1" maximum:"3650" doc:"Of the new key. When absent, it lives as long as the old one was made for."`
	}
}

func (s *server) rotateKey(ctx context.Context, in *rotateKeyInput) (*created[rotatedKey], error) {
	id, err := parseID("API key", in.ID)
	if err != nil {
		return nil, err
	}
	grace, err := parseGrace(in.Body.Grace)
	if err != nil {
		return nil, err
	}
	k, old, plain, err := s.Access.RotateKey(ctx, caller(ctx), id, access.KeyRotation{
		Grace: grace, Expires: s.inDays(in.Body.ExpiresInDays), Idempotency: idempotency(ctx, in.IdempotencyKey),
	})
	if err != nil {
		return nil, err
	}
	return replyCreated("/api/keys/"+k.ID.String(), rotatedKey{createdKey{viewKey(k), plain}, old.ID.String(), old.ExpiresAt.UTC()}), nil
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
