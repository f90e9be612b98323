package sqlite

import (
	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Hold implements store.Steps: there is one writer.
func (t *tx) Hold([]store.TenantKey, bool) (again bool, err error) { return false, nil }

// Enroll implements store.Steps.
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
		if _, err := t.exec(`INSERT INTO enrollment (id, tenant_id, instance_id, address_key, contact_id, email, linkedin_url, status, created_at, updated_at)
			SELECT id, tenant_id, instance_id, address_key, '', email, '', 'active', ?2, ?2 FROM b_enrollment(?1)`,
			bind(joining, joinerColumn), row.US(t.now)); err != nil {
			return err
		}
	}
	addressed := joining
	if len(telling) > 0 {
		err := t.query(`UPDATE enrollment SET email = b.email, address_key = b.address_key, updated_at = ?2 FROM b_enrollment(?1) b
			WHERE enrollment.id = b.id AND enrollment.tenant_id = b.tenant_id AND enrollment.address_key IS NULL
			RETURNING id`, func(sc row.Scanner) error {
			var id []byte
			err := sc.Scan(&id)
			addressed = append(addressed, byID[row.ID(id)])
			return err
		}, bind(telling, joinerColumn), row.US(t.now))
		if err != nil {
			return err
		}
	}
	rows := joinedKeys(joiners, addressed)
	for _, round := range store.Rounds(rows, func(r refRow) store.TenantKey { return store.TenantKey{Tenant: r.tenant, Key: r.key} }) {
		if err := t.ownKeys(round); err != nil {
			return err
		}
	}
	defer t.passOver(under)()
	_, _, err := t.adopt(tenantKeysOf(rows))
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

func joinerColumn(c sqlite3.Context, p **store.Joiner, col int) {
	switch j := *p; col {
	case 0:
		c.ResultInt64(j.Tenant)
	case 1:
		c.ResultBlob(j.ID[:])
	case 2:
		c.ResultBlob(j.Instance[:])
	case 3:
		if j.Email != "" {
			h := event.AddressKey(j.Email)
			c.ResultBlob(h[:])
		}
	case 4:
		c.ResultText(j.Email)
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
