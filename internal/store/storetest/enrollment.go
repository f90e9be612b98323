package storetest

import (
	"fmt"
	"slices"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

func campaignOf(contact string) campaign.Enrollment { return campaign.Enrollment{ContactID: contact} }

func enrollments() group {
	return group{"Enrollment", map[string]func(*World){
		"ReadsBack":                       enrollReadsBack,
		"ConflictByAnyNameOfAContact":     enrollConflict,
		"SameContactInAnotherInstance":    enrollElsewhere,
		"MergeAddsReferences":             enrollMerge,
		"IdempotencyAnswersTheFirst":      enrollIdempotent,
		"BulkHasAResultForEach":           enrollBulk,
		"CompletedInstancesTakeNobody":    enrollCompleted,
		"UnknownInstanceIsNotFound":       enrollUnknown,
		"ListFiltersAndPages":             enrollList,
		"PatchChangesWhatIsGiven":         enrollPatch,
		"PatchMeetsAnotherContact":        enrollPatchConflict,
		"AContactWithoutAddressIsMatched": enrollNoAddress,
	}}
}

func enrollReadsBack(w *World) {
	in := campaign.Enrollment{
		ContactID: "crm-7", Email: "Ada@Example.com", LinkedInURL: "https://www.linkedin.com/in/ada", Metadata: []byte(`{"a":1}`),
		Refs: []event.Ref{ref(event.RefAction, "a"), ref(event.RefLead, "l"), ref(event.RefMessage, "<m>")},
	}
	d := w.Join(w.Instance, in)
	e, err := w.Enrollment(w.Ctx(), w.Tenant, d.ID)
	w.must(err)
	if e.CreatedAt.IsZero() || !e.UpdatedAt.Equal(e.CreatedAt) {
		w.T.Errorf("created %v, updated %v", e.CreatedAt, e.UpdatedAt)
	}
	in.ID, in.Tenant, in.InstanceID, in.Status = d.ID, w.Tenant, w.Instance, campaign.StatusActive
	in.CreatedAt, in.UpdatedAt = e.CreatedAt, e.UpdatedAt
	Same(w.T, "enrollment", e, in)
	_, err = w.Enrollment(w.Ctx(), w.Tenant, uuid.Must(uuid.NewV7()))
	Kind(w.T, err, fault.NotFound)
}

func enrollConflict(w *World) {
	first := w.Join(w.Instance, campaign.Enrollment{ContactID: "7", Email: "ada@example.com", LinkedInURL: "https://linkedin.com/in/ada"}).ID
	for name, in := range map[string]campaign.Enrollment{
		"Contact": {ContactID: "7", Email: "other@example.com"},
		"Address": {ContactID: "8", Email: "Ada <ADA@example.com>"},
		"Profile": {LinkedInURL: "http://WWW.linkedin.com/in/Ada/?utm=1"},
	} {
		got, err := w.Enroll(w.Ctx(), w.Tenant, w.Instance, []campaign.Enrollment{in}, false, store.Idempotency{})
		w.must(err)
		Same(w.T, name, got, []store.Enrolled{{ID: first, Conflict: true}})
	}
	rows, _, err := w.Enrollments(w.Ctx(), w.Tenant, w.Instance, store.EnrollmentFilter{}, store.Page{Limit: 10})
	w.must(err)
	Same(w.T, "enrollments", len(rows), 1)
}

func enrollElsewhere(w *World) {
	_, other := w.Campaign(w.Tenant, nil)
	a := w.Person("ada@example.com")
	b := w.Join(other, campaign.Enrollment{Email: "ada@example.com"}).ID
	if a == b {
		w.T.Error("one enrollment in two instances")
	}
}

func enrollMerge(w *World) {
	first := w.Person("ada@example.com", ref(event.RefLead, "l"))
	got, err := w.Enroll(w.Ctx(), w.Tenant, w.Instance, []campaign.Enrollment{
		{Email: "ada@example.com", Refs: []event.Ref{ref(event.RefMessage, "m")}}, {Email: "new@example.com"},
	}, true, store.Idempotency{})
	w.must(err)
	Same(w.T, "merged", got[0], store.Enrolled{ID: first, Merged: true})
	Same(w.T, "new", []bool{got[1].Merged, got[1].Conflict}, []bool{false, false})
	e, err := w.Enrollment(w.Ctx(), w.Tenant, first)
	w.must(err)
	Same(w.T, "references", e.Refs, []event.Ref{ref(event.RefLead, "l"), ref(event.RefMessage, "m")})
}

func enrollIdempotent(w *World) {
	w.Send(event.Opened, Address("ada@example.com"))
	once := func(email string, idem store.Idempotency) (store.Enrolled, error) {
		got, err := w.Enroll(w.Ctx(), w.Tenant, w.Instance, []campaign.Enrollment{{Email: email}}, false, idem)
		if err != nil {
			return store.Enrolled{}, err
		}
		return got[0], nil
	}
	idem := store.Idempotency{Key: "k", Request: [32]byte{1}}
	first, err := once("ada@example.com", idem)
	w.must(err)
	Same(w.T, "adopted", first.Adopted, 1)
	again, err := once("ada@example.com", idem)
	w.must(err)
	Same(w.T, "again", again, first)
	_, err = once("ada@example.com", store.Idempotency{Key: "k", Request: [32]byte{2}})
	Kind(w.T, err, fault.Conflict)
	other, err := once("bob@example.com", store.Idempotency{Key: "k2", Request: [32]byte{1}})
	w.must(err)
	if other.ID == first.ID {
		w.T.Error("another key answers the first request")
	}
}

func enrollBulk(w *World) {
	existing := w.Person("old@example.com")
	w.Send(event.Opened, Address("p5@example.com"))
	in := make([]campaign.Enrollment, 0, 500)
	for i := range 500 {
		addr := fmt.Sprintf("p%d@example.com", i)
		switch i {
		case 17:
			addr = "old@example.com"
		case 300:
			addr = "p3@example.com" // within the request
		}
		in = append(in, campaign.Enrollment{Email: addr})
	}
	got, err := w.Enroll(w.Ctx(), w.Tenant, w.Instance, in, false, store.Idempotency{})
	w.must(err)
	Same(w.T, "results", len(got), 500)
	for i, d := range got {
		Same(w.T, fmt.Sprint("conflict of ", i), d.Conflict, i == 17 || i == 300)
		Same(w.T, fmt.Sprint("error of ", i), d.Err, nil)
	}
	Same(w.T, "existing", got[17].ID, existing)
	Same(w.T, "within the request", got[300].ID, got[3].ID)
	Same(w.T, "adopted", got[5].Adopted, 1)
	n, err := w.Numbers(w.Ctx(), w.Tenant, w.Instance, w.Clock.Now(), w.Clock.Now())
	w.must(err)
	Same(w.T, "active", n.Status["active"], 499)
}

func enrollCompleted(w *World) {
	done := string(campaign.Completed)
	_, _, err := w.PatchInstance(w.Ctx(), w.Tenant, w.Instance, store.InstancePatch{Status: &done})
	w.must(err)
	_, err = w.Enroll(w.Ctx(), w.Tenant, w.Instance, []campaign.Enrollment{{Email: "a@example.com"}}, false, store.Idempotency{})
	Kind(w.T, err, fault.Conflict)
}

func enrollUnknown(w *World) {
	other, err := w.CreateTenant(w.Ctx(), "other")
	w.must(err)
	for _, c := range []struct {
		tenant   int64
		instance uuid.UUID
	}{{w.Tenant, uuid.Must(uuid.NewV7())}, {other.ID, w.Instance}} {
		_, err := w.Enroll(w.Ctx(), c.tenant, c.instance, []campaign.Enrollment{{Email: "a@example.com"}}, false, store.Idempotency{})
		Kind(w.T, err, fault.NotFound)
		_, _, err = w.Enrollments(w.Ctx(), c.tenant, c.instance, store.EnrollmentFilter{}, store.Page{Limit: 1})
		Kind(w.T, err, fault.NotFound)
	}
}

func enrollList(w *World) {
	var want []uuid.UUID
	for i := range 7 {
		want = append(want, w.Person(fmt.Sprintf("p%d@example.com", i), ref(event.RefLead, fmt.Sprint(i))))
	}
	slices.Reverse(want)
	w.Send(event.Unsubscribed, Address("p3@example.com"))
	list := func(f store.EnrollmentFilter, limit int) (ids []uuid.UUID, pages int) {
		for after := int64(0); ; {
			rows, next, err := w.Enrollments(w.Ctx(), w.Tenant, w.Instance, f, store.Page{Limit: limit, After: after})
			w.must(err)
			for _, r := range rows {
				ids = append(ids, r.ID)
				Same(w.T, "references", len(r.Refs), 1)
			}
			pages++
			if next == 0 {
				return ids, pages
			}
			after = next
		}
	}
	got, pages := list(store.EnrollmentFilter{}, 3)
	Same(w.T, "all, newest first", got, want)
	Same(w.T, "pages", pages, 3)
	got, _ = list(store.EnrollmentFilter{Status: "unsubscribed"}, 3)
	Same(w.T, "by status", got, []uuid.UUID{want[3]})
	got, _ = list(store.EnrollmentFilter{Email: "P5@example.com"}, 3)
	Same(w.T, "by address", got, []uuid.UUID{want[1]})
}

func enrollPatch(w *World) {
	id := w.Join(w.Instance, campaign.Enrollment{ContactID: "7", Email: "ada@example.com"}).ID
	url, contact := "https://linkedin.com/in/ada", "8"
	e, d, err := w.PatchEnrollment(w.Ctx(), w.Tenant, id, store.EnrollmentPatch{LinkedInURL: &url, ContactID: &contact, Metadata: []byte(`{}`)})
	w.must(err)
	Same(w.T, "enrolled", d, store.Enrolled{})
	Same(w.T, "patched", []string{e.ContactID, e.Email, e.LinkedInURL, string(e.Metadata)}, []string{"8", "ada@example.com", url, "{}"})
	bad := "not an address"
	_, _, err = w.PatchEnrollment(w.Ctx(), w.Tenant, id, store.EnrollmentPatch{Email: &bad})
	Kind(w.T, err, fault.Invalid)
	_, _, err = w.PatchEnrollment(w.Ctx(), w.Tenant, uuid.Must(uuid.NewV7()), store.EnrollmentPatch{})
	Kind(w.T, err, fault.NotFound)
	// An address taken off finds nobody any more.
	none := ""
	_, _, err = w.PatchEnrollment(w.Ctx(), w.Tenant, id, store.EnrollmentPatch{Email: &none})
	w.must(err)
	w.Waits(w.Send(event.Opened, Address("ada@example.com")).ID, store.ReasonNoEnrollment)
}

func enrollPatchConflict(w *World) {
	w.Person("ada@example.com")
	bob := w.Person("bob@example.com")
	addr := "ADA@example.com"
	_, _, err := w.PatchEnrollment(w.Ctx(), w.Tenant, bob, store.EnrollmentPatch{Email: &addr})
	Kind(w.T, err, fault.Conflict)
	w.IsApplied(w.Send(event.Opened, Address("bob@example.com")).ID, bob)
}

func enrollNoAddress(w *World) {
	id := w.Join(w.Instance, campaign.Enrollment{LinkedInURL: "https://linkedin.com/in/ada", Refs: []event.Ref{ref(event.RefAction, "a")}}).ID
	w.IsApplied(w.Send(event.ProfileVisited, Action("a")).ID, id)
	w.IsApplied(w.Send(event.Opened, Of(id)).ID, id)
}
