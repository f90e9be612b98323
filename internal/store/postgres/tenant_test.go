package postgres_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/storetest"
)

// TestTwoTenantsSeeNothingOfEachOther gives two tenants the same addresses,
// message ids, event ids and provider campaigns, through all that reads.
func TestTwoTenantsSeeNothingOfEachOther(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	other, err := w.CreateTenant(w.Ctx(), "twin")
	must(t, err)
	type side struct {
		tenant               int64
		template, instance   uuid.UUID
		enrollment           uuid.UUID
		applied, dead, quiet uuid.UUID
		letter               uuid.UUID
	}
	sides := []*side{{tenant: w.Tenant}, {tenant: other.ID}}
	for n, s := range sides {
		s.template, s.instance = w.Campaign(s.tenant, map[string]string{"lemlist": "cam"})
		s.enrollment = w.JoinAs(s.tenant, s.instance, campaign.Enrollment{
			Email: "ada@example.com", Refs: []event.Ref{{Provider: "lemlist", Kind: event.RefMessage, Value: "m"}},
		}).ID
		must(t, w.CreateKey(w.Ctx(), store.Key{ID: uuid.Must(uuid.NewV7()), Tenant: s.tenant, Name: "k", Hash: [32]byte{byte(n)}, CreatedAt: w.Clock.Now()}))
		must(t, w.CreateSource(w.Ctx(), store.Source{ID: uuid.Must(uuid.NewV7()), Tenant: s.tenant, TokenHash: [32]byte{byte(n)}, Sealed: []byte{}, CreatedAt: w.Clock.Now()}))
	}
	var batch []event.Event
	for _, s := range sides {
		batch = append(batch,
			w.Event(event.Unsubscribed, storetest.For(s.tenant), storetest.ID("1"), storetest.Address("ada@example.com"), storetest.Message("m")),
			w.Event(event.Opened, storetest.For(s.tenant), storetest.ID("2"), storetest.Address("bob@example.com")),
			w.Event(event.Opened, storetest.For(s.tenant), storetest.ID("3"), storetest.InCampaign("cam"), storetest.Address("ada@example.com")),
		)
	}
	res := w.Put(batch...)
	w.Spend()
	for n, s := range sides {
		s.applied, s.dead, s.quiet = res[3*n].ID, res[3*n+1].ID, res[3*n+2].ID
	}
	for n, s := range sides {
		them := sides[1-n]
		for what, f := range map[string]store.EventFilter{
			"all": {}, "email": {Email: "ada@example.com"}, "message": {MessageID: "m"}, "enrollment": {Enrollment: s.enrollment}, "dead": {State: event.Dead},
		} {
			rows, _, err := w.Events(w.Ctx(), s.tenant, f, store.Page{Limit: 100})
			must(t, err)
			want := map[string]int{"all": 3, "email": 2, "message": 1, "enrollment": 2, "dead": 1}[what]
			storetest.Same(t, what, len(rows), want)
			for _, r := range rows {
				storetest.Same(t, what, r.Tenant, s.tenant)
			}
		}
		rows, _, err := w.Events(w.Ctx(), s.tenant, store.EventFilter{Enrollment: them.enrollment}, store.Page{Limit: 100})
		must(t, err)
		storetest.Same(t, "their enrollment's events", len(rows), 0)
		letters, _, err := w.Letters(w.Ctx(), s.tenant, store.LetterFilter{Email: "bob@example.com"}, store.Page{Limit: 100})
		must(t, err)
		storetest.Same(t, "letters", len(letters), 1)
		storetest.Same(t, "letter's event", letters[0].Event.ID, s.dead)
		s.letter = letters[0].ID
		st, err := w.LetterStats(w.Ctx(), s.tenant)
		must(t, err)
		storetest.Same(t, "letters in all", st.Total, 1)
		list, _, err := w.Suppressions(w.Ctx(), s.tenant, time.Time{}, store.Page{Limit: 100})
		must(t, err)
		storetest.Same(t, "suppressions", len(list), 1)
		numbers, err := w.Numbers(w.Ctx(), s.tenant, them.instance, time.Time{}, time.Time{})
		must(t, err)
		storetest.Same(t, "numbers of theirs", []int{len(numbers.Tallies), len(numbers.Uniques), int(numbers.Status["unsubscribed"])}, []int{0, 0, 0})
		keys, _, err := w.Keys(w.Ctx(), s.tenant, store.Page{Limit: 100})
		must(t, err)
		storetest.Same(t, "keys", len(keys), 1)
		sources, _, err := w.Sources(w.Ctx(), s.tenant, store.Page{Limit: 100})
		must(t, err)
		storetest.Same(t, "sources", len(sources), 1)
		for what, read := range map[string]func() error{
			"event":      func() error { _, err := w.Event1(s.tenant, them.applied); return err },
			"timeline":   func() error { _, err := w.Timeline(w.Ctx(), s.tenant, them.quiet); return err },
			"template":   func() error { _, err := w.Store.Template(w.Ctx(), s.tenant, them.template); return err },
			"instance":   func() error { _, err := w.Store.Instance(w.Ctx(), s.tenant, them.instance); return err },
			"enrollment": func() error { _, err := w.Enrollment(w.Ctx(), s.tenant, them.enrollment); return err },
			"patch": func() error {
				_, _, err := w.PatchInstance(w.Ctx(), s.tenant, them.instance, store.InstancePatch{ProviderCampaigns: map[string]string{}})
				return err
			},
			"delete": func() error { return w.DeleteTemplate(w.Ctx(), s.tenant, them.template, "me") },
		} {
			if err := read(); !fault.Is(err, fault.NotFound) {
				t.Errorf("%s of the other tenant: got %v", what, err)
			}
		}
	}
	// A bulk replay of one leaves the other's letter alone, also by its id.
	mine, theirs := sides[0], sides[1]
	r, err := w.StartReplay(w.Ctx(), mine.tenant, []uuid.UUID{mine.letter, theirs.letter}, store.LetterFilter{}, false, "me")
	must(t, err)
	storetest.Same(t, "matched", r.Matched, 1)
	carryOn(w, w.Store, 10)
	l, err := w.Letter(w.Ctx(), theirs.tenant, theirs.letter)
	must(t, err)
	storetest.Same(t, "theirs", l.Status, store.LetterDead)
	storetest.Same(t, "mine", w.Record(mine.dead).State, event.Orphaned)
}
