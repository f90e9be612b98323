package row

import (
	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/fault"
)

// TemplateColumns are those of a template.
const TemplateColumns = `seq, id, tenant_id, name, description, type, path_type, settings, steps, created_at, updated_at`

// ScanTemplate reads a template by TemplateColumns.
func ScanTemplate(sc Scanner, m *campaign.Template) (seq int64, err error) {
	var id, steps []byte
	var created, updated int64
	if err := sc.Scan(&seq, &id, &m.Tenant, &m.Name, &m.Description, &m.Type, &m.PathType, &m.Settings, &steps, &created, &updated); err != nil {
		return 0, err
	}
	m.ID, m.CreatedAt, m.UpdatedAt = ID(id), At(created), At(updated)
	return seq, json.Unmarshal(steps, &m.Steps)
}

// NoTemplate is the fault of a template that is not there.
func NoTemplate(id uuid.UUID) error { return fault.New(fault.NotFound, "there is no template %s", id) }

// ScanInstance reads an instance; its provider campaigns come as one JSON object.
func ScanInstance(sc Scanner, i *campaign.Instance) (seq int64, err error) {
	var id, template []byte
	var created, updated, started, completed int64
	var campaigns string
	if err := sc.Scan(&seq, &id, &i.Tenant, &template, &i.Name, &i.Status, &i.Settings, &created, &updated, &started, &completed, &campaigns); err != nil {
		return 0, err
	}
	i.ID, i.TemplateID = ID(id), ID(template)
	i.CreatedAt, i.UpdatedAt, i.StartedAt, i.CompletedAt = At(created), At(updated), At(started), At(completed)
	return seq, json.Unmarshal([]byte(campaigns), &i.ProviderCampaigns)
}

// NoInstance is the fault of an instance that is not there.
func NoInstance(id uuid.UUID) error {
	return fault.New(fault.NotFound, "there is no campaign instance %s", id)
}

// EnrollmentColumns are those of an enrollment.
const EnrollmentColumns = `seq, id, tenant_id, instance_id, contact_id, email, linkedin_url, metadata, status, created_at, updated_at`

// ScanEnrollment reads an enrollment by EnrollmentColumns, without its references.
func ScanEnrollment(sc Scanner, e *campaign.Enrollment) (seq int64, err error) {
	var id, instance []byte
	var created, updated int64
	if err := sc.Scan(&seq, &id, &e.Tenant, &instance, &e.ContactID, &e.Email, &e.LinkedInURL, &e.Metadata, &e.Status, &created, &updated); err != nil {
		return 0, err
	}
	e.ID, e.InstanceID, e.CreatedAt, e.UpdatedAt = ID(id), ID(instance), At(created), At(updated)
	return seq, nil
}

// NoEnrollment is the fault of an enrollment that is not there.
func NoEnrollment(id uuid.UUID) error {
	return fault.New(fault.NotFound, "there is no enrollment %s", id)
}

// SuppressionColumns are those of an address of the list.
const SuppressionColumns = `seq, email, unsubscribed_at, resubscribed_at, complained_at, bounced_at, manual_at, removed_at, updated_at`

// Suppressed tells which addresses of the list are in force: the same rule as campaign.Suppression.Reason, so that lists page rightly.
const Suppressed = `(complained_at > removed_at OR (unsubscribed_at > removed_at AND unsubscribed_at >= resubscribed_at)
	OR bounced_at > removed_at OR manual_at > removed_at)`

// ScanSuppression reads an address of the list by SuppressionColumns.
func ScanSuppression(sc Scanner, r *campaign.Suppression) (seq int64, err error) {
	var unsub, resub, complained, bounced, manual, removed, updated int64
	if err := sc.Scan(&seq, &r.Email, &unsub, &resub, &complained, &bounced, &manual, &removed, &updated); err != nil {
		return 0, err
	}
	r.UnsubscribedAt, r.ResubscribedAt, r.ComplainedAt, r.BouncedAt = At(unsub), At(resub), At(complained), At(bounced)
	r.Erased = r.Email == ""
	r.ManualAt, r.RemovedAt, r.UpdatedAt = At(manual), At(removed), At(updated)
	return seq, nil
}
