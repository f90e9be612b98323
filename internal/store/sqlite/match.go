package sqlite

import (
	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// Lookup implements store.Steps, with one statement for each kind of key.
func (t *tx) Lookup(l *store.Lookup) error {
	if err := t.probeOwned(l); err != nil {
		return err
	}
	if err := t.probeEnrollments(l); err != nil {
		return err
	}
	return t.probeCampaigns(l)
}

// probeOwned looks up messages, leads and addresses. Of a key's owners two are
// read at most (nth), which is enough to tell one from several.
func (t *tx) probeOwned(l *store.Lookup) error {
	return t.probe(l.Owned, `SELECT p.ord, m.enrollment_id, m.instance_id FROM b_probe(?1) p
		CROSS JOIN match_key m ON m.tenant_id = p.tenant_id AND m.key = p.key AND m.nth < 2`, l.Owner)
}

func (t *tx) probeEnrollments(l *store.Lookup) error {
	return t.probe(l.Enrollments, `SELECT p.ord, e.id, e.instance_id FROM b_probe(?1) p
		CROSS JOIN enrollment e ON e.id = p.enrollment AND e.tenant_id = p.tenant_id`, l.Owner)
}

func (t *tx) probeCampaigns(l *store.Lookup) error {
	if len(l.Campaigns) == 0 {
		return nil
	}
	return t.query(`SELECT p.ord, e.id, c.instance_id, i.status = 'active' FROM b_probe(?1) p
		CROSS JOIN provider_campaign c ON c.tenant_id = p.tenant_id AND c.key = p.key
		CROSS JOIN instance i ON i.id = c.instance_id
		LEFT JOIN enrollment e ON e.instance_id = c.instance_id AND e.address_key = p.address`, func(sc row.Scanner) error {
		var ord int
		var enrollment, instance []byte
		var active bool
		if err := sc.Scan(&ord, &enrollment, &instance, &active); err != nil {
			return err
		}
		l.Mapped(&l.Campaigns[ord], row.ID(enrollment), row.ID(instance), active)
		return nil
	}, bind(l.Campaigns, probeColumn))
}

func (t *tx) probe(probes []store.Probe, query string, found func(p *store.Probe, enrollment, instance uuid.UUID)) error {
	if len(probes) == 0 {
		return nil
	}
	return t.query(query, func(sc row.Scanner) error {
		var ord int
		var enrollment, instance []byte
		if err := sc.Scan(&ord, &enrollment, &instance); err != nil {
			return err
		}
		found(&probes[ord], row.ID(enrollment), row.ID(instance))
		return nil
	}, bind(probes, probeColumn))
}

func probeColumn(c sqlite3.Context, p *store.Probe, col int) {
	switch col {
	case 0:
		c.ResultInt(p.Ord)
	case 1:
		c.ResultInt64(p.Tenant())
	case 2:
		h := p.Hash()
		c.ResultBlob(h[:])
	case 3:
		h := p.Address()
		c.ResultBlob(h[:])
	case 4:
		id := p.Enrollment()
		c.ResultBlob(id[:])
	}
}
