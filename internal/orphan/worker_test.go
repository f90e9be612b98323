package orphan_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/orphan"
	"tallyhook/internal/store"
	"tallyhook/internal/store/sqlite"
	"tallyhook/internal/store/storetest"
	"tallyhook/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(server.Around(m)) }

func open(t testing.TB, o storetest.Options) storetest.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: o.Path, TxTimeout: o.TxTimeout, Now: o.Now, Delay: o.Delay, Adopted: o.Adopted, Parked: o.Parked, Gone: o.Gone})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func start(t *testing.T, w *storetest.World, q orphan.Queue) *telemetry.Metrics {
	t.Helper()
	m := telemetry.NewMetrics(prometheus.NewRegistry(), "test")
	k := orphan.Start(q, orphan.Options{Batch: 50, Lease: time.Minute, Now: w.Clock.Now, Logger: slog.New(slog.DiscardHandler), Metrics: m})
	t.Cleanup(k.Stop)
	return m
}

// until polls in real time for what a worker brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s does not come about", what)
		}
	}
}

// TestWorkerTellsTheWholeStory: too early, the schedule runs out, the dead
// letter is adopted when the enrollment comes after all.
func TestWorkerTellsTheWholeStory(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	ids := w.Flood(70, storetest.Address("ada@example.com"))
	m := start(t, w, w)
	for n := 1; n <= storetest.Attempts; n++ {
		w.Clock.Advance(time.Minute)
		until(t, "the attempt of each", func() bool {
			for _, id := range ids {
				if w.Record(id).Attempts != n {
					return false
				}
			}
			return true
		})
	}
	until(t, "the burial", func() bool { return w.Account(w.Tenant).Dead == int64(len(ids)) })
	storetest.Same(t, "dead letters", testutil.ToFloat64(m.DeadLetters.WithLabelValues(store.ReasonNoEnrollment)), 70)
	storetest.Same(t, "attempts", testutil.ToFloat64(m.RetryAttempts.WithLabelValues("orphaned")), 140)
	storetest.Same(t, "last attempts", testutil.ToFloat64(m.RetryAttempts.WithLabelValues("dead")), 70)
	d := w.Join(w.Instance, campaign.Enrollment{Email: "ada@example.com"})
	storetest.Same(t, "adopted", d.Adopted, 70)
}

func TestWorkerContinuesLargeAdoptions(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	const n = 1600
	w.Flood(n, storetest.Address("ada@example.com"))
	w.Person("ada@example.com")
	start(t, w, w)
	until(t, "the rest adopted", func() bool { return w.Account(w.Tenant).Applied == n })
}

func TestWorkerAppliesWhatIsFoundNow(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	_, mapped := w.Campaign(w.Tenant, map[string]string{"lemlist": "cam"})
	ada := w.Person("ada@example.com")
	res := w.Send(event.Replied, storetest.InCampaign("cam"), storetest.Address("ada@example.com"))
	if _, _, err := w.PatchInstance(t.Context(), w.Tenant, mapped, store.InstancePatch{ProviderCampaigns: map[string]string{}}); err != nil {
		t.Fatal(err)
	}
	w.Clock.Advance(5 * time.Second)
	m := start(t, w, w)
	until(t, "the retry", func() bool { return w.Record(res.ID).State == event.Applied })
	w.IsApplied(res.ID, ada)
	until(t, "the metric", func() bool { return testutil.ToFloat64(m.OrphansResolved.WithLabelValues("retry")) == 1 })
}

// broken is a real queue behind a store that is away for a while, or that
// refuses some orphans for their data.
type broken struct {
	*storetest.World
	down    atomic.Bool // Retry fails
	gone    atomic.Bool // all fails
	refuses func(store.Claim) bool
	claims  atomic.Int64
	looks   atomic.Int64 // at the store while it is away
	failed  atomic.Int64
}

func (b *broken) away() error {
	if b.gone.Load() {
		return fault.New(fault.Unavailable, "the connection was lost")
	}
	return nil
}

func (b *broken) NextDue(ctx context.Context) (time.Time, bool, error) {
	if err := b.away(); err != nil {
		b.looks.Add(1)
		return time.Time{}, false, err
	}
	return b.World.NextDue(ctx)
}

func (b *broken) Claim(ctx context.Context, n int, lease, overdue time.Duration) (store.Claim, error) {
	if err := b.away(); err != nil {
		return store.Claim{}, err
	}
	c, err := b.World.Claim(ctx, n, lease, overdue)
	if err == nil && len(c.Events) > 0 { // a claim that a stop cut short is none
		b.claims.Add(1)
	}
	return c, err
}

func (b *broken) Retry(ctx context.Context, c store.Claim) ([]store.Result, error) {
	if b.down.Load() || b.gone.Load() {
		return nil, fault.Wrap(fault.Unavailable, "retry", errors.New("the connection was lost"))
	}
	if b.refuses != nil && b.refuses(c) {
		return nil, fault.New(fault.Data, "refused")
	}
	return b.World.Retry(ctx, c)
}

func (b *broken) Failed(ctx context.Context, c store.Claim, detail string) ([]store.Result, error) {
	b.failed.Add(1)
	return b.World.Failed(ctx, c, detail)
}

// TestInfrastructureErrorIsNoAttempt: what was claimed while the store went
// away is given back as it was, and goes on when it is there again.
func TestInfrastructureErrorIsNoAttempt(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	res := w.Send(event.Opened, storetest.Lead("nobody"))
	w.Clock.Advance(5 * time.Second)
	b := &broken{World: w}
	b.down.Store(true)
	start(t, w, b)
	until(t, "two claims", func() bool { return b.claims.Load() >= 2 }) // released, so that the lease need not run out
	storetest.Same(t, "attempts", w.Record(res.ID).Attempts, 0)
	b.down.Store(false)
	until(t, "the attempt", func() bool { return w.Record(res.ID).Attempts == 1 })
}

// TestOnlyTheRefusedOneFails: a claim is halved until the bad one is alone.
func TestOnlyTheRefusedOneFails(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	ids := w.Flood(50, storetest.Lead("nobody"))
	bad := w.Record(ids[17]).Seq
	w.Clock.Advance(5 * time.Second)
	b := &broken{World: w, refuses: func(c store.Claim) bool {
		for _, e := range c.Events {
			if e.Seq == bad {
				return true
			}
		}
		return false
	}}
	m := start(t, w, b)
	until(t, "the attempts", func() bool { return testutil.ToFloat64(m.RetryAttempts.WithLabelValues("orphaned")) == 49 })
	until(t, "the failure", func() bool { return b.failed.Load() == 1 })
	for i, id := range ids {
		want := 1
		if i == 17 {
			want = 0
		}
		storetest.Same(t, "attempts", w.Record(id).Attempts, want)
	}
}

// TestStopSettlesWhatIsClaimed: nothing stays under a lease that nobody holds.
func TestStopSettlesWhatIsClaimed(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	w.Flood(200, storetest.Lead("nobody"))
	w.Clock.Advance(5 * time.Second)
	b := &broken{World: w}
	m := telemetry.NewMetrics(prometheus.NewRegistry(), "test")
	k := orphan.Start(b, orphan.Options{Batch: 50, Lease: time.Minute, Now: w.Clock.Now, Logger: slog.New(slog.DiscardHandler), Metrics: m})
	until(t, "a claim", func() bool { return b.claims.Load() >= 1 })
	k.Stop()
	stats, err := w.QueueStats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	leased := int64(0)
	for _, s := range stats {
		leased += s.Leased
	}
	storetest.Same(t, "leased", leased, 0)
	storetest.Same(t, "attempts", testutil.ToFloat64(m.RetryAttempts.WithLabelValues("orphaned")), float64(50*b.claims.Load()))
}
