package sqlite

import (
	"context"
	"time"

	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// takeNonces keeps the nonces of new events with them, and gives the events
// that may come with theirs. A batch without nonces costs nothing.
func (t *tx) takeNonces(works []*store.Work) ([]*store.Work, error) {
	n := store.NewNonces(works)
	if len(n.Rows) == 0 {
		return works, nil
	}
	// A nonce that is there already stays as it is, and answers with what it came with.
	err := t.query(`INSERT INTO nonce (tenant_id, key, digest, kept_at) SELECT tenant_id, key, digest, ?2 FROM b_nonce(?1) WHERE true
		ON CONFLICT DO UPDATE SET digest = digest RETURNING tenant_id, key, digest`, func(sc row.Scanner) error {
		var r store.NonceRow
		var key, digest []byte
		err := sc.Scan(&r.Tenant, &key, &digest)
		if err == nil {
			r.Key, r.Digest = event.Hash(key), event.Hash(digest)
			n.Known(r)
		}
		return err
	}, bind(n.Rows, func(c sqlite3.Context, r *store.NonceRow, col int) {
		switch col {
		case 0:
			c.ResultInt64(r.Tenant)
		case 1:
			c.ResultBlob(r.Key[:])
		case 2:
			c.ResultBlob(r.Digest[:])
		}
	}), row.US(t.now))
	return n.Sift(works), err
}

// ForgetNonces forgets nonces that were kept before a moment, n of them at
// most: their signatures are of no use to anybody any more. more is false when
// none is left.
func (s *Store) ForgetNonces(ctx context.Context, before time.Time, n int) (more bool, err error) {
	err = s.write(ctx, bulk, "forget nonces", func(t *tx) error {
		done, err := t.exec(`DELETE FROM nonce WHERE (tenant_id, key) IN (
			SELECT tenant_id, key FROM nonce WHERE kept_at < ?1 ORDER BY kept_at LIMIT ?2)`, row.US(before), n)
		more = done == int64(n)
		return err
	})
	return more, err
}
