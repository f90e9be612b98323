package httpapi

import (
	"context"
	"encoding/csv"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

type suppressionView struct {
	Email          string     `json:"email"`
	Reason         *string    `json:"reason" enum:"complained,unsubscribed,bounced,manual" doc:"The strongest reason; null when the address is free again."`
	Since          *time.Time `json:"since"`
	UnsubscribedAt *time.Time `json:"unsubscribed_at"`
	ResubscribedAt *time.Time `json:"resubscribed_at"`
	ComplainedAt   *time.Time `json:"complained_at"`
	BouncedAt      *time.Time `json:"bounced_at"`
	ManualAt       *time.Time `json:"manual_at"`
	RemovedAt      *time.Time `json:"removed_at"`
	UpdatedAt      time.Time  `json:"updated_at"`
	Erased         bool       `json:"erased" doc:"The contact was erased: the list knows the address by a keyed hash alone, and does not show it."`
}

func viewSuppression(s campaign.Suppression) suppressionView {
	return suppressionView{
		Email: s.Email, Reason: optional(s.Reason()), Since: optionalTime(s.Since()),
		UnsubscribedAt: optionalTime(s.UnsubscribedAt), ResubscribedAt: optionalTime(s.ResubscribedAt),
		ComplainedAt: optionalTime(s.ComplainedAt), BouncedAt: optionalTime(s.BouncedAt), ManualAt: optionalTime(s.ManualAt),
		RemovedAt: optionalTime(s.RemovedAt), UpdatedAt: s.UpdatedAt.UTC(), Erased: s.Erased,
	}
}

type listSuppressionsInput struct {
	PageParams
	Since  instant `query:"since" doc:"Only what changed at or after this time."`
	Format string  `query:"format" enum:"json,csv" doc:"csv (or Accept: text/csv) answers the whole list, or limit rows of it, as CSV."`
}

func (s *server) listSuppressions(ctx context.Context, in *listSuppressionsInput) (*many[suppressionView], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	rows, next, err := s.Suppressions.Suppressions(ctx, tenant(ctx), in.Since.Time, p)
	if err != nil {
		return nil, err
	}
	return replyList(rows, next, viewSuppression), nil
}

// wantsCSV tells which of its two forms a request for the list wants.
func (s *server) wantsCSV(r *http.Request) bool {
	switch r.URL.Query().Get("format") {
	case "csv":
		return true
	case "":
		for part := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
			switch media, _, err := mime.ParseMediaType(part); {
			case err != nil:
			case media == "text/csv":
				return true
			case media == "application/json", media == "*/*":
				return false
			}
		}
	}
	return false
}

// suppressionsCSV streams the list: all of it, since a file that silently ends
// after fifty rows would let someone write to the fifty-first.
func (s *server) suppressionsCSV(w http.ResponseWriter, r *http.Request) {
	since, page, limit, err := csvQuery(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	ctx := r.Context()
	rows, next, err := s.Suppressions.Suppressions(ctx, tenant(ctx), since, page)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="suppressions.csv"`)
	out := csv.NewWriter(w)
	_ = out.Write([]string{"email", "reason", "since"}) // csv.Writer keeps its error for Error
	for {
		for _, row := range rows {
			if row.Erased { // nobody could be told by it whom not to write to
				continue
			}
			at := ""
			if t := row.Since(); !t.IsZero() {
				at = t.UTC().Format(time.RFC3339Nano)
			}
			_ = out.Write([]string{row.Email, row.Reason(), at})
		}
		out.Flush()
		if out.Error() != nil || next == 0 || limit {
			return
		}
		page.After = next
		if rows, next, err = s.Suppressions.Suppressions(ctx, tenant(ctx), since, page); err != nil {
			s.note(ctx, err)
			panic(http.ErrAbortHandler) // the answer must not look complete
		}
	}
}

func csvQuery(r *http.Request) (since time.Time, page store.Page, limited bool, err error) {
	if err := onlyQuery(r, "limit", "cursor", "since", "format"); err != nil {
		return since, page, false, err
	}
	q := r.URL.Query()
	page.Limit = 1000
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 1000 {
			return since, page, false, fault.BadInput(fault.Field{Location: "query.limit", Message: "must be a whole number from 1 to 1000", Value: v})
		}
		page.Limit, limited = n, true
	}
	if v := q.Get("since"); v != "" {
		var t instant
		if err := t.UnmarshalText([]byte(v)); err != nil {
			return since, page, false, fault.BadInput(fault.Field{Location: "query.since", Message: "is " + err.Error(), Value: v})
		}
		since = t.Time
	}
	page.After, err = parseCursor(q.Get("cursor"))
	return since, page, limited, err
}

// EmailParam is the address of a path.
type EmailParam struct {
	Email string `path:"email" example:"ada@example.com"`
}

func (p EmailParam) address() (string, error) {
	if !event.ValidAddress(p.Email) {
		return "", fault.BadInput(fault.Field{Location: "path.email", Message: "is not an email address", Value: p.Email})
	}
	return event.NormalAddress(p.Email), nil
}

func (s *server) getSuppression(ctx context.Context, in *EmailParam) (*one[suppressionView], error) {
	email, err := in.address()
	if err != nil {
		return nil, err
	}
	row, err := s.Suppressions.Suppression(ctx, tenant(ctx), email)
	if err != nil {
		return nil, err
	}
	return reply(viewSuppression(row)), nil
}

func (s *server) putSuppression(ctx context.Context, in *EmailParam) (*one[suppressionView], error) {
	email, err := in.address()
	if err != nil {
		return nil, err
	}
	row, err := s.Suppressions.PutSuppression(ctx, tenant(ctx), email, caller(ctx).Actor())
	if err != nil {
		return nil, err
	}
	return reply(viewSuppression(row)), nil
}

func (s *server) deleteSuppression(ctx context.Context, in *EmailParam) (*nothing, error) {
	email, err := in.address()
	if err != nil {
		return nil, err
	}
	if err := s.Suppressions.DeleteSuppression(ctx, tenant(ctx), email, caller(ctx).Actor()); err != nil {
		return nil, err
	}
	return &nothing{}, nil
}
