package access_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// acme makes a tenant and gives its admin, its key and the token of its source.
func (n *node) acme(t *testing.T, l store.Limits) (made store.Tenant, key, token string) {
	t.Helper()
	made, key, err := n.CreateTenant(t.Context(), n.admin, access.TenantInput{Name: "acme", Limits: l})
	if err != nil {
		t.Fatal(err)
	}
	p, err := n.Authenticate(t.Context(), key)
	if err != nil || p.Tenant != made.ID || p.Operator() || !p.Has(access.ScopeAdmin) {
		t.Fatal(p, err)
	}
	s, err := n.CreateSource(t.Context(), p, access.SourceInput{Provider: "smartlead", Name: "s", Secret: "a vendor's signing key"})
	if err != nil {
		t.Fatal(err)
	}
	return made, key, strings.TrimPrefix(s.URL, "https://events.example.com/webhooks/")
}

func TestTenantsLimitsAreTold(t *testing.T) {
	t.Parallel()
	n := setupNode(t)
	made, key, token := n.acme(t, store.Limits{RequestsPerSecond: 3, WebhooksPerSecond: 4})
	told := func(requests, webhooks int) {
		t.Helper()
		p, err := n.Authenticate(t.Context(), key)
		s, serr := n.SourceByToken(t.Context(), token)
		if err := errors.Join(err, serr); err != nil || p.PerSecond != requests || s.PerSecond != webhooks {
			t.Errorf("got %d and %d, %v; want %d and %d", p.PerSecond, s.PerSecond, err, requests, webhooks)
		}
	}
	told(3, 4)
	if _, err := n.PatchTenant(t.Context(), n.admin, made.UID, access.TenantPatch{Limits: &store.Limits{RequestsPerSecond: 5}}); err != nil {
		t.Fatal(err)
	}
	told(5, 0) // at once
	for _, l := range []store.Limits{{MaxKeys: -1}, {RequestsPerSecond: 1_000_001}} {
		_, err := n.PatchTenant(t.Context(), n.admin, made.UID, access.TenantPatch{Limits: &l})
		wantKind(t, err, fault.Invalid)
	}
}

// TestSuspendedAtOnce here, and on another node when what it knows is too old.
func TestSuspendedAtOnce(t *testing.T) {
	t.Parallel()
	n := setupNode(t)
	made, key, token := n.acme(t, store.Limits{})
	other, err := access.New(n.db, access.Options{SecretsKey: [32]byte{1}, PublicURL: "https://events.example.com", Now: n.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	is := func(s *access.Service, suspended bool) {
		t.Helper()
		p, err := s.Authenticate(t.Context(), key)
		o, serr := s.SourceByToken(t.Context(), token)
		if serr != nil || o.Suspended != suspended || errors.Is(err, access.ErrSuspended) != suspended || p.Tenant != made.ID {
			t.Errorf("got %+v, %v, %v, %v; want suspended %v", p, err, o.Suspended, serr, suspended)
		}
	}
	is(n.Service, false)
	is(other, false)
	if _, err := n.SuspendTenant(t.Context(), n.admin, made.UID); err != nil {
		t.Fatal(err)
	}
	is(n.Service, true)
	is(other, false) // it has not heard of it yet
	n.clock.add(30 * time.Second)
	is(other, true)
	if _, err := n.ResumeTenant(t.Context(), n.admin, made.UID); err != nil {
		t.Fatal(err)
	}
	is(n.Service, false)
	wantKind(t, errOf(n.SuspendTenant(t.Context(), n.admin, uuid.New())), fault.NotFound)
}

func errOf[T any](_ T, err error) error { return err }

// TestSnapshotHonoursWhatEndsAKey: while the database is away a key is as good
// as it was, and no better.
func TestSnapshotHonoursWhatEndsAKey(t *testing.T) {
	t.Parallel()
	n := setupNode(t)
	write := []string{access.ScopeEventsWrite}
	plain := map[string]string{}
	ids := map[string]uuid.UUID{}
	for name, in := range map[string]access.KeyInput{
		"Live": {}, "Expires": {Expires: n.clock.now().Add(10 * time.Minute)}, "Revoked": {}, "Rotated": {}, "InGrace": {},
		"Bound": {AllowedIPs: []string{"192.0.2.7", "2001:db8::/32"}}, "Late": {},
	} {
		in.Name, in.Scopes = name, write
		k, p, err := n.MakeKey(t.Context(), n.admin, in)
		if err != nil {
			t.Fatal(err)
		}
		plain[name], ids[name] = p, k.ID
	}
	made, theirKey, theirToken := n.acme(t, store.Limits{})
	rotate := func(name string, grace time.Duration) {
		t.Helper()
		if _, _, _, err := n.RotateKey(t.Context(), n.admin, ids[name], access.KeyRotation{Grace: grace}); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.RevokeKey(t.Context(), n.admin, ids["Revoked"]); err != nil {
		t.Fatal(err)
	}
	rotate("Rotated", 0)
	rotate("InGrace", 5*time.Minute)
	if _, err := n.SuspendTenant(t.Context(), n.admin, made.UID); err != nil {
		t.Fatal(err)
	}
	n.save(t)
	if err := n.RevokeKey(t.Context(), n.admin, ids["Late"]); err != nil { // after the snapshot was written
		t.Fatal(err)
	}
	n.db.stop(t)
	n.clock.add(31 * time.Second)
	good := func(when string, want ...string) {
		t.Helper()
		var got []string
		for name, key := range plain {
			if p, err := n.Authenticate(t.Context(), key); err == nil && p.Away {
				got = append(got, name)
			} else if !fault.Is(err, fault.Unavailable) {
				t.Errorf("%s, %s: got %v", when, name, err)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v are good, want %v", when, got, want)
		}
	}
	good("at first", "Bound", "Expires", "InGrace", "Live")
	p, err := n.Authenticate(t.Context(), plain["Bound"])
	if err != nil {
		t.Fatal(err)
	}
	for addr, ok := range map[string]bool{"192.0.2.7": true, "192.0.2.8": false, "2001:db8:1::1": true, "2001:db9::1": false} {
		if err := p.From(netip.MustParseAddr(addr)); (err == nil) != ok || (err != nil && !errors.Is(err, access.ErrAddress)) {
			t.Errorf("from %s: got %v", addr, err)
		}
	}
	wantKind(t, errOf(n.Authenticate(t.Context(), theirKey)), fault.Unavailable)
	wantKind(t, errOf(n.SourceByToken(t.Context(), theirToken)), fault.Unavailable)
	n.clock.add(5 * time.Minute)
	good("after the grace", "Bound", "Expires", "Live")
	n.clock.add(5 * time.Minute)
	good("after the end", "Bound", "Live")
	n.db.start(t)
}

// TestAnswersForgottenAfterADay: what was shown once is asked for in vain then,
// and nothing is made a second time.
func TestAnswersForgottenAfterADay(t *testing.T) {
	t.Parallel()
	n := setupNode(t)
	in := access.KeyInput{Name: "k", Scopes: []string{access.ScopeAdmin}, Idempotency: store.Idempotency{Key: "once", Request: [32]byte{1}}}
	first, plain, err := n.MakeKey(t.Context(), n.admin, in)
	if err != nil {
		t.Fatal(err)
	}
	n.clock.add(23 * time.Hour)
	if err := n.ForgetAnswers(t.Context()); err != nil {
		t.Fatal(err)
	}
	again, same, err := n.MakeKey(t.Context(), n.admin, in)
	if err != nil || again.ID != first.ID || same != plain {
		t.Errorf("within a day: got %v, %v", again, err)
	}
	n.clock.add(time.Hour + time.Second)
	if err := n.ForgetAnswers(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, same, err = n.MakeKey(t.Context(), n.admin, in)
	wantKind(t, err, fault.Conflict)
	if same != "" || !strings.Contains(err.Error(), first.ID.String()) {
		t.Errorf("got %v", err)
	}
	// Nor does a refusal of the request's own pass for an answer.
	in.Idempotency.Key, in.Name = "thrice", ""
	_, _, err = n.MakeKey(t.Context(), n.admin, in)
	wantKind(t, err, fault.Invalid)
	in.Name = "k"
	if _, _, err := n.MakeKey(t.Context(), n.admin, in); err != nil {
		t.Error(err)
	}
}

// TestSameRequestAtOnce makes one key, and shows it to all.
func TestSameRequestAtOnce(t *testing.T) {
	t.Parallel()
	n := setupNode(t)
	in := access.KeyInput{Name: "k", Scopes: []string{access.ScopeAdmin}, Idempotency: store.Idempotency{Key: "once", Request: [32]byte{1}}}
	shown := make([]string, 8)
	var wg sync.WaitGroup
	for i := range shown {
		wg.Go(func() {
			_, plain, err := n.MakeKey(t.Context(), n.admin, in)
			if err != nil {
				t.Error(err)
			}
			shown[i] = plain
		})
	}
	wg.Wait()
	if all := slices.Compact(shown); len(all) != 1 || all[0] == "" {
		t.Errorf("shown were %d different keys", len(all))
	}
}

// TestEveryTenantsKeysAreKnown from the start on: a good key is never held for
// a guess, whoever's it is.
func TestEveryTenantsKeysAreKnown(t *testing.T) {
	t.Parallel()
	n := setupNode(t)
	_, key, _ := n.acme(t, store.Limits{})
	n.mustStart(t)
	if n.KnownKey(key) {
		t.Fatal("known before anything was read")
	}
	if err := n.Learn(t.Context()); err != nil || !n.KnownKey(key) || !n.KnownKey(n.adminKey) {
		t.Errorf("not known after the start: %v", err)
	}
}
