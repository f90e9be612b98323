package storetest

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// Clock stands still but for a microsecond at each look, so that no two
// moments are the same; it is moved by hand.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock starts a clock on an afternoon in November 2026.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC)} }

// Now is the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Microsecond)
	return c.now
}

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Attempts is the length of the schedule that a World starts with: an attempt
// is due after 1, 2 and 4 seconds.
const Attempts = 3

func schedule(n int) (time.Duration, bool) {
	if n < 0 || n >= Attempts {
		return 0, false
	}
	return time.Second << n, true
}

// World is a store with an active campaign instance of the default tenant, and
// what a scenario does with it. Methods fail the test where the store fails.
type World struct {
	Store
	T        testing.TB
	Clock    *Clock
	Tenant   int64
	Template uuid.UUID
	Instance uuid.UUID

	open Opener
	opt  Options
	mu   sync.Mutex
	made int
}

// CreateTenant makes a tenant that has a name and nothing else.
func (w *World) CreateTenant(ctx context.Context, name string) (store.Tenant, error) {
	return w.Store.CreateTenant(ctx, store.Tenant{Name: name}, store.Key{})
}

// New opens a store in a folder of its own. When the test ends, the balance
// must be zero.
func New(t testing.TB, open Opener, change ...func(*Options)) *World {
	t.Helper()
	w := &World{T: t, Clock: NewClock(), Tenant: store.DefaultTenant, open: open}
	w.opt = Options{
		Path: filepath.Join(t.TempDir(), "tallyhook.db"), TxTimeout: 30 * time.Second, Now: w.Clock.Now, Delay: schedule,
	}
	for _, c := range change {
		c(&w.opt)
	}
	w.Store = w.opened()
	t.Cleanup(func() {
		if !t.Failed() {
			w.Balanced()
		}
		if err := w.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	w.Template, w.Instance = w.Campaign(w.Tenant, nil)
	return w
}

// Ctx is a context that outlives the test's own, so that cleanups can use it.
func (w *World) Ctx() context.Context { return context.WithoutCancel(w.T.Context()) }

// Path is the file of the store.
func (w *World) Path() string { return w.opt.Path }

// Reopen closes the store and opens it again, as after a restart.
func (w *World) Reopen(change ...func(*Options)) {
	w.T.Helper()
	w.must(w.Close())
	for _, c := range change {
		c(&w.opt)
	}
	w.Store = w.opened()
}

func (w *World) opened() Store {
	w.T.Helper()
	s := w.open(w.T, w.opt)
	s.Unlock(store.NewTombstones([32]byte{1}))
	return s
}

func (w *World) must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatalf("%v", err)
	}
}

// eventually asks until done says so, a minute at most: for what other writers
// of the same server may hold up.
func (w *World) eventually(what string, done func() bool) {
	w.T.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline.C:
			w.T.Fatalf("not within a minute: %s", what)
		case <-tick.C:
		}
	}
}

// Same compares what is with what should be.
func Same[V any](t testing.TB, what string, got, want V) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// Kind checks the kind of an error.
func Kind(t testing.TB, err error, want fault.Kind) {
	t.Helper()
	if !fault.Is(err, want) {
		t.Errorf("got error %v, want one of kind %v", err, want)
	}
}

// Campaign makes a template and an active instance of it.
func (w *World) Campaign(tenant int64, providerCampaigns map[string]string) (template, instance uuid.UUID) {
	w.T.Helper()
	tpl, err := w.CreateTemplate(w.Ctx(), campaign.Template{
		Tenant: tenant, Name: "Autumn", Type: "email", PathType: "structured",
		Steps: []campaign.Step{{Number: 1, Channel: "email", Subject: "Hello"}},
	}, store.Idempotency{})
	w.must(err)
	ins, err := w.CreateInstance(w.Ctx(), campaign.Instance{
		Tenant: tenant, TemplateID: tpl.ID, Name: "Autumn 2026", Status: campaign.Active, ProviderCampaigns: providerCampaigns,
	}, store.Idempotency{})
	w.must(err)
	return tpl.ID, ins.ID
}

// Option changes an event on its way into a World.
type Option func(*event.Event)

// Address gives an event its recipient.
func Address(a string) Option { return func(e *event.Event) { e.Email = a } }

// Message gives an event its provider message id.
func Message(id string) Option { return func(e *event.Event) { e.ProviderMessageID = id } }

// Action gives an event its provider action id.
func Action(id string) Option { return func(e *event.Event) { e.ActionID = id } }

// Lead gives an event its provider lead id.
func Lead(id string) Option { return func(e *event.Event) { e.LeadID = id } }

// InCampaign gives an event its provider campaign.
func InCampaign(c string) Option { return func(e *event.Event) { e.Campaign = c } }

// Of gives an event our own enrollment id.
func Of(id uuid.UUID) Option { return func(e *event.Event) { e.EnrollmentID = id.String() } }

// ID gives an event the provider's id.
func ID(id string) Option { return func(e *event.Event) { e.ProviderEventID = id } }

// From gives an event its provider.
func From(p string) Option { return func(e *event.Event) { e.Provider, e.Scope = p, "api:"+p } }

// At gives an event its time.
func At(t time.Time) Option {
	return func(e *event.Event) { e.OccurredAt, e.OccurredAtEstimated = t.UTC(), t.IsZero() }
}

// For gives an event its tenant.
func For(tenant int64) Option { return func(e *event.Event) { e.Tenant = tenant } }

// HardBounce makes a bounce a hard one.
func HardBounce(e *event.Event) { e.Bounce = event.Hard }

// Event makes an event that was received now; it is a new one unless ID says otherwise.
func (w *World) Event(typ event.Type, opts ...Option) event.Event {
	w.mu.Lock()
	w.made++
	n := w.made
	w.mu.Unlock()
	now := w.Clock.Now()
	e := event.Event{
		ID: uuid.Must(uuid.NewV7()), Tenant: w.Tenant, Scope: "api:lemlist", Provider: "lemlist", Type: typ,
		Channel: event.DefaultChannel(typ), ProviderEventID: fmt.Sprintf("evt_%d", n), OccurredAt: now, ReceivedAt: now,
		Payload: fmt.Appendf(nil, `{"n":%d}`, n),
	}
	if typ == event.Bounced {
		e.Bounce = event.Soft
	}
	for _, o := range opts {
		o(&e)
	}
	return e
}

// Put commits events as one batch.
func (w *World) Put(events ...event.Event) []store.Result {
	w.T.Helper()
	res, err := w.Commit(w.Ctx(), events)
	w.must(err)
	if len(res) != len(events) {
		w.T.Fatalf("%d events got %d results", len(events), len(res))
	}
	return res
}

// Send commits one new event and gives its result.
func (w *World) Send(typ event.Type, opts ...Option) store.Result {
	w.T.Helper()
	return w.Put(w.Event(typ, opts...))[0]
}

// Flood commits n new events of one kind, in batches, and gives their ids.
func (w *World) Flood(n int, opts ...Option) []uuid.UUID {
	w.T.Helper()
	ids := make([]uuid.UUID, 0, n)
	for n > 0 {
		batch := make([]event.Event, min(n, 1000))
		for i := range batch {
			batch[i] = w.Event(event.Delivered, opts...)
		}
		for _, r := range w.Put(batch...) {
			ids = append(ids, r.ID)
		}
		n -= len(batch)
	}
	return ids
}

// Join enrolls one contact in an instance of the World's tenant.
func (w *World) Join(instance uuid.UUID, e campaign.Enrollment) store.Enrolled {
	w.T.Helper()
	return w.JoinAs(w.Tenant, instance, e)
}

// JoinAs enrolls one contact in an instance of any tenant.
func (w *World) JoinAs(tenant int64, instance uuid.UUID, e campaign.Enrollment) store.Enrolled {
	w.T.Helper()
	res, err := w.Enroll(w.Ctx(), tenant, instance, []campaign.Enrollment{e}, false, store.Idempotency{})
	w.must(err)
	if res[0].Conflict {
		w.T.Fatalf("%s is enrolled already", e.Email)
	}
	return res[0]
}

// Person enrolls an address in the World's instance.
func (w *World) Person(email string, refs ...event.Ref) uuid.UUID {
	w.T.Helper()
	return w.Join(w.Instance, campaign.Enrollment{Email: email, Refs: refs}).ID
}

// Record reads an event.
func (w *World) Record(id uuid.UUID) store.Record {
	w.T.Helper()
	r, err := w.Event1(w.Tenant, id)
	w.must(err)
	return r
}

// Event1 reads an event of any tenant.
func (w *World) Event1(tenant int64, id uuid.UUID) (store.Record, error) {
	return w.Store.Event(w.Ctx(), tenant, id)
}

// Status reads an enrollment's status.
func (w *World) Status(id uuid.UUID) campaign.Status {
	w.T.Helper()
	e, err := w.Enrollment(w.Ctx(), w.Tenant, id)
	w.must(err)
	return e.Status
}

// IsApplied checks that an event belongs to an enrollment.
func (w *World) IsApplied(id, enrollment uuid.UUID) {
	w.T.Helper()
	r := w.Record(id)
	Same(w.T, "state", r.State, event.Applied)
	Same(w.T, "enrollment", r.Enrollment, enrollment)
	Same(w.T, "waits for", r.NextAttemptAt, time.Time{})
}

// Waits checks that an event waits, and why.
func (w *World) Waits(id uuid.UUID, reason string) {
	w.T.Helper()
	r := w.Record(id)
	Same(w.T, "state", r.State, event.Orphaned)
	Same(w.T, "reason", r.Reason, reason)
	if r.NextAttemptAt.IsZero() || r.Detail == "" {
		w.T.Errorf("an orphan must say why and until when it waits, got %q and %v", r.Detail, r.NextAttemptAt)
	}
}

// Due claims everything that is due and retries it.
func (w *World) Due() []store.Result {
	w.T.Helper()
	var all []store.Result
	for {
		claim, err := w.Claim(w.Ctx(), 50, time.Minute, 0)
		w.must(err)
		if len(claim.Events) == 0 {
			return all
		}
		res, err := w.Retry(w.Ctx(), claim)
		w.must(err)
		if len(res) == 0 {
			w.T.Fatalf("%d orphans were claimed and none was retried", len(claim.Events))
		}
		all = append(all, res...)
	}
}

// Spend lets the whole schedule pass: what still waits is dead afterwards.
func (w *World) Spend() {
	w.T.Helper()
	for range Attempts {
		w.Clock.Advance(time.Minute)
		w.Due()
	}
}

// Drain ends every adoption that was too large for one transaction.
func (w *World) Drain() (turns int) {
	w.T.Helper()
	for {
		more, err := w.AdoptNext(w.Ctx(), 500)
		w.must(err)
		turns++
		if !more {
			return turns
		}
	}
}

// Index brings the search index up to date.
func (w *World) Index() {
	w.T.Helper()
	for {
		more, err := w.IndexNext(w.Ctx(), 100)
		w.must(err)
		if !more {
			return
		}
	}
}

// LetterOf finds the dead letter of an event.
func (w *World) LetterOf(id uuid.UUID) store.Letter {
	w.T.Helper()
	rows, _, err := w.Letters(w.Ctx(), w.Tenant, store.LetterFilter{}, store.Page{Limit: 1000})
	w.must(err)
	for _, l := range rows {
		if l.Event != nil && l.Event.ID == id {
			return l
		}
	}
	w.T.Fatalf("event %s has no dead letter", id)
	return store.Letter{}
}

// Moments names what an event's timeline tells, in its order.
func (w *World) Moments(id uuid.UUID) []string {
	w.T.Helper()
	all, err := w.Timeline(w.Ctx(), w.Tenant, id)
	w.must(err)
	names := make([]string, len(all))
	for i, m := range all {
		names[i] = m.What
		if m.At.IsZero() || m.Detail == "" || (i > 0 && m.At.Before(all[i-1].At)) {
			w.T.Errorf("entry %d of the timeline is out of order or says nothing: %+v", i, m)
		}
	}
	return names
}

// Account reads a tenant's ledger.
func (w *World) Account(tenant int64) store.Ledger {
	w.T.Helper()
	all, err := w.Ledgers(w.Ctx())
	w.must(err)
	for _, l := range all {
		if l.Tenant == tenant {
			return l
		}
	}
	w.T.Fatalf("tenant %d has no account", tenant)
	return store.Ledger{}
}

// Totals are the events by type in an instance's counters.
func (w *World) Totals(instance uuid.UUID) map[event.Type]int64 {
	w.T.Helper()
	n, err := w.Numbers(w.Ctx(), w.Tenant, instance, time.Time{}, time.Time{})
	w.must(err)
	sum := map[event.Type]int64{}
	for _, t := range n.Tallies {
		sum[t.Type] += t.Count
	}
	return sum
}

// Balanced checks the conservation of everything: ledgers, counters and facts
// against a recount, and no orphan or dead letter without its place.
func (w *World) Balanced() {
	w.T.Helper()
	b, err := w.Balance(w.Ctx())
	w.must(err)
	Same(w.T, "balance difference", b.Difference, 0)
	Same(w.T, "counters that differ from a recount", b.Counters, nil)
	for _, t := range b.Tenants {
		Same(w.T, "ledger against recount", t.Ledger, t.Recount)
		Same(w.T, "ledger difference", t.Ledger.Difference(), 0)
	}
}
