package orphan_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/orphan/queuetest"
	"tallyhook/internal/store"
	"tallyhook/internal/store/postgres"
	"tallyhook/internal/store/storetest"
	"tallyhook/internal/testenv"
)

// storeBed puts a store's own schedule under the suite of queues. An event is
// done when its last attempt buries it.
type storeBed struct {
	*storetest.World
	t       testing.TB
	tenants []int64
	last    []event.Event
	seq     int64 // the last number parked
	delay   atomic.Int64
	limit   atomic.Int64
}

// statements is what a store tells of its own cost.
type statements interface{ Statements() int64 }

func newStoreBed(t testing.TB, open storetest.Opener) *storeBed {
	t.Helper()
	b := &storeBed{t: t}
	b.limit.Store(100)
	b.World = storetest.New(t, open, func(o *storetest.Options) {
		o.Delay = func(n int) (time.Duration, bool) { return time.Duration(b.delay.Load()), int64(n) < b.limit.Load() }
	})
	b.tenants = []int64{b.Tenant}
	return b
}

func (b *storeBed) Tenants(n int) []int64 {
	for len(b.tenants) < n {
		tenant, err := b.CreateTenant(b.Ctx(), fmt.Sprintf("another %d", len(b.tenants)))
		b.must(err)
		b.tenants = append(b.tenants, tenant.ID)
	}
	return b.tenants[:n]
}

func (b *storeBed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *storeBed) Park(tenant int64, route event.Route, delay time.Duration, n int) []int64 {
	b.delay.Store(int64(delay))
	typ := map[event.Route]event.Type{
		event.RouteUrgent: event.Replied, event.RouteStandard: event.Delivered, event.RouteBulk: event.Opened,
	}[route]
	b.last = b.last[:0]
	for range n {
		b.last = append(b.last, b.Event(typ, storetest.Lead("nobody"), storetest.For(tenant)))
	}
	b.ParkAgain()
	var seqs []int64
	for {
		page, err := b.Orphans(b.Ctx(), b.seq, 10_000)
		b.must(err)
		if len(page) == 0 {
			return seqs
		}
		for _, p := range page {
			seqs = append(seqs, p.Seq)
			b.seq = p.Seq
		}
	}
}

func (b *storeBed) ParkAgain() {
	for i := 0; i < len(b.last); i += 1000 {
		b.Put(b.last[i:min(i+1000, len(b.last))]...)
	}
}

func (b *storeBed) Claim(n int, lease time.Duration) store.Claim {
	c, err := b.World.Claim(b.Ctx(), n, lease, 0)
	b.must(err)
	return c
}

func (b *storeBed) Finish(c store.Claim) {
	b.limit.Store(1)
	defer b.limit.Store(100)
	_, err := b.Retry(b.Ctx(), c)
	b.must(err)
}

func (b *storeBed) Again(c store.Claim, delay time.Duration) {
	b.delay.Store(int64(delay))
	_, err := b.Retry(b.Ctx(), c)
	b.must(err)
}

func (b *storeBed) Release(c store.Claim) { b.must(b.World.Release(b.Ctx(), c)) }

func (b *storeBed) Stats() map[event.Route]store.RouteStats {
	all, err := b.QueueStats(b.Ctx())
	b.must(err)
	return all
}

func (b *storeBed) Advance(d time.Duration) { b.Clock.Advance(d) }

func (b *storeBed) Cost() int64 {
	s, ok := b.Store.(statements)
	if !ok {
		b.t.Fatal("the store does not count its statements")
	}
	return s.Statements()
}

func TestStoreQueue(t *testing.T) {
	t.Parallel()
	queuetest.Run(t, 20_000, func(t testing.TB) queuetest.Bed { return newStoreBed(t, open) })
}

// server is the PostgreSQL that the tests share.
var server = testenv.NewPostgres(testenv.PostgresOptions{})

// tallied is a store on PostgreSQL that counts its statements.
type tallied struct {
	*postgres.Store
	tracer *testenv.Statements
}

func (c tallied) Statements() int64 { return c.tracer.Count() }

func openPostgres(t testing.TB, o storetest.Options) storetest.Store {
	t.Helper()
	c := &testenv.Statements{}
	s, err := postgres.Open(context.WithoutCancel(t.Context()), postgres.Options{
		URL: server.Database(t, o.Path), TxTimeout: o.TxTimeout, Now: o.Now, Delay: o.Delay, Adopted: o.Adopted, Parked: o.Parked, Gone: o.Gone, Tracer: c,
	})
	if err != nil {
		t.Fatal(err)
	}
	return tallied{s, c}
}

func TestPostgresQueue(t *testing.T) {
	t.Parallel()
	queuetest.Run(t, 20_000, func(t testing.TB) queuetest.Bed { return newStoreBed(t, openPostgres) })
}
