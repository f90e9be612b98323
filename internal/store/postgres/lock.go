package postgres

import (
	"encoding/binary"
	"maps"
	"slices"
	"strconv"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

// manyKeys is how many keys of a tenant a transaction locks one by one. The
// server's table of locks is bounded: who adds more takes the tenant's as one.
const manyKeys = 200

// lockKeys is lock for keys of one tenant.
func (t *tx) lockKeys(tenant int64, keys []event.Hash) {
	t.lock(column(keys, func(k event.Hash) store.TenantKey { return store.TenantKey{Tenant: tenant, Key: k} }))
}

// lock lets one transaction at a time change who owns each of the keys. Two
// enrollments of one address see each other. Locks are on numbers made of the
// keys, in their order, after those of the tenants: two keys that share one only
// wait for each other. They end with the transaction.
func (t *tx) lock(keys []store.TenantKey) {
	if len(keys) == 0 {
		return
	}
	if t.locked == nil {
		t.locked = map[store.TenantKey]bool{}
	}
	count := map[int64]int{}
	for _, k := range keys {
		t.locked[k] = true
		count[k.Tenant]++
	}
	tenants := map[int64]bool{} // the number, and whether it is for all of the tenant's keys
	for tenant, n := range count {
		tenants[lockNumber("keys of a tenant", tenant, nil)] = n > manyKeys
	}
	numbers := make([]int64, 0, len(keys))
	for _, k := range keys {
		if count[k.Tenant] <= manyKeys {
			numbers = append(numbers, lockNumber("key", k.Tenant, k.Key[:]))
		}
	}
	order := slices.Sorted(maps.Keys(tenants))
	t.later(`SELECT CASE WHEN b.whole THEN pg_advisory_xact_lock(b.n)::text ELSE pg_advisory_xact_lock_shared(b.n)::text END
		FROM unnest($1::bigint[], $2::boolean[]) AS b(n, whole)`, order, column(order, func(n int64) bool { return tenants[n] }))
	if len(numbers) > 0 {
		slices.Sort(numbers)
		t.later(`SELECT pg_advisory_xact_lock(n) FROM unnest($1::bigint[]) AS b(n)`, slices.Compact(numbers))
	}
}

func lockNumber(kind string, tenant int64, key []byte) int64 {
	h := event.HashOf("lock", kind, strconv.FormatInt(tenant, 10), string(key))
	return int64(binary.BigEndian.Uint64(h[:8])) //nolint:gosec // any 64 bits will do
}

// tooLate says that a transaction which has locked rows needs match keys, whose
// locks come before. It begins again and takes them first.
type tooLate struct{ keys []store.TenantKey }

func (*tooLate) Error() string { return "match keys are needed after rows" }

// Hold implements store.Steps. Of new events no row is locked yet but the
// identity, which nobody takes who holds a match key.
func (t *tx) Hold(keys []store.TenantKey, fresh bool) (again bool, err error) {
	keys = slices.DeleteFunc(keys, func(k store.TenantKey) bool { return t.locked[k] })
	if len(keys) == 0 {
		return false, nil
	}
	if !fresh {
		return false, &tooLate{keys}
	}
	t.lock(keys)
	return true, nil
}
