package postgres

import (
	"encoding/binary"
	"strconv"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Idempotent looks up what a request with this key made before. done is false
// when the key is new; a key that came with another request is a Conflict. Of
// two requests at once the second waits until the first is committed or not.
func (t *tx) Idempotent(tenant int64, idem store.Idempotency) (resource uuid.UUID, note string, done bool, err error) {
	if idem.Key == "" {
		return uuid.Nil, "", false, nil
	}
	key := event.HashOf("idempotency", idem.Key)
	if err := t.lockIdempotent(tenant, idem.Key); err != nil {
		return uuid.Nil, "", false, err
	}
	var request, id []byte
	done, err = t.one(`SELECT request, resource, note FROM idempotency WHERE tenant_id = $1 AND key = $2`,
		[]any{tenant, key[:]}, &request, &id, &note)
	if err != nil || !done {
		return uuid.Nil, "", false, err
	}
	if err := idem.Same(request); err != nil {
		return uuid.Nil, "", false, err
	}
	return row.ID(id), note, true, nil
}

// lockIdempotent lets one request at a time go on with a key, until the end of
// its transaction. There is no row to lock yet: the lock is on a number made
// of the key, and two keys that share one only wait for each other.
func (t *tx) lockIdempotent(tenant int64, key string) error {
	h := event.HashOf("idempotency lock", strconv.FormatInt(tenant, 10), key)
	_, err := t.exec(`SELECT pg_advisory_xact_lock($1)`, int64(binary.BigEndian.Uint64(h[:8]))) //nolint:gosec // any 64 bits will do
	return err
}

func (t *tx) KeepIdempotent(tenant int64, idem store.Idempotency, resource uuid.UUID, note string) error {
	if idem.Key == "" {
		return nil
	}
	key := event.HashOf("idempotency", idem.Key)
	_, err := t.exec(`INSERT INTO idempotency (tenant_id, key, request, resource, note, created_at, sealed) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		tenant, key[:], idem.Request[:], resource[:], note, row.US(t.now), idem.Sealed)
	return err
}
