package postgres

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// CreateTemplate stores a template; its id and times are given here.
func (s *Store) CreateTemplate(ctx context.Context, m campaign.Template, idem store.Idempotency) (campaign.Template, error) {
	steps, err := json.Marshal(m.Steps)
	if err != nil {
		return m, fault.Wrap(fault.Internal, "create template", err)
	}
	err = s.write(ctx, "create template", func(t *tx) error {
		id, _, done, err := t.Idempotent(m.Tenant, idem)
		if err != nil || done {
			m.ID = id
			return err
		}
		m.ID = row.NewID()
		if _, err := t.exec(`INSERT INTO template (id, tenant_id, name, description, type, path_type, settings, steps, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)`,
			m.ID[:], m.Tenant, m.Name, m.Description, m.Type, m.PathType, m.Settings, steps, row.US(t.now)); err != nil {
			return err
		}
		return t.KeepIdempotent(m.Tenant, idem, m.ID, "")
	})
	if err != nil {
		return m, err
	}
	return s.Template(ctx, m.Tenant, m.ID)
}

// Template reads one template of a tenant.
func (s *Store) Template(ctx context.Context, tenant int64, id uuid.UUID) (campaign.Template, error) {
	var m campaign.Template
	found := false
	err := s.read(ctx, "read template", `SELECT `+row.TemplateColumns+` FROM template WHERE id = $1 AND tenant_id = $2 AND deleted_at = 0`,
		func(sc row.Scanner) error {
			found = true
			_, err := row.ScanTemplate(sc, &m)
			return err
		}, id[:], tenant)
	if err == nil && !found {
		err = row.NoTemplate(id)
	}
	return m, err
}

// Templates lists a tenant's templates, newest first.
func (s *Store) Templates(ctx context.Context, tenant int64, p store.Page) ([]campaign.Template, int64, error) {
	var rows []campaign.Template
	var seqs []int64
	err := s.read(ctx, "list templates", `SELECT `+row.TemplateColumns+` FROM template
		WHERE tenant_id = $1 AND deleted_at = 0 AND seq < $2 ORDER BY seq DESC LIMIT $3`, func(sc row.Scanner) error {
		var m campaign.Template
		seq, err := row.ScanTemplate(sc, &m)
		rows, seqs = append(rows, m), append(seqs, seq)
		return err
	}, tenant, before(p), p.Limit+1)
	rows, next := row.Page(rows, seqs, p.Limit)
	return rows, next, err
}

// ReplaceTemplate stores a template anew under its id.
func (s *Store) ReplaceTemplate(ctx context.Context, m campaign.Template) (campaign.Template, error) {
	steps, err := json.Marshal(m.Steps)
	if err != nil {
		return m, fault.Wrap(fault.Internal, "replace template", err)
	}
	err = s.write(ctx, "replace template", func(t *tx) error {
		n, err := t.exec(`UPDATE template SET name = $3, description = $4, type = $5, path_type = $6, settings = $7, steps = $8, updated_at = $9
			WHERE id = $1 AND tenant_id = $2 AND deleted_at = 0`,
			m.ID[:], m.Tenant, m.Name, m.Description, m.Type, m.PathType, m.Settings, steps, row.US(t.now))
		if err == nil && n == 0 {
			err = row.NoTemplate(m.ID)
		}
		return err
	})
	if err != nil {
		return m, err
	}
	return s.Template(ctx, m.Tenant, m.ID)
}

// DeleteTemplate hides a template; Conflict while an instance of it is active.
func (s *Store) DeleteTemplate(ctx context.Context, tenant int64, id uuid.UUID, actor string) error {
	return s.write(ctx, "delete template", func(t *tx) error {
		// An instance that is being made of it holds the template's row.
		if held, err := t.holdTemplate(tenant, id, "UPDATE"); err != nil {
			return err
		} else if !held {
			return row.NoTemplate(id)
		}
		var n int64
		if _, err := t.one(`SELECT count(*) FROM instance WHERE template_id = $1 AND tenant_id = $2 AND status = 'active'`,
			[]any{id[:], tenant}, &n); err != nil {
			return err
		}
		if n > 0 {
			return fault.New(fault.Conflict, "the template has %d active instances; pause or complete them first", n)
		}
		if _, err := t.exec(`UPDATE template SET deleted_at = $3 WHERE id = $1 AND tenant_id = $2`, id[:], tenant, row.US(t.now)); err != nil {
			return err
		}
		return t.Audit(store.Audit{At: t.now, Tenant: tenant, Actor: actor, Action: "template.delete", Subject: id.String()})
	})
}

// holdTemplate keeps a template as it is until the end of the transaction:
// FOR SHARE with others, or FOR UPDATE alone. held is false when there is none.
func (t *tx) holdTemplate(tenant int64, id uuid.UUID, mode string) (held bool, err error) {
	var one int
	return t.one(`SELECT 1 FROM template WHERE id = $1 AND tenant_id = $2 AND deleted_at = 0 FOR `+mode, []any{id[:], tenant}, &one)
}

const instanceColumns = `seq, id, tenant_id, template_id, name, status, settings, created_at, updated_at, started_at, completed_at,
	coalesce((SELECT json_object_agg(c.provider, c.campaign) FROM provider_campaign c
		WHERE c.instance_id = instance.id AND c.tenant_id = instance.tenant_id)::text, '{}')`

// CreateInstance stores an instance of an existing template.
func (s *Store) CreateInstance(ctx context.Context, i campaign.Instance, idem store.Idempotency) (campaign.Instance, error) {
	err := s.write(ctx, "create instance", func(t *tx) error {
		id, _, done, err := t.Idempotent(i.Tenant, idem)
		if err != nil || done {
			i.ID = id
			return err
		}
		if err := t.roomForInstance(i.Tenant); err != nil {
			return err
		}
		if held, err := t.holdTemplate(i.Tenant, i.TemplateID, "SHARE"); err != nil {
			return err
		} else if !held {
			return fault.BadInput(fault.Field{Location: "body.template_id", Message: "names no template", Value: i.TemplateID.String()})
		}
		i.ID = row.NewID()
		started := int64(0)
		if i.Status == campaign.Active {
			started = row.US(t.now)
		}
		if _, err := t.exec(`INSERT INTO instance (id, tenant_id, template_id, name, status, settings, created_at, updated_at, started_at, completed_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, 0)`,
			i.ID[:], i.Tenant, i.TemplateID[:], i.Name, string(i.Status), i.Settings, row.US(t.now), started); err != nil {
			return err
		}
		if _, err := t.mapCampaigns(i.Tenant, i.ID, i.ProviderCampaigns); err != nil {
			return err
		}
		return t.KeepIdempotent(i.Tenant, idem, i.ID, "")
	})
	if err != nil {
		return i, err
	}
	return s.Instance(ctx, i.Tenant, i.ID)
}

// mapCampaigns ties providers' campaigns to an instance, in place of those it
// had, and takes in the events that waited for just that. The instance must be
// new or locked.
func (t *tx) mapCampaigns(tenant int64, instance uuid.UUID, campaigns map[string]string) (store.Enrolled, error) {
	var done store.Enrolled
	wanted := map[event.Hash][2]string{}
	for p, c := range campaigns {
		p = strings.ToLower(p)
		wanted[event.CampaignKey(p, c)] = [2]string{p, c}
	}
	var gone [][]byte
	err := t.query(`SELECT key FROM provider_campaign WHERE instance_id = $1 AND tenant_id = $2 ORDER BY key`, func(sc row.Scanner) error {
		var k []byte
		if err := sc.Scan(&k); err != nil {
			return err
		}
		if _, ok := wanted[event.Hash(k)]; !ok {
			gone = append(gone, k)
		}
		delete(wanted, event.Hash(k)) // it has that one
		return nil
	}, instance[:], tenant)
	if err != nil {
		return done, err
	}
	if len(gone) > 0 {
		if _, err := t.exec(`DELETE FROM provider_campaign WHERE tenant_id = $1 AND key = ANY ($2::bytea[])`, tenant, gone); err != nil {
			return done, err
		}
	}
	keys := slices.SortedFunc(maps.Keys(wanted), func(a, b event.Hash) int { return bytes.Compare(a[:], b[:]) })
	for _, k := range keys {
		p, c := wanted[k][0], wanted[k][1]
		// Whoever has it by now, even when it was mapped in the same moment: the
		// update changes nothing, waits for the other and answers with the owner.
		var owner []byte
		if _, err := t.one(`INSERT INTO provider_campaign (tenant_id, key, provider, campaign, instance_id) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (tenant_id, key) DO UPDATE SET provider = excluded.provider RETURNING instance_id`,
			[]any{tenant, k[:], p, c, instance[:]}, &owner); err != nil {
			return done, err
		}
		if row.ID(owner) != instance {
			return done, fault.New(fault.Conflict, "the campaign %q of %s is mapped to instance %s already", c, p, row.ID(owner))
		}
	}
	done.Adopted, done.Adopting, err = t.adopt(column(keys, func(k event.Hash) store.TenantKey { return store.TenantKey{Tenant: tenant, Key: k} }))
	return done, err
}

// adoptOpened takes in what waits for the campaigns of an instance that has
// become active: events of sources that enroll had to wait for that.
func (t *tx) adoptOpened(i *campaign.Instance, done *store.Enrolled) error {
	adopted, left, err := t.adopt(store.CampaignKeys(i))
	done.Adopted += adopted
	done.Adopting += left
	return err
}

// Instance reads one instance of a tenant.
func (s *Store) Instance(ctx context.Context, tenant int64, id uuid.UUID) (campaign.Instance, error) {
	var i campaign.Instance
	found := false
	err := s.read(ctx, "read instance", `SELECT `+instanceColumns+` FROM instance WHERE id = $1 AND tenant_id = $2`, func(sc row.Scanner) error {
		found = true
		_, err := row.ScanInstance(sc, &i)
		return err
	}, id[:], tenant)
	if err == nil && !found {
		err = row.NoInstance(id)
	}
	return i, err
}

// Instances lists a tenant's instances, newest first.
func (s *Store) Instances(ctx context.Context, tenant int64, f store.InstanceFilter, p store.Page) ([]campaign.Instance, int64, error) {
	var rows []campaign.Instance
	var seqs []int64
	err := s.read(ctx, "list instances", `SELECT `+instanceColumns+` FROM instance
		WHERE tenant_id = $1 AND seq < $2 AND ($3 = '' OR status = $3) AND ($4::bytea IS NULL OR template_id = $4)
		ORDER BY seq DESC LIMIT $5`, func(sc row.Scanner) error {
		var i campaign.Instance
		seq, err := row.ScanInstance(sc, &i)
		rows, seqs = append(rows, i), append(seqs, seq)
		return err
	}, tenant, before(p), f.Status, row.Blob(f.Template), p.Limit+1)
	rows, next := row.Page(rows, seqs, p.Limit)
	return rows, next, err
}

// PatchInstance changes an instance. A change of status must be one of the
// allowed transitions; newly mapped campaigns adopt what waited for them.
func (s *Store) PatchInstance(ctx context.Context, tenant int64, id uuid.UUID, patch store.InstancePatch) (campaign.Instance, store.Enrolled, error) {
	var done store.Enrolled
	err := s.write(ctx, "change instance", func(t *tx) error {
		// Locked first and read in a statement of its own, which sees what the
		// one before left: of two changes at once neither is lost.
		var one int
		if held, err := t.one(`SELECT 1 FROM instance WHERE id = $1 AND tenant_id = $2 FOR UPDATE`, []any{id[:], tenant}, &one); err != nil {
			return err
		} else if !held {
			return row.NoInstance(id)
		}
		var i campaign.Instance
		err := t.query(`SELECT `+instanceColumns+` FROM instance WHERE id = $1 AND tenant_id = $2`, func(sc row.Scanner) error {
			_, err := row.ScanInstance(sc, &i)
			return err
		}, id[:], tenant)
		if err != nil {
			return err
		}
		was := i.Status
		if patch.Name != nil {
			i.Name = *patch.Name
		}
		if patch.Settings != nil {
			i.Settings = patch.Settings
		}
		if patch.Status != nil {
			to := campaign.InstanceStatus(*patch.Status)
			if err := i.Status.Move(to); err != nil {
				return err
			}
			if to != i.Status && to == campaign.Active && i.StartedAt.IsZero() {
				i.StartedAt = t.now
			}
			if to != i.Status && to == campaign.Completed {
				i.CompletedAt = t.now
			}
			i.Status = to
		}
		if patch.ProviderCampaigns != nil {
			i.ProviderCampaigns = patch.ProviderCampaigns
		}
		if err := i.Validate("body"); err != nil {
			return err
		}
		if _, err := t.exec(`UPDATE instance SET name = $3, status = $4, settings = $5, updated_at = $6, started_at = $7, completed_at = $8
			WHERE id = $1 AND tenant_id = $2`,
			id[:], tenant, i.Name, string(i.Status), i.Settings, row.US(t.now), row.US(i.StartedAt), row.US(i.CompletedAt)); err != nil {
			return err
		}
		done = store.Enrolled{}
		if patch.ProviderCampaigns != nil {
			if done, err = t.mapCampaigns(tenant, id, patch.ProviderCampaigns); err != nil {
				return err
			}
		}
		if was != campaign.Active && i.Status == campaign.Active {
			return t.adoptOpened(&i, &done)
		}
		return nil
	})
	if err != nil {
		return campaign.Instance{}, done, err
	}
	i, err := s.Instance(ctx, tenant, id)
	return i, done, err
}
