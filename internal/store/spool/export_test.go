package spool

import (
	"context"
	"database/sql"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

// EncodeEvent, EncodeBody and Decode are the form of an entry.
func EncodeEvent(e event.Event) []byte          { return encodeEvent(e) }
func EncodeBody(l store.Letter) []byte          { return encodeBody(l) }
func Decode(data []byte) (store.Spooled, error) { return decode(data) }
func (s *Spool) Exec(ctx context.Context, q string, args ...any) error {
	return s.transact(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, q, args...)
		return err
	})
}
