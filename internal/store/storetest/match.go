package storetest

import (
	"fmt"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

func ref(kind event.RefKind, value string) event.Ref {
	return event.Ref{Provider: "lemlist", Kind: kind, Value: value}
}

func matching() group {
	return group{"Match", map[string]func(*World){
		"MostSpecificKeyWins":                  mostSpecificWins,
		"UnknownIDsFallThrough":                unknownIDsFallThrough,
		"UnknownEnrollmentDoesNotFallThrough":  unknownEnrollment,
		"CampaignMappedElsewhereDoesNot":       mappedElsewhere,
		"UnmappedCampaignFallsThrough":         unmappedFallsThrough,
		"AmbiguityIsNeverGuessed":              ambiguity,
		"ReasonFollowsWhatIsKnown":             reasonFollows,
		"AddressesFold":                        addressesFold,
		"MessageIDsLoseBrackets":               bracketsOfIDs,
		"AnyStatusMatches":                     anyStatus,
		"RefsOfOtherProvidersDoNotMatch":       otherProvider,
		"ControlEventsAreIgnored":              control,
		"UnmatchedMayBeIgnored":                ignoreUnmatched,
		"EventOfAnotherTenantsEnrollmentWaits": foreignEnrollment,
	}}
}

func mostSpecificWins(w *World) {
	_, other := w.Campaign(w.Tenant, map[string]string{"lemlist": "cam_other"})
	byID := w.Join(w.Instance, campaign.Enrollment{ContactID: "1"}).ID
	byMessage := w.Join(w.Instance, campaign.Enrollment{ContactID: "2", Refs: []event.Ref{ref(event.RefMessage, "m")}}).ID
	byAction := w.Join(w.Instance, campaign.Enrollment{ContactID: "3", Refs: []event.Ref{ref(event.RefAction, "a")}}).ID
	byLead := w.Join(w.Instance, campaign.Enrollment{ContactID: "4", Refs: []event.Ref{ref(event.RefLead, "l")}}).ID
	w.Person("shared@example.com")
	byCampaign := w.Join(other, campaign.Enrollment{Email: "shared@example.com"}).ID
	byAddress := w.Person("solo@example.com")

	lower := []Option{Address("shared@example.com"), InCampaign("cam_other")}
	with := func(o ...Option) []Option { return append(o, lower...) }
	for name, c := range map[string]struct {
		opts []Option
		want uuid.UUID
	}{
		"EnrollmentID": {with(Of(byID), Message("m"), Lead("l")), byID},
		"Message":      {with(Message("m"), Lead("l")), byMessage},
		"Action":       {with(Action("a"), Lead("l")), byAction},
		"Lead":         {with(Lead("l")), byLead},
		"Campaign":     {lower, byCampaign},
		"Address":      {[]Option{Address("solo@example.com")}, byAddress},
	} {
		res := w.Send(event.Delivered, c.opts...)
		Same(w.T, name+": outcome", res.Outcome, event.OutcomeApplied)
		w.IsApplied(res.ID, c.want)
	}
}

func unknownIDsFallThrough(w *World) {
	ada := w.Person("ada@example.com")
	lead := w.Join(w.Instance, campaign.Enrollment{ContactID: "x", Refs: []event.Ref{ref(event.RefLead, "l")}}).ID
	w.IsApplied(w.Send(event.Opened, Message("?"), Action("?"), Lead("?"), Address("ada@example.com")).ID, ada)
	w.IsApplied(w.Send(event.Opened, Message("?"), Lead("l"), Address("ada@example.com")).ID, lead)
}

func unknownEnrollment(w *World) {
	ada := w.Person("ada@example.com", ref(event.RefMessage, "m"))
	res := w.Send(event.Opened, Of(uuid.Must(uuid.NewV7())), Message("m"), Address("ada@example.com"))
	w.Waits(res.ID, store.ReasonNoEnrollment)
	Same(w.T, "outcome", res.Outcome, event.OutcomeOrphaned)
	w.IsApplied(w.Send(event.Opened, Message("m")).ID, ada)
}

func mappedElsewhere(w *World) {
	w.Person("ada@example.com")
	w.Campaign(w.Tenant, map[string]string{"lemlist": "cam_other"})
	w.Waits(w.Send(event.Opened, InCampaign("cam_other"), Address("ada@example.com")).ID, store.ReasonNoEnrollment)
}

func unmappedFallsThrough(w *World) {
	ada := w.Person("ada@example.com")
	w.IsApplied(w.Send(event.Opened, InCampaign("cam_nobody_mapped"), Address("ada@example.com")).ID, ada)
}

func ambiguity(w *World) {
	_, other := w.Campaign(w.Tenant, nil)
	for i, in := range []uuid.UUID{w.Instance, other} {
		w.Join(in, campaign.Enrollment{
			Email: "ada@example.com",
			Refs:  []event.Ref{ref(event.RefLead, "l"), ref(event.RefMessage, "m"), ref(event.RefAction, fmt.Sprint("a", i))},
		})
	}
	w.Join(other, campaign.Enrollment{ContactID: "x", Refs: []event.Ref{ref(event.RefMessage, "mine")}})
	for name, opts := range map[string][]Option{
		"Address":                {Address("ada@example.com")},
		"Lead":                   {Lead("l")},
		"Message":                {Message("m")},
		"MessageContradictsItem": {Message("mine"), Action("a0")},
		// What is more specific is not overruled by what is less.
		"LeadIsNotSettledByAddress": {Lead("l"), Address("nobody@example.com")},
	} {
		res := w.Send(event.Opened, opts...)
		Same(w.T, name, res.Reason, store.ReasonAmbiguous)
		w.Waits(res.ID, store.ReasonAmbiguous)
	}
}

func reasonFollows(w *World) {
	_, other := w.Campaign(w.Tenant, nil)
	_, mapped := w.Campaign(w.Tenant, map[string]string{"lemlist": "cam"})
	w.Person("ada@example.com")
	w.Join(other, campaign.Enrollment{Email: "ada@example.com"})
	res := w.Send(event.Opened, InCampaign("cam"), Address("ada@example.com"))
	w.Waits(res.ID, store.ReasonNoEnrollment)

	_, _, err := w.PatchInstance(w.Ctx(), w.Tenant, mapped, store.InstancePatch{ProviderCampaigns: map[string]string{}})
	w.must(err)
	w.Clock.Advance(time3)
	w.Due()
	w.Waits(res.ID, store.ReasonAmbiguous)
	Same(w.T, "attempts", w.Record(res.ID).Attempts, 1)
}

func addressesFold(w *World) {
	ada := w.Person("Ada <ADA@Example.COM>")
	for _, a := range []string{"ada@example.com", " ada@example.com ", "<ada@example.com>", `"Ada, Countess" <Ada@EXAMPLE.com>`} {
		w.IsApplied(w.Send(event.Opened, Address(a)).ID, ada)
	}
	jose := w.Person("josé@example.com")
	w.IsApplied(w.Send(event.Opened, Address("JOSÉ@example.com")).ID, jose)
}

func bracketsOfIDs(w *World) {
	ada := w.Person("ada@example.com", ref(event.RefMessage, "<m1@mail.example.com>"))
	bob := w.Person("bob@example.com", ref(event.RefMessage, "m2@mail.example.com"))
	w.IsApplied(w.Send(event.Opened, Message("m1@mail.example.com")).ID, ada)
	w.IsApplied(w.Send(event.Opened, Message(" <m2@mail.example.com> ")).ID, bob)
}

func anyStatus(w *World) {
	ada := w.Person("ada@example.com")
	w.Send(event.Unsubscribed, Address("ada@example.com"))
	Same(w.T, "status", w.Status(ada), campaign.StatusUnsubscribed)
	done := string(campaign.Completed)
	_, _, err := w.PatchInstance(w.Ctx(), w.Tenant, w.Instance, store.InstancePatch{Status: &done})
	w.must(err)
	w.IsApplied(w.Send(event.Opened, Address("ada@example.com")).ID, ada)
}

func otherProvider(w *World) {
	w.Person("ada@example.com", ref(event.RefMessage, "m"), ref(event.RefLead, "l"))
	w.Waits(w.Send(event.Opened, From("postmark"), Message("m")).ID, store.ReasonNoEnrollment)
	w.Waits(w.Send(event.Opened, From("postmark"), Lead("l")).ID, store.ReasonNoEnrollment)
	w.Waits(w.Send(event.Opened, Action("m")).ID, store.ReasonNoEnrollment)
}

func control(w *World) {
	w.Person("ada@example.com")
	e := w.Event("", Address("ada@example.com"))
	e.Control, e.Kind, e.Channel = true, "campaignComplete", ""
	res := w.Put(e)[0]
	Same(w.T, "outcome", res.Outcome, event.OutcomeIgnored)
	r := w.Record(res.ID)
	Same(w.T, "state", r.State, event.Ignored)
	Same(w.T, "payload", string(r.Payload), string(e.Payload))
	Same(w.T, "timeline", w.Moments(res.ID), []string{"received", "ignored"})
	Same(w.T, "ignored", w.Account(w.Tenant).Ignored, 1)
}

// ignoreUnmatched: where a source says so, an event without an enrollment is
// ignored for good. What it says of the address counts nevertheless, and what
// belongs somewhere, or could, is as ever.
func ignoreUnmatched(w *World) {
	ignoring := func(e *event.Event) { e.IgnoreUnmatched = true }
	r := w.Send(event.Unsubscribed, Address("ada@example.com"), ignoring)
	Same(w.T, "outcome", r.Outcome, event.OutcomeIgnored)
	Same(w.T, "timeline", w.Moments(r.ID), []string{"received", "ignored"})
	Same(w.T, "suppressed", w.reason("ada@example.com"), "unsubscribed")
	ada := w.Person("ada@example.com")
	Same(w.T, "state after the enrollment", w.Record(r.ID).State, event.Ignored)
	again := w.Event(event.Opened, Address("nobody@example.com"), ignoring)
	Same(w.T, "outcome", w.Put(again)[0].Outcome, event.OutcomeIgnored)
	again.ID = uuid.Must(uuid.NewV7())
	Same(w.T, "the second time", w.Put(again)[0].Outcome, event.OutcomeDuplicate)

	w.IsApplied(w.Send(event.Opened, Address("ada@example.com"), ignoring).ID, ada)
	_, other := w.Campaign(w.Tenant, nil)
	w.Join(other, campaign.Enrollment{Email: "ada@example.com"})
	w.Waits(w.Send(event.Opened, Address("ada@example.com"), ignoring).ID, store.ReasonAmbiguous)
	Same(w.T, "ignored", w.Account(w.Tenant).Ignored, 2)
	w.Balanced()
}

func foreignEnrollment(w *World) {
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	_, ins := w.Campaign(other.ID, nil)
	theirs := w.JoinAs(other.ID, ins, campaign.Enrollment{Email: "ada@example.com"})
	w.Waits(w.Send(event.Opened, Of(theirs.ID), Address("ada@example.com")).ID, store.ReasonNoEnrollment)
}
