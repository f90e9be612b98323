package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// Bootstrap sees to it that there is an admin key. A configured one is stored
// unless it is stored already. With none configured and no live admin key
// stored, one is made and returned with made true: it is never shown again.
// An admin is who starts the server, so the audit log says "system". After a
// start without the store it is left to Keep; a key is never made then, since
// the snapshot says that there was a first start.
func (s *Service) Bootstrap(ctx context.Context, apiKey string) (plain string, made bool, err error) {
	if err := checkConfigured(apiKey); err != nil {
		return "", false, err
	}
	if s.unchecked.Load() {
		s.keeping.Lock()
		defer s.keeping.Unlock()
		s.pending = apiKey
		return "", false, nil
	}
	if apiKey == "" {
		n, err := s.store.CountKeys(ctx)
		if err != nil {
			return "", false, fmt.Errorf("count keys: %w", err)
		}
		if n > 0 {
			return "", false, nil
		}
		if plain, err = makeKey(); err != nil {
			return "", false, fmt.Errorf("make key: %w", err)
		}
		if _, err := s.addKey(ctx, Principal{Tenant: store.DefaultTenant}, plain, "first key", []string{ScopeAdmin}, time.Time{}); err != nil {
			return "", false, err
		}
		return plain, true, nil
	}
	k, err := s.store.KeyByHash(ctx, sha256.Sum256([]byte(apiKey)))
	switch {
	case fault.Is(err, fault.NotFound):
		if _, err = s.addKey(ctx, Principal{Tenant: store.DefaultTenant}, apiKey, "API_KEY", []string{ScopeAdmin}, time.Time{}); err != nil {
			if _, rerr := s.store.KeyByHash(ctx, sha256.Sum256([]byte(apiKey))); rerr == nil {
				return "", false, nil // another process was faster
			}
		}
		return "", false, err
	case err != nil:
		return "", false, fmt.Errorf("read key: %w", err)
	}
	if why := s.refuses(k); why != "" {
		s.log.WarnContext(ctx, "the configured API_KEY is stored, but refused", slog.String("key_id", k.ID.String()), slog.String("reason", why))
	}
	return "", false, nil
}

func checkConfigured(apiKey string) error {
	switch {
	case apiKey == "":
		return nil
	case len(apiKey) < minKey || len(apiKey) > maxKey:
		return fault.New(fault.Invalid, "API_KEY must have %d to %d characters", minKey, maxKey)
	case !possibleKey(apiKey):
		return fault.New(fault.Invalid, "API_KEY starts with %s, but is not a key that was made here: it is mistyped or cut", keyPrefix)
	}
	return nil
}

// Authenticate finds the principal of an API key. A key that cannot exist is
// refused without a lookup; a store that fails is an Unavailable, never a
// refusal. While the store is away a key of the snapshot may write events.
func (s *Service) Authenticate(ctx context.Context, key string) (Principal, error) {
	switch {
	case key == "":
		return Principal{}, fault.New(fault.Unauthenticated, "the API key is missing: send it as X-API-Key or as a bearer token")
	case !possibleKey(key):
		return Principal{}, unknownKey()
	}
	hash := sha256.Sum256([]byte(key))
	now := s.now()
	k, ok, err := s.keys.find(hash, now, "read API key", func() (store.Key, error) {
		return ask(ctx, s, func(ctx context.Context) (store.Key, error) { return s.store.KeyByHash(ctx, hash) })
	})
	switch {
	case err != nil:
		return s.principalAway(ctx, hash, err)
	case !ok || subtle.ConstantTimeCompare(k.Hash[:], hash[:]) != 1:
		s.known.dropKey(hash)
		return Principal{}, unknownKey()
	}
	if why := s.refuses(k); why != "" {
		s.known.dropKey(hash)
		return Principal{}, fault.New(fault.Unauthenticated, "the API key %s", why)
	}
	s.touch(k.ID, now)
	s.known.addKey(hash)
	return Principal{Tenant: k.Tenant, KeyID: k.ID, Scopes: k.Scopes}, nil
}

// touch notes a use of a key, for Flush.
func (s *Service) touch(id uuid.UUID, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.used[id]; known || len(s.used) < usedLimit {
		s.used[id] = now
	}
}

func unknownKey() error {
	return fault.New(fault.Unauthenticated, "the API key is unknown")
}

// refuses tells why a stored key is not accepted; empty when it is.
func (s *Service) refuses(k store.Key) string {
	switch {
	case !k.RevokedAt.IsZero():
		return "was revoked"
	case !k.ExpiresAt.IsZero() && !s.now().Before(k.ExpiresAt):
		return "has expired"
	}
	return ""
}

// CreateKey makes a key with scopes that its maker has too. plain is shown
// once and stored nowhere. A zero expires means never.
func (s *Service) CreateKey(ctx context.Context, by Principal, name string, scopes []string, expires time.Time) (k store.Key, plain string, err error) {
	var wrong []fault.Field
	wrong = checkName(wrong, name)
	if len(scopes) == 0 {
		wrong = append(wrong, fault.Field{Location: "body.scopes", Message: "must name at least one of: " + strings.Join(Scopes(), ", ")})
	}
	for i, scope := range scopes {
		if !slices.Contains(Scopes(), scope) {
			wrong = append(wrong, fault.Field{
				Location: fmt.Sprintf("body.scopes[%d]", i), Message: "is not one of: " + strings.Join(Scopes(), ", "),
			})
		}
	}
	if !expires.IsZero() && (!expires.After(s.now()) || !event.PlausibleTime(expires)) {
		wrong = append(wrong, fault.Field{Location: "body.expires_in_days", Message: "must lie in the future, before the year 2200"})
	}
	if len(wrong) > 0 {
		return store.Key{}, "", fault.BadInput(wrong...)
	}
	given := make([]string, 0, len(scopes))
	for _, scope := range Scopes() { // in their order, each once
		if !slices.Contains(scopes, scope) {
			continue
		}
		if !by.Has(scope) {
			return store.Key{}, "", fault.New(fault.Forbidden, "your API key has not the scope %s, so it cannot give it", scope)
		}
		given = append(given, scope)
	}
	if plain, err = makeKey(); err != nil {
		return store.Key{}, "", fmt.Errorf("make key: %w", err)
	}
	if k, err = s.addKey(ctx, by, plain, name, given, expires); err != nil {
		return store.Key{}, "", err
	}
	return k, plain, nil
}

func (s *Service) addKey(ctx context.Context, by Principal, plain, name string, scopes []string, expires time.Time) (store.Key, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return store.Key{}, fmt.Errorf("make id: %w", err)
	}
	k := store.Key{
		ID: id, Tenant: by.Tenant, Name: name, Hash: sha256.Sum256([]byte(plain)), Prefix: shownPrefix(plain),
		Scopes: scopes, CreatedAt: s.at(),
	}
	if !expires.IsZero() {
		k.ExpiresAt = expires.UTC().Truncate(time.Microsecond)
	}
	if err := s.store.CreateKey(ctx, k); err != nil {
		return store.Key{}, fmt.Errorf("create key: %w", err)
	}
	s.Heard(store.Change{Kind: store.ChangedKey, ID: k.ID, Hash: k.Hash})
	s.audit(ctx, by, "key.create", id, name+": "+strings.Join(scopes, " "))
	return k, nil
}

// shownPrefix tells keys apart in a list. Of a key that somebody thought up,
// less is shown: each character counts.
func shownPrefix(plain string) string {
	if strings.HasPrefix(plain, keyPrefix) {
		return plain[:len(keyPrefix)+6]
	}
	n := 0
	for range 3 {
		_, size := utf8.DecodeRuneInString(plain[n:])
		n += size
	}
	return plain[:n]
}

// Keys lists a tenant's keys, with uses that are not yet written.
func (s *Service) Keys(ctx context.Context, tenant int64, p store.Page) (rows []store.Key, next int64, err error) {
	rows, next, err = s.store.Keys(ctx, tenant, p)
	if err != nil {
		return nil, 0, fmt.Errorf("list keys: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range rows {
		if at, ok := s.used[rows[i].ID]; ok && at.After(rows[i].LastUsedAt) {
			rows[i].LastUsedAt = at.UTC().Truncate(time.Microsecond)
		}
	}
	return rows, next, nil
}

// RevokeKey ends a key: the next request with it is refused.
func (s *Service) RevokeKey(ctx context.Context, by Principal, id uuid.UUID) error {
	err := s.store.RevokeKey(ctx, by.Tenant, id, s.at())
	// Whatever the store said: a commit of unknown outcome may have happened.
	s.Heard(store.Change{Kind: store.ChangedKey, ID: id})
	switch {
	case fault.Is(err, fault.NotFound):
		return fault.New(fault.NotFound, "there is no live API key with this id")
	case err != nil:
		return fmt.Errorf("revoke key: %w", err)
	}
	s.audit(ctx, by, "key.revoke", id, "")
	return nil
}

// Flush writes when keys were last used. What could not be written is kept
// for the next time.
func (s *Service) Flush(ctx context.Context) error {
	s.mu.Lock()
	used := s.used
	s.used = map[uuid.UUID]time.Time{}
	s.mu.Unlock()
	if len(used) == 0 {
		return nil
	}
	written := make(map[uuid.UUID]time.Time, len(used))
	for id, at := range used {
		written[id] = at.UTC().Truncate(time.Microsecond)
	}
	if err := s.store.TouchKeys(ctx, written); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for id, at := range used {
			if at.After(s.used[id]) && len(s.used) < usedLimit {
				s.used[id] = at
			}
		}
		return fmt.Errorf("write last uses of keys: %w", err)
	}
	return nil
}

// checkName wants 1 to 255 printable characters.
func checkName(wrong []fault.Field, name string) []fault.Field {
	switch n := utf8.RuneCountInString(name); {
	case strings.TrimSpace(name) == "" || n > 255:
		return append(wrong, fault.Field{Location: "body.name", Message: "must have 1 to 255 characters"})
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return append(wrong, fault.Field{Location: "body.name", Message: "holds a control character or is not UTF-8"})
	}
	return wrong
}
