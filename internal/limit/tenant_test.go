package limit_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"tallyhook/internal/fault"
	"tallyhook/internal/limit"
)

// TestWhole: what a tenant may do together is apart for requests and webhooks,
// and for each tenant.
func TestWhole(t *testing.T) {
	t.Parallel()
	c := newClock()
	var refused []limit.Kind
	b := limit.NewBudgets(limit.Rates{}, c.now)
	b.Refused = func(k limit.Kind) { refused = append(refused, k) }
	take := func(kind limit.Kind, tenant int64, perSecond int, want bool) {
		t.Helper()
		if err := b.Whole(kind, tenant, perSecond); (err == nil) != want || err != nil && !fault.Is(err, fault.Throttled) {
			t.Errorf("%s of tenant %d: got %v", kind, tenant, err)
		}
	}
	for range 5 {
		take(limit.API, 2, 0, true)
	}
	take(limit.API, 2, 2, true)
	take(limit.API, 2, 2, true)
	take(limit.API, 2, 2, false)
	take(limit.Webhook, 2, 1, true)
	take(limit.API, 3, 1, true)
	if err := b.Shared(2, 1); !fault.Is(err, fault.Throttled) {
		t.Errorf("a webhook more: got %v", err)
	}
	take(limit.API, 2, 3, true) // the limit was raised: a new budget
	if len(refused) != 2 || refused[0] != limit.Tenant || refused[1] != limit.Tenant {
		t.Errorf("counted %v", refused)
	}
}

// TestWholeAtOnce lets never more than the rate through.
func TestWholeAtOnce(t *testing.T) {
	t.Parallel()
	b := limit.NewBudgets(limit.Rates{}, newClock().now)
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if b.Whole(limit.API, 2, 50) == nil {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got := passed.Load(); got != 50 {
		t.Errorf("%d passed, want 50", got)
	}
}
