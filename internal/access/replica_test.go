package access_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tallyhook/internal/access"
	"tallyhook/internal/fault"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
	"tallyhook/internal/store/postgres"
	"tallyhook/internal/testenv"
)

// replica is a service on a real PostgreSQL that hears what others change. Its
// clock stands still: nothing that it holds in memory gets old.
type replica struct {
	*access.Service
	t         *testing.T
	clock     *clock
	admin     access.Principal
	listening atomic.Int64 // how often it began to hear
	deaf      atomic.Bool
}

// newReplica makes one whose store is at a URL, and that hears at another way
// to the same database.
func newReplica(t *testing.T, url, ears string) *replica {
	t.Helper()
	r := &replica{
		t: t, clock: &clock{t: time.Now()},
		admin: access.Principal{Tenant: store.DefaultTenant, Scopes: []string{access.ScopeAdmin}},
	}
	open := func(url string) *postgres.Store {
		s, err := postgres.Open(t.Context(), postgres.Options{URL: url, TxTimeout: time.Minute, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	var err error
	if r.Service, err = access.New(open(url), options(r.clock, 1)); err != nil {
		t.Fatal(err)
	}
	s := open(ears)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Listen(ctx, r.Heard, func(err error) {
			r.Listening(err == nil)
			r.deaf.Store(err != nil)
			if err == nil {
				r.listening.Add(1)
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	r.hears(1)
	return r
}

// hears waits until it has begun to hear for the nth time.
func (r *replica) hears(n int64) {
	r.t.Helper()
	testenv.Eventually(r.t, time.Minute, "the replica hears", func() bool { return r.listening.Load() >= n })
}

func (r *replica) key() (k store.Key, plain string) {
	r.t.Helper()
	k, plain, err := r.CreateKey(r.t.Context(), r.admin, "k", []string{access.ScopeAdmin}, time.Time{})
	if err != nil {
		r.t.Fatal(err)
	}
	return k, plain
}

func (r *replica) revoke(k store.Key) {
	r.t.Helper()
	if err := r.RevokeKey(r.t.Context(), r.admin, k.ID); err != nil {
		r.t.Fatal(err)
	}
}

// accepts wants a key to be accepted, and so to be in memory afterwards.
func (r *replica) accepts(plain string) {
	r.t.Helper()
	if _, err := r.Authenticate(r.t.Context(), plain); err != nil {
		r.t.Fatal(err)
	}
}

// refuses waits until a key is refused, which only a change that was heard of
// can bring about.
func (r *replica) refuses(plain string) {
	r.t.Helper()
	testenv.Eventually(r.t, time.Minute, "the key is refused", func() bool {
		_, err := r.Authenticate(r.t.Context(), plain)
		return fault.Is(err, fault.Unauthenticated)
	})
}

// TestReplicasHearOfChanges: whatever is in one replica's memory, a change on
// another one is seen at once, and not when the memory gets old.
func TestReplicasHearOfChanges(t *testing.T) {
	t.Parallel()
	url := testenv.StartPostgres(t, testenv.PostgresOptions{}).Database(t, "replicas")
	a, b := newReplica(t, url, url), newReplica(t, url, url)
	ctx := t.Context()

	k, plain := a.key()
	testenv.Eventually(t, time.Minute, "the new key is known", func() bool { return b.KnownKey(plain) })
	b.accepts(plain)
	a.revoke(k)
	b.refuses(plain)

	const configured = "correct horse battery"
	if _, err := b.Authenticate(ctx, configured); !fault.Is(err, fault.Unauthenticated) {
		t.Fatalf("a key that is not there: %v", err)
	}
	if _, _, err := a.Bootstrap(ctx, configured); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, time.Minute, "the key that was unknown is accepted", func() bool {
		_, err := b.Authenticate(ctx, configured)
		return err == nil
	})

	made, err := a.CreateSource(ctx, a.admin, access.SourceInput{Provider: "generic", Name: "s", Settings: provider.Settings{OnUnmatched: "park"}})
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, time.Minute, "the new source is known", func() bool { return b.KnownSource(made.ID) })
	token := tokenOf(t, made.URL)
	opened := func() (access.Opened, error) {
		o, err := b.SourceByToken(ctx, token)
		if p, ierr := b.OpenSource(ctx, made.ID); (ierr == nil) != (err == nil) || p.Config.Settings.OnUnmatched != o.Config.Settings.OnUnmatched {
			return access.Opened{}, nil // one of the two is told a moment before the other
		}
		return o, err
	}
	if o, err := opened(); err != nil || o.Config.Settings.OnUnmatched != "park" {
		t.Fatalf("got %+v, %v", o.Config.Settings, err)
	}
	if _, err := a.PatchSource(ctx, a.admin, made.ID, access.SourcePatch{Settings: &provider.Settings{OnUnmatched: "ignore"}}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, time.Minute, "the changed source is seen", func() bool {
		o, err := opened()
		return err == nil && o.Config.Settings.OnUnmatched == "ignore"
	})
	if err := a.DeleteSource(ctx, a.admin, made.ID); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, time.Minute, "the deleted source is gone", func() bool {
		_, err := opened()
		return fault.Is(err, fault.NotFound)
	})
}

// TestDeafReplica: what is changed while a replica does not hear is seen within
// a second of its clock, and at once when it hears again, however it went deaf.
func TestDeafReplica(t *testing.T) {
	t.Parallel()
	pg := testenv.StartPostgres(t, testenv.PostgresOptions{})
	url := pg.Database(t, "deaf")
	way := testenv.StartProxy(t, pg.Addr())
	a, b := newReplica(t, url, url), newReplica(t, url, strings.Replace(url, pg.Addr(), way.Addr, 1))
	began := int64(1)
	for name, f := range map[string]struct{ begin, end func() }{
		"Refused": {func() { way.Refuse(true) }, func() { way.Refuse(false) }},
		// Nothing says that the connection is gone but that nobody answers.
		"Stalled": {func() { way.Stall(true) }, func() { way.Stall(false) }},
	} {
		k, plain := a.key()
		other, plainOther := a.key()
		b.accepts(plain)
		f.begin()
		testenv.Eventually(t, time.Minute, name+": it is noticed", b.deaf.Load)
		a.revoke(k)
		b.clock.add(2 * time.Second)
		if _, err := b.Authenticate(t.Context(), plain); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: a key that was revoked 2 s ago: %v", name, err)
		}
		b.accepts(plainOther)
		a.revoke(other)
		f.end()
		began++
		b.hears(began)
		b.refuses(plainOther)
	}
	// Cut and at once let through: nobody notices but by the connection.
	k, plain := a.key()
	b.accepts(plain)
	way.Cut()
	a.revoke(k)
	b.hears(began + 1)
	b.refuses(plain)
}
