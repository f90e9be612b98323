package postgres

import (
	"context"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// takeNonces keeps the nonces of new events with them, and gives the events
// that may come with theirs. Of two transactions with one nonce the second
// waits for the first. A batch without nonces costs nothing.
func (t *tx) takeNonces(works []*store.Work) ([]*store.Work, error) {
	n := store.NewNonces(works)
	if len(n.Rows) == 0 {
		return works, nil
	}
	// A nonce that is there already stays as it is, and answers with what it came with.
	err := t.query(`INSERT INTO nonce (tenant_id, key, digest, kept_at)
		SELECT tenant_id, key, digest, $4 FROM unnest($1::bigint[], $2::bytea[], $3::bytea[]) AS b(tenant_id, key, digest) ORDER BY tenant_id, key
		ON CONFLICT (tenant_id, key) DO UPDATE SET digest = nonce.digest RETURNING tenant_id, key, digest`, func(sc row.Scanner) error {
		var r store.NonceRow
		var key, digest []byte
		err := sc.Scan(&r.Tenant, &key, &digest)
		if err == nil {
			r.Key, r.Digest = event.Hash(key), event.Hash(digest)
			n.Known(r)
		}
		return err
	}, column(n.Rows, func(r store.NonceRow) int64 { return r.Tenant }),
		column(n.Rows, func(r store.NonceRow) []byte { return r.Key[:] }),
		column(n.Rows, func(r store.NonceRow) []byte { return r.Digest[:] }), row.US(t.now))
	return n.Sift(works), err
}

// ForgetNonces forgets nonces that were kept before a moment, n of them at
// most: their signatures are of no use to anybody any more. more is false when
// none is left.
func (s *Store) ForgetNonces(ctx context.Context, before time.Time, n int) (more bool, err error) {
	err = s.write(ctx, "forget nonces", func(t *tx) error {
		done, err := t.exec(`DELETE FROM nonce WHERE (tenant_id, key) IN (
			SELECT tenant_id, key FROM nonce WHERE kept_at < $1 ORDER BY kept_at LIMIT $2 FOR UPDATE SKIP LOCKED)`, row.US(before), n)
		more = done == int64(n)
		return err
	})
	return more, err
}
