package report

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// Store is what reports read.
type Store interface {
	Instance(ctx context.Context, tenant int64, id uuid.UUID) (campaign.Instance, error)
	Template(ctx context.Context, tenant int64, id uuid.UUID) (campaign.Template, error)
	// Numbers reads an instance's counters and facts of event times in
	// [since, until); a zero time leaves that side open. Both times fall on
	// quarter hours, the resolution of the counters.
	Numbers(ctx context.Context, tenant int64, instance uuid.UUID, since, until time.Time) (store.Numbers, error)
	Balance(ctx context.Context) (store.Balance, error)
}

// Service makes reports.
type Service struct{ store Store }

// New makes the service.
func New(st Store) *Service { return &Service{store: st} }

// Performance reports on one instance. Since is rounded down and Until up to
// quarter hours, the resolution of the counters.
func (s *Service) Performance(ctx context.Context, tenant int64, instance uuid.UUID, q Query) (Performance, error) {
	if err := q.check(); err != nil {
		return Performance{}, err
	}
	in, err := s.store.Instance(ctx, tenant, instance)
	if err != nil {
		return Performance{}, fmt.Errorf("read instance: %w", err)
	}
	tpl, err := s.store.Template(ctx, tenant, in.TemplateID)
	if err != nil && !fault.Is(err, fault.NotFound) { // deleted: the steps that had events are left
		return Performance{}, fmt.Errorf("read template: %w", err)
	}
	since, until := q.span()
	n, err := s.store.Numbers(ctx, tenant, instance, since, until)
	if err != nil {
		return Performance{}, fmt.Errorf("read numbers: %w", err)
	}
	return Build(in, tpl.Steps, n, q)
}

// Balance is the conservation check over all tenants.
func (s *Service) Balance(ctx context.Context) (store.Balance, error) {
	b, err := s.store.Balance(ctx)
	if err != nil {
		return store.Balance{}, fmt.Errorf("read balance: %w", err)
	}
	return b, nil
}

// check names what is wrong with a query.
func (q Query) check() error {
	var wrong []fault.Field
	switch q.Bucket {
	case "", bucketHour, bucketDay, bucketWeek, bucketMonth:
	default:
		wrong = append(wrong, fault.Field{Location: "query.bucket", Message: "is not one of: hour, day, week, month", Value: shown(q.Bucket)})
	}
	switch q.GroupBy {
	case "", groupStep, groupVariant, groupProvider:
	default:
		wrong = append(wrong, fault.Field{Location: "query.group_by", Message: "is not one of: step, variant, provider", Value: shown(q.GroupBy)})
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
		wrong = append(wrong, fault.Field{Location: "query.since", Message: "must lie before until"})
	}
	if len(wrong) > 0 {
		return fault.BadInput(wrong...)
	}
	return nil
}

func shown(s string) any {
	if len(s) > 100 {
		return nil
	}
	return s
}

// span is the time asked for in whole quarter hours.
func (q Query) span() (since, until time.Time) {
	if !q.Since.IsZero() {
		since = q.Since.UTC().Truncate(store.BucketSize)
	}
	if !q.Until.IsZero() {
		if until = q.Until.UTC().Truncate(store.BucketSize); until.Before(q.Until) {
			until = until.Add(store.BucketSize)
		}
	}
	return since, until
}

func (q Query) location() *time.Location {
	if q.Location == nil {
		return time.UTC
	}
	return q.Location
}
