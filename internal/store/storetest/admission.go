package storetest

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// admissions are who may come in, with how much, and who let them.
func admissions() group {
	return group{"Admission", map[string]func(*World){
		"KeysAreBoundToAddresses":          boundKeys,
		"KeysAreRotated":                   rotation,
		"KeysHaveTheirEnd":                 keyEnds,
		"TenantsReadBack":                  tenantsReadBack,
		"TenantBeginsWithItsKey":           tenantWithKey,
		"SuspendedTenantsAreLeftOut":       suspended,
		"QuotasHold":                       quotas,
		"QuotasHoldForMany":                quotasForMany,
		"AuditLogReadsBack":                auditLog,
		"AuditLineIsPartOfTheChange":       auditIsPart,
		"AnswersAreRecalledThenForgotten":  recall,
		"OneIdempotencyKeyMakesOneOfATime": recallOnce,
	}}
}

func boundKeys(w *World) {
	k := w.key(1, "admin")
	k.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("203.0.113.7/32"), netip.MustParsePrefix("2001:db8::/48")}
	w.must(w.CreateKey(w.Ctx(), k))
	got, err := w.KeyByHash(w.Ctx(), k.Hash)
	w.must(err)
	Same(w.T, "by hash", fmt.Sprint(got.AllowedIPs), fmt.Sprint(k.AllowedIPs))
	got, err = w.KeyByID(w.Ctx(), w.Tenant, k.ID)
	w.must(err)
	Same(w.T, "by id", fmt.Sprint(got.AllowedIPs), fmt.Sprint(k.AllowedIPs))
	_, err = w.KeyByID(w.Ctx(), w.Tenant+1, k.ID)
	Kind(w.T, err, fault.NotFound)
	rows, _, err := w.AllKeys(w.Ctx(), 0, 10)
	w.must(err)
	Same(w.T, "in the list of all", fmt.Sprint(rows[0].AllowedIPs), fmt.Sprint(k.AllowedIPs))
}

func rotation(w *World) {
	old, next, last := w.key(1, "admin"), w.key(2, "admin"), w.key(3, "admin")
	w.must(w.CreateKey(w.Ctx(), old))
	until := w.Clock.Now().Add(time.Hour)
	other := next
	other.Tenant++
	Kind(w.T, w.RotateKey(w.Ctx(), old.ID, other, until), fault.NotFound)
	w.must(w.RotateKey(w.Ctx(), old.ID, next, until))
	got, err := w.KeyByHash(w.Ctx(), old.Hash)
	w.must(err)
	Same(w.T, "the old one", []any{got.ExpiresAt, got.ReplacedBy}, []any{until, next.ID})
	got, err = w.KeyByHash(w.Ctx(), next.Hash)
	w.must(err)
	Same(w.T, "the new one", got, next)
	// Of two that rotate one key, the second is told.
	Kind(w.T, w.RotateKey(w.Ctx(), old.ID, last, until), fault.Conflict)
	_, err = w.KeyByHash(w.Ctx(), last.Hash)
	Kind(w.T, err, fault.NotFound)
	// A key never lives longer for being rotated.
	soon := w.key(4, "admin")
	soon.ExpiresAt = w.Clock.Now().Add(time.Minute)
	w.must(w.CreateKey(w.Ctx(), soon))
	w.must(w.RotateKey(w.Ctx(), soon.ID, last, until))
	got, err = w.KeyByHash(w.Ctx(), soon.Hash)
	w.must(err)
	Same(w.T, "its end", got.ExpiresAt, soon.ExpiresAt)
	// One that has ended is not rotated.
	w.must(w.RevokeKey(w.Ctx(), w.Tenant, next.ID, w.Clock.Now()))
	Kind(w.T, w.RotateKey(w.Ctx(), next.ID, w.key(5, "admin"), until), fault.NotFound)
}

func keyEnds(w *World) {
	at, err := w.NextKeyExpiry(w.Ctx())
	w.must(err)
	Same(w.T, "no key", at, time.Time{})
	live, late, gone, replaced := w.key(1), w.key(2), w.key(3), w.key(4)
	now := w.Clock.Now()
	late.ExpiresAt, gone.ExpiresAt, replaced.ExpiresAt = now.Add(3*time.Hour), now.Add(time.Hour), now.Add(2*time.Hour)
	for _, k := range []store.Key{live, late, gone, replaced} {
		w.must(w.CreateKey(w.Ctx(), k))
	}
	w.must(w.RevokeKey(w.Ctx(), w.Tenant, gone.ID, now))
	w.must(w.RotateKey(w.Ctx(), replaced.ID, w.key(5), now.Add(time.Hour)))
	at, err = w.NextKeyExpiry(w.Ctx())
	w.must(err)
	Same(w.T, "the first live one", at, late.ExpiresAt)
	w.Clock.Advance(4 * time.Hour)
	at, err = w.NextKeyExpiry(w.Ctx())
	w.must(err)
	Same(w.T, "after it", at, time.Time{})
}

func tenantsReadBack(w *World) {
	want := store.Tenant{Name: "acme", Limits: store.Limits{RequestsPerSecond: 5, WebhooksPerSecond: 6, MaxKeys: 7, MaxSources: 8, MaxInstances: 9}}
	made, err := w.Store.CreateTenant(w.Ctx(), want, store.Key{})
	w.must(err)
	want.ID, want.UID, want.CreatedAt = made.ID, made.UID, made.CreatedAt
	Same(w.T, "made", made, want)
	for name, read := range map[string]func() (store.Tenant, error){
		"Number": func() (store.Tenant, error) { return w.Store.Tenant(w.Ctx(), made.ID) },
		"UID":    func() (store.Tenant, error) { return w.TenantByUID(w.Ctx(), made.UID) },
	} {
		got, err := read()
		w.must(err)
		Same(w.T, name, got, want)
	}
	_, err = w.Store.CreateTenant(w.Ctx(), store.Tenant{Name: "acme"}, store.Key{})
	Kind(w.T, err, fault.Conflict)
	_, err = w.Store.Tenant(w.Ctx(), 99)
	Kind(w.T, err, fault.NotFound)
	_, err = w.TenantByUID(w.Ctx(), uuid.Must(uuid.NewV7()))
	Kind(w.T, err, fault.NotFound)

	want.Name, want.Limits = "Acme Ltd", store.Limits{MaxKeys: 1}
	w.must(w.UpdateTenant(w.Ctx(), want))
	got, err := w.TenantByUID(w.Ctx(), made.UID)
	w.must(err)
	Same(w.T, "changed", got, want)
	taken := want
	taken.Name = "default"
	Kind(w.T, w.UpdateTenant(w.Ctx(), taken), fault.Conflict)
	taken.UID, taken.Name = uuid.Must(uuid.NewV7()), "nobody"
	Kind(w.T, w.UpdateTenant(w.Ctx(), taken), fault.NotFound)

	rows, next, err := w.Tenants(w.Ctx(), store.Page{Limit: 1})
	w.must(err)
	Same(w.T, "newest first", rows, []store.Tenant{want})
	rows, next, err = w.Tenants(w.Ctx(), store.Page{Limit: 1, After: next})
	w.must(err)
	Same(w.T, "the first one", []any{rows[0].ID, rows[0].Name, next}, []any{store.DefaultTenant, "default", int64(0)})
}

func tenantWithKey(w *World) {
	first := w.key(1, "admin")
	made, err := w.Store.CreateTenant(w.Ctx(), store.Tenant{Name: "acme"}, first)
	w.must(err)
	got, err := w.KeyByHash(w.Ctx(), first.Hash)
	w.must(err)
	Same(w.T, "tenant of its key", got.Tenant, made.ID)
	n, err := w.CountKeys(w.Ctx())
	w.must(err)
	Same(w.T, "admin keys of the default tenant", n, 0)
	// The key is refused: there is no tenant either.
	again := w.key(1, "admin")
	if _, err := w.Store.CreateTenant(w.Ctx(), store.Tenant{Name: "twin"}, again); err == nil {
		w.T.Error("a hash is stored twice")
	}
	rows, _, err := w.Tenants(w.Ctx(), store.Page{Limit: 10})
	w.must(err)
	Same(w.T, "tenants", len(rows), 2)
}

func suspended(w *World) {
	k := w.key(1, "admin")
	made, err := w.Store.CreateTenant(w.Ctx(), store.Tenant{Name: "acme"}, k)
	w.must(err)
	s := w.source(1)
	s.Tenant = made.ID
	w.must(w.CreateSource(w.Ctx(), s))
	listed := func() []int {
		keys, _, err := w.AllKeys(w.Ctx(), 0, 10)
		w.must(err)
		sources, _, err := w.AllSources(w.Ctx(), 0, 10)
		w.must(err)
		return []int{len(keys), len(sources)}
	}
	Same(w.T, "before", listed(), []int{1, 1})
	at := w.Clock.Now()
	w.must(w.SuspendTenant(w.Ctx(), made.UID, at))
	Kind(w.T, w.SuspendTenant(w.Ctx(), made.UID, at), fault.Conflict)
	Kind(w.T, w.SuspendTenant(w.Ctx(), uuid.Must(uuid.NewV7()), at), fault.NotFound)
	got, err := w.Store.Tenant(w.Ctx(), made.ID)
	w.must(err)
	Same(w.T, "since", got.SuspendedAt, at)
	Same(w.T, "suspended", listed(), []int{0, 0})
	made.Name = "other"
	w.must(w.UpdateTenant(w.Ctx(), made)) // does not lift it
	Same(w.T, "renamed", listed(), []int{0, 0})
	w.must(w.SuspendTenant(w.Ctx(), made.UID, time.Time{}))
	Kind(w.T, w.SuspendTenant(w.Ctx(), made.UID, time.Time{}), fault.Conflict)
	Same(w.T, "resumed", listed(), []int{1, 1})
}

func quotas(w *World) {
	first := w.key(1, "admin")
	made, err := w.Store.CreateTenant(w.Ctx(), store.Tenant{Name: "acme", Limits: store.Limits{MaxKeys: 2, MaxSources: 1, MaxInstances: 1}}, first)
	w.must(err)
	key := func(n byte) store.Key {
		k := w.key(n)
		k.Tenant = made.ID
		return k
	}
	source := func(n byte) store.Source {
		s := w.source(n)
		s.Tenant = made.ID
		return s
	}
	second := key(2)
	second.ExpiresAt = w.Clock.Now().Add(time.Hour)
	w.must(w.CreateKey(w.Ctx(), second))
	Kind(w.T, w.CreateKey(w.Ctx(), key(3)), fault.Forbidden)
	first.Tenant = made.ID
	w.must(w.RotateKey(w.Ctx(), first.ID, key(4), w.Clock.Now().Add(time.Hour))) // which is not one more
	Kind(w.T, w.CreateKey(w.Ctx(), key(3)), fault.Forbidden)
	w.Clock.Advance(2 * time.Hour) // the second has ended
	third := key(3)
	w.must(w.CreateKey(w.Ctx(), third))
	w.must(w.RevokeKey(w.Ctx(), made.ID, third.ID, w.Clock.Now()))
	w.must(w.CreateKey(w.Ctx(), key(5)))
	w.must(w.CreateKey(w.Ctx(), w.key(6))) // another tenant's

	s := source(1)
	w.must(w.CreateSource(w.Ctx(), s))
	Kind(w.T, w.CreateSource(w.Ctx(), source(2)), fault.Forbidden)
	w.must(w.DeleteSource(w.Ctx(), made.ID, s.ID, w.Clock.Now()))
	w.must(w.CreateSource(w.Ctx(), source(2)))

	template, _ := w.Campaign(made.ID, nil)
	make2 := func() error {
		_, err := w.CreateInstance(w.Ctx(), campaign.Instance{Tenant: made.ID, TemplateID: template, Name: "i", Status: campaign.Draft}, store.Idempotency{})
		return err
	}
	Kind(w.T, make2(), fault.Forbidden)
	made.Limits.MaxInstances = 2
	w.must(w.UpdateTenant(w.Ctx(), made))
	w.must(make2())
	Kind(w.T, make2(), fault.Forbidden)
}

// quotasForMany: of many at once only as many as there is room for are let in.
func quotasForMany(w *World) {
	made, err := w.Store.CreateTenant(w.Ctx(), store.Tenant{Name: "acme", Limits: store.Limits{MaxKeys: 3}}, store.Key{})
	w.must(err)
	var in, full atomic.Int64
	var wg sync.WaitGroup
	for n := range byte(12) {
		wg.Go(func() {
			k := w.key(n)
			k.Tenant = made.ID
			switch err := w.CreateKey(w.Ctx(), k); {
			case err == nil:
				in.Add(1)
			case fault.Is(err, fault.Forbidden):
				full.Add(1)
			default:
				w.T.Error(err)
			}
		})
	}
	wg.Wait()
	Same(w.T, "let in and refused", []int64{in.Load(), full.Load()}, []int64{3, 9})
}

func (w *World) line(action, subject string) store.Audit {
	return store.Audit{At: w.Clock.Now(), Tenant: w.Tenant, Actor: "key:1", Action: action, Subject: subject, Detail: "d"}
}

func auditLog(w *World) {
	from := store.Origin{Remote: "203.0.113.7", RequestID: "req-1"}
	ctx := store.WithOrigin(w.Ctx(), from)
	var want []store.Audit
	for _, action := range []string{"key.create", "key.revoke", "keychain.open", "source.create"} {
		a := w.line(action, "s")
		w.must(w.Audit(ctx, a))
		a.Origin = from
		want = append([]store.Audit{a}, want...)
		w.Clock.Advance(time.Minute)
	}
	theirs := w.line("key.create", "x")
	theirs.Tenant++
	w.must(w.Audit(w.Ctx(), theirs))
	mine := w.line("replay", "y")
	mine.Actor = "system"
	w.must(w.Audit(w.Ctx(), mine))

	list := func(f store.AuditFilter) []store.Audit {
		var all []store.Audit
		for p := (store.Page{Limit: 2}); ; {
			rows, next, err := w.AuditLog(w.Ctx(), w.Tenant, f, p)
			w.must(err)
			all = append(all, rows...)
			if p.After = next; next == 0 {
				return all
			}
		}
	}
	Same(w.T, "all, newest first", list(store.AuditFilter{}), append([]store.Audit{mine}, want...))
	Same(w.T, "actor", list(store.AuditFilter{Actor: "system"}), []store.Audit{mine})
	Same(w.T, "action", list(store.AuditFilter{Action: "key.revoke"}), want[2:3])
	Same(w.T, "all of a subject", list(store.AuditFilter{Action: "key"}), want[2:])
	Same(w.T, "since", list(store.AuditFilter{Since: want[0].At, Actor: "key:1"}), want[:1])
	Same(w.T, "until", list(store.AuditFilter{Until: want[2].At}), want[3:])
	Same(w.T, "no pattern", list(store.AuditFilter{Action: "k%"}), nil)
}

// auditIsPart: a change without its line does not happen, and the other way
// round.
func auditIsPart(w *World) {
	lines := func() int {
		rows, _, err := w.AuditLog(w.Ctx(), w.Tenant, store.AuditFilter{}, store.Page{Limit: 100})
		w.must(err)
		return len(rows)
	}
	trace := store.Trace{Audit: w.line("x.y", "s")}
	k, s := w.key(1, "admin"), w.source(1)
	w.must(w.CreateKey(w.Ctx(), k, trace))
	next := w.key(2, "admin")
	w.must(w.RotateKey(w.Ctx(), k.ID, next, w.Clock.Now(), trace))
	w.must(w.RevokeKey(w.Ctx(), w.Tenant, next.ID, w.Clock.Now(), trace))
	w.must(w.CreateSource(w.Ctx(), s, trace))
	w.must(w.UpdateSource(w.Ctx(), s, s, time.Time{}, trace))
	w.must(w.DeleteSource(w.Ctx(), w.Tenant, s.ID, w.Clock.Now(), trace))
	made, err := w.Store.CreateTenant(w.Ctx(), store.Tenant{Name: "acme"}, store.Key{}, trace)
	w.must(err)
	w.must(w.UpdateTenant(w.Ctx(), made, trace))
	w.must(w.SuspendTenant(w.Ctx(), made.UID, w.Clock.Now(), trace))
	Same(w.T, "lines", lines(), 9)
	for name, fails := range map[string]func() error{
		"CreateKey":     func() error { return w.CreateKey(w.Ctx(), w.key(1), trace) },
		"RotateKey":     func() error { return w.RotateKey(w.Ctx(), k.ID, w.key(9), w.Clock.Now(), trace) },
		"RevokeKey":     func() error { return w.RevokeKey(w.Ctx(), w.Tenant, next.ID, w.Clock.Now(), trace) },
		"CreateSource":  func() error { return w.CreateSource(w.Ctx(), w.source(1), trace) },
		"UpdateSource":  func() error { return w.UpdateSource(w.Ctx(), s, s, time.Time{}, trace) },
		"DeleteSource":  func() error { return w.DeleteSource(w.Ctx(), w.Tenant, s.ID, w.Clock.Now(), trace) },
		"UpdateTenant":  func() error { return w.UpdateTenant(w.Ctx(), store.Tenant{}, trace) },
		"SuspendTenant": func() error { return w.SuspendTenant(w.Ctx(), made.UID, w.Clock.Now(), trace) },
		"CreateTenant": func() error {
			_, err := w.Store.CreateTenant(w.Ctx(), store.Tenant{Name: "acme"}, store.Key{}, trace)
			return err
		},
	} {
		if err := fails(); err == nil {
			w.T.Errorf("%s: not refused", name)
		}
	}
	Same(w.T, "lines after what was refused", lines(), 9)
}

func recall(w *World) {
	idem := store.Idempotency{Key: "once", Request: [32]byte{1}, Sealed: []byte("sealed")}
	_, _, err := w.Recall(w.Ctx(), w.Tenant, idem)
	Kind(w.T, err, fault.NotFound)
	before := w.Clock.Now()
	k := w.key(1, "admin")
	w.must(w.CreateKey(w.Ctx(), k, store.Trace{Audit: w.line("key.create", "s"), Idempotency: idem}))
	id, sealed, err := w.Recall(w.Ctx(), w.Tenant, idem)
	w.must(err)
	Same(w.T, "recalled", []any{id, string(sealed)}, []any{k.ID, "sealed"})
	_, _, err = w.Recall(w.Ctx(), w.Tenant+1, idem)
	Kind(w.T, err, fault.NotFound)
	other := idem
	other.Request = [32]byte{2}
	_, _, err = w.Recall(w.Ctx(), w.Tenant, other)
	Kind(w.T, err, fault.Conflict)

	w.must(w.ForgetAnswers(w.Ctx(), before))
	_, sealed, err = w.Recall(w.Ctx(), w.Tenant, idem)
	w.must(err)
	Same(w.T, "not yet forgotten", string(sealed), "sealed")
	w.Clock.Advance(time.Second)
	w.must(w.ForgetAnswers(w.Ctx(), w.Clock.Now()))
	id, sealed, err = w.Recall(w.Ctx(), w.Tenant, idem)
	w.must(err)
	Same(w.T, "forgotten but for what it made", []any{id, len(sealed)}, []any{k.ID, 0})

	plain := store.Idempotency{Key: "plain", Request: [32]byte{1}}
	w.must(w.CreateSource(w.Ctx(), w.source(1), store.Trace{Audit: w.line("source.create", "s"), Idempotency: plain}))
	_, sealed, err = w.Recall(w.Ctx(), w.Tenant, plain)
	w.must(err)
	Same(w.T, "nothing sealed", len(sealed), 0)
}

// recallOnce: of many requests at once with one key, one makes something.
func recallOnce(w *World) {
	idem := store.Idempotency{Key: "once", Request: [32]byte{1}, Sealed: []byte("x")}
	var made, told atomic.Int64
	var wg sync.WaitGroup
	for n := range byte(8) {
		wg.Go(func() {
			switch err := w.CreateKey(w.Ctx(), w.key(n), store.Trace{Audit: w.line("key.create", "s"), Idempotency: idem}); {
			case err == nil:
				made.Add(1)
			case fault.Is(err, fault.Conflict):
				told.Add(1)
			default:
				w.T.Error(err)
			}
		})
	}
	wg.Wait()
	Same(w.T, "made and told", []int64{made.Load(), told.Load()}, []int64{1, 7})
}
