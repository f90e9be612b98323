package postgres

import (
	"encoding/binary"
	"slices"
	"strconv"

	"tallyhook/internal/event"
)

// manyKeys is how many keys a transaction locks one by one. The server's table
// of locks is bounded: who adds more takes the tenant's as one.
const manyKeys = 200

// lockKeys lets one transaction at a time change who owns each of the keys. Two
// enrollments of one address see each other. Locks are on numbers made of the
// keys, in their order: two keys that share one only wait for each other. They
// end with the transaction.
func (t *tx) lockKeys(tenant int64, keys []event.Hash) {
	all := lockNumber("keys of a tenant", tenant, nil)
	if len(keys) > manyKeys {
		t.later(`SELECT pg_advisory_xact_lock($1)`, all)
		return
	}
	numbers := make([]int64, len(keys))
	for i := range keys {
		numbers[i] = lockNumber("key", tenant, keys[i][:])
	}
	slices.Sort(numbers)
	t.later(`SELECT pg_advisory_xact_lock_shared($1)`, all)
	t.later(`SELECT pg_advisory_xact_lock(n) FROM unnest($1::bigint[]) AS b(n)`, slices.Compact(numbers))
}

func lockNumber(kind string, tenant int64, key []byte) int64 {
	h := event.HashOf("lock", kind, strconv.FormatInt(tenant, 10), string(key))
	return int64(binary.BigEndian.Uint64(h[:8])) //nolint:gosec // any 64 bits will do
}
