package sqlite

import (
	"bytes"
	"context"
	"slices"

	"tallyhook/internal/event"
)

// The search index is built behind: on the way of a new event only its
// identity is a random-order insert, and the rest is added here, sorted, many
// at a time, when the writer has a turn to spare. Searches read the index and
// scan the few events that it does not hold yet, so they miss nothing.

func searchKey(kind, value string) []byte {
	h := event.HashOf("search", kind, value)
	return h[:8]
}

// IndexNext adds at most n events to the search index in a turn of its own.
// more is false when it has caught up.
func (s *Store) IndexNext(ctx context.Context, n int) (more bool, err error) {
	err = s.write(ctx, bulk, "index events", func(t *tx) error {
		more = false
		var keys []seqKey
		var last int64
		rows := 0
		err := t.query(`SELECT e.seq, e.tenant_id, e.email, e.provider_message_id, e.enrollment_id FROM event e
			WHERE e.seq > (SELECT event_seq FROM search_mark) ORDER BY e.seq LIMIT ?1`, func(sc scanner) error {
			var tenant int64
			var email, message string
			var enrollment []byte
			if err := sc.Scan(&last, &tenant, &email, &message, &enrollment); err != nil {
				return err
			}
			rows++
			if a := event.NormalAddress(email); a != "" {
				keys = append(keys, seqKey{tenant, searchKey("email", a), last})
			}
			if m := event.NormalID(message); m != "" {
				keys = append(keys, seqKey{tenant, searchKey("message", m), last})
			}
			if enrollment != nil {
				keys = append(keys, seqKey{tenant, searchKey("enrollment", idOf(enrollment).String()), last})
			}
			return nil
		}, n)
		if err != nil || rows == 0 {
			return err
		}
		slices.SortFunc(keys, func(a, b seqKey) int { return bytes.Compare(a.key, b.key) })
		if err := t.indexSearch(keys); err != nil {
			return err
		}
		more = rows == n
		_, err = t.exec(`UPDATE search_mark SET event_seq = ?1`, last)
		return err
	})
	return more, err
}

func (t *tx) indexSearch(keys []seqKey) error {
	_, err := t.exec(`INSERT INTO event_search (tenant_id, key, event_seq) SELECT tenant_id, key, seq FROM b_key(?1) WHERE true
		ON CONFLICT DO NOTHING`, bind(keys, keyColumn))
	return err
}

// SearchLag is how many events the search index does not hold yet.
func (s *Store) SearchLag(ctx context.Context) (int64, error) {
	var n int64
	err := s.read(ctx, "search lag", `SELECT coalesce((SELECT max(seq) FROM event), 0) - (SELECT event_seq FROM search_mark)`,
		func(sc scanner) error { return sc.Scan(&n) })
	return n, err
}
