package postgres

import (
	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

const eventColumns = eventHead + `e.payload` + eventTail

// lightColumns leave the payload out, which may have megabytes: for lists and
// for the processor, which never looks at it.
const lightColumns = eventHead + `''::bytea` + eventTail

const eventHead = `e.seq, e.id, e.tenant_id, e.source_id, e.scope, e.provider, e.kind, e.control, e.type, e.channel,
	e.provider_event_id, e.provider_message_id, e.action_id, e.lead_id, e.claimed_enrollment, e.email, e.campaign, e.step,
	e.bounce, e.machine, e.url, e.occurred_at, e.estimated, e.received_at, e.state, e.reason, e.detail, e.enrollment_id,
	e.instance_id, e.parked_at, e.settled_at, e.settled_by, e.duplicates, e.last_duplicate_at, e.metadata, `

const eventTail = `,
	(SELECT o.attempts FROM orphan o WHERE o.event_seq = e.seq), (SELECT o.due_at FROM orphan o WHERE o.event_seq = e.seq),
	CASE WHEN e.state <> 'applied' OR e.parked_at > 0 THEN (SELECT d.attempts FROM dead_letter d WHERE d.event_seq = e.seq) END,
	CASE WHEN e.parked_at > 0 THEN (SELECT count(*) FROM timeline m WHERE m.event_seq = e.seq AND m.what = 'attempt') END`

func scanEvent(sc scanner, r *store.Record) error {
	var id, source, enrollment, instance []byte
	var occurred, received, parked, settled, lastDup int64
	var attempts, due, spent, tried *int64
	if err := sc.Scan(&r.Seq, &id, &r.Tenant, &source, &r.Scope, &r.Provider, &r.Kind, &r.Control, &r.Type, &r.Channel,
		&r.ProviderEventID, &r.ProviderMessageID, &r.ActionID, &r.LeadID, &r.EnrollmentID, &r.Email, &r.Campaign, &r.StepNumber,
		&r.Bounce, &r.Machine, &r.URL, &occurred, &r.OccurredAtEstimated, &received, &r.State, &r.Reason, &r.Detail, &enrollment,
		&instance, &parked, &settled, &r.SettledBy, &r.Duplicates, &lastDup, &r.Metadata, &r.Payload, &attempts, &due, &spent, &tried); err != nil {
		return err
	}
	r.ID, r.SourceID, r.Enrollment, r.Instance = idOf(id), idOf(source), idOf(enrollment), idOf(instance)
	r.OccurredAt, r.ReceivedAt, r.ParkedAt, r.SettledAt = at(occurred), at(received), at(parked), at(settled)
	r.LastDuplicateAt = at(lastDup)
	switch {
	case attempts != nil:
		r.Attempts = int(*attempts)
	case spent != nil && r.State == event.Dead:
		r.Attempts = int(*spent)
	case tried != nil:
		r.Attempts = int(*tried)
	}
	if due != nil {
		r.NextAttemptAt = at(*due)
	}
	return nil
}
