package access

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/fault"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
)

// Bounds of a rotation.
const (
	MaxGrace         = 30 * 24 * time.Hour
	maxFormerSecrets = 8 // in their grace time: each is tried on each request
)

// formerSecret is a secret in its grace time.
type formerSecret struct {
	Secret string    `json:"secret"`
	EndsAt time.Time `json:"ends_at"`
}

// Rotated is a source after a rotation, with what is shown only once.
type Rotated struct {
	SourceView
	URL          string    // of RotateURL
	Secret       string    // of RotateSecret, only where it was generated
	FormerEndsAt time.Time // the former one works until then
	Warning      string    // as of CreatedSource
}

// secrets are those that are accepted now: the current one first, then the
// former ones that have not ended.
func (o Opened) secrets(now time.Time) []string {
	if len(o.former) == 0 {
		return o.Config.Secrets
	}
	all := slices.Clone(o.Config.Secrets)
	for _, f := range o.former {
		if now.Before(f.EndsAt) {
			all = append(all, f.Secret)
		}
	}
	return all
}

// RotateSecret gives a source another secret. The former one works on for the
// grace time, and what is older no longer than that: a grace of 0 ends all of
// them. Where no secret is given one is made, if the scheme lets us choose it.
func (s *Service) RotateSecret(ctx context.Context, by Principal, id uuid.UUID, secret string, grace time.Duration) (Rotated, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	was, err := s.row(ctx, by.Tenant, id)
	if err != nil {
		return Rotated{}, err
	}
	v, err := s.unseal(was)
	if err != nil {
		return Rotated{}, err
	}
	p := provider.ByName(was.Provider)
	wrong := checkGrace(nil, grace)
	switch {
	case p == nil:
		return Rotated{}, fault.New(fault.Conflict, "this release has no provider %q", was.Provider)
	case len(v.Secrets) == 0:
		return Rotated{}, fault.New(fault.Conflict, "the source has no secret that could be rotated; give it one with PATCH")
	case secret == "" && p.MakeSecret == nil:
		wrong = append(wrong, fault.Field{Location: "body.secret", Message: "is needed: " + p.Title + " has the secret, and it must be the same here"})
	case secret == v.Secrets[0]:
		wrong = append(wrong, fault.Field{Location: "body.secret", Message: "is the present one"})
	case secret != "":
		wrong = checkSecret(wrong, p, secret)
	}
	if len(wrong) > 0 {
		return Rotated{}, fault.BadInput(wrong...)
	}
	made := ""
	if secret == "" {
		if made, err = p.MakeSecret(); err != nil {
			return Rotated{}, fmt.Errorf("make secret: %w", err)
		}
		secret = made
	}
	now := s.at()
	ends := now.Add(grace)
	v.Former = formerAfter(v, secret, now, ends)
	if len(v.Former) > maxFormerSecrets {
		return Rotated{}, fault.New(fault.Conflict,
			"%d former secrets are in their grace time, which is the most there may be; rotate with a shorter grace to end them", maxFormerSecrets)
	}
	v.Secrets = []string{secret}
	row := was
	if row.Sealed, err = s.seal(id, v); err != nil {
		return Rotated{}, err
	}
	if row, err = s.update(ctx, was, row, ends); err != nil {
		return Rotated{}, err
	}
	s.audit(ctx, by, "source.rotate_secret", id, "grace "+grace.String())
	return Rotated{SourceView: s.view(ctx, row), Secret: made, FormerEndsAt: ends}, nil
}

// formerAfter lists the former secrets after a rotation to next, newest first:
// without those that have ended, and none beyond ends.
func formerAfter(v vault, next string, now, ends time.Time) []formerSecret {
	all := []formerSecret{{v.Secrets[0], ends}}
	for _, f := range v.Former {
		if f.EndsAt.After(ends) {
			f.EndsAt = ends
		}
		all = append(all, f)
	}
	return slices.DeleteFunc(all, func(f formerSecret) bool { return f.Secret == next || !now.Before(f.EndsAt) })
}

// RotateURL gives a source another URL. The former one works on for the grace
// time, and what is older no longer than that.
func (s *Service) RotateURL(ctx context.Context, by Principal, id uuid.UUID, grace time.Duration) (Rotated, error) {
	if wrong := checkGrace(nil, grace); len(wrong) > 0 {
		return Rotated{}, fault.BadInput(wrong...)
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	was, err := s.row(ctx, by.Tenant, id)
	if err != nil {
		return Rotated{}, err
	}
	p := provider.ByName(was.Provider)
	if p == nil {
		return Rotated{}, fault.New(fault.Conflict, "this release has no provider %q", was.Provider)
	}
	token, err := s.tokens.make(p.Number)
	if err != nil {
		return Rotated{}, fmt.Errorf("make token: %w", err)
	}
	row, ends := was, s.at().Add(grace)
	row.TokenHash = sha256.Sum256([]byte(token))
	if row, err = s.update(ctx, was, row, ends); err != nil {
		return Rotated{}, err
	}
	s.audit(ctx, by, "source.rotate_url", id, "grace "+grace.String())
	return Rotated{SourceView: s.view(ctx, row), URL: s.public + "/webhooks/" + token, FormerEndsAt: ends, Warning: s.warning()}, nil
}

// update writes a changed row, and forgets what was known of the source. The
// caller holds changes.
func (s *Service) update(ctx context.Context, was, row store.Source, ends time.Time) (store.Source, error) {
	row.UpdatedAt = s.at()
	err := s.store.UpdateSource(ctx, was, row, ends)
	s.Heard(store.Change{Kind: store.ChangedSource, ID: row.ID}) // whatever the store said: the commit may have happened
	switch {
	case fault.Is(err, fault.NotFound):
		return row, noSource()
	case fault.Is(err, fault.Conflict):
		return row, fault.New(fault.Conflict, "the source was changed by somebody else at the same moment; look at it and try again")
	case err != nil:
		return row, fmt.Errorf("update source: %w", err)
	}
	return row, nil
}

func checkGrace(wrong []fault.Field, grace time.Duration) []fault.Field {
	if grace < 0 || grace > MaxGrace {
		return append(wrong, fault.Field{Location: "body.grace", Message: fmt.Sprintf("must be 0s to %dh", MaxGrace/time.Hour)})
	}
	return wrong
}
