package postgres

import (
	"context"
	"time"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

const suppressionColumns = `seq, email, unsubscribed_at, resubscribed_at, complained_at, bounced_at, manual_at, removed_at, updated_at`

// The same rule as campaign.Suppression.Reason, so that lists page rightly.
const suppressed = `(complained_at > removed_at OR (unsubscribed_at > removed_at AND unsubscribed_at >= resubscribed_at)
	OR bounced_at > removed_at OR manual_at > removed_at)`

func scanSuppression(sc scanner, r *campaign.Suppression) (seq int64, err error) {
	var unsub, resub, complained, bounced, manual, removed, updated int64
	if err := sc.Scan(&seq, &r.Email, &unsub, &resub, &complained, &bounced, &manual, &removed, &updated); err != nil {
		return 0, err
	}
	r.UnsubscribedAt, r.ResubscribedAt, r.ComplainedAt, r.BouncedAt = at(unsub), at(resub), at(complained), at(bounced)
	r.ManualAt, r.RemovedAt, r.UpdatedAt = at(manual), at(removed), at(updated)
	return seq, nil
}

// Suppressions lists the addresses of a tenant that must not be written to,
// newest first; since narrows to those that changed since then.
func (s *Store) Suppressions(ctx context.Context, tenant int64, since time.Time, p store.Page) ([]campaign.Suppression, int64, error) {
	var rows []campaign.Suppression
	var seqs []int64
	err := s.read(ctx, "list suppressions", `SELECT `+suppressionColumns+` FROM suppression
		WHERE tenant_id = $1 AND seq < $2 AND updated_at >= $3 AND `+suppressed+` ORDER BY seq DESC LIMIT $4`, func(sc scanner) error {
		var r campaign.Suppression
		seq, err := scanSuppression(sc, &r)
		rows, seqs = append(rows, r), append(seqs, seq)
		return err
	}, tenant, before(p), us(since), p.Limit+1)
	rows, next := page(rows, seqs, p.Limit)
	return rows, next, err
}

// Suppression reads one suppressed address of a tenant.
func (s *Store) Suppression(ctx context.Context, tenant int64, email string) (campaign.Suppression, error) {
	var r campaign.Suppression
	found := false
	key := event.AddressKey(email)
	err := s.read(ctx, "read suppression", `SELECT `+suppressionColumns+` FROM suppression WHERE tenant_id = $1 AND address_key = $2 AND `+suppressed,
		func(sc scanner) error {
			found = true
			_, err := scanSuppression(sc, &r)
			return err
		}, tenant, key[:])
	if err == nil && !found {
		err = fault.New(fault.NotFound, "the address is not suppressed")
	}
	return r, err
}

// PutSuppression suppresses an address by hand.
func (s *Store) PutSuppression(ctx context.Context, tenant int64, email, actor string) (campaign.Suppression, error) {
	key := event.AddressKey(email)
	err := s.write(ctx, "put suppression", func(t *tx) error {
		_, err := t.exec(`INSERT INTO suppression (tenant_id, address_key, email, unsubscribed_at, resubscribed_at, complained_at, bounced_at, manual_at, removed_at, updated_at)
			VALUES ($1, $2, $3, 0, 0, 0, 0, $4, 0, $4) ON CONFLICT (tenant_id, address_key) DO UPDATE SET manual_at = $4, updated_at = $4`,
			tenant, key[:], event.NormalAddress(email), us(t.now))
		if err != nil {
			return err
		}
		return t.audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "suppression.put"})
	})
	if err != nil {
		return campaign.Suppression{}, err
	}
	return s.Suppression(ctx, tenant, email)
}

// DeleteSuppression takes an address off the list by hand: every reason seen
// so far is void, also one whose sender's clock runs ahead. NotFound when it is not on it.
func (s *Store) DeleteSuppression(ctx context.Context, tenant int64, email, actor string) error {
	key := event.AddressKey(email)
	return s.write(ctx, "delete suppression", func(t *tx) error {
		n, err := t.exec(`UPDATE suppression SET removed_at = greatest($3, unsubscribed_at, complained_at, bounced_at, manual_at), updated_at = $3 WHERE tenant_id = $1 AND address_key = $2 AND `+suppressed,
			tenant, key[:], us(t.now))
		if err != nil {
			return err
		}
		if n == 0 {
			return fault.New(fault.NotFound, "the address is not suppressed")
		}
		return t.audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "suppression.delete"})
	})
}
