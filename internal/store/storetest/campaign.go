package storetest

import (
	"slices"
	"strings"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func campaigns() group {
	return group{"Campaign", map[string]func(*World){
		"TemplateReadsBackAndIsReplaced": templateReadsBack,
		"TemplateDeleteIsSoft":           templateDelete,
		"TemplatesPage":                  templatePages,
		"CreatingIsIdempotent":           createIdempotent,
		"InstanceReadsBack":              instanceReadsBack,
		"InstanceTransitions":            instanceTransitions,
		"InstanceNeedsATemplate":         instanceTemplate,
		"InstancesFilterAndPage":         instanceList,
		"CampaignsMapOnce":               instanceCampaigns,
	}}
}

func templateReadsBack(w *World) {
	in := campaign.Template{
		Tenant: w.Tenant, Name: "Ü", Description: "d", Type: "linkedin", PathType: "dynamic_ai", Settings: []byte(`{"a":1}`),
		Steps: []campaign.Step{{Number: 1, Channel: "email", Type: "intro", Subject: "s", Body: "b", DelayHours: 3, Variant: "A"}},
	}
	got, err := w.CreateTemplate(w.Ctx(), in, store.Idempotency{})
	w.must(err)
	in.ID, in.CreatedAt, in.UpdatedAt = got.ID, got.CreatedAt, got.UpdatedAt
	Same(w.T, "template", got, in)
	in.Name, in.Steps = "new", nil
	got, err = w.ReplaceTemplate(w.Ctx(), in)
	w.must(err)
	Same(w.T, "created stays", got.CreatedAt, in.CreatedAt)
	if !got.UpdatedAt.After(in.UpdatedAt) {
		w.T.Errorf("updated at %v", got.UpdatedAt)
	}
	Same(w.T, "replaced", []any{got.Name, len(got.Steps)}, []any{"new", 0})
	in.ID = uuid.Must(uuid.NewV7())
	_, err = w.ReplaceTemplate(w.Ctx(), in)
	Kind(w.T, err, fault.NotFound)
}

func templateDelete(w *World) {
	Kind(w.T, w.DeleteTemplate(w.Ctx(), w.Tenant, w.Template, "me"), fault.Conflict)
	paused := string(campaign.Paused)
	_, _, err := w.PatchInstance(w.Ctx(), w.Tenant, w.Instance, store.InstancePatch{Status: &paused})
	w.must(err)
	w.must(w.DeleteTemplate(w.Ctx(), w.Tenant, w.Template, "me"))
	lines, _, err := w.AuditLog(w.Ctx(), w.Tenant, store.AuditFilter{Action: "template"}, store.Page{Limit: 10})
	w.must(err)
	Same(w.T, "who deleted it", []any{len(lines), lines[0].Actor, lines[0].Subject}, []any{1, "me", w.Template.String()})
	_, err = w.Store.Template(w.Ctx(), w.Tenant, w.Template)
	Kind(w.T, err, fault.NotFound)
	Kind(w.T, w.DeleteTemplate(w.Ctx(), w.Tenant, w.Template, "me"), fault.NotFound)
	_, err = w.CreateInstance(w.Ctx(), campaign.Instance{Tenant: w.Tenant, TemplateID: w.Template, Name: "x", Status: campaign.Draft}, store.Idempotency{})
	Kind(w.T, err, fault.Invalid)
	// The instance, its people and events stay.
	i, err := w.Store.Instance(w.Ctx(), w.Tenant, w.Instance)
	w.must(err)
	Same(w.T, "template of the instance", i.TemplateID, w.Template)
}

func templatePages(w *World) {
	ids := []uuid.UUID{w.Template}
	for range 4 {
		tpl, err := w.CreateTemplate(w.Ctx(), campaign.Template{Tenant: w.Tenant, Name: "same", Type: "email", PathType: "structured"}, store.Idempotency{})
		w.must(err)
		ids = append(ids, tpl.ID)
	}
	slices.Reverse(ids)
	var got []uuid.UUID
	for after := int64(0); ; {
		rows, next, err := w.Templates(w.Ctx(), w.Tenant, store.Page{Limit: 2, After: after})
		w.must(err)
		for _, r := range rows {
			got = append(got, r.ID)
		}
		if next == 0 {
			break
		}
		after = next
	}
	Same(w.T, "all, newest first", got, ids)
}

func createIdempotent(w *World) {
	tpl := campaign.Template{Tenant: w.Tenant, Name: "t", Type: "email", PathType: "structured"}
	idem := store.Idempotency{Key: "a", Request: [32]byte{1}}
	first, err := w.CreateTemplate(w.Ctx(), tpl, idem)
	w.must(err)
	again, err := w.CreateTemplate(w.Ctx(), tpl, idem)
	w.must(err)
	Same(w.T, "template again", again, first)
	ins := campaign.Instance{Tenant: w.Tenant, TemplateID: w.Template, Name: "i", Status: campaign.Draft}
	_, err = w.CreateInstance(w.Ctx(), ins, store.Idempotency{Key: "a", Request: [32]byte{2}})
	Kind(w.T, err, fault.Conflict)
	idem = store.Idempotency{Key: "b", Request: [32]byte{2}}
	one, err := w.CreateInstance(w.Ctx(), ins, idem)
	w.must(err)
	two, err := w.CreateInstance(w.Ctx(), ins, idem)
	w.must(err)
	Same(w.T, "instance again", two, one)
	// A key is its tenant's own.
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	tpl.Tenant = other.ID
	theirs, err := w.CreateTemplate(w.Ctx(), tpl, store.Idempotency{Key: "a", Request: [32]byte{9}})
	w.must(err)
	if theirs.ID == first.ID {
		w.T.Error("two tenants share an Idempotency-Key")
	}
}

func instanceReadsBack(w *World) {
	in := campaign.Instance{
		Tenant: w.Tenant, TemplateID: w.Template, Name: "i", Status: campaign.Draft, Settings: []byte(`{"a":1}`),
		ProviderCampaigns: map[string]string{"lemlist": "cam_1", "smartlead": "7"},
	}
	got, err := w.CreateInstance(w.Ctx(), in, store.Idempotency{})
	w.must(err)
	in.ID, in.CreatedAt, in.UpdatedAt = got.ID, got.CreatedAt, got.UpdatedAt
	Same(w.T, "instance", got, in)
	name := "j"
	got, _, err = w.PatchInstance(w.Ctx(), w.Tenant, in.ID, store.InstancePatch{Name: &name, Settings: []byte(`{}`)})
	w.must(err)
	Same(w.T, "patched", []string{got.Name, string(got.Settings), got.ProviderCampaigns["lemlist"]}, []string{"j", "{}", "cam_1"})
	empty := ""
	_, _, err = w.PatchInstance(w.Ctx(), w.Tenant, in.ID, store.InstancePatch{Name: &empty})
	Kind(w.T, err, fault.Invalid)
	_, _, err = w.PatchInstance(w.Ctx(), w.Tenant, uuid.Must(uuid.NewV7()), store.InstancePatch{})
	Kind(w.T, err, fault.NotFound)
}

func instanceTransitions(w *World) {
	all := []campaign.InstanceStatus{campaign.Draft, campaign.Active, campaign.Paused, campaign.Completed}
	ways := map[campaign.InstanceStatus][]campaign.InstanceStatus{
		campaign.Draft: nil, campaign.Active: {campaign.Active}, campaign.Paused: {campaign.Active, campaign.Paused},
		campaign.Completed: {campaign.Active, campaign.Completed},
	}
	allowed := map[campaign.InstanceStatus]string{
		campaign.Draft: "draft active", campaign.Active: "active paused completed", campaign.Paused: "active paused completed", campaign.Completed: "completed",
	}
	for from, way := range ways {
		for _, to := range all {
			i, err := w.CreateInstance(w.Ctx(), campaign.Instance{Tenant: w.Tenant, TemplateID: w.Template, Name: "i", Status: campaign.Draft}, store.Idempotency{})
			w.must(err)
			move := func(s campaign.InstanceStatus) error {
				st := string(s)
				_, _, err := w.PatchInstance(w.Ctx(), w.Tenant, i.ID, store.InstancePatch{Status: &st})
				return err
			}
			for _, s := range way {
				w.must(move(s))
			}
			err = move(to)
			got, rerr := w.Store.Instance(w.Ctx(), w.Tenant, i.ID)
			w.must(rerr)
			if slices.Contains(strings.Fields(allowed[from]), string(to)) {
				w.must(err)
				Same(w.T, "status", got.Status, to)
			} else {
				Kind(w.T, err, fault.Conflict)
				Same(w.T, "status", got.Status, from)
			}
			Same(w.T, "was started", !got.StartedAt.IsZero(), got.Status != campaign.Draft)
			Same(w.T, "was completed", !got.CompletedAt.IsZero(), got.Status == campaign.Completed)
		}
	}
}

func instanceTemplate(w *World) {
	_, err := w.CreateInstance(w.Ctx(), campaign.Instance{Tenant: w.Tenant, TemplateID: uuid.Must(uuid.NewV7()), Name: "i"}, store.Idempotency{})
	Kind(w.T, err, fault.Invalid)
	_, err = w.Store.Instance(w.Ctx(), w.Tenant, uuid.Must(uuid.NewV7()))
	Kind(w.T, err, fault.NotFound)
}

func instanceList(w *World) {
	tpl, first := w.Campaign(w.Tenant, map[string]string{"lemlist": "cam"})
	draft, err := w.CreateInstance(w.Ctx(), campaign.Instance{Tenant: w.Tenant, TemplateID: tpl, Name: "d", Status: campaign.Draft}, store.Idempotency{})
	w.must(err)
	list := func(f store.InstanceFilter) []uuid.UUID {
		var ids []uuid.UUID
		for after := int64(0); ; {
			rows, next, err := w.Instances(w.Ctx(), w.Tenant, f, store.Page{Limit: 1, After: after})
			w.must(err)
			for _, r := range rows {
				ids = append(ids, r.ID)
				if r.ID == first {
					Same(w.T, "campaigns", r.ProviderCampaigns, map[string]string{"lemlist": "cam"})
				}
			}
			if next == 0 {
				return ids
			}
			after = next
		}
	}
	Same(w.T, "all", list(store.InstanceFilter{}), []uuid.UUID{draft.ID, first, w.Instance})
	Same(w.T, "by status", list(store.InstanceFilter{Status: "active"}), []uuid.UUID{first, w.Instance})
	Same(w.T, "by template", list(store.InstanceFilter{Template: tpl}), []uuid.UUID{draft.ID, first})
	Same(w.T, "by both", list(store.InstanceFilter{Template: tpl, Status: "draft"}), []uuid.UUID{draft.ID})
}

func instanceCampaigns(w *World) {
	_, one := w.Campaign(w.Tenant, map[string]string{"lemlist": "cam"})
	_, two := w.Campaign(w.Tenant, nil)
	same := store.InstancePatch{ProviderCampaigns: map[string]string{"LEMLIST": "cam"}}
	_, _, err := w.PatchInstance(w.Ctx(), w.Tenant, two, same)
	Kind(w.T, err, fault.Conflict)
	got, _, err := w.PatchInstance(w.Ctx(), w.Tenant, one, same)
	w.must(err)
	Same(w.T, "again", got.ProviderCampaigns, map[string]string{"lemlist": "cam"})
	// Given up by one, it is free for the other, and the whole map is replaced.
	got, _, err = w.PatchInstance(w.Ctx(), w.Tenant, one, store.InstancePatch{ProviderCampaigns: map[string]string{"lemlist": "new"}})
	w.must(err)
	Same(w.T, "replaced", got.ProviderCampaigns, map[string]string{"lemlist": "new"})
	_, _, err = w.PatchInstance(w.Ctx(), w.Tenant, two, same)
	w.must(err)
	ada := w.Join(two, campaign.Enrollment{Email: "ada@example.com"}).ID
	w.Join(one, campaign.Enrollment{Email: "ada@example.com"})
	w.IsApplied(w.Send(event.Opened, InCampaign("cam"), Address("ada@example.com")).ID, ada)
}
