package row

import (
	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

// EventHead are the columns of an event before its payload, which may have megabytes.
const EventHead = `e.seq, e.id, e.tenant_id, e.source_id, e.scope, e.provider, e.kind, e.control, e.type, e.channel,
	e.provider_event_id, e.provider_message_id, e.action_id, e.lead_id, e.claimed_enrollment, e.email, e.campaign, e.step,
	e.bounce, e.machine, e.url, e.occurred_at, e.estimated, e.received_at, e.state, e.reason, e.detail, e.enrollment_id,
	e.instance_id, e.parked_at, e.settled_at, e.settled_by, e.duplicates, e.last_duplicate_at, e.enrolls, e.metadata, `

// EventTail are the columns of an event after its payload, what waits for it and what was spent on it among them.
const EventTail = `,
	(SELECT o.attempts FROM orphan o WHERE o.event_seq = e.seq), (SELECT o.due_at FROM orphan o WHERE o.event_seq = e.seq),
	CASE WHEN e.state <> 'applied' OR e.parked_at > 0 THEN (SELECT d.attempts FROM dead_letter d WHERE d.event_seq = e.seq) END,
	CASE WHEN e.parked_at > 0 THEN (SELECT count(*) FROM timeline m WHERE m.event_seq = e.seq AND m.what = 'attempt') END`

// Personal tells, beside its payload, whether an event still holds something personal.
const Personal = `e.email <> '' OR e.lead_id <> '' OR e.action_id <> '' OR e.url <> ''`

// EventColumns are those of an event e, with its payload.
const EventColumns = EventHead + `e.payload` + EventTail

// ScanEvent reads an event by EventColumns, or the same with something else for the payload.
func ScanEvent(sc Scanner, r *store.Record) error {
	var id, source, enrollment, instance []byte
	var occurred, received, parked, settled, lastDup int64
	var attempts, due, spent, tried *int64
	if err := sc.Scan(&r.Seq, &id, &r.Tenant, &source, &r.Scope, &r.Provider, &r.Kind, &r.Control, &r.Type, &r.Channel,
		&r.ProviderEventID, &r.ProviderMessageID, &r.ActionID, &r.LeadID, &r.EnrollmentID, &r.Email, &r.Campaign, &r.StepNumber,
		&r.Bounce, &r.Machine, &r.URL, &occurred, &r.OccurredAtEstimated, &received, &r.State, &r.Reason, &r.Detail, &enrollment,
		&instance, &parked, &settled, &r.SettledBy, &r.Duplicates, &lastDup, &r.EnrollUnmatched, &r.Metadata, &r.Payload, &attempts, &due, &spent, &tried); err != nil {
		return err
	}
	r.ID, r.SourceID, r.Enrollment, r.Instance = ID(id), ID(source), ID(enrollment), ID(instance)
	r.OccurredAt, r.ReceivedAt, r.ParkedAt, r.SettledAt = At(occurred), At(received), At(parked), At(settled)
	r.LastDuplicateAt = At(lastDup)
	switch {
	case attempts != nil:
		r.Attempts = int(*attempts)
	case spent != nil && r.State == event.Dead:
		r.Attempts = int(*spent)
	case tried != nil:
		r.Attempts = int(*tried)
	}
	if due != nil {
		r.NextAttemptAt = At(*due)
	}
	return nil
}

// SearchKey is what events are searched by, from the kind and the normal form of the value.
func SearchKey(kind, value string) (k [8]byte) {
	h := event.HashOf("search", kind, value)
	copy(k[:], h[:])
	return k
}

// ScanLedger reads a tenant's account, and the tenant's id.
func ScanLedger(sc Scanner) (store.Ledger, uuid.UUID, error) {
	var l store.Ledger
	var uid []byte
	err := sc.Scan(&l.Tenant, &uid, &l.Received, &l.Duplicates, &l.Applied, &l.Orphaned, &l.Dead, &l.Ignored, &l.Archived, &l.Undecodable)
	return l, ID(uid), err
}
