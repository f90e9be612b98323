package access_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func TestBootstrapMakesOneKey(t *testing.T) {
	t.Parallel()
	f := setup(t)
	plain, made, err := f.Bootstrap(t.Context(), "")
	if err != nil || !made || len(plain) != 53 || !strings.HasPrefix(plain, "thk_") {
		t.Fatalf("got %q, %v, %v", plain, made, err)
	}
	p, err := f.Authenticate(t.Context(), plain)
	if err != nil || !p.Has(access.ScopeDLQWrite) || p.Tenant != store.DefaultTenant {
		t.Errorf("got %+v, %v", p, err)
	}
	if again, made, err := f.Bootstrap(t.Context(), ""); again != "" || made || err != nil {
		t.Errorf("second start: got %q, %v, %v", again, made, err)
	}
	want := []store.Audit{{
		At: f.clock.now(), Tenant: 1, Actor: "system", Action: "key.create", Subject: p.KeyID.String(), Detail: "first key: admin",
	}}
	if d := cmp.Diff(want, f.store.audits); d != "" {
		t.Error(d)
	}
}

func TestBootstrapConfigured(t *testing.T) {
	t.Parallel()
	made, _, err := setup(t).Bootstrap(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		key string
		ok  bool
	}{
		"Sixteen":      {"correct horse ba", true},
		"TooShort":     {"correct horse b", false},
		"TooLong":      {strings.Repeat("x", 600), false},
		"Ours":         {made, true},
		"Golden":       {"thk_d4w6PZ7gXryi64chIArRFGojkylNYS_ZRfEBOCGxL6w7IzMt0", true},
		"OursMistyped": {made[:10] + "*" + made[11:], false},
		"OursCut":      {made[:40], false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			plain, shown, err := f.Bootstrap(t.Context(), tt.key)
			if (err == nil) != tt.ok || plain != "" || shown {
				t.Fatalf("got %q, %v, %v", plain, shown, err)
			}
			if err != nil {
				if strings.Contains(err.Error(), tt.key) || !strings.Contains(err.Error(), "API_KEY") {
					t.Errorf("got %v", err)
				}
				return
			}
			if _, _, err := f.Bootstrap(t.Context(), tt.key); err != nil || len(f.store.keys) != 1 {
				t.Errorf("again: %v, %d keys", err, len(f.store.keys))
			}
			if _, err := f.Authenticate(t.Context(), tt.key); err != nil {
				t.Error(err)
			}
			if p := f.stored(tt.key).Prefix; !strings.HasPrefix(tt.key, p) || len(p) > 10 {
				t.Errorf("got prefix %q", p)
			}
		})
	}
}

func TestBootstrapStoreDown(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.store.set(true)
	for _, key := range []string{"", "correct horse battery"} {
		if _, made, err := f.Bootstrap(t.Context(), key); made || !errors.Is(err, errDown) {
			t.Errorf("%q: got %v, %v", key, made, err)
		}
	}
}

// Two processes that start at once store the configured key once, and both
// start.
func TestBootstrapRace(t *testing.T) {
	t.Parallel()
	f := setup(t)
	const key = "correct horse battery"
	f.store.during = func() {
		if _, _, err := f.Bootstrap(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := f.Bootstrap(t.Context(), key); err != nil || len(f.store.keys) != 1 {
		t.Errorf("got %v, %d keys", err, len(f.store.keys))
	}
}

func TestBootstrapRevokedKeyStaysRevoked(t *testing.T) {
	t.Parallel()
	f := setup(t)
	const key = "correct horse battery"
	if _, _, err := f.Bootstrap(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := f.RevokeKey(t.Context(), f.admin, f.stored(key).ID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Bootstrap(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Authenticate(t.Context(), key); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(f.log.String(), "was revoked") {
		t.Errorf("got log %q", f.log)
	}
}

func TestAuthenticateRefuses(t *testing.T) {
	t.Parallel()
	f := setup(t)
	k, plain, err := f.CreateKey(t.Context(), f.admin, "k", []string{access.ScopeEventsRead}, f.clock.now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := setup(t).Bootstrap(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		key   string
		reads int // of the store
	}{
		"Missing":      {"", 0},
		"Short":        {"short", 0},
		"Long":         {strings.Repeat("x", 600), 0},
		"Mistyped":     {plain[:20] + "~" + plain[21:], 0},
		"Cut":          {plain[:len(plain)-1], 0},
		"WellFormed":   {other, 1},
		"AnotherStyle": {"some other configured key", 1},
	} {
		before := f.store.count("KeyByHash")
		for range 3 {
			_, err := f.Authenticate(t.Context(), tt.key)
			wantKind(t, err, fault.Unauthenticated)
			if !strings.Contains(err.Error(), "API key") || (tt.key != "" && strings.Contains(err.Error(), tt.key)) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if got := f.store.count("KeyByHash") - before; got != tt.reads {
			t.Errorf("%s: got %d reads, want %d", name, got, tt.reads)
		}
	}

	p, err := f.Authenticate(t.Context(), plain)
	want := access.Principal{Tenant: 1, KeyID: k.ID, Scopes: []string{access.ScopeEventsRead}}
	if d := cmp.Diff(want, p); err != nil || d != "" {
		t.Error(err, d)
	}
	f.clock.add(time.Hour) // expired at this very moment
	_, err = f.Authenticate(t.Context(), plain)
	wantKind(t, err, fault.Unauthenticated)
	if !strings.Contains(err.Error(), "expired") {
		t.Errorf("got %v", err)
	}
}

func TestAuthenticateCaches(t *testing.T) {
	t.Parallel()
	f := setup(t)
	plain, _, err := f.Bootstrap(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	reads := func(want int) {
		t.Helper()
		for range 5 {
			if _, err := f.Authenticate(t.Context(), plain); err != nil {
				t.Fatal(err)
			}
		}
		if got := f.store.count("KeyByHash"); got != want {
			t.Errorf("got %d reads, want %d", got, want)
		}
	}
	reads(1)
	f.clock.add(29 * time.Second)
	reads(1)
	f.clock.add(time.Second)
	reads(2)
	f.clock.add(-time.Hour) // the clock was set back
	reads(3)
}

func TestAuthenticateStoreDown(t *testing.T) {
	t.Parallel()
	f := setup(t)
	plain, _, err := f.Bootstrap(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	f.store.set(true)
	_, err = f.Authenticate(t.Context(), plain)
	wantKind(t, err, fault.Unavailable)
	_, err = f.Authenticate(t.Context(), "some other configured key")
	wantKind(t, err, fault.Unavailable)
	f.store.set(false)
	if _, err = f.Authenticate(t.Context(), plain); err != nil { // the failure was not remembered
		t.Fatal(err)
	}
	f.store.set(true)
	if _, err = f.Authenticate(t.Context(), plain); err != nil { // known: needs no store
		t.Error(err)
	}
}

func TestRevokeKey(t *testing.T) {
	t.Parallel()
	f := setup(t)
	k, plain, err := f.CreateKey(t.Context(), f.admin, "k", []string{access.ScopeAdmin}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Authenticate(t.Context(), plain); err != nil {
		t.Fatal(err)
	}
	wantKind(t, f.RevokeKey(t.Context(), access.Principal{Tenant: 2}, k.ID), fault.NotFound)
	wantKind(t, f.RevokeKey(t.Context(), f.admin, uuid.New()), fault.NotFound)
	if err := f.RevokeKey(t.Context(), f.admin, k.ID); err != nil {
		t.Fatal(err)
	}
	_, err = f.Authenticate(t.Context(), plain)
	wantKind(t, err, fault.Unauthenticated)
	last := f.store.audits[len(f.store.audits)-1]
	if last.Action != "key.revoke" || last.Subject != k.ID.String() || last.Actor != f.admin.Actor() {
		t.Errorf("got %+v", last)
	}
}

// A revocation between a read of the store and its being remembered must not
// be forgotten by it.
func TestRevokeKeyDuringRead(t *testing.T) {
	t.Parallel()
	f := setup(t)
	k, plain, err := f.CreateKey(t.Context(), f.admin, "k", []string{access.ScopeAdmin}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	f.store.during = func() {
		if err := f.RevokeKey(t.Context(), f.admin, k.ID); err != nil {
			t.Error(err)
		}
	}
	if _, err := f.Authenticate(t.Context(), plain); err != nil {
		t.Fatal(err) // it was read before
	}
	_, err = f.Authenticate(t.Context(), plain)
	wantKind(t, err, fault.Unauthenticated)
}

func TestCreateKeyChecks(t *testing.T) {
	t.Parallel()
	f := setup(t)
	future := f.clock.now().Add(time.Hour)
	for name, tt := range map[string]struct {
		by      access.Principal
		name    string
		scopes  []string
		expires time.Time
		want    fault.Kind
		field   string
	}{
		"NoName":     {f.admin, " ", []string{"admin"}, future, fault.Invalid, "body.name"},
		"LongName":   {f.admin, strings.Repeat("ä", 256), []string{"admin"}, future, fault.Invalid, "body.name"},
		"Control":    {f.admin, "a\nb", []string{"admin"}, future, fault.Invalid, "body.name"},
		"NoScopes":   {f.admin, "k", nil, future, fault.Invalid, "body.scopes"},
		"BadScope":   {f.admin, "k", []string{"admin", "root"}, future, fault.Invalid, "body.scopes[1]"},
		"Past":       {f.admin, "k", []string{"admin"}, f.clock.now(), fault.Invalid, "body.expires_in_days"},
		"FarAway":    {f.admin, "k", []string{"admin"}, future.AddDate(500, 0, 0), fault.Invalid, "body.expires_in_days"},
		"Escalation": {access.Principal{Tenant: 1, Scopes: []string{"events:read"}}, "k", []string{"events:write"}, future, fault.Forbidden, ""},
		"ToAdmin":    {access.Principal{Tenant: 1, Scopes: []string{"events:read"}}, "k", []string{"admin"}, future, fault.Forbidden, ""},
	} {
		k, plain, err := f.CreateKey(t.Context(), tt.by, tt.name, tt.scopes, tt.expires)
		if !fault.Is(err, tt.want) || plain != "" || k.ID != uuid.Nil {
			t.Errorf("%s: got %v, %q, %v", name, k, plain, err)
			continue
		}
		if tt.field != "" && fieldsOf(t, err)[0] != tt.field {
			t.Errorf("%s: got %v", name, err)
		}
	}
	k, plain, err := f.CreateKey(t.Context(), f.admin, strings.Repeat("ä", 255), []string{"dlq:read", "events:read", "dlq:read"}, time.Time{})
	if err != nil || !strings.HasPrefix(plain, k.Prefix) || !k.ExpiresAt.IsZero() {
		t.Fatal(k, err)
	}
	if d := cmp.Diff([]string{"events:read", "dlq:read"}, k.Scopes); d != "" {
		t.Error(d)
	}
}

func fieldsOf(t testing.TB, err error) (locations []string) {
	t.Helper()
	e, ok := errors.AsType[*fault.Error](err)
	if !ok {
		t.Fatalf("got %v, want a fault", err)
	}
	for _, f := range e.Fields {
		if f.Value != nil {
			t.Errorf("%s echoes %v", f.Location, f.Value)
		}
		locations = append(locations, f.Location)
	}
	return append(locations, "")
}

func TestFlush(t *testing.T) {
	t.Parallel()
	f := setup(t)
	plain, _, err := f.Bootstrap(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Flush(t.Context()); err != nil || f.store.count("TouchKeys") != 0 {
		t.Errorf("nothing to write: %v, %d calls", err, f.store.count("TouchKeys"))
	}
	if _, err := f.Authenticate(t.Context(), plain); err != nil {
		t.Fatal(err)
	}
	f.store.set(true)
	if err := f.Flush(t.Context()); !errors.Is(err, errDown) {
		t.Errorf("got %v", err)
	}
	f.store.set(false)
	rows, _, err := f.Keys(t.Context(), 1, store.Page{})
	if err != nil || len(rows) != 1 || !rows[0].LastUsedAt.Equal(f.clock.now()) {
		t.Errorf("before the write: got %v, %v", rows, err)
	}
	if err := f.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.stored(plain).LastUsedAt; !got.Equal(f.clock.now()) {
		t.Errorf("got %v", got)
	}
	if err := f.Flush(t.Context()); err != nil || f.store.count("TouchKeys") != 2 {
		t.Errorf("written twice: %v, %d calls", err, f.store.count("TouchKeys"))
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	f := setup(t)
	made, err := f.CreateSource(t.Context(), f.admin, access.SourceInput{Provider: "generic", Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	plain, _, err := f.Bootstrap(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 50 {
				_, err1 := f.Authenticate(t.Context(), plain)
				_, err2 := f.SourceByToken(t.Context(), tokenOf(t, made.URL))
				_, err3 := f.OpenSource(t.Context(), made.ID)
				f.Reject(made.ID, access.Rejection{Reason: "r", Headers: []string{"a"}})
				_, err4 := f.Rejections(t.Context(), 1, made.ID)
				name := strings.Repeat("n", i+1)
				_, err5 := f.PatchSource(t.Context(), f.admin, made.ID, access.SourcePatch{Name: &name})
				k, _, err6 := f.CreateKey(t.Context(), f.admin, "k", []string{"admin"}, time.Time{})
				if err := errors.Join(err1, err2, err3, err4, err5, err6, f.RevokeKey(t.Context(), f.admin, k.ID), f.Flush(t.Context())); err != nil {
					t.Error(err)
				}
				f.clock.add(time.Second)
			}
		})
	}
	wg.Wait()
	v, err := f.Source(t.Context(), 1, made.ID)
	if err != nil || v.Rejected != 400 {
		t.Errorf("got %d, %v", v.Rejected, err)
	}
}
