package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// LetterView is a dead letter on the wire.
type LetterView struct {
	ID              string     `json:"id" format:"uuid"`
	Reason          string     `json:"reason" example:"no_enrollment"`
	Error           string     `json:"error"`
	Status          string     `json:"status" enum:"dead,replaying,replayed,ignored"`
	Attempts        int        `json:"attempts"`
	FirstReceivedAt time.Time  `json:"first_received_at"`
	LastAttemptAt   *time.Time `json:"last_attempt_at"`
	Event           *EventView `json:"event" doc:"null for a body that could not be read."`
	SourceID        *string    `json:"source_id,omitempty" format:"uuid" doc:"Of a body that could not be read."`
	Provider        string     `json:"provider,omitempty" doc:"Of a body that could not be read."`
}

func viewLetter(l store.Letter) LetterView {
	v := LetterView{
		ID: l.ID.String(), Reason: l.Reason, Error: l.Error, Status: string(l.Status), Attempts: l.Attempts,
		FirstReceivedAt: l.FirstReceivedAt.UTC(), LastAttemptAt: optionalTime(l.LastAttemptAt),
	}
	if l.Event != nil {
		e := viewEvent(*l.Event)
		v.Event = &e
	} else {
		v.SourceID, v.Provider = optionalID(l.SourceID), l.Provider
	}
	return v
}

// letterDetail is one dead letter with what was received.
type letterDetail struct {
	LetterView
	Payload anyJSON           `json:"payload" doc:"The event as it was submitted, or the body that could not be read."`
	Headers map[string]string `json:"headers,omitempty" doc:"The headers kept with a body that could not be read."`
}

func viewLetterDetail(l store.Letter) letterDetail {
	d := letterDetail{LetterView: viewLetter(l), Payload: l.Body, Headers: l.Headers}
	if l.Event != nil {
		d.Payload = l.Event.Payload
	}
	return d
}

type listLettersInput struct {
	PageParams
	Reason    string    `query:"reason" maxLength:"64"`
	Provider  string    `query:"provider" maxLength:"64"`
	EventType eventType `query:"event_type"`
	Status    string    `query:"status" enum:"dead,replaying,replayed,ignored"`
	Email     string    `query:"email" maxLength:"320"`
	Since     instant   `query:"since" doc:"By the first receipt, inclusive."`
	Until     instant   `query:"until" doc:"Exclusive."`
}

func (s *server) listLetters(ctx context.Context, in *listLettersInput) (*many[LetterView], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	if err := period(in.Since, in.Until); err != nil {
		return nil, err
	}
	rows, next, err := s.Letters.Letters(ctx, tenant(ctx), store.LetterFilter{
		Reason: in.Reason, Provider: in.Provider, Type: event.Type(in.EventType), Status: store.LetterStatus(in.Status),
		Email: in.Email, Since: in.Since.Time, Until: in.Until.Time,
	}, p)
	if err != nil {
		return nil, err
	}
	return replyList(rows, next, viewLetter), nil
}

type letterStatsView struct {
	Total      int64            `json:"total"`
	ByStatus   map[string]int64 `json:"by_status"`
	ByReason   map[string]int64 `json:"by_reason" doc:"Of status dead."`
	ByProvider map[string]int64 `json:"by_provider" doc:"Of status dead."`
	OldestAt   *time.Time       `json:"oldest_at" doc:"First receipt of the oldest of status dead."`
}

func (s *server) letterStats(ctx context.Context, _ *struct{}) (*one[letterStatsView], error) {
	st, err := s.Letters.LetterStats(ctx, tenant(ctx))
	if err != nil {
		return nil, err
	}
	v := letterStatsView{
		Total: st.Total, ByStatus: map[string]int64{}, ByReason: st.ByReason, ByProvider: st.ByProvider, OldestAt: optionalTime(st.OldestAt),
	}
	for status, n := range st.ByStatus {
		v.ByStatus[string(status)] = n
	}
	return reply(v), nil
}

func (s *server) getLetter(ctx context.Context, in *IDParam) (*one[letterDetail], error) {
	id, err := parseID("dead letter", in.ID)
	if err != nil {
		return nil, err
	}
	l, err := s.Letters.Letter(ctx, tenant(ctx), id)
	if err != nil {
		return nil, err
	}
	return reply(viewLetterDetail(l)), nil
}

// outcomeView is what became of one replayed dead letter.
type outcomeView struct {
	ID      string `json:"id" format:"uuid" doc:"The dead letter."`
	Outcome string `json:"outcome" enum:"applied,orphaned,duplicate,ignored,dead"`
	EventID string `json:"event_id,omitempty" format:"uuid"`
	State   string `json:"state,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

func (s *server) replayLetter(ctx context.Context, in *IDParam) (*one[outcomeView], error) {
	id, err := parseID("dead letter", in.ID)
	if err != nil {
		return nil, err
	}
	res, err := s.Letters.Replay(ctx, tenant(ctx), id, caller(ctx).Actor())
	if err != nil {
		return nil, err
	}
	v := outcomeView{ID: id.String(), Outcome: string(res.Outcome), State: string(res.State), Reason: res.Reason, Detail: res.Detail}
	if res.ID != uuid.Nil {
		v.EventID = res.ID.String()
	}
	return reply(v), nil
}

func (s *server) ignoreLetter(ctx context.Context, in *IDParam) (*one[LetterView], error) {
	return s.moveLetter(ctx, in, s.Letters.Ignore)
}

func (s *server) restoreLetter(ctx context.Context, in *IDParam) (*one[LetterView], error) {
	return s.moveLetter(ctx, in, s.Letters.Restore)
}

func (s *server) moveLetter(
	ctx context.Context, in *IDParam, move func(context.Context, int64, uuid.UUID, string) (store.Letter, error),
) (*one[LetterView], error) {
	id, err := parseID("dead letter", in.ID)
	if err != nil {
		return nil, err
	}
	l, err := move(ctx, tenant(ctx), id, caller(ctx).Actor())
	if err != nil {
		return nil, err
	}
	return reply(viewLetter(l)), nil
}

type letterFilterBody struct {
	Reason    string     `json:"reason,omitempty" maxLength:"64" example:"no_enrollment"`
	Provider  string     `json:"provider,omitempty" maxLength:"64"`
	EventType eventType  `json:"event_type,omitempty"`
	Status    string     `json:"status,omitempty" enum:"dead,replaying,replayed,ignored"`
	Email     string     `json:"email,omitempty" maxLength:"320"`
	Since     *time.Time `json:"since,omitempty" doc:"By the first receipt, inclusive."`
	Until     *time.Time `json:"until,omitempty" doc:"Exclusive."`
}

type replayLettersInput struct {
	Body struct {
		IDs    []string          `json:"ids,omitempty" minItems:"1" format:"uuid" doc:"These dead letters; or give filter."`
		Filter *letterFilterBody `json:"filter,omitempty" doc:"All that match; an empty filter is all there are."`
		DryRun bool              `json:"dry_run,omitempty" doc:"Only count what would be replayed."`
	}
}

// startedView is the answer of a bulk replay that was asked for.
type startedView struct {
	ReplayID string `json:"replay_id,omitempty" format:"uuid" doc:"Absent on a dry run."`
	Matched  int64  `json:"matched"`
}

func (s *server) replayLetters(ctx context.Context, in *replayLettersInput) (*withStatus[startedView], error) {
	b := &in.Body
	if (b.IDs == nil) == (b.Filter == nil) {
		return nil, fault.BadInput(fault.Field{Location: "body", Message: "needs either ids or filter"})
	}
	var ids []uuid.UUID
	for i, raw := range b.IDs {
		id, err := uuid.Parse(raw)
		if err != nil {
			return nil, fault.BadInput(fault.Field{Location: "body.ids[" + strconv.Itoa(i) + "]", Message: "is not a UUID", Value: raw})
		}
		ids = append(ids, id)
	}
	var f store.LetterFilter
	if b.Filter != nil {
		f = store.LetterFilter{
			Reason: b.Filter.Reason, Provider: b.Filter.Provider, Type: event.Type(b.Filter.EventType),
			Status: store.LetterStatus(b.Filter.Status), Email: b.Filter.Email,
		}
		if b.Filter.Since != nil {
			f.Since = b.Filter.Since.UTC()
		}
		if b.Filter.Until != nil {
			f.Until = b.Filter.Until.UTC()
		}
	}
	rep, err := s.Letters.StartReplay(ctx, tenant(ctx), ids, f, b.DryRun, caller(ctx).Actor())
	if err != nil {
		return nil, err
	}
	out := &withStatus[startedView]{Status: http.StatusOK, Body: Data[startedView]{startedView{Matched: rep.Matched}}}
	if !b.DryRun {
		out.Status, out.Body.Data.ReplayID = http.StatusAccepted, rep.ID.String()
		out.Location = "/api/admin/dlq/replays/" + rep.ID.String()
	}
	return out, nil
}

type replayView struct {
	ReplayID  string    `json:"replay_id" format:"uuid"`
	Status    string    `json:"status" enum:"running,done,cancelled,failed"`
	Matched   int64     `json:"matched"`
	Applied   int64     `json:"applied"`
	Orphaned  int64     `json:"orphaned"`
	Duplicate int64     `json:"duplicate"`
	Dead      int64     `json:"dead"`
	Skipped   int64     `json:"skipped"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

func viewReplay(r store.Replay) replayView {
	return replayView{
		ReplayID: r.ID.String(), Status: r.Status, Matched: r.Matched, Applied: r.Applied, Orphaned: r.Orphaned,
		Duplicate: r.Duplicate, Dead: r.Dead, Skipped: r.Skipped, CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}
}

func (s *server) getReplay(ctx context.Context, in *IDParam) (*one[replayView], error) {
	id, err := parseID("replay", in.ID)
	if err != nil {
		return nil, err
	}
	r, err := s.Letters.ReplayProgress(ctx, tenant(ctx), id)
	if err != nil {
		return nil, err
	}
	return reply(viewReplay(r)), nil
}

func (s *server) cancelReplay(ctx context.Context, in *IDParam) (*one[replayView], error) {
	id, err := parseID("replay", in.ID)
	if err != nil {
		return nil, err
	}
	r, err := s.Letters.CancelReplay(ctx, tenant(ctx), id, caller(ctx).Actor())
	if err != nil {
		return nil, err
	}
	return reply(viewReplay(r)), nil
}
