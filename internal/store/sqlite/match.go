package sqlite

import (
	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

type probe struct {
	w    *work
	slot int // of the work's keys
	at   int // place among the probes
}

func (p *probe) key() *event.Key { return &p.w.keys[p.slot] }

// match finds the enrollment of each event, with one statement for each kind
// of key whatever the number of events.
func (t *tx) match(works []*work) error {
	var owned, enrollments, campaigns []probe
	for _, w := range works {
		switch {
		case w.ev.Control || w.bury != "":
			continue
		case w.forced != uuid.Nil:
			w.keys = []event.Key{{Rank: event.RankEnrollment}}
		default:
			w.keys = w.ev.Keys()
		}
		w.found = make([]store.Found, len(w.keys))
		for i := range w.keys {
			switch p := (probe{w: w, slot: i}); w.keys[i].Rank {
			case event.RankEnrollment:
				enrollments = append(enrollments, p)
			case event.RankCampaign:
				campaigns = append(campaigns, p)
			case event.RankMessage, event.RankLead, event.RankAddress:
				owned = append(owned, p)
			}
		}
	}
	instances := map[uuid.UUID]uuid.UUID{}
	if err := t.probeOwned(owned, instances); err != nil {
		return err
	}
	if err := t.probeEnrollments(enrollments, instances); err != nil {
		return err
	}
	if err := t.probeCampaigns(campaigns, instances); err != nil {
		return err
	}
	for _, w := range works {
		if w.keys != nil {
			w.decision = store.Match(w.keys, w.found)
			w.instance = instances[w.decision.Enrollment]
		}
	}
	return nil
}

// probeOwned looks up messages, leads and addresses. Of a key's owners two are
// read at most (nth), which is enough to tell one from several.
func (t *tx) probeOwned(probes []probe, instances map[uuid.UUID]uuid.UUID) error {
	if len(probes) == 0 {
		return nil
	}
	return t.query(`SELECT p.ord, m.enrollment_id, m.instance_id FROM b_probe(?1) p
		CROSS JOIN match_key m ON m.tenant_id = p.tenant_id AND m.key = p.key AND m.nth < 2`, func(sc scanner) error {
		var at int
		var enrollment, instance []byte
		if err := sc.Scan(&at, &enrollment, &instance); err != nil {
			return err
		}
		id := idOf(enrollment)
		instances[id] = idOf(instance)
		f := &probes[at].w.found[probes[at].slot]
		if f.Min == uuid.Nil {
			f.Min = id
		}
		f.Max = id
		return nil
	}, bindProbes(probes))
}

func (t *tx) probeEnrollments(probes []probe, instances map[uuid.UUID]uuid.UUID) error {
	if len(probes) == 0 {
		return nil
	}
	return t.query(`SELECT p.ord, e.id, e.instance_id FROM b_probe(?1) p
		CROSS JOIN enrollment e ON e.id = p.enrollment AND e.tenant_id = p.tenant_id`, func(sc scanner) error {
		var at int
		var enrollment, instance []byte
		if err := sc.Scan(&at, &enrollment, &instance); err != nil {
			return err
		}
		id := idOf(enrollment)
		instances[id] = idOf(instance)
		probes[at].w.found[probes[at].slot] = store.Found{Min: id, Max: id}
		return nil
	}, bindProbes(probes))
}

func (t *tx) probeCampaigns(probes []probe, instances map[uuid.UUID]uuid.UUID) error {
	if len(probes) == 0 {
		return nil
	}
	return t.query(`SELECT p.ord, c.instance_id, e.id FROM b_probe(?1) p
		CROSS JOIN provider_campaign c ON c.tenant_id = p.tenant_id AND c.key = p.key
		LEFT JOIN enrollment e ON e.instance_id = c.instance_id AND e.address_key = p.address`, func(sc scanner) error {
		var at int
		var enrollment, instance []byte
		if err := sc.Scan(&at, &instance, &enrollment); err != nil {
			return err
		}
		id := idOf(enrollment)
		instances[id] = idOf(instance)
		probes[at].w.found[probes[at].slot] = store.Found{Min: id, Max: id, Instance: idOf(instance)}
		return nil
	}, bindProbes(probes))
}

func bindProbes(probes []probe) any {
	for i := range probes {
		probes[i].at = i
	}
	return bind(probes, func(c sqlite3.Context, p *probe, col int) {
		switch col {
		case 0:
			c.ResultInt(p.at)
		case 1:
			c.ResultInt64(p.w.ev.Tenant)
		case 2:
			c.ResultBlob(p.key().Hash[:])
		case 3:
			if p.key().Rank == event.RankCampaign {
				h := event.AddressKey(p.w.ev.Email)
				c.ResultBlob(h[:])
			}
		case 4:
			id := p.w.forced
			if id == uuid.Nil {
				id, _ = uuid.Parse(p.w.ev.EnrollmentID) // Keys has parsed it
			}
			c.ResultBlob(id[:])
		}
	})
}
