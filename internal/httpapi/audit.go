package httpapi

import (
	"context"
	"time"

	"tallyhook/internal/store"
)

// auditView is a line of the audit log on the wire.
type auditView struct {
	At        time.Time `json:"at"`
	Actor     string    `json:"actor" doc:"key:<id> of the API key, or system."`
	Action    string    `json:"action" example:"key.create"`
	Subject   string    `json:"subject" doc:"The id of what was acted on; empty where it is a person's address, which is not kept here."`
	Detail    string    `json:"detail"`
	Remote    string    `json:"remote" doc:"The client's address; empty for what no request asked for."`
	RequestID string    `json:"request_id"`
}

type listAuditInput struct {
	PageParams
	Actor  string  `query:"actor" maxLength:"100" doc:"One actor, such as key:<id> or system."`
	Action string  `query:"action" maxLength:"100" doc:"One action such as key.create, or all of a subject, such as key."`
	Since  instant `query:"since" doc:"Inclusive."`
	Until  instant `query:"until" doc:"Exclusive."`
}

// listAudit shows a tenant's own log.
func (s *server) listAudit(ctx context.Context, in *listAuditInput) (*many[auditView], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	rows, next, err := s.Access.AuditLog(ctx, tenant(ctx), store.AuditFilter{
		Actor: in.Actor, Action: in.Action, Since: in.Since.Time, Until: in.Until.Time,
	}, p)
	if err != nil {
		return nil, err
	}
	return replyList(rows, next, func(a store.Audit) auditView {
		return auditView{a.At.UTC(), a.Actor, a.Action, a.Subject, a.Detail, a.Remote, a.RequestID}
	}), nil
}
