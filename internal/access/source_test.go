package access_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/fault"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
)

type noAudit struct{ *memory }

func (noAudit) Audit(context.Context, store.Audit) error { return errDown }

func newLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func tokenOf(t testing.TB, url string) string {
	t.Helper()
	token, ok := strings.CutPrefix(url, "https://events.example.com/webhooks/")
	if !ok {
		t.Fatalf("got URL %q", url)
	}
	return token
}

func create(t testing.TB, f fixture, in access.SourceInput) access.CreatedSource {
	t.Helper()
	made, err := f.CreateSource(t.Context(), f.admin, in)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestCreateSource(t *testing.T) {
	t.Parallel()
	f := setup(t)
	settings := provider.Settings{
		BasicAuth: "ada:pass:word", Headers: map[string]string{"X-Team": "blue-secret"},
		AllowedCIDRs: []string{"203.0.113.0/24", "2001:db8::1"}, OnUnmatched: "enroll",
		Accept: provider.Accept{Campaigns: []string{"cam_1"}}, TopicARNs: []string{"arn:aws:sns:eu-west-1:123456789012:mail"},
	}
	made := create(t, f, access.SourceInput{Provider: "generic", Name: "ours", Settings: settings})
	if made.Secret == "" || made.Warning != "" || !made.HasSecret || made.Tenant != 1 {
		t.Errorf("got %+v", made)
	}
	shown := settings
	shown.BasicAuth, shown.Headers = "ada:********", map[string]string{"X-Team": "********"}
	if d := cmp.Diff(shown, made.Settings); d != "" {
		t.Error(d)
	}
	if made.TokenHash != [32]byte{} || made.Sealed != nil {
		t.Error("the view holds the token's hash or the secrets")
	}

	token := tokenOf(t, made.URL)
	o, err := f.SourceByToken(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	want := provider.Config{Secrets: []string{made.Secret}, Settings: settings}
	if d := cmp.Diff(want, o.Config); d != "" || o.ID != made.ID || o.Tenant != 1 || o.Provider.Name != "generic" {
		t.Errorf("got %+v: %s", o, d)
	}
	if byID, err := f.OpenSource(t.Context(), made.ID); err != nil || byID.ID != made.ID {
		t.Errorf("got %+v, %v", byID, err)
	}
	row := f.store.sources[made.ID]
	if row.TokenHash != sha256.Sum256([]byte(token)) {
		t.Error("the token is not stored as its hash")
	}
	for _, secret := range []string{made.Secret, "pass:word", "blue-secret", "X-Team"} {
		if bytes.Contains(row.Sealed, []byte(secret)) {
			t.Errorf("%q is stored in clear", secret)
		}
	}
	last := f.store.audits[len(f.store.audits)-1]
	if last.Action != "source.create" || last.Detail != "generic: ours" {
		t.Errorf("got %+v", last)
	}
}

func TestCreateSourceSecret(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for name, tt := range map[string]struct {
		in        access.SourceInput
		made, has bool
	}{
		"Generated": {access.SourceInput{Provider: "generic", Name: "s"}, true, true},
		"Given":     {access.SourceInput{Provider: "generic", Name: "s", Secret: "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32))}, false, true},
		"NotNeeded": {access.SourceInput{Provider: "lemlist", Name: "s"}, false, false},
		"Optional":  {access.SourceInput{Provider: "lemlist", Name: "s", Secret: "hook"}, false, true},
		"Postmark":  {access.SourceInput{Provider: "postmark", Name: "s", Secret: "u:p"}, false, true},
	} {
		made := create(t, f, tt.in)
		if (made.Secret != "") != tt.made || made.HasSecret != tt.has {
			t.Errorf("%s: got %+v", name, made)
		}
	}
}

func TestCreateSourceChecks(t *testing.T) {
	t.Parallel()
	f := setup(t)
	set := func(s provider.Settings) access.SourceInput {
		return access.SourceInput{Provider: "lemlist", Name: "s", Settings: s}
	}
	for name, tt := range map[string]struct {
		in   access.SourceInput
		want string
	}{
		"Provider":    {access.SourceInput{Provider: "fax", Name: "s"}, "body.provider"},
		"NoName":      {access.SourceInput{Provider: "lemlist"}, "body.name"},
		"LongName":    {access.SourceInput{Provider: "lemlist", Name: strings.Repeat("x", 256)}, "body.name"},
		"Secret":      {access.SourceInput{Provider: "generic", Name: "s", Secret: "hunter2"}, "body.secret"},
		"SecretUTF8":  {access.SourceInput{Provider: "lemlist", Name: "s", Secret: "a\xff"}, "body.secret"},
		"SecretMask":  {access.SourceInput{Provider: "lemlist", Name: "s", Secret: "********"}, "body.secret"},
		"BasicAuth":   {set(provider.Settings{BasicAuth: "nobody"}), "body.settings.basic_auth"},
		"BasicMask":   {set(provider.Settings{BasicAuth: "a:********"}), "body.settings.basic_auth"},
		"HeaderName":  {set(provider.Settings{Headers: map[string]string{"a b": "v"}}), "body.settings.headers"},
		"HeaderEmpty": {set(provider.Settings{Headers: map[string]string{"a": ""}}), "body.settings.headers"},
		"HeaderMask":  {set(provider.Settings{Headers: map[string]string{"a": "********"}}), "body.settings.headers"},
		"HeaderTwice": {set(provider.Settings{Headers: map[string]string{"a": "1", "A": "2"}}), "body.settings.headers"},
		"HeaderUTF8":  {set(provider.Settings{Headers: map[string]string{"a": "\xff"}}), "body.settings.headers"},
		"CIDR":        {set(provider.Settings{AllowedCIDRs: []string{"10.0.0.0/8", "10.0.0.0/33"}}), "body.settings.allowed_cidrs"},
		"CIDRs":       {set(provider.Settings{AllowedCIDRs: make([]string, 300)}), "body.settings.allowed_cidrs"},
		"Streams":     {set(provider.Settings{Accept: provider.Accept{Streams: []string{"outbound"}}}), "body.settings.accept"},
		"Campaigns":   {set(provider.Settings{Accept: provider.Accept{Campaigns: []string{"cam_1", " cam_2"}}}), "body.settings.accept"},
		"Topics":      {set(provider.Settings{TopicARNs: []string{"mail"}}), "body.settings.topic_arns"},
		"TopicsMany":  {set(provider.Settings{TopicARNs: make([]string, 65)}), "body.settings.topic_arns"},
		"Enroll":      {access.SourceInput{Provider: "postmark", Name: "s", Settings: provider.Settings{OnUnmatched: "enroll"}}, "body.settings.on_unmatched"},
		"Unmatched":   {set(provider.Settings{OnUnmatched: "drop"}), "body.settings.on_unmatched"},
	} {
		made, err := f.CreateSource(t.Context(), f.admin, tt.in)
		wantKind(t, err, fault.Invalid)
		got := fieldsOf(t, err)
		if d := cmp.Diff([]string{tt.want, ""}, got); d != "" || made.URL != "" {
			t.Errorf("%s: %s", name, d)
		}
		if tt.in.Settings.OnUnmatched == "enroll" && !strings.Contains(err.Error(), "tells no campaigns") {
			t.Errorf("got %v", err)
		}
		if s := tt.in.Secret; s != "" && strings.Contains(err.Error(), s) {
			t.Errorf("%s: the secret is echoed: %v", name, err)
		}
	}
	if n := f.store.count("CreateSource") + f.store.count("Audit"); n != 0 {
		t.Errorf("got %d writes", n)
	}
	// Every wrong field is named, not only the first.
	_, err := f.CreateSource(t.Context(), f.admin, access.SourceInput{Settings: provider.Settings{BasicAuth: "x", OnUnmatched: "x"}})
	if got := fieldsOf(t, err); len(got) != 5 {
		t.Errorf("got %q", got)
	}
}

func TestWarning(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]bool{
		"http://127.0.0.1:3000": true, "http://localhost:3000": true, "http://[::1]:3000": true, "http://0.0.0.0:3000": true,
		"http://a.localhost": true, "http://127.8.8.8": true, "http://[::ffff:127.0.0.1]": true,
		"https://events.example.com": false, "http://192.0.2.1:3000": false, "https://localhost.example.com": false,
	} {
		o := options(&clock{}, 1)
		o.PublicURL = url
		s, err := access.New(newMemory(), o)
		if err != nil {
			t.Fatal(err)
		}
		made, err := s.CreateSource(t.Context(), access.Principal{Tenant: 1}, access.SourceInput{Provider: "lemlist", Name: "s"})
		if err != nil || (made.Warning != "") != want || !strings.HasPrefix(made.URL, url+"/webhooks/") {
			t.Errorf("%s: got %q, %q, %v", url, made.Warning, made.URL, err)
		}
	}
}

func TestGuessedTokenCostsNoLookup(t *testing.T) {
	t.Parallel()
	f := setup(t)
	token := tokenOf(t, create(t, f, access.SourceInput{Provider: "lemlist", Name: "s"}).URL)
	if !f.CheckToken(token) {
		t.Fatal("a made token is refused")
	}
	other := options(f.clock, 2)
	s, err := access.New(newMemory(), other)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(i int) string {
		b := []byte(token)
		if b[i] == 'A' {
			b[i] = 'B'
		} else {
			b[i] = 'A'
		}
		return string(b)
	}
	before := f.store.total()
	for name, guess := range map[string]string{
		"Empty": "", "Short": token[:54], "Long": token + "A", "Zeros": strings.Repeat("A", 55), "ZerosOld": strings.Repeat("A", 54), "FirstByte": flip(0),
		"LastByte": flip(53), "Number": flip(43), "Newline": token[:54] + "\n", "Padded": token + "=",
		"OtherServer": strings.TrimPrefix(mustURL(t, s), "https://events.example.com/webhooks/"),
	} {
		_, err := f.SourceByToken(t.Context(), guess)
		wantKind(t, err, fault.NotFound)
		if f.CheckToken(guess) {
			t.Errorf("%s passes", name)
		}
	}
	// A token has one spelling: the spare bits of its last character are zero.
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		if guess := token[:54] + string(c); guess != token && f.CheckToken(guess) {
			t.Errorf("a second spelling passes: %q", c)
		}
	}
	if got := f.store.total() - before; got != 0 {
		t.Errorf("got %d store calls, want none", got)
	}
}

func mustURL(t testing.TB, s *access.Service) string {
	t.Helper()
	made, err := s.CreateSource(t.Context(), access.Principal{Tenant: 1}, access.SourceInput{Provider: "lemlist", Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	return made.URL
}

func TestSourceCache(t *testing.T) {
	t.Parallel()
	f := setup(t)
	made := create(t, f, access.SourceInput{Provider: "lemlist", Name: "s"})
	token := tokenOf(t, made.URL)
	look := func(reads int) access.Opened {
		t.Helper()
		var o access.Opened
		for range 4 {
			var err error
			if o, err = f.SourceByToken(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			if _, err = f.OpenSource(t.Context(), made.ID); err != nil {
				t.Fatal(err)
			}
		}
		if a, b := f.store.count("SourceByToken"), f.store.count("SourceByID"); a != reads || b != reads {
			t.Errorf("got %d and %d reads, want %d", a, b, reads)
		}
		return o
	}
	look(1)
	f.clock.add(31 * time.Second)
	look(2)
	secret := "hook"
	if _, err := f.PatchSource(t.Context(), f.admin, made.ID, access.SourcePatch{Secret: &secret}); err != nil {
		t.Fatal(err)
	}
	if o := look(3); len(o.Config.Secrets) != 1 || o.Config.Secrets[0] != secret {
		t.Errorf("got %+v", o.Config)
	}
	if err := f.DeleteSource(t.Context(), f.admin, made.ID); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, err := f.SourceByToken(t.Context(), token)
		wantKind(t, err, fault.NotFound)
		_, err = f.OpenSource(t.Context(), made.ID)
		wantKind(t, err, fault.NotFound)
	}
	if got := f.store.count("SourceByToken"); got != 4 { // absence is remembered too
		t.Errorf("got %d reads", got)
	}
	wantKind(t, f.DeleteSource(t.Context(), f.admin, made.ID), fault.NotFound)
	_, err := f.Source(t.Context(), 1, made.ID)
	wantKind(t, err, fault.NotFound)
	_, err = f.PatchSource(t.Context(), f.admin, made.ID, access.SourcePatch{Secret: &secret})
	wantKind(t, err, fault.NotFound)
}

// A change between a read of the store and its being remembered must not be
// hidden by it.
func TestDeleteSourceDuringRead(t *testing.T) {
	t.Parallel()
	f := setup(t)
	made := create(t, f, access.SourceInput{Provider: "lemlist", Name: "s"})
	f.store.during = func() {
		if err := f.DeleteSource(t.Context(), f.admin, made.ID); err != nil {
			t.Error(err)
		}
	}
	if _, err := f.SourceByToken(t.Context(), tokenOf(t, made.URL)); err != nil {
		t.Fatal(err)
	}
	_, err := f.SourceByToken(t.Context(), tokenOf(t, made.URL))
	wantKind(t, err, fault.NotFound)
}

func TestSourceStoreDown(t *testing.T) {
	t.Parallel()
	f := setup(t)
	made := create(t, f, access.SourceInput{Provider: "lemlist", Name: "s"})
	f.store.set(true)
	_, err := f.SourceByToken(t.Context(), tokenOf(t, made.URL))
	wantKind(t, err, fault.Unavailable)
	_, err = f.OpenSource(t.Context(), uuid.New()) // absent, but that cannot be told
	wantKind(t, err, fault.Unavailable)
	if _, err = f.Source(t.Context(), 1, made.ID); fault.Is(err, fault.NotFound) || err == nil {
		t.Errorf("got %v", err)
	}
	f.store.set(false)
	if _, err = f.SourceByToken(t.Context(), tokenOf(t, made.URL)); err != nil {
		t.Error(err)
	}
	_, err = f.OpenSource(t.Context(), uuid.New())
	wantKind(t, err, fault.NotFound)
}

// Secrets that do not open are our fault: vendors try again, and the source
// can still be seen, mended and deleted.
func TestDamagedSource(t *testing.T) {
	t.Parallel()
	f := setup(t)
	made := create(t, f, access.SourceInput{Provider: "generic", Name: "s"})
	row := f.store.sources[made.ID]
	row.Sealed = bytes.Clone(row.Sealed)
	row.Sealed[len(row.Sealed)-1] ^= 1
	f.store.sources[made.ID] = row
	_, err := f.SourceByToken(t.Context(), tokenOf(t, made.URL))
	wantKind(t, err, fault.Unavailable)
	if rows, _, err := f.Sources(t.Context(), 1, store.Page{}); err != nil || len(rows) != 1 || rows[0].HasSecret {
		t.Errorf("got %+v, %v", rows, err)
	}
	name := "mended"
	if _, err := f.PatchSource(t.Context(), f.admin, made.ID, access.SourcePatch{Name: &name}); err == nil {
		t.Error("patched over secrets that were not read")
	}
	if _, err := f.PatchSource(t.Context(), f.admin, made.ID, access.SourcePatch{Secret: &made.Secret, Settings: &provider.Settings{}}); err != nil {
		t.Error(err)
	}
	if _, err := f.SourceByToken(t.Context(), tokenOf(t, made.URL)); err != nil {
		t.Error(err)
	}
}

func TestPatchSource(t *testing.T) {
	t.Parallel()
	f := setup(t)
	made := create(t, f, access.SourceInput{Provider: "lemlist", Name: "s", Secret: "old", Settings: provider.Settings{
		BasicAuth: "ada:pw", Headers: map[string]string{"X-A": "1", "X-B": "2"},
	}})
	f.clock.add(time.Minute)
	settings := made.Settings // as it is shown, masked
	settings.Headers["X-B"] = "3"
	settings.Headers["X-C"] = "4"
	name := "renamed"
	v, err := f.PatchSource(t.Context(), f.admin, made.ID, access.SourcePatch{Name: &name, Settings: &settings})
	if err != nil || v.Name != name || !v.UpdatedAt.Equal(f.clock.now()) || v.UpdatedAt.Equal(v.CreatedAt) {
		t.Fatalf("got %+v, %v", v, err)
	}
	o, err := f.OpenSource(t.Context(), made.ID)
	want := provider.Config{Secrets: []string{"old"}, Settings: provider.Settings{
		BasicAuth: "ada:pw", Headers: map[string]string{"X-A": "1", "X-B": "3", "X-C": "4"},
	}}
	if d := cmp.Diff(want, o.Config); err != nil || d != "" {
		t.Error(err, d)
	}
	last := f.store.audits[len(f.store.audits)-1]
	if last.Action != "source.update" || last.Detail != "name, settings" {
		t.Errorf("got %+v", last)
	}

	none := ""
	if v, err = f.PatchSource(t.Context(), f.admin, made.ID, access.SourcePatch{Secret: &none}); err != nil || v.HasSecret {
		t.Errorf("got %+v, %v", v, err)
	}
	writes := f.store.count("UpdateSource")
	if _, err = f.PatchSource(t.Context(), f.admin, made.ID, access.SourcePatch{}); err != nil || f.store.count("UpdateSource") != writes {
		t.Errorf("an empty patch wrote: %v", err)
	}
	other := provider.Settings{BasicAuth: "eve:********"} // another user, with Ada's password
	_, err = f.PatchSource(t.Context(), f.admin, made.ID, access.SourcePatch{Settings: &other})
	wantKind(t, err, fault.Invalid)
	signed := create(t, f, access.SourceInput{Provider: "generic", Name: "s"})
	_, err = f.PatchSource(t.Context(), f.admin, signed.ID, access.SourcePatch{Secret: &none})
	wantKind(t, err, fault.Invalid)
	_, err = f.PatchSource(t.Context(), access.Principal{Tenant: 2}, signed.ID, access.SourcePatch{Name: &name})
	wantKind(t, err, fault.NotFound)
}

func TestRejections(t *testing.T) {
	t.Parallel()
	f := setup(t)
	made := create(t, f, access.SourceInput{Provider: "lemlist", Name: "s"})
	got, err := f.Rejections(t.Context(), 1, made.ID)
	if err != nil || got == nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
	for i := range 60 {
		f.clock.add(time.Second)
		f.Reject(made.ID, access.Rejection{Reason: strconv.Itoa(i), Status: 401, Headers: []string{"b", "a"}})
	}
	got, err = f.Rejections(t.Context(), 1, made.ID)
	if err != nil || len(got) != 50 {
		t.Fatalf("got %d, %v", len(got), err)
	}
	want := access.Rejection{At: f.clock.now(), Reason: "59", Status: 401, Headers: []string{"a", "b"}}
	if d := cmp.Diff(want, got[0]); d != "" || got[49].Reason != "10" {
		t.Error(d, got[49])
	}
	if v, err := f.Source(t.Context(), 1, made.ID); err != nil || v.Rejected != 60 || !v.LastRejectedAt.Equal(f.clock.now()) {
		t.Errorf("got %+v, %v", v, err)
	}
	_, err = f.Rejections(t.Context(), 2, made.ID)
	wantKind(t, err, fault.NotFound)

	// Bounded: the quietest source goes first, and no text is kept whole.
	big := make([]string, 1000)
	for i := range big {
		big[i] = strings.Repeat("h", 1000)
	}
	f.clock.add(time.Second)
	for i := range 1000 {
		f.Reject(uuid.NewSHA1(uuid.Nil, fmt.Append(nil, i)), access.Rejection{Reason: strings.Repeat("r", 1000), Headers: big})
	}
	if v, err := f.Source(t.Context(), 1, made.ID); err != nil || v.Rejected != 0 {
		t.Errorf("got %+v, %v", v, err)
	}
	f.Reject(made.ID, access.Rejection{Reason: strings.Repeat("r", 1000), Headers: big})
	if got, err = f.Rejections(t.Context(), 1, made.ID); err != nil || len(got) != 1 || len(got[0].Reason) > 200 || len(got[0].Headers) > 64 || len(got[0].Headers[0]) > 200 {
		t.Errorf("got %d, %v", len(got), err)
	}
}

func TestWrongSecretsKey(t *testing.T) {
	t.Parallel()
	f := setup(t)
	if _, err := access.New(f.store, options(f.clock, 1)); err != nil {
		t.Fatal(err)
	}
	_, err := access.New(f.store, options(f.clock, 2))
	if err == nil || !strings.Contains(err.Error(), "SECRETS_KEY") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	f.store.set(true)
	if _, err := access.New(f.store, options(f.clock, 1)); err == nil || strings.Contains(err.Error(), "SECRETS_KEY") {
		t.Errorf("got %v", err)
	}
}

// goldenToken was made with the key of options(_, 1). Tokens are in vendors'
// settings: one that was given out must be accepted by every later version.
const goldenOldToken = "2yKl9dCH7U5zYESn-hfDMzu9rpiCVpamt0221f4Z0DsypxZguwEu9A"

// goldenToken is one that says its provider, made with the same key.
const goldenToken = "Q6QMr0p7R1oYXI4OFPqj1eNZuhBYkoyveLIGFpt1eNQJYE20x5wsVJI"

func FuzzParseToken(f *testing.F) {
	s, err := access.New(newMemory(), options(&clock{}, 1))
	if err != nil {
		f.Fatal(err)
	}
	if !s.CheckToken(goldenToken) || !s.CheckToken(goldenOldToken) {
		f.Fatal("the golden token is refused")
	}
	for _, seed := range []string{"", goldenToken, goldenOldToken, goldenToken[:54], goldenOldToken[:53], goldenToken + "=", strings.Repeat("A", 54), "thk_", "\x00\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, guess string) {
		if s.CheckToken(guess) && guess != goldenToken && guess != goldenOldToken {
			t.Errorf("a guess passes: %q", guess)
		}
		if _, err := s.Authenticate(t.Context(), guess); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("got %v", err)
		}
	})
}
