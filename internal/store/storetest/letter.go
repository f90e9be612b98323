package storetest

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func deadLetters() group {
	return group{"Letter", map[string]func(*World){
		"ListFilters":                    letterFilters,
		"ListPages":                      letterPages,
		"StatsCount":                     letterStats,
		"ABodyIsKept":                    letterBody,
		"ReplayOfAppliedIsDuplicate":     replayApplied,
		"ReplayPassesOverIgnored":        replayIgnored,
		"IgnoreAndRestore":               letterMoves,
		"BulkByFilterEndsInFull":         replayByFilter,
		"BulkByIDs":                      replayByIDs,
		"DryRunOnlyCounts":               replayDryRun,
		"NothingMatchedIsDone":           replayNothing,
		"BulkGoesOnAfterARestart":        replayReopen,
		"APartIsBookedOnce":              replayTwice,
		"CancelLeavesTheRestDead":        replayCancel,
		"CancelDuringAPart":              replayCancelDuring,
		"AdoptedDuringABulkReplay":       replayAdopted,
		"LettersOfAnotherTenantAreNobys": foreignLetters,
	}}
}

// buried makes n dead letters, each of an address of its own.
func (w *World) buried(n int, opts ...Option) []uuid.UUID {
	w.T.Helper()
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = w.Send(event.Opened, append([]Option{Address(fmt.Sprintf("p%d@example.com", i))}, opts...)...).ID
	}
	w.Spend()
	return ids
}

func (w *World) letters(f store.LetterFilter) []store.Letter {
	w.T.Helper()
	rows, _, err := w.Letters(w.Ctx(), w.Tenant, f, store.Page{Limit: 1000})
	w.must(err)
	return rows
}

func letterFilters(w *World) {
	start := w.Clock.Now()
	a := w.Send(event.Replied, Address("Ada <Ada@Example.com>"))
	w.Clock.Advance(time.Hour)
	mid := w.Clock.Now()
	b := w.Send(event.Opened, From("postmark"), Address("bob@example.com"))
	w.Spend()
	w.must(w.SetLetter(w.Ctx(), w.Tenant, w.LetterOf(b.ID).ID, store.LetterDead, store.LetterIgnored, "me"))
	res, err := w.CommitDead(w.Ctx(), []event.Event{w.Event(event.Clicked, Address("eve@example.com"))}, store.ReasonPoison, "x")
	w.must(err)
	for name, c := range map[string]struct {
		f    store.LetterFilter
		want []uuid.UUID
	}{
		"All":      {store.LetterFilter{}, []uuid.UUID{res[0].ID, b.ID, a.ID}},
		"Reason":   {store.LetterFilter{Reason: store.ReasonPoison}, []uuid.UUID{res[0].ID}},
		"Provider": {store.LetterFilter{Provider: "postmark"}, []uuid.UUID{b.ID}},
		"Type":     {store.LetterFilter{Type: event.Replied}, []uuid.UUID{a.ID}},
		"Status":   {store.LetterFilter{Status: store.LetterIgnored}, []uuid.UUID{b.ID}},
		"Email":    {store.LetterFilter{Email: "ada@example.com"}, []uuid.UUID{a.ID}},
		"Since":    {store.LetterFilter{Since: mid}, []uuid.UUID{res[0].ID, b.ID}},
		"Until":    {store.LetterFilter{Since: start, Until: mid}, []uuid.UUID{a.ID}},
		"Several":  {store.LetterFilter{Status: store.LetterDead, Type: event.Replied, Since: mid}, nil},
	} {
		var got []uuid.UUID
		for _, l := range w.letters(c.f) {
			got = append(got, l.Event.ID)
		}
		Same(w.T, name, got, c.want)
	}
}

func letterPages(w *World) {
	ids := w.buried(7)
	var got []uuid.UUID
	for after, n := int64(0), 0; ; n++ {
		rows, next, err := w.Letters(w.Ctx(), w.Tenant, store.LetterFilter{Status: store.LetterDead}, store.Page{Limit: 3, After: after})
		w.must(err)
		for _, l := range rows {
			got = append(got, l.Event.ID)
		}
		if next == 0 {
			Same(w.T, "pages", n, 2)
			break
		}
		after = next
	}
	Same(w.T, "letters", len(got), len(ids))
	seen := map[uuid.UUID]bool{}
	for _, id := range got {
		seen[id] = true
	}
	Same(w.T, "each once", len(seen), len(ids))
}

func letterStats(w *World) {
	w.buried(3)
	ids := w.buried(1, From("postmark"))
	w.must(w.SetLetter(w.Ctx(), w.Tenant, w.LetterOf(ids[0]).ID, store.LetterDead, store.LetterIgnored, "me"))
	st, err := w.LetterStats(w.Ctx(), w.Tenant)
	w.must(err)
	Same(w.T, "total", st.Total, 4)
	Same(w.T, "by status", st.ByStatus, map[store.LetterStatus]int64{store.LetterDead: 3, store.LetterIgnored: 1})
	Same(w.T, "by reason", st.ByReason, map[string]int64{store.ReasonNoEnrollment: 3})
	Same(w.T, "by provider", st.ByProvider, map[string]int64{"lemlist": 3})
	Same(w.T, "oldest", st.OldestAt, w.Record(w.oldest()).ReceivedAt)
	all, err := w.LetterCounts(w.Ctx())
	w.must(err)
	Same(w.T, "counts", all, map[store.LetterStatus]int64{
		store.LetterDead: 3, store.LetterIgnored: 1, store.LetterReplaying: 0, store.LetterReplayed: 0,
	})
}

func letterBody(w *World) {
	body := store.Letter{
		ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, SourceID: uuid.Must(uuid.NewV7()), Provider: "lemlist",
		Reason: store.ReasonUndecodable, Error: "it ends too early", Body: []byte("{\x00"), Headers: map[string]string{"content-type": "text/plain"},
	}
	res, err := w.CommitBody(w.Ctx(), body)
	w.must(err)
	Same(w.T, "outcome", res.Outcome, event.OutcomeDead)
	res, err = w.CommitBody(w.Ctx(), body)
	w.must(err)
	Same(w.T, "the same commit repeated", res.Outcome, event.OutcomeDead)
	again := body
	again.ID = uuid.Must(uuid.NewV7())
	res, err = w.CommitBody(w.Ctx(), again)
	w.must(err)
	Same(w.T, "again", res.Outcome, event.OutcomeDuplicate)
	Same(w.T, "again", res.ID, body.ID)
	l, err := w.Letter(w.Ctx(), w.Tenant, body.ID)
	w.must(err)
	Same(w.T, "body", string(l.Body), string(body.Body))
	Same(w.T, "headers", l.Headers, body.Headers)
	Same(w.T, "source", l.SourceID, body.SourceID)
	if l.Event != nil || l.FirstReceivedAt.IsZero() {
		w.T.Errorf("the letter is %+v", l)
	}
	Same(w.T, "ledger", w.Account(w.Tenant), store.Ledger{Tenant: w.Tenant, Undecodable: 1})
	spooled := body
	spooled.ID, spooled.Body, spooled.FirstReceivedAt = uuid.Must(uuid.NewV7()), []byte("<"), w.Clock.Now().Add(-time.Hour)
	_, err = w.CommitBody(w.Ctx(), spooled)
	w.must(err)
	l, err = w.Letter(w.Ctx(), w.Tenant, spooled.ID)
	w.must(err)
	Same(w.T, "received when it says so", l.FirstReceivedAt, spooled.FirstReceivedAt)

	got, err := w.ReplayLetters(w.Ctx(), w.Tenant, []uuid.UUID{body.ID})
	w.must(err)
	Same(w.T, "a body is not the store's to replay", len(got), 0)
	w.must(w.SettleBody(w.Ctx(), w.Tenant, body.ID, store.LetterReplayed, l.Reason, l.Error))
	l, err = w.Letter(w.Ctx(), w.Tenant, body.ID)
	w.must(err)
	Same(w.T, "status", l.Status, store.LetterReplayed)
	Same(w.T, "attempts", l.Attempts, 1)
}

func replayApplied(w *World) {
	id := w.buried(1)[0]
	letter := w.LetterOf(id).ID
	w.Person("p0@example.com")
	for range 2 {
		got, err := w.ReplayLetters(w.Ctx(), w.Tenant, []uuid.UUID{letter, uuid.Must(uuid.NewV7())})
		w.must(err)
		Same(w.T, "results", len(got), 1)
		Same(w.T, "outcome", got[letter].Outcome, event.OutcomeDuplicate)
		Same(w.T, "state", got[letter].State, event.Applied)
		Same(w.T, "id", got[letter].ID, id)
	}
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: 1})
}

func replayIgnored(w *World) {
	id := w.buried(1)[0]
	letter := w.LetterOf(id).ID
	w.must(w.SetLetter(w.Ctx(), w.Tenant, letter, store.LetterDead, store.LetterIgnored, "me"))
	w.Person("p0@example.com")
	got, err := w.ReplayLetters(w.Ctx(), w.Tenant, []uuid.UUID{letter})
	w.must(err)
	Same(w.T, "state", got[letter].State, event.Dead)
	Same(w.T, "state", w.Record(id).State, event.Dead)
}

func letterMoves(w *World) {
	id := w.LetterOf(w.buried(1)[0]).ID
	w.must(w.SetLetter(w.Ctx(), w.Tenant, id, store.LetterDead, store.LetterIgnored, "me"))
	Kind(w.T, w.SetLetter(w.Ctx(), w.Tenant, id, store.LetterDead, store.LetterIgnored, "me"), fault.Conflict)
	w.must(w.SetLetter(w.Ctx(), w.Tenant, id, store.LetterIgnored, store.LetterDead, "me"))
	Kind(w.T, w.SetLetter(w.Ctx(), w.Tenant, uuid.Must(uuid.NewV7()), store.LetterDead, store.LetterIgnored, "me"), fault.NotFound)
	_, err := w.Letter(w.Ctx(), w.Tenant, uuid.Must(uuid.NewV7()))
	Kind(w.T, err, fault.NotFound)
}

// part takes the next part of a bulk replay through, as the worker does.
func (w *World) part(n int) bool {
	w.T.Helper()
	b, ok, err := w.NextReplay(w.Ctx(), n)
	w.must(err)
	if !ok {
		return false
	}
	w.finish(b)
	return true
}

func (w *World) finish(b store.ReplayBatch) {
	w.T.Helper()
	ids := make([]uuid.UUID, len(b.Letters))
	for i, l := range b.Letters {
		ids[i] = l.ID
	}
	got, err := w.ReplayLetters(w.Ctx(), b.Tenant, ids)
	w.must(err)
	w.must(w.FinishReplayBatch(w.Ctx(), b, got))
}

func (w *World) progress(id uuid.UUID) store.Replay {
	w.T.Helper()
	r, err := w.ReplayProgress(w.Ctx(), w.Tenant, id)
	w.must(err)
	r.CreatedAt, r.UpdatedAt = time.Time{}, time.Time{}
	return r
}

func (w *World) replayAll(f store.LetterFilter) store.Replay {
	w.T.Helper()
	r, err := w.StartReplay(w.Ctx(), w.Tenant, nil, f, false, "me")
	w.must(err)
	return r
}

func replayByFilter(w *World) {
	w.buried(7)
	w.buried(2, typed(event.Clicked))
	for _, a := range []string{"p0@example.com", "p1@example.com", "p2@example.com"} {
		e := w.Event(event.Sent, Address(a))
		w.Put(e)
	}
	// Three are found now without having been adopted: by hand, by a person.
	_, mapped := w.Campaign(w.Tenant, nil)
	var ids []uuid.UUID
	for _, l := range w.letters(store.LetterFilter{Type: event.Opened}) {
		ids = append(ids, l.Event.ID)
	}
	ada := w.Join(mapped, campaignOf("ada")).ID
	_, err := w.Assign(w.Ctx(), w.Tenant, ids[0], ada, "me")
	w.must(err)

	r := w.replayAll(store.LetterFilter{Type: event.Opened})
	Same(w.T, "matched", r.Matched, 6)
	_, err = w.Assign(w.Ctx(), w.Tenant, ids[1], ada, "me")
	w.must(err)
	parts := 0
	for w.part(4) {
		parts++
	}
	Same(w.T, "parts, the last of them empty", parts, 3)
	Same(w.T, "replay", w.progress(r.ID), store.Replay{ID: r.ID, Status: "done", Matched: 6, Orphaned: 5, Skipped: 1})
	Same(w.T, "dead", len(w.letters(store.LetterFilter{Status: store.LetterDead})), 2)
}

func replayByIDs(w *World) {
	ids := w.buried(4)
	l := make([]uuid.UUID, 0, 6)
	for _, id := range ids[:3] {
		l = append(l, w.LetterOf(id).ID)
	}
	w.must(w.SetLetter(w.Ctx(), w.Tenant, l[2], store.LetterDead, store.LetterIgnored, "me"))
	l = append(l, l[0], uuid.Must(uuid.NewV7())) // one twice, one unknown
	r, err := w.StartReplay(w.Ctx(), w.Tenant, l, store.LetterFilter{}, false, "me")
	w.must(err)
	Same(w.T, "matched", r.Matched, 2)
	for w.part(50) {
		w.Clock.Advance(time.Second)
	}
	Same(w.T, "replay", w.progress(r.ID), store.Replay{ID: r.ID, Status: "done", Matched: 2, Orphaned: 2})
	Same(w.T, "the other stays dead", w.Record(ids[3]).State, event.Dead)
	none, err := w.StartReplay(w.Ctx(), w.Tenant, []uuid.UUID{}, store.LetterFilter{}, false, "me")
	w.must(err)
	Same(w.T, "no ids match nothing", none.Matched, 0)
}

func replayDryRun(w *World) {
	w.buried(3)
	r, err := w.StartReplay(w.Ctx(), w.Tenant, nil, store.LetterFilter{Reason: store.ReasonNoEnrollment}, true, "me")
	w.must(err)
	Same(w.T, "matched", r.Matched, 3)
	Same(w.T, "dead", len(w.letters(store.LetterFilter{Status: store.LetterDead})), 3)
	_, err = w.ReplayProgress(w.Ctx(), w.Tenant, r.ID)
	Kind(w.T, err, fault.NotFound)
	_, ok, err := w.NextReplay(w.Ctx(), 50)
	w.must(err)
	Same(w.T, "running", ok, false)
}

func replayNothing(w *World) {
	r := w.replayAll(store.LetterFilter{Provider: "nobody"})
	for w.part(50) {
		w.Clock.Advance(time.Second)
	}
	Same(w.T, "replay", w.progress(r.ID), store.Replay{ID: r.ID, Status: "done"})
}

func replayReopen(w *World) {
	w.buried(10)
	r := w.replayAll(store.LetterFilter{})
	w.part(4)
	w.Reopen()
	Same(w.T, "replay", w.progress(r.ID), store.Replay{ID: r.ID, Status: "running", Matched: 10, Orphaned: 4})
	for w.part(4) {
		w.Clock.Advance(time.Second)
	}
	Same(w.T, "replay", w.progress(r.ID), store.Replay{ID: r.ID, Status: "done", Matched: 10, Orphaned: 10})
}

func replayTwice(w *World) {
	w.buried(3)
	r := w.replayAll(store.LetterFilter{})
	b, _, err := w.NextReplay(w.Ctx(), 2)
	w.must(err)
	w.finish(b)
	w.finish(b)
	Same(w.T, "replay", w.progress(r.ID), store.Replay{ID: r.ID, Status: "running", Matched: 3, Orphaned: 2})
	b, _, err = w.NextReplay(w.Ctx(), 2)
	w.must(err)
	w.must(w.FinishReplayBatch(w.Ctx(), b, nil)) // no outcome is skipped
	w.part(2)
	Same(w.T, "replay", w.progress(r.ID), store.Replay{ID: r.ID, Status: "done", Matched: 3, Orphaned: 2, Skipped: 1})
	Same(w.T, "the skipped one is dead again", len(w.letters(store.LetterFilter{Status: store.LetterDead})), 1)
}

func replayCancel(w *World) {
	w.buried(5)
	r := w.replayAll(store.LetterFilter{})
	w.part(2)
	for range 2 {
		_, err := w.CancelReplay(w.Ctx(), w.Tenant, r.ID, "me")
		w.must(err)
		Same(w.T, "replay", w.progress(r.ID), store.Replay{ID: r.ID, Status: "cancelled", Matched: 5, Orphaned: 2, Skipped: 3})
	}
	Same(w.T, "dead", len(w.letters(store.LetterFilter{Status: store.LetterDead})), 3)
	Same(w.T, "replaying", len(w.letters(store.LetterFilter{Status: store.LetterReplaying})), 0)
	Same(w.T, "goes on", w.part(2), false)
	_, err := w.CancelReplay(w.Ctx(), w.Tenant, uuid.Must(uuid.NewV7()), "me")
	Kind(w.T, err, fault.NotFound)
}

func replayCancelDuring(w *World) {
	w.buried(4)
	r := w.replayAll(store.LetterFilter{})
	b, _, err := w.NextReplay(w.Ctx(), 2)
	w.must(err)
	_, err = w.CancelReplay(w.Ctx(), w.Tenant, r.ID, "me")
	w.must(err)
	w.finish(b)
	got := w.progress(r.ID)
	Same(w.T, "sum", got.Applied+got.Orphaned+got.Duplicate+got.Dead+got.Skipped, got.Matched)
	Same(w.T, "status", got.Status, "cancelled")
}

func replayAdopted(w *World) {
	ids := w.buried(4)
	r := w.replayAll(store.LetterFilter{})
	b, _, err := w.NextReplay(w.Ctx(), 50)
	w.must(err)
	p0 := w.Person("p0@example.com") // adopts from the letters that are being replayed
	Same(w.T, "replaying", len(w.letters(store.LetterFilter{Status: store.LetterReplaying})), 3)
	w.finish(b)
	w.part(50)
	w.IsApplied(ids[0], p0)
	Same(w.T, "replay", w.progress(r.ID), store.Replay{ID: r.ID, Status: "done", Matched: 4, Orphaned: 3, Duplicate: 1})
	Same(w.T, "letter", w.LetterOf(ids[0]).Status, store.LetterReplayed)
	Same(w.T, "totals", w.Totals(w.Instance), map[event.Type]int64{event.Opened: 1})
}

func foreignLetters(w *World) {
	id := w.LetterOf(w.buried(1)[0]).ID
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	_, err = w.Letter(w.Ctx(), other.ID, id)
	Kind(w.T, err, fault.NotFound)
	Kind(w.T, w.SetLetter(w.Ctx(), other.ID, id, store.LetterDead, store.LetterIgnored, "x"), fault.NotFound)
	got, err := w.ReplayLetters(w.Ctx(), other.ID, []uuid.UUID{id})
	w.must(err)
	Same(w.T, "replayed", len(got), 0)
	r, err := w.StartReplay(w.Ctx(), other.ID, []uuid.UUID{id}, store.LetterFilter{}, true, "x")
	w.must(err)
	Same(w.T, "matched", r.Matched, 0)
	mine := w.replayAll(store.LetterFilter{})
	_, err = w.CancelReplay(w.Ctx(), other.ID, mine.ID, "x")
	Kind(w.T, err, fault.NotFound)
	Same(w.T, "status", w.progress(mine.ID).Status, "running")
}
