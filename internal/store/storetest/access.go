package storetest

import (
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func accesses() group {
	return group{"Access", map[string]func(*World){
		"KeysReadBack":               keys,
		"KeysAreCountedWhileTheyAct": keyCounts,
		"SourcesReadBack":            sources,
		"DeletedSourcesStayReadable": deletedSources,
		"AllKeysOfAllTenants":        allKeys,
		"AllSourcesOfAllTenants":     allSources,
		"Settings":                   settings,
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
	s.Name, s.Sealed, s.TokenHash = "new", []byte{7}, [32]byte{7}
	w.must(w.UpdateSource(w.Ctx(), s))
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

func deletedSources(w *World) {
	s := w.source(1)
	w.must(w.CreateSource(w.Ctx(), s))
	at := w.Clock.Now()
	w.must(w.DeleteSource(w.Ctx(), w.Tenant, s.ID, at))
	Kind(w.T, w.DeleteSource(w.Ctx(), w.Tenant, s.ID, at), fault.NotFound)
	Kind(w.T, w.UpdateSource(w.Ctx(), s), fault.NotFound)
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
