package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/postgres"
	"tallyhook/internal/store/storetest"
	"tallyhook/internal/testenv"
)

// listener takes down what a replica hears.
type listener struct {
	t     *testing.T
	mu    sync.Mutex
	heard []store.Change
}

// listen lets another replica of the world's database listen.
func listen(t *testing.T, w *storetest.World) *listener {
	t.Helper()
	s, ok := replica(w).(*postgres.Store)
	if !ok {
		t.Fatal("the replica is no PostgreSQL store")
	}
	l := &listener{t: t}
	ctx, cancel := context.WithCancel(context.Background())
	began, done := make(chan error, 8), make(chan struct{})
	go func() {
		defer close(done)
		s.Listen(ctx, func(c store.Change) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.heard = append(l.heard, c)
		}, func(err error) { began <- err })
	}()
	t.Cleanup(func() { cancel(); <-done })
	must(t, <-began)
	return l
}

// hears waits for a change, and forgets what was heard up to it.
func (l *listener) hears(want store.Change) {
	l.t.Helper()
	testenv.Eventually(l.t, time.Minute, "it hears of "+want.String(), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		i := slices.Index(l.heard, want)
		l.heard = l.heard[i+1:]
		return i >= 0
	})
}

// quiet wants nothing to have been heard since: another word is told after it
// and comes in its turn.
func (l *listener) quiet(w *storetest.World, after string) {
	l.t.Helper()
	mark := store.Change{Kind: store.ChangedSource, ID: uuid.Must(uuid.NewV7())}
	s, ok := w.Store.(*postgres.Store)
	if !ok {
		l.t.Fatal("the world's store is no PostgreSQL store")
	}
	must(l.t, s.Tell(w.Ctx(), mark))
	testenv.Eventually(l.t, time.Minute, "it hears of the mark", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.heard) == 0 {
			return false
		}
		if l.heard[0] != mark {
			l.t.Errorf("%s is told of: %q", after, l.heard[0])
		}
		return slices.Contains(l.heard, mark)
	})
	l.hears(mark)
}

// TestListen: replicas hear of keys, sources and work, by commits alone, and
// not of what happens all the time.
func TestListen(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	l := listen(t, w)
	work := store.Change{Kind: store.ChangedWork}

	k := store.Key{ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, Name: "k", Hash: [32]byte{1}, Scopes: []string{"admin"}, CreatedAt: w.Clock.Now()}
	must(t, w.CreateKey(w.Ctx(), k))
	l.hears(store.Change{Kind: store.ChangedKey, ID: k.ID, Hash: k.Hash})
	if again := w.CreateKey(w.Ctx(), k); again == nil {
		t.Error("a key is stored twice")
	}
	l.quiet(w, "a key that could not be made")
	must(t, w.RevokeKey(w.Ctx(), w.Tenant, k.ID, w.Clock.Now()))
	l.hears(store.Change{Kind: store.ChangedKey, ID: k.ID})
	storetest.Kind(t, w.RevokeKey(w.Ctx(), w.Tenant, k.ID, w.Clock.Now()), fault.NotFound)
	l.quiet(w, "a key that was revoked before")

	src := store.Source{ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, Provider: "lemlist", Name: "s", TokenHash: [32]byte{1}, Sealed: []byte{1}, CreatedAt: w.Clock.Now()}
	changed := store.Change{Kind: store.ChangedSource, ID: src.ID}
	must(t, w.CreateSource(w.Ctx(), src))
	l.hears(changed)
	renamed := src
	renamed.Name = "renamed"
	must(t, w.UpdateSource(w.Ctx(), src, renamed, time.Time{}))
	l.hears(changed)
	moved := renamed
	moved.TokenHash = [32]byte{2}
	must(t, w.UpdateSource(w.Ctx(), renamed, moved, w.Clock.Now().Add(time.Hour)))
	l.hears(changed)
	must(t, w.DeleteSource(w.Ctx(), w.Tenant, src.ID, w.Clock.Now()))
	l.hears(changed)

	// Ingestion, adoption and retries say nothing: telling costs a commit its company.
	w.Send(event.Opened, storetest.Address("ada@example.com"))
	w.Person("ada@example.com")
	w.Send(event.Clicked, storetest.Address("ada@example.com"))
	w.Flood(20, storetest.Lead("nobody"))
	w.Spend()
	l.quiet(w, "ingestion")

	// What is left over for the workers does.
	w.Flood(store.AdoptLimit+50, storetest.Address("bob@example.com"))
	w.Person("bob@example.com")
	l.hears(work)
	_, err := w.StartReplay(w.Ctx(), w.Tenant, nil, store.LetterFilter{}, true, "me")
	must(t, err)
	l.quiet(w, "a dry run")
	_, err = w.StartReplay(w.Ctx(), w.Tenant, nil, store.LetterFilter{}, false, "me")
	must(t, err)
	l.hears(work)
}

// TestListenManyAtOnce: whoever tells, all is heard once, in the order of the
// commits of each.
func TestListenManyAtOnce(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	l := listen(t, w)
	other := replica(w)
	var fns []func() error
	for i, s := range []storetest.Store{w.Store, other, w.Store, other} {
		fns = append(fns, func() error {
			for n := range 10 {
				k := store.Key{ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, Name: fmt.Sprint(i), Hash: [32]byte{byte(i), byte(n)}, Scopes: []string{"admin"}, CreatedAt: w.Clock.Now()}
				if err := s.CreateKey(w.Ctx(), k); err != nil {
					return err
				}
			}
			return nil
		})
	}
	together(t, fns...)
	testenv.Eventually(t, time.Minute, "all is heard", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.heard) >= 40
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	next := [4]byte{}
	for _, c := range l.heard {
		if n := c.Hash[1]; n != next[c.Hash[0]] {
			t.Errorf("of writer %d the %dth was heard, want the %dth", c.Hash[0], n, next[c.Hash[0]])
		}
		next[c.Hash[0]]++
	}
	storetest.Same(t, "heard", len(l.heard), 40)
}
