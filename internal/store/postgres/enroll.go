package postgres

import (
	"bytes"
	"slices"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Enroll implements store.Steps. The keys that enrollments gain are locked.
func (t *tx) Enroll(joiners []*store.Joiner, under []*store.Work) error {
	var joining, telling []*store.Joiner
	byID := make(map[uuid.UUID]*store.Joiner, len(joiners))
	for _, j := range joiners {
		byID[j.ID] = j
		switch {
		case j.New:
			joining = append(joining, j)
		case j.Email != "":
			telling = append(telling, j)
		}
	}
	if len(joining) > 0 {
		t.later(`INSERT INTO enrollment (id, tenant_id, instance_id, address_key, contact_id, email, linkedin_url, status, created_at, updated_at)
			SELECT id, tenant_id, instance_id, address_key, '', email, '', 'active', $6, $6
			FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bytea[], $5::text[]) AS b(id, tenant_id, instance_id, address_key, email)`,
			append(joinerColumns(joining), row.US(t.now))...)
	}
	addressed := joining
	if len(telling) > 0 {
		slices.SortFunc(telling, func(a, b *store.Joiner) int { return bytes.Compare(a.ID[:], b.ID[:]) })
		columns := joinerColumns(telling)
		t.later(`SELECT 1 FROM enrollment WHERE tenant_id = ANY ($2::bigint[]) AND id = ANY ($1::bytea[]) ORDER BY id FOR UPDATE`, columns[:2]...)
		err := t.query(`UPDATE enrollment e SET email = b.email, address_key = b.address_key, updated_at = $6
			FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bytea[], $5::text[]) AS b(id, tenant_id, instance_id, address_key, email)
			WHERE e.id = b.id AND e.tenant_id = b.tenant_id AND e.instance_id = b.instance_id AND e.address_key IS NULL
			RETURNING e.id`, func(sc row.Scanner) error {
			var id []byte
			err := sc.Scan(&id)
			addressed = append(addressed, byID[row.ID(id)])
			return err
		}, append(columns, row.US(t.now))...)
		if err != nil {
			return err
		}
	}
	rows := joinedKeys(joiners, addressed)
	for _, round := range store.Rounds(rows, func(r refRow) store.TenantKey { return store.TenantKey{Tenant: r.tenant, Key: r.key} }) {
		t.ownKeys(round)
	}
	defer t.passOver(under)()
	_, _, err := t.adopt(keysOf(rows))
	return err
}

// joinedKeys are the keys that enrollments gain: leads, and the addresses of some.
func joinedKeys(joiners, addressed []*store.Joiner) []refRow {
	var rows []refRow
	for _, j := range joiners {
		rows = append(rows, refRows(j.Tenant, j.ID, j.Instance, j.Refs)...)
	}
	for _, j := range addressed {
		if j.Email != "" {
			rows = append(rows, refRow{j.Tenant, event.AddressKey(j.Email), j.ID, j.Instance, event.Ref{Kind: "address"}})
		}
	}
	return rows
}

func joinerColumns(joiners []*store.Joiner) []any {
	return []any{
		column(joiners, func(j *store.Joiner) []byte { return j.ID[:] }),
		column(joiners, func(j *store.Joiner) int64 { return j.Tenant }),
		column(joiners, func(j *store.Joiner) []byte { return j.Instance[:] }),
		column(joiners, func(j *store.Joiner) []byte {
			if j.Email == "" {
				return nil
			}
			h := event.AddressKey(j.Email)
			return h[:]
		}),
		column(joiners, func(j *store.Joiner) string { return j.Email }),
	}
}

// passOver keeps adoptions off events that are on their way through the
// processor already, until the function that it returns is called.
func (t *tx) passOver(works []*store.Work) (end func()) {
	before := t.under
	t.under = make(map[int64]bool, len(before)+len(works))
	for seq := range before {
		t.under[seq] = true
	}
	for _, w := range works {
		t.under[w.Seq] = true
	}
	return func() { t.under = before }
}
