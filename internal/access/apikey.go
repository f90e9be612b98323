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
		if _, err := s.addKey(ctx, Principal{Tenant: store.DefaultTenant}, plain, store.Key{Name: "first key", Scopes: []string{ScopeAdmin}}, store.Idempotency{}); err != nil {
			return "", false, err
		}
		return plain, true, nil
	}
	k, err := s.store.KeyByHash(ctx, sha256.Sum256([]byte(apiKey)))
	switch {
	case fault.Is(err, fault.NotFound):
		if _, err = s.addKey(ctx, Principal{Tenant: store.DefaultTenant}, apiKey, store.Key{Name: "API_KEY", Scopes: []string{ScopeAdmin}}, store.Idempotency{}); err != nil {
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
// refusal. While the store is away a key of the snapshot may write events. A
// good key of a suspended tenant is Forbidden, and the principal says whose it
// is. Where the request comes from is the caller's to ask: see Principal.From.
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
	n, err := s.tenantOf(ctx, k.Tenant)
	if err != nil {
		return s.principalAway(ctx, hash, err)
	}
	s.known.addKey(hash)
	if !n.SuspendedAt.IsZero() {
		return Principal{Tenant: k.Tenant, KeyID: k.ID}, &fault.Error{
			Kind: fault.Forbidden, Op: "admit", Msg: "the tenant of this API key is suspended", Err: ErrSuspended,
		}
	}
	s.touch(k.ID, now)
	return Principal{Tenant: k.Tenant, KeyID: k.ID, Scopes: k.Scopes, AllowedIPs: k.AllowedIPs, PerSecond: n.Limits.RequestsPerSecond}, nil
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

// CreateKey makes a key that may be used from everywhere; see MakeKey.
func (s *Service) CreateKey(ctx context.Context, by Principal, name string, scopes []string, expires time.Time) (k store.Key, plain string, err error) {
	return s.MakeKey(ctx, by, KeyInput{Name: name, Scopes: scopes, Expires: expires})
}

// MakeKey makes a key with scopes that its maker has too. plain is shown once,
// and again only to the same request with the same Idempotency-Key within a
// day; else it is stored nowhere.
func (s *Service) MakeKey(ctx context.Context, by Principal, in KeyInput) (k store.Key, plain string, err error) {
	wrong := checkName(nil, in.Name)
	wrong = checkScopes(wrong, in.Scopes)
	wrong = s.checkExpiry(wrong, in.Expires)
	allowed, wrong := checkAllowed(wrong, in.AllowedIPs)
	if len(wrong) > 0 {
		return store.Key{}, "", fault.BadInput(wrong...)
	}
	given := make([]string, 0, len(in.Scopes))
	for _, scope := range Scopes() { // in their order, each once
		if !slices.Contains(in.Scopes, scope) {
			continue
		}
		if !by.Has(scope) {
			return store.Key{}, "", fault.New(fault.Forbidden, "your API key has not the scope %s, so it cannot give it", scope)
		}
		given = append(given, scope)
	}
	return s.showOnce(ctx, by, in.Idempotency, func(plain string) (store.Key, error) {
		return s.addKey(ctx, by, plain, store.Key{Name: in.Name, Scopes: given, ExpiresAt: in.Expires, AllowedIPs: allowed}, in.Idempotency)
	})
}

// showOnce makes a key by add, or reads the one that an earlier request with
// the same Idempotency-Key made.
func (s *Service) showOnce(ctx context.Context, by Principal, idem store.Idempotency, add func(plain string) (store.Key, error)) (k store.Key, plain string, err error) {
	shown, id, again, err := s.once(ctx, by, idem, func() ([]string, error) {
		plain, err := makeKey()
		if err != nil {
			return nil, fmt.Errorf("make key: %w", err)
		}
		k, err = add(plain)
		return []string{plain}, err
	})
	if err == nil && again {
		k, err = s.store.KeyByID(ctx, by.Tenant, id)
	}
	if err != nil {
		return store.Key{}, "", err
	}
	return k, shown[0], nil
}

// addKey stores a key for the tenant of its maker. What is not set of it is
// set here.
func (s *Service) addKey(ctx context.Context, by Principal, plain string, k store.Key, idem store.Idempotency) (store.Key, error) {
	if err := s.completeKey(&k, by.Tenant, plain); err != nil {
		return store.Key{}, err
	}
	trace := s.line(by, "key.create", k.ID, k.Name+": "+strings.Join(k.Scopes, " "))
	var err error
	if trace.Idempotency, err = s.sealShown(idem, k.ID, plain); err != nil {
		return store.Key{}, err
	}
	if err := s.store.CreateKey(ctx, k, trace); err != nil {
		return store.Key{}, fmt.Errorf("create key: %w", err)
	}
	s.admitKey(k)
	return k, nil
}

func (s *Service) completeKey(k *store.Key, tenant int64, plain string) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make id: %w", err)
	}
	k.ID, k.Tenant, k.Hash, k.Prefix, k.CreatedAt = id, tenant, sha256.Sum256([]byte(plain)), shownPrefix(plain), s.at()
	if !k.ExpiresAt.IsZero() {
		k.ExpiresAt = k.ExpiresAt.UTC().Truncate(time.Microsecond)
	}
	return nil
}

// admitKey lets a key that was just stored be used at once.
func (s *Service) admitKey(k store.Key) {
	s.Heard(store.Change{Kind: store.ChangedKey, ID: k.ID, Hash: k.Hash})
}

func checkScopes(wrong []fault.Field, scopes []string) []fault.Field {
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
	return wrong
}

func (s *Service) checkExpiry(wrong []fault.Field, expires time.Time) []fault.Field {
	if !expires.IsZero() && (!expires.After(s.now()) || !event.PlausibleTime(expires)) {
		wrong = append(wrong, fault.Field{Location: "body.expires_in_days", Message: "must lie in the future, before the year 2200"})
	}
	return wrong
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
	err := s.store.RevokeKey(ctx, by.Tenant, id, s.at(), s.line(by, "key.revoke", id, ""))
	switch {
	case fault.Is(err, fault.NotFound):
		return fault.New(fault.NotFound, "there is no live API key with this id")
	case err != nil:
		s.endKey(id, time.Time{}) // a commit of unknown outcome may have happened
		return fmt.Errorf("revoke key: %w", err)
	}
	s.endKey(id, s.now())
	return nil
}

// endKey forgets what is known of a key that has changed. Where it is known
// when it ends, no snapshot from before lets it live longer.
func (s *Service) endKey(id uuid.UUID, at time.Time) {
	s.Heard(store.Change{Kind: store.ChangedKey, ID: id})
	if at.IsZero() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ended) < usedLimit {
		s.ended[id] = at
	}
}

// hasEnded tells of a key from a snapshot whether it was ended here since.
func (s *Service) hasEnded(id uuid.UUID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.ended[id]
	return ok && !s.now().Before(at)
}

// RotateKey makes a key in place of another, with its name, scopes and allowed
// addresses. The old one ends when the grace is over, or when it would have
// ended anyway. plain is shown as by MakeKey.
func (s *Service) RotateKey(ctx context.Context, by Principal, id uuid.UUID, in KeyRotation) (k, old store.Key, plain string, err error) {
	if in.Grace < 0 || in.Grace > MaxGrace {
		return k, old, "", fault.BadInput(fault.Field{Location: "body.grace", Message: fmt.Sprintf("must be 0s to %dh", MaxGrace/time.Hour)})
	}
	if wrong := s.checkExpiry(nil, in.Expires); len(wrong) > 0 {
		return k, old, "", fault.BadInput(wrong...)
	}
	if old, err = s.liveKey(ctx, by.Tenant, id); err != nil && in.Idempotency.Key == "" {
		return k, store.Key{}, "", err
	}
	k, plain, err = s.showOnce(ctx, by, in.Idempotency, func(plain string) (store.Key, error) {
		if err != nil {
			return store.Key{}, err
		}
		return s.replaceKey(ctx, by, plain, old, in)
	})
	if err != nil {
		return store.Key{}, store.Key{}, "", err
	}
	old, err = s.store.KeyByID(ctx, by.Tenant, id) // with the end that it has now
	return k, old, plain, err
}

// liveKey reads a key that is neither revoked nor expired.
func (s *Service) liveKey(ctx context.Context, tenant int64, id uuid.UUID) (store.Key, error) {
	k, err := s.store.KeyByID(ctx, tenant, id)
	switch {
	case fault.Is(err, fault.NotFound), err == nil && s.refuses(k) != "":
		return store.Key{}, fault.New(fault.NotFound, "there is no live API key with this id")
	case err != nil:
		return store.Key{}, fmt.Errorf("read key: %w", err)
	}
	return k, nil
}

func (s *Service) replaceKey(ctx context.Context, by Principal, plain string, old store.Key, in KeyRotation) (store.Key, error) {
	k := store.Key{Name: old.Name, Scopes: old.Scopes, AllowedIPs: old.AllowedIPs, ExpiresAt: in.Expires}
	if k.ExpiresAt.IsZero() && !old.ExpiresAt.IsZero() {
		k.ExpiresAt = s.now().Add(old.ExpiresAt.Sub(old.CreatedAt))
	}
	if err := s.completeKey(&k, by.Tenant, plain); err != nil {
		return store.Key{}, err
	}
	trace := s.line(by, "key.rotate", old.ID, "replaced by "+k.ID.String()+", grace "+in.Grace.String())
	var err error
	if trace.Idempotency, err = s.sealShown(in.Idempotency, k.ID, plain); err != nil {
		return store.Key{}, err
	}
	until := s.at().Add(in.Grace)
	err = s.store.RotateKey(ctx, old.ID, k, until, trace)
	switch {
	case fault.Is(err, fault.NotFound):
		return store.Key{}, fault.New(fault.NotFound, "there is no live API key with this id")
	case err != nil:
		s.endKey(old.ID, time.Time{})
		return store.Key{}, fmt.Errorf("rotate key: %w", err)
	}
	s.endKey(old.ID, until)
	s.admitKey(k)
	return k, nil
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
