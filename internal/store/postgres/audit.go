package postgres

import (
	"context"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Audit writes a line of the audit log, with where its request came from.
func (t *tx) Audit(a store.Audit) error {
	from := store.OriginOf(t.ctx)
	_, err := t.exec(`INSERT INTO audit (tenant_id, at, actor, action, subject, detail, remote, request_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		a.Tenant, row.US(a.At), a.Actor, a.Action, a.Subject, a.Detail, from.Remote, from.RequestID)
	return err
}

// Audit writes a line of the audit log in a transaction of its own.
func (s *Store) Audit(ctx context.Context, a store.Audit) error {
	return s.write(ctx, "write audit log", func(t *tx) error { return t.Audit(a) })
}

// AuditLog lists a tenant's lines, newest first.
func (s *Store) AuditLog(ctx context.Context, tenant int64, f store.AuditFilter, p store.Page) ([]store.Audit, int64, error) {
	var rows []store.Audit
	var seqs []int64
	err := s.read(ctx, "read audit log", `SELECT `+row.AuditColumns+` FROM audit
		WHERE tenant_id = $1 AND seq < $2 AND ($4 = '' OR actor = $4)
			AND ($5 = '' OR action = $5 OR substr(action, 1, length($5) + 1) = $5 || '.')
			AND at >= $6 AND ($7::bigint = 0 OR at < $7)
		ORDER BY seq DESC LIMIT $3`,
		func(sc row.Scanner) error {
			var a store.Audit
			seq, err := row.ScanAudit(sc, &a)
			rows, seqs = append(rows, a), append(seqs, seq)
			return err
		}, tenant, before(p), p.Limit+1, f.Actor, f.Action, row.US(f.Since), row.US(f.Until))
	rows, next := row.Page(rows, seqs, p.Limit)
	return rows, next, err
}

// Recall finds what a creating request with this key made before, and what was
// sealed of its answer: nil when that has been forgotten. NotFound when the key
// is new, a Conflict when it came with another request.
func (s *Store) Recall(ctx context.Context, tenant int64, idem store.Idempotency) (resource uuid.UUID, sealed []byte, err error) {
	key := event.HashOf("idempotency", idem.Key)
	var request, id []byte
	found := false
	err = s.read(ctx, "find idempotency key", `SELECT request, resource, sealed FROM idempotency WHERE tenant_id = $1 AND key = $2`,
		func(sc row.Scanner) error {
			found = true
			return sc.Scan(&request, &id, &sealed)
		}, tenant, key[:])
	switch {
	case err != nil:
		return uuid.Nil, nil, err
	case !found:
		return uuid.Nil, nil, fault.New(fault.NotFound, "the Idempotency-Key is new")
	}
	if err := idem.Same(request); err != nil {
		return uuid.Nil, nil, err
	}
	return row.ID(id), sealed, nil
}

// ForgetAnswers takes away what was sealed of answers before a time.
func (s *Store) ForgetAnswers(ctx context.Context, before time.Time) error {
	return s.write(ctx, "forget answers", func(t *tx) error {
		_, err := t.exec(`UPDATE idempotency SET sealed = NULL WHERE sealed IS NOT NULL AND created_at < $1`, row.US(before))
		return err
	})
}
