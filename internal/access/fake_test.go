package access_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// memory is a Store that counts its calls and can be down.
type memory struct {
	mu       sync.Mutex
	calls    map[string]int
	down     bool
	during   func() // runs inside the next read, before it answers
	keys     map[uuid.UUID]store.Key
	sources  map[uuid.UUID]store.Source
	settings map[string][]byte
	former   map[[32]byte]store.FormerToken
	audits   []store.Audit
}

var _ access.Store = (*memory)(nil)

func newMemory() *memory {
	return &memory{
		calls: map[string]int{}, keys: map[uuid.UUID]store.Key{}, sources: map[uuid.UUID]store.Source{},
		settings: map[string][]byte{}, former: map[[32]byte]store.FormerToken{},
	}
}

var errDown = errors.New("connection refused")

// enter counts a call; the caller unlocks.
func (m *memory) enter(name string) error {
	m.mu.Lock()
	m.calls[name]++
	if m.down {
		return errDown
	}
	return nil
}

// interrupt runs what a test put between a read and its answer.
func (m *memory) interrupt() {
	m.mu.Lock()
	f := m.during
	m.during = nil
	m.mu.Unlock()
	if f != nil {
		f()
	}
}

func (m *memory) set(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
}

func (m *memory) count(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[name]
}

func (m *memory) total() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, c := range m.calls {
		n += c
	}
	return n
}

func absent() error { return fault.New(fault.NotFound, "no row") }

func (m *memory) CreateKey(_ context.Context, k store.Key) error {
	err := m.enter("CreateKey")
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	for _, o := range m.keys {
		if o.Hash == k.Hash {
			return fault.New(fault.Conflict, "hash exists")
		}
	}
	m.keys[k.ID] = k
	return nil
}

func (m *memory) KeyByHash(_ context.Context, hash [32]byte) (k store.Key, err error) {
	err = m.enter("KeyByHash")
	defer m.interrupt()
	defer m.mu.Unlock()
	if err != nil {
		return k, err
	}
	for _, k := range m.keys {
		if k.Hash == hash {
			return k, nil
		}
	}
	return k, absent()
}

func (m *memory) Keys(_ context.Context, tenant int64, _ store.Page) (rows []store.Key, _ int64, err error) {
	err = m.enter("Keys")
	defer m.mu.Unlock()
	for _, k := range m.keys {
		if k.Tenant == tenant {
			rows = append(rows, k)
		}
	}
	return rows, 0, err
}

func (m *memory) AllKeys(context.Context, int64, int) ([]store.Key, int64, error) {
	err := m.enter("AllKeys")
	defer m.mu.Unlock()
	return nil, 0, err
}

func (m *memory) AllSources(context.Context, int64, int) ([]store.Source, int64, error) {
	err := m.enter("AllSources")
	defer m.mu.Unlock()
	return nil, 0, err
}

func (m *memory) RevokeKey(_ context.Context, tenant int64, id uuid.UUID, at time.Time) error {
	err := m.enter("RevokeKey")
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	k, ok := m.keys[id]
	if !ok || k.Tenant != tenant || !k.RevokedAt.IsZero() {
		return absent()
	}
	k.RevokedAt = at
	m.keys[id] = k
	return nil
}

func (m *memory) CountKeys(context.Context) (n int64, err error) {
	err = m.enter("CountKeys")
	defer m.mu.Unlock()
	for _, k := range m.keys {
		if k.RevokedAt.IsZero() && slices.Contains(k.Scopes, access.ScopeAdmin) {
			n++
		}
	}
	return n, err
}

func (m *memory) TouchKeys(_ context.Context, used map[uuid.UUID]time.Time) error {
	err := m.enter("TouchKeys")
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	for id, at := range used {
		k := m.keys[id]
		k.LastUsedAt = at
		m.keys[id] = k
	}
	return nil
}

func (m *memory) CreateSource(_ context.Context, s store.Source) error {
	err := m.enter("CreateSource")
	defer m.mu.Unlock()
	if err == nil {
		m.sources[s.ID] = s
	}
	return err
}

func (m *memory) SourceByToken(_ context.Context, hash [32]byte) (store.Source, error) {
	s, err := m.source("SourceByToken", func(s store.Source) bool {
		return s.TokenHash == hash || m.former[hash].Source == s.ID
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	s.TokenEndsAt = m.former[hash].EndsAt
	return s, err
}

func (m *memory) SourceByID(_ context.Context, id uuid.UUID) (store.Source, error) {
	return m.source("SourceByID", func(s store.Source) bool { return s.ID == id })
}

func (m *memory) Source(_ context.Context, tenant int64, id uuid.UUID) (store.Source, error) {
	return m.source("Source", func(s store.Source) bool { return s.ID == id && s.Tenant == tenant })
}

func (m *memory) source(call string, match func(store.Source) bool) (store.Source, error) {
	err := m.enter(call)
	defer m.interrupt()
	defer m.mu.Unlock()
	if err != nil {
		return store.Source{}, err
	}
	for _, s := range m.sources {
		if match(s) {
			return s, nil
		}
	}
	return store.Source{}, absent()
}

func (m *memory) Sources(_ context.Context, tenant int64, _ store.Page) (rows []store.Source, _ int64, err error) {
	err = m.enter("Sources")
	defer m.mu.Unlock()
	for _, s := range m.sources {
		if s.Tenant == tenant && s.DeletedAt.IsZero() {
			rows = append(rows, s)
		}
	}
	return rows, 0, err
}

func (m *memory) FormerTokens(context.Context, int64, int) ([]store.FormerToken, int64, error) {
	err := m.enter("FormerTokens")
	defer m.mu.Unlock()
	return nil, 0, err
}

func (m *memory) UpdateSource(_ context.Context, was, s store.Source, ends time.Time) error {
	err := m.enter("UpdateSource")
	defer m.mu.Unlock()
	switch {
	case err != nil:
		return err
	case !bytes.Equal(m.sources[s.ID].Sealed, was.Sealed) || m.sources[s.ID].TokenHash != was.TokenHash:
		return fault.New(fault.Conflict, "the row is another")
	case s.TokenHash != was.TokenHash:
		m.former[was.TokenHash] = store.FormerToken{Hash: was.TokenHash, Source: s.ID, EndsAt: ends}
	}
	m.sources[s.ID] = s
	return nil
}

func (m *memory) DeleteSource(_ context.Context, _ int64, id uuid.UUID, at time.Time) error {
	err := m.enter("DeleteSource")
	defer m.mu.Unlock()
	if err == nil {
		s := m.sources[id]
		s.DeletedAt = at
		m.sources[id] = s
	}
	return err
}

func (m *memory) Setting(_ context.Context, name string) ([]byte, error) {
	err := m.enter("Setting")
	defer m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	v, ok := m.settings[name]
	if !ok {
		return nil, absent()
	}
	return bytes.Clone(v), nil
}

func (m *memory) PutSetting(_ context.Context, name string, value []byte) error {
	err := m.enter("PutSetting")
	defer m.mu.Unlock()
	if err == nil {
		m.settings[name] = bytes.Clone(value)
	}
	return err
}

func (m *memory) Audit(_ context.Context, a store.Audit) error {
	err := m.enter("Audit")
	defer m.mu.Unlock()
	if err == nil {
		m.audits = append(m.audits, a)
	}
	return err
}

// clock is a clock that is set by hand.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

type fixture struct {
	*access.Service
	store *memory
	clock *clock
	log   *bytes.Buffer
	admin access.Principal
}

func options(c *clock, key byte) access.Options {
	return access.Options{SecretsKey: [32]byte{key}, PublicURL: "https://events.example.com/", Now: c.now}
}

func setup(t testing.TB) fixture {
	t.Helper()
	f := fixture{
		store: newMemory(), clock: &clock{t: time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)}, log: &bytes.Buffer{},
		admin: access.Principal{Tenant: store.DefaultTenant, KeyID: uuid.MustParse("01936000-0000-7000-8000-000000000001"), Scopes: []string{access.ScopeAdmin}},
	}
	o := options(f.clock, 1)
	o.Logger = slog.New(slog.NewTextHandler(f.log, nil))
	s, err := access.New(f.store, o)
	if err != nil {
		t.Fatal(err)
	}
	f.Service = s
	return f
}

func wantKind(t testing.TB, err error, want fault.Kind) {
	t.Helper()
	if !fault.Is(err, want) {
		t.Fatalf("got %v, want kind %v", err, want)
	}
}

func (f fixture) stored(plain string) store.Key {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	for _, k := range f.store.keys {
		if k.Hash == sha256.Sum256([]byte(plain)) {
			return k
		}
	}
	return store.Key{}
}
