package access_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/fault"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
)

// accepted are the secrets that a source is verified with now.
func accepted(t testing.TB, s *access.Service, token string) []string {
	t.Helper()
	o, err := s.SourceByToken(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	byID, err := s.OpenSource(t.Context(), o.ID)
	if err != nil || !slices.Equal(byID.Config.Secrets, o.Config.Secrets) {
		t.Fatalf("by id %q, by token %q, %v", byID.Config.Secrets, o.Config.Secrets, err)
	}
	return o.Config.Secrets
}

func wantSecrets(t testing.TB, s *access.Service, token string, want ...string) {
	t.Helper()
	if got := accepted(t, s, token); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func rotateSecret(t testing.TB, f fixture, id uuid.UUID, secret string, grace time.Duration) access.Rotated {
	t.Helper()
	r, err := f.RotateSecret(t.Context(), f.admin, id, secret, grace)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRotateSecret: the former secret is accepted until its grace time ends,
// though nothing is read anew at that moment.
func TestRotateSecret(t *testing.T) {
	t.Parallel()
	f := setup(t)
	made := create(t, f, access.SourceInput{Provider: "generic", Name: "s"})
	token := tokenOf(t, made.URL)
	wantSecrets(t, f.Service, token, made.Secret) // now it is in the cache

	second := rotateSecret(t, f, made.ID, "", 20*time.Second)
	if second.Secret == "" || second.Secret == made.Secret || second.URL != "" || !second.FormerEndsAt.Equal(f.clock.now().Add(20*time.Second)) {
		t.Errorf("got %+v", second)
	}
	wantSecrets(t, f.Service, token, second.Secret, made.Secret)
	reads := f.store.total()
	f.clock.add(20*time.Second - time.Microsecond)
	wantSecrets(t, f.Service, token, second.Secret, made.Secret)
	f.clock.add(time.Microsecond)
	wantSecrets(t, f.Service, token, second.Secret)
	if got := f.store.total(); got != reads {
		t.Errorf("%d reads, want none: it is the cache that must not go on", got-reads)
	}
	last := f.store.audits[len(f.store.audits)-1]
	if last.Action != "source.rotate_secret" || last.Detail != "grace 20s" || last.Subject != made.ID.String() {
		t.Errorf("got %+v", last)
	}

	third := rotateSecret(t, f, made.ID, "", 2*time.Hour)
	fourth := rotateSecret(t, f, made.ID, "", time.Hour) // the third's end, and the second's, come earlier by this
	wantSecrets(t, f.Service, token, fourth.Secret, third.Secret, second.Secret)
	f.clock.add(time.Hour)
	wantSecrets(t, f.Service, token, fourth.Secret)

	rotateSecret(t, f, made.ID, "", time.Hour)
	last5 := rotateSecret(t, f, made.ID, "", 0) // ends all at once
	wantSecrets(t, f.Service, token, last5.Secret)
}

// TestRotateGivenSecret: a secret that the vendor gives is passed, and not shown.
func TestRotateGivenSecret(t *testing.T) {
	t.Parallel()
	f := setup(t)
	made := create(t, f, access.SourceInput{Provider: "smartlead", Name: "s", Secret: "first key"})
	token := tokenOf(t, made.URL)
	for name, secret := range map[string]string{"None": "", "TheSame": "first key", "Masked": "********"} {
		_, err := f.RotateSecret(t.Context(), f.admin, made.ID, secret, time.Hour)
		wantKind(t, err, fault.Invalid)
		if got := fieldsOf(t, err); got[0] != "body.secret" {
			t.Errorf("%s: got %q", name, got)
		}
	}
	for _, grace := range []time.Duration{-time.Second, access.MaxGrace + 1} {
		_, err := f.RotateSecret(t.Context(), f.admin, made.ID, "x", grace)
		wantKind(t, err, fault.Invalid)
		_, err = f.RotateURL(t.Context(), f.admin, made.ID, grace)
		wantKind(t, err, fault.Invalid)
		if got := fieldsOf(t, err); got[0] != "body.grace" {
			t.Errorf("got %q", got)
		}
	}
	r := rotateSecret(t, f, made.ID, "second key", access.MaxGrace)
	if r.Secret != "" || !r.HasSecret {
		t.Errorf("got %+v", r)
	}
	wantSecrets(t, f.Service, token, "second key", "first key")
	rotateSecret(t, f, made.ID, "first key", time.Hour) // back again: it is no longer a former one
	wantSecrets(t, f.Service, token, "first key", "second key")
	// A change by hand is none with a grace time.
	if _, err := f.PatchSource(t.Context(), f.admin, made.ID, access.SourcePatch{Secret: new("by hand")}); err != nil {
		t.Fatal(err)
	}
	wantSecrets(t, f.Service, token, "by hand")
	// A change of something else leaves them as they are.
	rotateSecret(t, f, made.ID, "fourth key", time.Hour)
	if _, err := f.PatchSource(t.Context(), f.admin, made.ID, access.SourcePatch{Name: new("n"), Settings: &provider.Settings{}}); err != nil {
		t.Fatal(err)
	}
	wantSecrets(t, f.Service, token, "fourth key", "by hand")

	// There is a bound to what each request is tried against.
	for n := range 7 {
		rotateSecret(t, f, made.ID, "key "+string(rune('a'+n)), time.Hour)
	}
	_, err := f.RotateSecret(t.Context(), f.admin, made.ID, "one too many", time.Hour)
	wantKind(t, err, fault.Conflict)
	rotateSecret(t, f, made.ID, "now", 0)
	wantSecrets(t, f.Service, token, "now")

	bare := create(t, f, access.SourceInput{Provider: "smartlead", Name: "bare"})
	_, err = f.RotateSecret(t.Context(), f.admin, bare.ID, "x", time.Hour)
	wantKind(t, err, fault.Conflict)
}

func TestRotateURL(t *testing.T) {
	t.Parallel()
	f := setup(t)
	made := create(t, f, access.SourceInput{Provider: "lemlist", Name: "s", Secret: "hook"})
	former := tokenOf(t, made.URL)
	wantSecrets(t, f.Service, former, "hook")
	r, err := f.RotateURL(t.Context(), f.admin, made.ID, 20*time.Second)
	if err != nil || r.Secret != "" || !r.FormerEndsAt.Equal(f.clock.now().Add(20*time.Second)) {
		t.Fatalf("got %+v, %v", r, err)
	}
	current := tokenOf(t, r.URL)
	if current == former {
		t.Fatal("the URL is the same")
	}
	wantSecrets(t, f.Service, former, "hook")
	wantSecrets(t, f.Service, current, "hook")
	last := f.store.audits[len(f.store.audits)-1]
	if last.Action != "source.rotate_url" || last.Detail != "grace 20s" || strings.Contains(last.Detail, current) {
		t.Errorf("got %+v", last)
	}
	reads := f.store.total()
	f.clock.add(20 * time.Second)
	o, err := f.SourceByToken(t.Context(), former)
	wantKind(t, err, fault.NotFound)
	if o.Provider == nil || o.Provider.Name != "lemlist" { // a plain 404 would make lemlist delete its hook
		t.Errorf("got %+v", o)
	}
	if got := f.store.total(); got != reads {
		t.Errorf("%d reads, want none: it is the cache that must not go on", got-reads)
	}
	wantSecrets(t, f.Service, current, "hook")

	_, err = f.RotateURL(t.Context(), f.admin, made.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.SourceByToken(t.Context(), current)
	wantKind(t, err, fault.NotFound)
}

// TestRotateIsTheTenants: another tenant's source is not there.
func TestRotateIsTheTenants(t *testing.T) {
	t.Parallel()
	f := setup(t)
	made := create(t, f, access.SourceInput{Provider: "generic", Name: "s"})
	stranger := access.Principal{Tenant: store.DefaultTenant + 1, Scopes: []string{access.ScopeAdmin}}
	_, err := f.RotateSecret(t.Context(), stranger, made.ID, "", time.Hour)
	wantKind(t, err, fault.NotFound)
	_, err = f.RotateURL(t.Context(), stranger, made.ID, time.Hour)
	wantKind(t, err, fault.NotFound)
	wantSecrets(t, f.Service, tokenOf(t, made.URL), made.Secret)
	if err := f.DeleteSource(t.Context(), f.admin, made.ID); err != nil {
		t.Fatal(err)
	}
	_, err = f.RotateSecret(t.Context(), f.admin, made.ID, "", time.Hour)
	wantKind(t, err, fault.NotFound)
}

// TestRotateAtOnce: of changes by two replicas at the same moment one is
// refused, so that no secret is shown that was never stored.
func TestRotateAtOnce(t *testing.T) {
	t.Parallel()
	f := setup(t)
	other, err := access.New(f.store, options(f.clock, 1))
	if err != nil {
		t.Fatal(err)
	}
	made := create(t, f, access.SourceInput{Provider: "generic", Name: "s"})
	var theirs access.Rotated
	f.store.mu.Lock()
	f.store.during = func() { // between the read of the one and its write
		if theirs, err = other.RotateSecret(t.Context(), f.admin, made.ID, "", time.Hour); err != nil {
			t.Error(err)
		}
	}
	f.store.mu.Unlock()
	_, err = f.RotateSecret(t.Context(), f.admin, made.ID, "", time.Hour)
	wantKind(t, err, fault.Conflict)
	wantSecrets(t, f.Service, tokenOf(t, made.URL), theirs.Secret, made.Secret)
}

// TestRotatedWithoutDatabase: a node that starts without the database knows
// both secrets and both URLs from the snapshot, and when the former ones end.
func TestRotatedWithoutDatabase(t *testing.T) {
	t.Parallel()
	n := setupNode(t)
	const first, second = "a vendor's signing key", "a vendor's other key"
	if _, err := n.RotateSecret(t.Context(), n.admin, n.source.ID, second, 10*time.Minute); err != nil {
		t.Fatal(err)
	}
	r, err := n.RotateURL(t.Context(), n.admin, n.source.ID, 20*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	current := tokenOf(t, r.URL)
	n.save(t)
	n.db.stop(t)
	n.mustStart(t)
	for _, token := range []string{current, n.token} {
		wantSecrets(t, n.Service, token, second, first)
	}
	n.clock.add(10 * time.Minute)
	for _, token := range []string{current, n.token} {
		wantSecrets(t, n.Service, token, second)
	}
	n.clock.add(10 * time.Minute)
	wantSecrets(t, n.Service, current, second)
	o, err := n.SourceByToken(t.Context(), n.token)
	wantKind(t, err, fault.Unavailable) // absence is only answered from the database
	if o.Provider == nil || o.Provider.Name != "smartlead" {
		t.Errorf("the refusal cannot be in the vendor's dialect: %+v", o)
	}
	n.db.start(t)
	n.keep(t)
	_, err = n.SourceByToken(t.Context(), n.token)
	wantKind(t, err, fault.NotFound)
	wantSecrets(t, n.Service, current, second)
}

// TestUnreadableSourceNamesItsProvider: the token alone says whose it is.
func TestUnreadableSourceNamesItsProvider(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, p := range provider.All() {
		token := tokenOf(t, create(t, f, access.SourceInput{Provider: p.Name, Name: "s"}).URL)
		f.store.set(true)
		o, err := f.SourceByToken(t.Context(), token)
		wantKind(t, err, fault.Unavailable)
		if o.Provider == nil || o.Provider.Name != p.Name {
			t.Errorf("%s: got %+v", p.Name, o.Provider)
		}
		f.store.set(false)
	}
	// A token of an earlier version does not say it; it goes on working.
	f.store.set(true)
	o, err := f.SourceByToken(t.Context(), goldenOldToken)
	wantKind(t, err, fault.Unavailable)
	if o.Provider != nil {
		t.Errorf("got %+v", o.Provider)
	}
}
