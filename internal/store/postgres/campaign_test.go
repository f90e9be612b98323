package postgres_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
)

// TestOneIdempotencyKeyMakesOneResource sends the same creating request to two
// replicas several times at once.
func TestOneIdempotencyKeyMakesOneResource(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	replicas := []storetest.Store{w.Store, replica(w)}
	for name, create := range map[string]func(s storetest.Store, idem store.Idempotency) (uuid.UUID, error){
		"Template": func(s storetest.Store, idem store.Idempotency) (uuid.UUID, error) {
			m, err := s.CreateTemplate(w.Ctx(), campaign.Template{Tenant: w.Tenant, Name: "t", Type: "email", PathType: "structured"}, idem)
			return m.ID, err
		},
		"Instance": func(s storetest.Store, idem store.Idempotency) (uuid.UUID, error) {
			i, err := s.CreateInstance(w.Ctx(), campaign.Instance{
				Tenant: w.Tenant, TemplateID: w.Template, Name: "i", Status: campaign.Draft,
				ProviderCampaigns: map[string]string{"lemlist": "cam"},
			}, idem)
			return i.ID, err
		},
		"Enrollment": func(s storetest.Store, idem store.Idempotency) (uuid.UUID, error) {
			d, err := s.Enroll(w.Ctx(), w.Tenant, w.Instance, []campaign.Enrollment{{Email: "ada@example.com"}}, false, idem)
			if err != nil {
				return uuid.Nil, err
			}
			if d[0].Conflict || d[0].Err != nil {
				return uuid.Nil, fmt.Errorf("enrolled as %+v", d[0])
			}
			return d[0].ID, nil
		},
	} {
		idem := store.Idempotency{Key: name, Request: [32]byte{1}}
		ids := make([]uuid.UUID, 8)
		fns := make([]func() error, len(ids))
		for i := range fns {
			fns[i] = func() (err error) {
				ids[i], err = create(replicas[i%2], idem)
				return err
			}
		}
		together(t, fns...)
		for _, id := range ids {
			storetest.Same(t, name, id, ids[0])
		}
		_, err := create(w.Store, store.Idempotency{Key: name, Request: [32]byte{2}})
		storetest.Kind(t, err, fault.Conflict)
	}
	rows, _, err := w.Templates(w.Ctx(), w.Tenant, store.Page{Limit: 10})
	must(t, err)
	storetest.Same(t, "templates, with the World's own", len(rows), 2)
	instances, _, err := w.Instances(w.Ctx(), w.Tenant, store.InstanceFilter{}, store.Page{Limit: 10})
	must(t, err)
	storetest.Same(t, "instances, with the World's own", len(instances), 2)
}

// TestRefusedRequestLeavesItsKeyFree lets a request fail and come again.
func TestRefusedRequestLeavesItsKeyFree(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	in := campaign.Instance{Tenant: w.Tenant, TemplateID: uuid.Must(uuid.NewV7()), Name: "i", Status: campaign.Draft}
	idem := store.Idempotency{Key: "k", Request: [32]byte{1}}
	_, err := w.CreateInstance(w.Ctx(), in, idem)
	storetest.Kind(t, err, fault.Invalid)
	in.TemplateID = w.Template
	got, err := w.CreateInstance(w.Ctx(), in, idem)
	must(t, err)
	again, err := w.CreateInstance(w.Ctx(), in, idem)
	must(t, err)
	storetest.Same(t, "again", again.ID, got.ID)
}

// TestChangesOfAnInstanceAreNotLost changes one instance on two replicas at once.
func TestChangesOfAnInstanceAreNotLost(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	other := replica(w)
	patch := func(s storetest.Store, id uuid.UUID, p store.InstancePatch) func() error {
		return func() error {
			_, _, err := s.PatchInstance(w.Ctx(), w.Tenant, id, p)
			return err
		}
	}
	status := func(s campaign.InstanceStatus) store.InstancePatch {
		st := string(s)
		return store.InstancePatch{Status: &st}
	}
	for n := range 10 {
		_, id := w.Campaign(w.Tenant, nil)
		name := fmt.Sprint("name ", n)
		together(t,
			patch(w.Store, id, store.InstancePatch{Name: &name}),
			patch(other, id, store.InstancePatch{Settings: []byte(`{"a":1}`)}),
			patch(w.Store, id, store.InstancePatch{ProviderCampaigns: map[string]string{"lemlist": name}}),
		)
		got, err := w.Store.Instance(w.Ctx(), w.Tenant, id)
		must(t, err)
		storetest.Same(t, "instance", []string{got.Name, string(got.Settings), got.ProviderCampaigns["lemlist"]}, []string{name, `{"a":1}`, name})

		// Completed is the end: whoever comes second may not take it back.
		together(t, patch(w.Store, id, status(campaign.Completed)), func() error {
			if err := patch(other, id, status(campaign.Paused))(); err != nil && !fault.Is(err, fault.Conflict) {
				return err
			}
			return nil
		})
		got, err = w.Store.Instance(w.Ctx(), w.Tenant, id)
		must(t, err)
		storetest.Same(t, "status", got.Status, campaign.Completed)
		storetest.Same(t, "was completed", got.CompletedAt.IsZero(), false)
	}
}

// TestOneCampaignIsMappedOnce maps one campaign to two instances at once, on
// two replicas, the keys in either order.
func TestOneCampaignIsMappedOnce(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	other := replica(w)
	for n := range 10 {
		want := map[string]string{"lemlist": fmt.Sprint("cam ", n), "smartlead": fmt.Sprint("cam ", n)}
		_, one := w.Campaign(w.Tenant, nil)
		_, two := w.Campaign(w.Tenant, nil)
		var errs [2]error
		mapTo := func(i int, s storetest.Store, id uuid.UUID) func() error {
			return func() error {
				_, _, errs[i] = s.PatchInstance(w.Ctx(), w.Tenant, id, store.InstancePatch{ProviderCampaigns: want})
				return nil
			}
		}
		together(t, mapTo(0, w.Store, one), mapTo(1, other, two))
		won, lost := 0, 1
		if errs[0] != nil {
			won, lost = 1, 0
		}
		must(t, errs[won])
		storetest.Kind(t, errs[lost], fault.Conflict)
		ids := [2]uuid.UUID{one, two}
		got, err := w.Store.Instance(w.Ctx(), w.Tenant, ids[won])
		must(t, err)
		storetest.Same(t, "mapped", got.ProviderCampaigns, want)
		got, err = w.Store.Instance(w.Ctx(), w.Tenant, ids[lost])
		must(t, err)
		storetest.Same(t, "not mapped", len(got.ProviderCampaigns), 0)
	}
}

// TestATemplateIsNotDeletedUnderANewInstance deletes a template while an
// active instance of it is made.
func TestATemplateIsNotDeletedUnderANewInstance(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	other := replica(w)
	for range 10 {
		m, err := w.CreateTemplate(w.Ctx(), campaign.Template{Tenant: w.Tenant, Name: "t", Type: "email", PathType: "structured"}, store.Idempotency{})
		must(t, err)
		var deleted, made error
		together(t,
			func() error { deleted = w.DeleteTemplate(w.Ctx(), w.Tenant, m.ID, "me"); return nil },
			func() error {
				_, made = other.CreateInstance(w.Ctx(), campaign.Instance{Tenant: w.Tenant, TemplateID: m.ID, Name: "i", Status: campaign.Active}, store.Idempotency{})
				return nil
			},
		)
		if deleted == nil {
			storetest.Kind(t, made, fault.Invalid)
		} else {
			storetest.Kind(t, deleted, fault.Conflict)
			must(t, made)
		}
	}
}

// TestWhatPostgreSQLCannotStoreIsRefusedAsData plants a NUL and broken UTF-8.
func TestWhatPostgreSQLCannotStoreIsRefusedAsData(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	for _, bad := range []string{"a\x00b", "a\xffb"} {
		_, err := w.CreateTemplate(w.Ctx(), campaign.Template{Tenant: w.Tenant, Name: bad, Type: "email", PathType: "structured"}, store.Idempotency{})
		storetest.Kind(t, err, fault.Data)
		_, err = w.CreateTenant(w.Ctx(), bad)
		storetest.Kind(t, err, fault.Data)
		// Nothing that is stored has them.
		for _, f := range []store.EventFilter{
			{Provider: bad}, {Type: event.Type(bad)}, {State: event.State(bad)}, {Email: bad}, {MessageID: bad},
		} {
			rows, _, err := w.Events(w.Ctx(), w.Tenant, f, store.Page{Limit: 1})
			must(t, err)
			storetest.Same(t, "events", len(rows), 0)
		}
		for _, f := range []store.LetterFilter{{Provider: bad}, {Reason: bad}, {Type: event.Type(bad)}, {Email: bad}, {Status: store.LetterStatus(bad)}} {
			rows, _, err := w.Letters(w.Ctx(), w.Tenant, f, store.Page{Limit: 1})
			must(t, err)
			storetest.Same(t, "letters", len(rows), 0)
		}
		_, err = w.Suppression(w.Ctx(), w.Tenant, bad)
		storetest.Kind(t, err, fault.NotFound)
	}
}
