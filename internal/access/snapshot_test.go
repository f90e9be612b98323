package access_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/fault"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
	"tallyhook/internal/store/sqlite"
)

// database is a real one that can be stopped and started.
type database struct {
	*sqlite.Store
	path  string
	clock *clock
	reads atomic.Int64 // of keys
}

func (d *database) start(t testing.TB) {
	t.Helper()
	st, err := sqlite.Open(context.WithoutCancel(t.Context()), sqlite.Options{
		Path: d.path, TxTimeout: 30 * time.Second, Now: d.clock.now, Delay: func(int) (time.Duration, bool) { return 0, false },
	})
	if err != nil {
		t.Fatal(err)
	}
	d.Store = st
}

func (d *database) stop(t testing.TB) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func (d *database) KeyByHash(ctx context.Context, hash [32]byte) (store.Key, error) {
	d.reads.Add(1)
	return d.Store.KeyByHash(ctx, hash)
}

// node is a service with a snapshot, over a database that is running.
type node struct {
	*access.Service
	db    *database
	clock *clock
	file  string
	log   *bytes.Buffer
	admin access.Principal

	adminKey, writeKey, readKey string
	source                      access.CreatedSource
	token                       string
}

func setupNode(t *testing.T) *node {
	t.Helper()
	n := &node{
		clock: &clock{t: time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)}, file: filepath.Join(t.TempDir(), "spool", "access.sealed"),
		log: &bytes.Buffer{}, admin: access.Principal{Tenant: store.DefaultTenant, Scopes: []string{access.ScopeAdmin}},
	}
	n.db = &database{path: filepath.Join(t.TempDir(), "x.db"), clock: n.clock}
	n.db.start(t)
	t.Cleanup(func() { n.db.stop(t) })
	n.mustStart(t)
	var err error
	if n.adminKey, _, err = n.Bootstrap(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	n.writeKey = n.key(t, access.ScopeEventsWrite, access.ScopeEventsRead)
	n.readKey = n.key(t, access.ScopeEventsRead)
	n.source, n.token = n.newSource(t)
	n.save(t)
	return n
}

func (n *node) options(key byte) access.Options {
	return access.Options{
		SecretsKey: [32]byte{key}, PublicURL: "https://events.example.com", Snapshot: n.file, Now: n.clock.now,
		Logger: slog.New(slog.NewTextHandler(n.log, nil)),
	}
}

// mustStart begins anew, with nothing in memory.
func (n *node) mustStart(t *testing.T) {
	t.Helper()
	s, err := access.New(n.db, n.options(1))
	if err != nil {
		t.Fatal(err)
	}
	n.Service = s
}

func (n *node) key(t *testing.T, scopes ...string) string {
	t.Helper()
	_, plain, err := n.CreateKey(t.Context(), n.admin, "k", scopes, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func (n *node) newSource(t *testing.T) (access.CreatedSource, string) {
	t.Helper()
	s, err := n.CreateSource(t.Context(), n.admin, access.SourceInput{
		Provider: "smartlead", Name: "s", Secret: "a vendor's signing key", Settings: provider.Settings{AllowedCIDRs: []string{"192.0.2.0/24"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, strings.TrimPrefix(s.URL, "https://events.example.com/webhooks/")
}

func (n *node) save(t *testing.T) {
	t.Helper()
	if err := n.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (n *node) keep(t *testing.T) {
	t.Helper()
	if err := n.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestStartWithoutDatabase(t *testing.T) {
	t.Parallel()
	n := setupNode(t)
	want, err := n.SourceByToken(t.Context(), n.token)
	if err != nil {
		t.Fatal(err)
	}
	late := n.key(t, access.ScopeEventsWrite) // these two are not in the snapshot
	_, lateToken := n.newSource(t)
	n.db.stop(t)
	n.mustStart(t)
	if !strings.Contains(n.log.String(), "started without the database") {
		t.Errorf("the log says %s", n.log)
	}
	for _, key := range []string{n.writeKey, n.adminKey} {
		p, err := n.Authenticate(t.Context(), key)
		if err != nil || !p.Away || p.Tenant != store.DefaultTenant || !slices.Equal(p.Scopes, []string{access.ScopeEventsWrite}) || p.KeyID == uuid.Nil {
			t.Errorf("got %+v, %v", p, err)
		}
	}
	for name, key := range map[string]string{"ReadsOnly": n.readKey, "Late": late, "Unknown": "never was there one"} {
		if _, err := n.Authenticate(t.Context(), key); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	got, err := n.SourceByToken(t.Context(), n.token)
	if err != nil || got.ID != want.ID || got.Tenant != want.Tenant || got.Provider.Name != want.Provider.Name || got.Config.Secrets[0] != "a vendor's signing key" ||
		!slices.Equal(got.Config.Settings.AllowedCIDRs, want.Config.Settings.AllowedCIDRs) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := n.OpenSource(t.Context(), want.ID); err != nil || got.ID != want.ID {
		t.Errorf("by id: got %+v, %v", got, err)
	}
	_, err = n.SourceByToken(t.Context(), lateToken)
	wantKind(t, err, fault.Unavailable)
	_, err = n.OpenSource(t.Context(), uuid.New())
	wantKind(t, err, fault.Unavailable)
	_, err = n.SourceByToken(t.Context(), "guessed") // its check part alone says so
	wantKind(t, err, fault.NotFound)
	if err := n.Save(t.Context()); err != nil { // a shutdown now
		t.Error(err)
	}
	if err := n.Keep(t.Context()); err == nil {
		t.Error("the canary was looked at without a database")
	}

	n.db.start(t)
	n.keep(t)
	p, err := n.Authenticate(t.Context(), n.adminKey)
	if err != nil || p.Away || !p.Has(access.ScopeDLQRead) {
		t.Errorf("the database is back: got %+v, %v", p, err)
	}
	_, err = n.Authenticate(t.Context(), "never was there one")
	wantKind(t, err, fault.Unauthenticated)
	if _, err := n.SourceByToken(t.Context(), lateToken); err != nil {
		t.Error(err)
	}
}

// TestDatabaseGoesAndComes under a service that runs.
func TestDatabaseGoesAndComes(t *testing.T) {
	t.Parallel()
	n := setupNode(t)
	if _, err := n.Authenticate(t.Context(), n.writeKey); err != nil {
		t.Fatal(err)
	}
	n.db.stop(t)
	n.clock.add(31 * time.Second) // what is in memory counts no more
	before := n.db.reads.Load()
	for range 50 {
		if p, err := n.Authenticate(t.Context(), n.writeKey); err != nil || !p.Away {
			t.Fatalf("got %+v, %v", p, err)
		}
	}
	if asked := n.db.reads.Load() - before; asked != 1 {
		t.Errorf("a database that is away was asked %d times in a second", asked)
	}
	n.clock.add(time.Second)
	if _, err := n.SourceByToken(t.Context(), n.token); err != nil {
		t.Error(err)
	}

	n.clock.add(time.Hour)
	_, err := n.Authenticate(t.Context(), n.writeKey)
	wantKind(t, err, fault.Unavailable)
	_, err = n.SourceByToken(t.Context(), n.token)
	wantKind(t, err, fault.Unavailable)

	n.db.start(t) // where another node has deleted and revoked meanwhile
	other, err := access.New(n.db, access.Options{SecretsKey: [32]byte{1}, PublicURL: "https://events.example.com", Now: n.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	p, err := other.Authenticate(t.Context(), n.writeKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(other.DeleteSource(t.Context(), n.admin, n.source.ID), other.RevokeKey(t.Context(), n.admin, p.KeyID)); err != nil {
		t.Fatal(err)
	}
	n.clock.add(time.Second)
	_, err = n.SourceByToken(t.Context(), n.token)
	wantKind(t, err, fault.NotFound)
	_, err = n.Authenticate(t.Context(), n.writeKey)
	wantKind(t, err, fault.Unauthenticated)
	n.save(t)
	n.db.stop(t)
	n.clock.add(31 * time.Second)
	_, err = n.SourceByToken(t.Context(), n.token)
	wantKind(t, err, fault.Unavailable) // it is in no snapshot any more
	n.db.start(t)
}

func TestSnapshotTooOldAtTheStart(t *testing.T) {
	t.Parallel()
	for name, pass := range map[string]time.Duration{"TooOld": time.Hour + time.Second, "FromTheFuture": -time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := setupNode(t)
			n.db.stop(t)
			n.clock.add(pass)
			n.mustStart(t)
			_, err := n.Authenticate(t.Context(), n.writeKey)
			wantKind(t, err, fault.Unavailable)
			n.db.start(t)
			n.keep(t)
			if _, err := n.Authenticate(t.Context(), n.writeKey); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSnapshotIsRefusedWhole: whatever was done to the file, the start ends
// with an error that names it.
func TestSnapshotIsRefusedWhole(t *testing.T) {
	t.Parallel()
	n := setupNode(t)
	good, err := os.ReadFile(n.file)
	if err != nil {
		t.Fatal(err)
	}
	n.clock.add(time.Second)
	n.save(t)
	other, err := os.ReadFile(n.file)
	if err != nil {
		t.Fatal(err)
	}
	n.db.stop(t)
	try := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(n.file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := access.New(n.db, n.options(1))
		if err == nil || !strings.Contains(err.Error(), n.file) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for at := 0; at < len(good); at += 7 {
		bad := slices.Clone(good)
		bad[at] ^= 1
		try("Changed", bad)
	}
	for _, at := range []int{0, 10, len(good) / 2, len(good) - 1, len(good) - 60} {
		try("Cut", good[:at])
	}
	try("Longer", append(slices.Clone(good), 'e'))
	head, parts := split(t, good)
	_, foreign := split(t, other)
	join := func(parts ...[]byte) []byte { return append(slices.Clone(head), slices.Concat(parts...)...) }
	if len(parts) != 5 { // head, sources, keys, former tokens, end
		t.Fatalf("the file has %d parts", len(parts))
	}
	try("LeftOut", join(parts[0], parts[2], parts[3], parts[4]))
	try("NoEnd", join(parts[0], parts[1], parts[2], parts[3]))
	try("Swapped", join(parts[0], parts[2], parts[1], parts[3], parts[4]))
	try("Twice", join(parts[0], parts[1], parts[1], parts[2], parts[3], parts[4]))
	try("OfAnother", join(parts[0], foreign[1], parts[2], parts[3], parts[4]))
	try("OtherHead", join(foreign[0], parts[1], parts[2], parts[3], parts[4]))
	try("Empty", nil)

	if err := os.WriteFile(n.file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := access.New(n.db, n.options(2)); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "SECRETS_KEY is not the key") {
		t.Errorf("another key: got %v", err)
	}
	if err := os.Remove(n.file); err != nil {
		t.Fatal(err)
	}
	try2 := func() error { _, err := access.New(n.db, n.options(1)); return err }
	if err := try2(); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "no snapshot") {
		t.Errorf("none: got %v", err)
	}
	n.db.start(t)
}

// split takes a file of a snapshot apart.
func split(t *testing.T, data []byte) (head []byte, parts [][]byte) {
	t.Helper()
	at := bytes.IndexByte(data, '\n') + 1
	head, data = data[:at], data[at:]
	for len(data) > 0 {
		n := 5 + int(data[1])<<24 + int(data[2])<<16 + int(data[3])<<8 + int(data[4])
		parts, data = append(parts, data[:n]), data[n:]
	}
	return head, parts
}

func TestSnapshotTellsNothing(t *testing.T) {
	t.Parallel()
	n := setupNode(t)
	data, err := os.ReadFile(n.file)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"signing key", "smartlead", n.token, n.source.ID.String(), "tenant"} {
		if bytes.Contains(data, []byte(secret)) {
			t.Errorf("it holds %q in the clear", secret)
		}
	}
	info, err := os.Stat(n.file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("it has mode %v, %v", info.Mode(), err)
	}
	files, err := os.ReadDir(filepath.Dir(n.file))
	if err != nil || len(files) != 1 {
		t.Errorf("the folder has %v, %v", files, err)
	}
}

func TestSnapshotIsWrittenWhenSomethingChanged(t *testing.T) {
	t.Parallel()
	n := setupNode(t)
	written := func(after time.Duration, change bool) bool {
		t.Helper()
		before, err := os.ReadFile(n.file)
		if err != nil {
			t.Fatal(err)
		}
		n.clock.add(after)
		if change {
			n.key(t, access.ScopeEventsWrite)
		}
		n.keep(t)
		now, err := os.ReadFile(n.file)
		if err != nil {
			t.Fatal(err)
		}
		return !bytes.Equal(before, now)
	}
	for _, step := range []struct {
		after  time.Duration
		change bool
		want   bool
	}{
		{30 * time.Second, true, false}, // not twice in a minute
		{31 * time.Second, false, true}, // but not forgotten either
		{2 * time.Minute, false, false},
		{2 * time.Minute, false, false},
		{time.Minute, false, true}, // its age must not run out, and others change things too
		{time.Minute, true, true},
	} {
		if got := written(step.after, step.change); got != step.want {
			t.Errorf("%+v: written %v", step, got)
		}
	}
	for range 3 * 100 / 2 { // more than a page
		n.newSource(t)
	}
	_, token := n.newSource(t)
	n.save(t)
	n.db.stop(t)
	n.mustStart(t)
	for _, tok := range []string{n.token, token} {
		if _, err := n.SourceByToken(t.Context(), tok); err != nil {
			t.Error(err)
		}
	}
	n.db.start(t)
}

// TestKeepDoesWhatTheStartLeft: the configured key, and the look at the canary.
func TestKeepDoesWhatTheStartLeft(t *testing.T) {
	t.Parallel()
	n := setupNode(t)
	n.db.stop(t)
	n.mustStart(t)
	if _, _, err := n.Bootstrap(t.Context(), "short"); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
	const configured = "correct horse battery"
	if plain, made, err := n.Bootstrap(t.Context(), configured); plain != "" || made || err != nil {
		t.Fatalf("got %q, %v, %v", plain, made, err)
	}
	_, err := n.Authenticate(t.Context(), configured)
	wantKind(t, err, fault.Unavailable)
	n.db.start(t)
	n.keep(t)
	if p, err := n.Authenticate(t.Context(), configured); err != nil || !p.Has(access.ScopeAdmin) {
		t.Errorf("got %+v, %v", p, err)
	}

	n.db.stop(t)
	n.mustStart(t)
	n.db.start(t)
	if err := n.db.PutSetting(t.Context(), access.CanarySetting, []byte("of another key")); err != nil {
		t.Fatal(err)
	}
	if err := n.Keep(t.Context()); !fault.Is(err, fault.Invalid) {
		t.Errorf("another database came back: got %v", err)
	}
}

// TestCallerWhoLeavesIsNoOutage: the end of a request says nothing about the
// database.
func TestCallerWhoLeavesIsNoOutage(t *testing.T) {
	t.Parallel()
	n := setupNode(t)
	n.mustStart(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := n.Authenticate(gone, n.writeKey)
	wantKind(t, err, fault.Unavailable)
	if p, err := n.Authenticate(t.Context(), n.writeKey); err != nil || p.Away {
		t.Errorf("got %+v, %v", p, err)
	}
}
