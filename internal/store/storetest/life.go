package storetest

import (
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

const time3 = 3 * time.Second // after the first attempt of the schedule is due

func life() group {
	return group{"Life", map[string]func(*World){
		"AppliedAtOnce":                 appliedAtOnce,
		"OrphanedThenAdopted":           orphanedThenAdopted,
		"OrphanedThenRetried":           orphanedThenRetried,
		"DeadThenAdopted":               deadThenAdopted,
		"DeadThenReplayedThenDeadAgain": deadReplayedDead,
		"CommittedDead":                 committedDead,
		"StatusIsStickyAndHighestWins":  statuses,
		"AnEventReadsBackWhole":         readsBack,
	}}
}

func appliedAtOnce(w *World) {
	ada := w.Person("ada@example.com")
	res := w.Send(event.Opened, Address("ada@example.com"))
	Same(w.T, "result", res, store.Result{
		ID: res.ID, Outcome: event.OutcomeApplied, State: event.Applied, Enrollment: ada, By: "live", Waited: res.Waited,
	})
	w.IsApplied(res.ID, ada)
	Same(w.T, "timeline", w.Moments(res.ID), []string{"received", "applied"})
}

func orphanedThenAdopted(w *World) {
	res := w.Send(event.Replied, Address("ada@example.com"))
	w.Waits(res.ID, store.ReasonNoEnrollment)
	w.Clock.Advance(time3)
	w.Due()
	d := w.Join(w.Instance, campaign.Enrollment{Email: "ada@example.com"})
	Same(w.T, "adopted", d.Adopted, 1)
	w.IsApplied(res.ID, d.ID)
	Same(w.T, "status", w.Status(d.ID), campaign.StatusCompleted)
	r := w.Record(res.ID)
	Same(w.T, "by", r.SettledBy, "adoption")
	Same(w.T, "attempts", r.Attempts, 1)
	Same(w.T, "timeline", w.Moments(res.ID), []string{"received", "parked", "attempt", "adopted"})
}

func orphanedThenRetried(w *World) {
	// An address that is unmapped from a campaign is nobody's new key: only the
	// schedule finds it.
	_, mapped := w.Campaign(w.Tenant, map[string]string{"lemlist": "cam"})
	ada := w.Person("ada@example.com")
	res := w.Send(event.Replied, InCampaign("cam"), Address("ada@example.com"))
	w.Clock.Advance(time3)
	w.Due()
	_, _, err := w.PatchInstance(w.Ctx(), w.Tenant, mapped, store.InstancePatch{ProviderCampaigns: map[string]string{}})
	w.must(err)
	w.Clock.Advance(time3)
	got := w.Due()
	Same(w.T, "retried", len(got), 1)
	Same(w.T, "outcome", got[0].Outcome, event.OutcomeApplied)
	Same(w.T, "by", got[0].By, "retry")
	if got[0].Waited < 2*time3 {
		w.T.Errorf("waited %v, want more than %v", got[0].Waited, 2*time3)
	}
	w.IsApplied(res.ID, ada)
	Same(w.T, "attempts", w.Record(res.ID).Attempts, 2)
	Same(w.T, "timeline", w.Moments(res.ID), []string{"received", "parked", "attempt", "attempt", "applied"})
}

func deadThenAdopted(w *World) {
	res := w.Send(event.Replied, Address("ada@example.com"))
	w.Spend()
	Same(w.T, "state", w.Record(res.ID).State, event.Dead)
	ada := w.Person("ada@example.com")
	w.IsApplied(res.ID, ada)
	Same(w.T, "letter", w.LetterOf(res.ID).Status, store.LetterReplayed)
	Same(w.T, "attempts", w.Record(res.ID).Attempts, Attempts)
	Same(w.T, "timeline", w.Moments(res.ID), []string{"received", "parked", "attempt", "attempt", "attempt", "buried", "adopted"})
}

func deadReplayedDead(w *World) {
	res := w.Send(event.Replied, Address("ada@example.com"))
	w.Spend()
	letter := w.LetterOf(res.ID)
	w.Clock.Advance(time.Hour)
	got, err := w.ReplayLetters(w.Ctx(), w.Tenant, []uuid.UUID{letter.ID})
	w.must(err)
	Same(w.T, "outcome", got[letter.ID].Outcome, event.OutcomeOrphaned)
	Same(w.T, "attempts start anew", w.Record(res.ID).Attempts, 0)
	w.Waits(res.ID, store.ReasonNoEnrollment)
	w.Spend()
	again := w.LetterOf(res.ID)
	Same(w.T, "the same letter", again.ID, letter.ID)
	Same(w.T, "status", again.Status, store.LetterDead)
	Same(w.T, "timeline", w.Moments(res.ID), []string{
		"received", "parked", "attempt", "attempt", "attempt", "buried", "replayed", "attempt", "attempt", "attempt", "buried",
	})
}

func committedDead(w *World) {
	w.Person("ada@example.com")
	e := w.Event(event.Unsubscribed, Address("ada@example.com"))
	res, err := w.CommitDead(w.Ctx(), []event.Event{e}, store.ReasonPoison, "no good")
	w.must(err)
	Same(w.T, "outcome", res[0].Outcome, event.OutcomeDead)
	Same(w.T, "reason", res[0].Reason, store.ReasonPoison)
	l := w.LetterOf(e.ID)
	Same(w.T, "letter", []string{l.Reason, l.Error, string(l.Status)}, []string{store.ReasonPoison, "no good", "dead"})
	Same(w.T, "timeline", w.Moments(e.ID), []string{"received", "buried"})
	// What it says about the contact holds all the same.
	_, err = w.Suppression(w.Ctx(), w.Tenant, "ada@example.com")
	w.must(err)
	d := w.Join(w.Instance, campaign.Enrollment{ContactID: "x", Refs: []event.Ref{ref(event.RefMessage, "m")}})
	Same(w.T, "poison is not adopted", d.Adopted, 0)
}

func statuses(w *World) {
	now := w.Clock.Now()
	steps := []struct {
		typ  event.Type
		opt  Option
		want campaign.Status
	}{
		{event.Opened, At(now), campaign.StatusActive},
		{event.Bounced, At(now), campaign.StatusActive}, // soft
		{event.Replied, At(now), campaign.StatusCompleted},
		{event.Opened, At(now), campaign.StatusCompleted},
		{event.Bounced, HardBounce, campaign.StatusBounced},
		{event.Unsubscribed, At(now), campaign.StatusUnsubscribed},
		{event.Resubscribed, At(now), campaign.StatusUnsubscribed}, // equal time loses
		{event.Resubscribed, At(now.Add(-time.Second)), campaign.StatusUnsubscribed},
		{event.Resubscribed, At(now.Add(365 * 24 * time.Hour)), campaign.StatusUnsubscribed}, // a time to come is not believed
		{event.Resubscribed, At(now.Add(2 * time.Microsecond)), campaign.StatusBounced},      // lifts unsubscribed only
		{event.Unsubscribed, At(now.Add(time.Microsecond)), campaign.StatusBounced},          // older than the last word
		{event.Complained, At(now), campaign.StatusComplained},
		{event.MessageReplied, At(now), campaign.StatusComplained},
	}
	ada := w.Person("ada@example.com")
	for i, s := range steps {
		w.Send(s.typ, Address("ada@example.com"), s.opt)
		if got := w.Status(ada); got != s.want {
			w.T.Errorf("step %d, %s: status is %s, want %s", i, s.typ, got, s.want)
		}
	}
	estimated := func(e *event.Event) { e.OccurredAtEstimated = true }
	bob := w.Person("bob@example.com")
	w.Send(event.Unsubscribed, Address("bob@example.com"), At(now))
	w.Send(event.Resubscribed, Address("bob@example.com"), estimated)
	Same(w.T, "an estimated time lifts nothing", w.Status(bob), campaign.StatusUnsubscribed)
}

func readsBack(w *World) {
	src := uuid.Must(uuid.NewV7())
	e := event.Event{
		ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, SourceID: src, Scope: src.String(), Provider: "lemlist", Kind: "emailsBounced",
		ReceivedAt: w.Clock.Now(), Type: event.Bounced, Channel: event.Email, ProviderEventID: "evt", ProviderMessageID: "<m>",
		ActionID: "a", LeadID: "l", EnrollmentID: uuid.NewString(), Email: "Ada <ada@example.com>", Campaign: "cam", StepNumber: 7,
		Bounce: event.Hard, Machine: event.MachineNo, URL: "https://example.com/?a=1", OccurredAt: w.Clock.Now().Add(-time.Hour),
		OccurredAtEstimated: true, Metadata: []byte(`{"n":18446744073709551617}`), Payload: []byte("\x00\xff raw \\u0000"),
	}
	w.Put(e)
	Same(w.T, "event", w.Record(e.ID).Event, e)
}
