package orphan_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyhook/internal/orphan"
	"tallyhook/internal/store"
	"tallyhook/internal/telemetry"
)

// idle is a queue in which nothing is to be done, and that counts who looks.
type idle struct {
	orphan.Queue
	claims, adoptions atomic.Int64
}

func (q *idle) Claim(context.Context, int, time.Duration, time.Duration) (store.Claim, error) {
	q.claims.Add(1)
	return store.Claim{}, nil
}

func (q *idle) NextDue(context.Context) (time.Time, bool, error) { return time.Time{}, false, nil }

func (q *idle) AdoptNext(context.Context, int) (bool, error) {
	q.adoptions.Add(1)
	return false, nil
}

// TestWake has a worker look when it is told to, and not when its sleep ends:
// the time of this test moves only while everybody sleeps.
func TestWake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := &idle{}
		var told atomic.Int64
		w := orphan.Start(q, orphan.Options{
			Batch: 50, Lease: time.Minute, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
			Metrics: telemetry.NewMetrics(prometheus.NewRegistry(), "test"), Due: func() { told.Add(1) },
		})
		defer w.Stop()
		looks := func(why string, claims, adoptions int64, fn func()) {
			t.Helper()
			synctest.Wait()
			c, a := q.claims.Load(), q.adoptions.Load()
			fn()
			synctest.Wait()
			if got := q.claims.Load() - c; got != claims {
				t.Errorf("%s: %d claims, want %d", why, got, claims)
			}
			if got := q.adoptions.Load() - a; got != adoptions {
				t.Errorf("%s: %d looks for adoptions, want %d", why, got, adoptions)
			}
		}
		for range 3 {
			looks("another replica has work", 1, 1, w.Wake)
		}
		park := func(delays ...time.Duration) func() {
			return func() {
				parked := make([]store.Parked, len(delays))
				for i, d := range delays {
					parked[i] = store.Parked{Seq: int64(i) + 1, Delay: d}
				}
				w.Park(parked)
			}
		}
		looks("parked until the next look and longer", 0, 0, park(time.Second, time.Hour))
		if told.Load() != 0 {
			t.Error("the others are told of what they see in time")
		}
		looks("parked until before the next look", 1, 0, park(time.Hour, 300*time.Millisecond))
		if told.Load() != 1 {
			t.Errorf("the others are told %d times, want once", told.Load())
		}
		looks("no sleep is over", 0, 0, func() {})
	})
}
