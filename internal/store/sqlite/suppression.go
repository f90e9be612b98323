package sqlite

import (
	"context"
	"time"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Suppressions lists the addresses of a tenant that must not be written to,
// newest first; since narrows to those that changed since then.
func (s *Store) Suppressions(ctx context.Context, tenant int64, since time.Time, p store.Page) ([]campaign.Suppression, int64, error) {
	var rows []campaign.Suppression
	var seqs []int64
	err := s.read(ctx, "list suppressions", `SELECT `+row.SuppressionColumns+` FROM suppression
		WHERE tenant_id = ?1 AND (?2 = 0 OR seq < ?2) AND updated_at >= ?3 AND `+row.Suppressed+` ORDER BY seq DESC LIMIT ?4`, func(sc row.Scanner) error {
		var r campaign.Suppression
		seq, err := row.ScanSuppression(sc, &r)
		rows, seqs = append(rows, r), append(seqs, seq)
		return err
	}, tenant, p.After, row.US(since), p.Limit+1)
	rows, next := row.Page(rows, seqs, p.Limit)
	return rows, next, err
}

// Suppression reads one suppressed address of a tenant.
func (s *Store) Suppression(ctx context.Context, tenant int64, email string) (campaign.Suppression, error) {
	var r campaign.Suppression
	found := false
	key := event.AddressKey(email)
	hidden := s.tombs.Of(tenant, key) // of who was erased
	err := s.read(ctx, "read suppression", `SELECT `+row.SuppressionColumns+` FROM suppression WHERE tenant_id = ?1 AND address_key IN (?2, ?3) AND `+row.Suppressed,
		func(sc row.Scanner) error {
			found = true
			_, err := row.ScanSuppression(sc, &r)
			r.Email = event.NormalAddress(email)
			return err
		}, tenant, key[:], hidden[:])
	if err == nil && !found {
		err = fault.New(fault.NotFound, "the address is not suppressed")
	}
	return r, err
}

// PutSuppression suppresses an address by hand.
func (s *Store) PutSuppression(ctx context.Context, tenant int64, email, actor string) (campaign.Suppression, error) {
	err := s.write(ctx, live, "put suppression", func(t *tx) error {
		key, address, err := t.suppressionKey(tenant, email)
		if err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO suppression (tenant_id, address_key, email, unsubscribed_at, resubscribed_at, complained_at, bounced_at, manual_at, removed_at, updated_at)
			VALUES (?1, ?2, ?3, 0, 0, 0, 0, ?4, 0, ?4) ON CONFLICT (tenant_id, address_key) DO UPDATE SET manual_at = ?4, updated_at = ?4`,
			tenant, key[:], address, row.US(t.now))
		if err != nil {
			return err
		}
		return t.Audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "suppression.put"})
	})
	if err != nil {
		return campaign.Suppression{}, err
	}
	return s.Suppression(ctx, tenant, email)
}

// DeleteSuppression takes an address off the list by hand: every reason seen
// so far is void, also one whose sender's clock runs ahead. An erased address
// may be taken in again. NotFound when it is not on it.
func (s *Store) DeleteSuppression(ctx context.Context, tenant int64, email, actor string) error {
	return s.write(ctx, live, "delete suppression", func(t *tx) error {
		key, _, err := t.suppressionKey(tenant, email)
		if err != nil {
			return err
		}
		n, err := t.exec(`UPDATE suppression SET removed_at = max(?3, unsubscribed_at, complained_at, bounced_at, manual_at), updated_at = ?3 WHERE tenant_id = ?1 AND address_key = ?2 AND `+row.Suppressed,
			tenant, key[:], row.US(t.now))
		if err != nil {
			return err
		}
		if n == 0 {
			return fault.New(fault.NotFound, "the address is not suppressed")
		}
		if _, err := t.exec(`DELETE FROM erased WHERE tenant_id = ?1 AND key = ?2`, tenant, key[:]); err != nil {
			return err
		}
		return t.Audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "suppression.delete"})
	})
}

// suppressionKey is the key that an address has on the list, and the address
// as the list may show it: of who was erased, its tombstone and nothing.
func (t *tx) suppressionKey(tenant int64, email string) (event.Hash, string, error) {
	key := event.AddressKey(email)
	gone, err := t.erased(tenant, []event.Hash{key})
	if gone {
		return t.s.tombs.Of(tenant, key), "", err
	}
	return key, event.NormalAddress(email), err
}
