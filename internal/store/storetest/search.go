package storetest

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func searches() group {
	return group{"Search", map[string]func(*World){
		"FindsBeforeAndAfterIndexing": searchFilters,
		"FindsHoweverItWasWritten":    searchFolded,
		"Pages":                       searchPages,
		"FindsWhatWasAdoptedLater":    searchAdopted,
		"ForeignEventsAreNotFound":    searchForeign,
	}}
}

// smallGenerations makes a store that indexes behind do so at once.
func smallGenerations(o *Options) { o.Generation = 1 }

func (w *World) find(f store.EventFilter) []uuid.UUID {
	w.T.Helper()
	var ids []uuid.UUID
	for after := int64(0); ; {
		rows, next, err := w.Events(w.Ctx(), w.Tenant, f, store.Page{Limit: 2, After: after})
		w.must(err)
		for _, r := range rows {
			ids = append(ids, r.ID)
		}
		if next == 0 {
			return ids
		}
		after = next
	}
}

func searchFilters(w *World) {
	w.Reopen(smallGenerations)
	ada := w.Person("ada@example.com")
	src := uuid.Must(uuid.NewV7())
	start := w.Clock.Now()
	a := w.Send(event.Opened, Address("ada@example.com"), Message("m1"))
	w.Clock.Advance(time.Hour)
	mid := w.Clock.Now()
	b := w.Send(event.Clicked, From("postmark"), Address("bob@example.com"), Message("m2"))
	c := w.Send(event.Opened, Address("ada@example.com"), func(e *event.Event) { e.SourceID, e.Scope = src, src.String() })
	w.Clock.Advance(time.Hour)
	end := w.Clock.Now()
	check := func(when string) {
		for name, q := range map[string]struct {
			f    store.EventFilter
			want []uuid.UUID
		}{
			"All":           {store.EventFilter{}, []uuid.UUID{c.ID, b.ID, a.ID}},
			"State":         {store.EventFilter{State: event.Orphaned}, []uuid.UUID{b.ID}},
			"Applied":       {store.EventFilter{State: event.Applied}, []uuid.UUID{c.ID, a.ID}},
			"Provider":      {store.EventFilter{Provider: "postmark"}, []uuid.UUID{b.ID}},
			"Source":        {store.EventFilter{Source: src}, []uuid.UUID{c.ID}},
			"Type":          {store.EventFilter{Type: event.Opened}, []uuid.UUID{c.ID, a.ID}},
			"Email":         {store.EventFilter{Email: "ADA@example.com"}, []uuid.UUID{c.ID, a.ID}},
			"Enrollment":    {store.EventFilter{Enrollment: ada}, []uuid.UUID{c.ID, a.ID}},
			"Message":       {store.EventFilter{MessageID: "<m1>"}, []uuid.UUID{a.ID}},
			"Since":         {store.EventFilter{Since: mid}, []uuid.UUID{c.ID, b.ID}},
			"SinceAndUntil": {store.EventFilter{Since: start, Until: mid}, []uuid.UUID{a.ID}},
			"Until":         {store.EventFilter{Until: end}, []uuid.UUID{c.ID, b.ID, a.ID}},
			"Several":       {store.EventFilter{Email: "ada@example.com", Since: mid, Type: event.Opened}, []uuid.UUID{c.ID}},
			"Contradiction": {store.EventFilter{Email: "ada@example.com", MessageID: "m2"}, nil},
			"Nobody":        {store.EventFilter{Email: "nobody@example.com"}, nil},
		} {
			Same(w.T, when+" "+name, w.find(q.f), q.want)
		}
	}
	check("before indexing")
	_, err := w.IndexNext(w.Ctx(), 1)
	w.must(err)
	check("half indexed")
	w.Index()
	check("indexed")
	w.Reopen()
	check("opened again")
}

func searchFolded(w *World) {
	w.Reopen(smallGenerations)
	var all []uuid.UUID
	for _, a := range []string{"ada@example.com", "ADA@example.com", " ada@example.com ", "Ada <Ada@example.com>", "<ada@example.com>"} {
		all = append(all, w.Send(event.Opened, Address(a), Message("m")).ID)
	}
	slices.Reverse(all)
	jose := w.Send(event.Opened, Address("JOSÉ@example.com"), Message(" <k@x> ")).ID
	for range 2 {
		for _, a := range []string{"ada@example.com", "Ada <ADA@example.com>"} {
			Same(w.T, a, w.find(store.EventFilter{Email: a}), all)
		}
		Same(w.T, "other letters", w.find(store.EventFilter{Email: "josé@example.com"}), []uuid.UUID{jose})
		Same(w.T, "message", w.find(store.EventFilter{MessageID: "k@x"}), []uuid.UUID{jose})
		w.Index()
	}
}

func searchPages(w *World) {
	var want []uuid.UUID
	for range 9 {
		want = append(want, w.Send(event.Opened, Address("ada@example.com")).ID)
	}
	slices.Reverse(want)
	Same(w.T, "all", w.find(store.EventFilter{}), want)
	rows, next, err := w.Events(w.Ctx(), w.Tenant, store.EventFilter{}, store.Page{Limit: 9})
	w.must(err)
	Same(w.T, "rows", len(rows), 9)
	Same(w.T, "a full last page has no next", next, 0)
}

func searchAdopted(w *World) {
	w.Reopen(smallGenerations)
	res := w.Send(event.Opened, Address("ada@example.com"))
	w.Index()
	ada := w.Person("ada@example.com")
	Same(w.T, "after indexing", w.find(store.EventFilter{Enrollment: ada}), []uuid.UUID{res.ID})
}

func searchForeign(w *World) {
	res := w.Send(event.Opened, Address("ada@example.com"))
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	for range 2 {
		for _, f := range []store.EventFilter{{}, {Email: "ada@example.com"}} {
			rows, _, err := w.Events(w.Ctx(), other.ID, f, store.Page{Limit: 10})
			w.must(err)
			Same(w.T, "rows", len(rows), 0)
		}
		_, err = w.Event1(other.ID, res.ID)
		Kind(w.T, err, fault.NotFound)
		_, err = w.Timeline(w.Ctx(), other.ID, res.ID)
		Kind(w.T, err, fault.NotFound)
		w.Index()
	}
}
