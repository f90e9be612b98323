package storetest

import (
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func accesses() group {
	return group{"Access", map[string]func(*World){
		"KeysReadBack":                 keys,
		"KeysAreCountedWhileTheyAct":   keyCounts,
		"SourcesReadBack":              sources,
		"DeletedSourcesStayReadable":   deletedSources,
		"ChangesOfASourceCompare":      changedSources,
		"FormerTokensWorkUntilTheyEnd": formerTokens,
		"FormerTokensOfAllTenants":     allFormerTokens,
		"AllKeysOfAllTenants":          allKeys,
		"AllSourcesOfAllTenants":       allSources,
		"Settings":                     settings,
	}}
}

func (w *World) key(n byte, scopes ...string) store.Key {
	return store.Key{
		ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, Name: "k", Hash: [32]byte{n}, Prefix: "th_", Scopes: scopes, CreatedAt: w.Clock.Now(),
	}
}

func keys(w *World) {
	k := w.key(1, "admin", "events:read")
	k.ExpiresAt = w.Clock.Now().Add(time.Hour)
	w.must(w.CreateKey(w.Ctx(), k))
	got, err := w.KeyByHash(w.Ctx(), k.Hash)
	w.must(err)
	Same(w.T, "key", got, k)
	again := w.key(1)
	if err := w.CreateKey(w.Ctx(), again); err == nil {
		w.T.Error("a hash is stored twice")
	}
	_, err = w.KeyByHash(w.Ctx(), [32]byte{9})
	Kind(w.T, err, fault.NotFound)

	at := w.Clock.Now()
	w.must(w.TouchKeys(w.Ctx(), map[uuid.UUID]time.Time{k.ID: at, uuid.Must(uuid.NewV7()): at}))
	w.must(w.TouchKeys(w.Ctx(), map[uuid.UUID]time.Time{k.ID: at.Add(-time.Hour)}))
	got, err = w.KeyByHash(w.Ctx(), k.Hash)
	w.must(err)
	Same(w.T, "last used", got.LastUsedAt, at)

	second := w.key(2)
	w.must(w.CreateKey(w.Ctx(), second))
	w.must(w.RevokeKey(w.Ctx(), w.Tenant, k.ID, at))
	Kind(w.T, w.RevokeKey(w.Ctx(), w.Tenant, k.ID, at), fault.NotFound)
	Kind(w.T, w.RevokeKey(w.Ctx(), w.Tenant+1, second.ID, at), fault.NotFound)
	rows, next, err := w.Keys(w.Ctx(), w.Tenant, store.Page{Limit: 1})
	w.must(err)
	Same(w.T, "newest first", rows[0].ID, second.ID)
	rows, next, err = w.Keys(w.Ctx(), w.Tenant, store.Page{Limit: 1, After: next})
	w.must(err)
	Same(w.T, "revoked too", []any{rows[0].ID, rows[0].RevokedAt, next}, []any{k.ID, at, int64(0)})
}

func keyCounts(w *World) {
	live, gone, other, late := w.key(1, "events:read", "admin"), w.key(2, "admin"), w.key(3, "events:write"), w.key(4, "admin")
	late.ExpiresAt = w.Clock.Now().Add(time.Hour)
	for _, k := range []store.Key{live, gone, other, late} {
		w.must(w.CreateKey(w.Ctx(), k))
	}
	w.must(w.RevokeKey(w.Ctx(), w.Tenant, gone.ID, w.Clock.Now()))
	n, err := w.CountKeys(w.Ctx())
	w.must(err)
	Same(w.T, "keys", n, 2)
	w.Clock.Advance(2 * time.Hour)
	n, err = w.CountKeys(w.Ctx())
	w.must(err)
	Same(w.T, "keys", n, 1)
}

func (w *World) source(n byte) store.Source {
	now := w.Clock.Now()
	return store.Source{
		ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, Provider: "lemlist", Name: "s", TokenHash: [32]byte{n}, Sealed: []byte{n, 0}, CreatedAt: now, UpdatedAt: now,
	}
}

func sources(w *World) {
	s, second := w.source(1), w.source(2)
	w.must(w.CreateSource(w.Ctx(), s))
	w.must(w.CreateSource(w.Ctx(), second))
	for name, read := range map[string]func() (store.Source, error){
		"Token": func() (store.Source, error) { return w.SourceByToken(w.Ctx(), s.TokenHash) },
		"ID":    func() (store.Source, error) { return w.SourceByID(w.Ctx(), s.ID) },
		"Own":   func() (store.Source, error) { return w.Source(w.Ctx(), w.Tenant, s.ID) },
	} {
		got, err := read()
		w.must(err)
		Same(w.T, name, got, s)
	}
	_, err := w.Source(w.Ctx(), w.Tenant+1, s.ID)
	Kind(w.T, err, fault.NotFound)
	_, err = w.SourceByToken(w.Ctx(), [32]byte{9})
	Kind(w.T, err, fault.NotFound)
	was := s
	s.Name, s.Sealed, s.TokenHash = "new", []byte{7}, [32]byte{7}
	w.must(w.UpdateSource(w.Ctx(), was, s, w.Clock.Now()))
	got, err := w.SourceByToken(w.Ctx(), [32]byte{7})
	w.must(err)
	Same(w.T, "changed", []any{got.Name, got.Sealed}, []any{"new", []byte{7}})
	rows, next, err := w.Sources(w.Ctx(), w.Tenant, store.Page{Limit: 1})
	w.must(err)
	Same(w.T, "newest first", rows[0].ID, second.ID)
	rows, _, err = w.Sources(w.Ctx(), w.Tenant, store.Page{Limit: 1, After: next})
	w.must(err)
	Same(w.T, "then", rows[0].ID, s.ID)
}

// changedSources: of two changes that began with the same row the second is
// refused, so that no secret or URL that was shown once is lost.
func changedSources(w *World) {
	was := w.source(1)
	w.must(w.CreateSource(w.Ctx(), was))
	first, second := was, was
	first.Sealed, second.Sealed = []byte{2}, []byte{3}
	w.must(w.UpdateSource(w.Ctx(), was, first, time.Time{}))
	Kind(w.T, w.UpdateSource(w.Ctx(), was, second, time.Time{}), fault.Conflict)
	third := first
	third.TokenHash = [32]byte{4}
	w.must(w.UpdateSource(w.Ctx(), first, third, w.Clock.Now().Add(time.Hour)))
	Kind(w.T, w.UpdateSource(w.Ctx(), first, second, w.Clock.Now()), fault.Conflict)
	foreign := third
	foreign.Tenant++
	Kind(w.T, w.UpdateSource(w.Ctx(), foreign, foreign, time.Time{}), fault.NotFound)
	got, err := w.SourceByID(w.Ctx(), was.ID)
	w.must(err)
	Same(w.T, "as the first and third change left it", []any{got.Sealed, got.TokenHash}, []any{[]byte{2}, [32]byte{4}})
}

func formerTokens(w *World) {
	s := w.source(1)
	w.must(w.CreateSource(w.Ctx(), s))
	began := w.Clock.Now()
	rotate := func(n byte, ends time.Time) {
		was := s
		s.TokenHash = [32]byte{n}
		w.must(w.UpdateSource(w.Ctx(), was, s, ends))
	}
	ends := func(n byte) time.Time {
		got, err := w.SourceByToken(w.Ctx(), [32]byte{n})
		w.must(err)
		Same(w.T, "source", got.ID, s.ID)
		return got.TokenEndsAt
	}
	early, late := began.Add(time.Hour), began.Add(2*time.Hour)
	rotate(2, early)
	Same(w.T, "the current token", ends(2), time.Time{})
	Same(w.T, "the former one", ends(1), early)
	rotate(3, late) // takes no time from the first, and gives it none
	Same(w.T, "former ones", []time.Time{ends(1), ends(2)}, []time.Time{early, late})
	rotate(4, began) // ends all that is older
	Same(w.T, "all at once", []time.Time{ends(1), ends(2), ends(3)}, []time.Time{began, began, began})
	rows, _, err := w.FormerTokens(w.Ctx(), 0, 10)
	w.must(err)
	Same(w.T, "none is left that works", len(rows), 0)

	w.Clock.Advance(store.FormerTokenKept + time.Second)
	rotate(5, late.Add(store.FormerTokenKept))
	_, err = w.SourceByToken(w.Ctx(), [32]byte{1})
	Kind(w.T, err, fault.NotFound) // in the end it is forgotten whose it was
	at := w.Clock.Now()
	w.must(w.DeleteSource(w.Ctx(), w.Tenant, s.ID, at))
	got, err := w.SourceByToken(w.Ctx(), [32]byte{4})
	w.must(err)
	Same(w.T, "deleted", got.DeletedAt, at)
}

func allFormerTokens(w *World) {
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	ends := w.Clock.Now().Add(time.Hour)
	var want []store.FormerToken
	for n := range byte(5) {
		was := w.source(n + 1)
		if n%2 == 1 {
			was.Tenant = other.ID
		}
		w.must(w.CreateSource(w.Ctx(), was))
		s := was
		s.TokenHash = [32]byte{100 + n}
		w.must(w.UpdateSource(w.Ctx(), was, s, ends))
		want = append(want, store.FormerToken{Hash: was.TokenHash, Source: was.ID, EndsAt: ends})
	}
	var got []store.FormerToken
	for after := int64(-1); after != 0; {
		rows, next, err := w.FormerTokens(w.Ctx(), max(after, 0), 2)
		w.must(err)
		got, after = append(got, rows...), next
	}
	Same(w.T, "former tokens, oldest first", got, want)
	w.Clock.Advance(time.Hour)
	rows, _, err := w.FormerTokens(w.Ctx(), 0, 10)
	w.must(err)
	Same(w.T, "ended ones are not listed", len(rows), 0)
}

func deletedSources(w *World) {
	s := w.source(1)
	w.must(w.CreateSource(w.Ctx(), s))
	at := w.Clock.Now()
	w.must(w.DeleteSource(w.Ctx(), w.Tenant, s.ID, at))
	Kind(w.T, w.DeleteSource(w.Ctx(), w.Tenant, s.ID, at), fault.NotFound)
	Kind(w.T, w.UpdateSource(w.Ctx(), s, s, time.Time{}), fault.NotFound)
	_, err := w.Source(w.Ctx(), w.Tenant, s.ID)
	Kind(w.T, err, fault.NotFound)
	rows, _, err := w.Sources(w.Ctx(), w.Tenant, store.Page{Limit: 10})
	w.must(err)
	Same(w.T, "listed", len(rows), 0)
	for _, read := range []func() (store.Source, error){
		func() (store.Source, error) { return w.SourceByToken(w.Ctx(), s.TokenHash) },
		func() (store.Source, error) { return w.SourceByID(w.Ctx(), s.ID) },
	} {
		got, err := read()
		w.must(err)
		Same(w.T, "deleted", got.DeletedAt, at)
	}
}

func allKeys(w *World) {
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	var want []uuid.UUID
	for n := range byte(5) {
		k := w.key(n+1, "events:write")
		if n%2 == 1 {
			k.Tenant = other.ID
		}
		if n == 4 {
			k.ExpiresAt = w.Clock.Now() // an expired one is listed: it is not revoked
		}
		w.must(w.CreateKey(w.Ctx(), k))
		if n == 2 {
			w.must(w.RevokeKey(w.Ctx(), k.Tenant, k.ID, w.Clock.Now()))
			continue
		}
		want = append(want, k.ID)
		if n == 0 {
			rows, _, err := w.AllKeys(w.Ctx(), 0, 1)
			w.must(err)
			Same(w.T, "key", rows[0], k)
		}
	}
	var got []uuid.UUID
	for after := int64(-1); after != 0; {
		rows, next, err := w.AllKeys(w.Ctx(), max(after, 0), 2)
		w.must(err)
		for _, k := range rows {
			got = append(got, k.ID)
		}
		after = next
	}
	Same(w.T, "keys, oldest first", got, want)
}

func allSources(w *World) {
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	var want []uuid.UUID
	for n := range byte(5) {
		s := w.source(n + 1)
		if n%2 == 1 {
			s.Tenant = other.ID
		}
		w.must(w.CreateSource(w.Ctx(), s))
		if n == 2 {
			w.must(w.DeleteSource(w.Ctx(), s.Tenant, s.ID, w.Clock.Now()))
			continue
		}
		want = append(want, s.ID)
		if n == 0 {
			rows, _, err := w.AllSources(w.Ctx(), 0, 1)
			w.must(err)
			Same(w.T, "source", rows[0], s)
		}
	}
	var got []uuid.UUID
	for after := int64(-1); after != 0; {
		rows, next, err := w.AllSources(w.Ctx(), max(after, 0), 2)
		w.must(err)
		for _, s := range rows {
			got = append(got, s.ID)
		}
		after = next
	}
	Same(w.T, "sources, oldest first", got, want)
}

func settings(w *World) {
	_, err := w.Setting(w.Ctx(), "a")
	Kind(w.T, err, fault.NotFound)
	for _, v := range []string{"x", "\x00y"} {
		w.must(w.PutSetting(w.Ctx(), "a", []byte(v)))
		got, err := w.Setting(w.Ctx(), "a")
		w.must(err)
		Same(w.T, "setting", string(got), v)
	}
	w.must(w.Audit(w.Ctx(), store.Audit{At: w.Clock.Now(), Tenant: w.Tenant, Actor: "me", Action: "x", Subject: "y"}))
}
