// Package storetest is the suite that every SQL store must pass, and the small
// world its scenarios live in: a clock that is moved by hand, a campaign, and
// people in it. It is for tests only.
//
// Guarantees: every scenario has a database of its own and ends with a balance
// of zero; nothing here knows which store it runs on.
package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

// Store is everything that the use-cases and the edge need of a store.
type Store interface {
	Events
	Queue
	Letters
	Campaigns
	Access
	Reports
	Erasures
	Retire(ctx context.Context, r store.Retention, n int) (store.Retired, error)

	Ping(ctx context.Context) error
	Close() error
}

// Events take new events in and find stored ones.
type Events interface {
	Commit(ctx context.Context, events []event.Event) ([]store.Result, error)
	CommitDead(ctx context.Context, events []event.Event, reason, detail string) ([]store.Result, error)
	CommitBody(ctx context.Context, l store.Letter) (store.Result, error)
	Event(ctx context.Context, tenant int64, id uuid.UUID) (store.Record, error)
	Events(ctx context.Context, tenant int64, f store.EventFilter, p store.Page) ([]store.Record, int64, error)
	Timeline(ctx context.Context, tenant int64, id uuid.UUID) ([]store.Moment, error)
	Assign(ctx context.Context, tenant int64, eventID, enrollment uuid.UUID, actor string) (store.Result, error)
	IndexNext(ctx context.Context, n int) (more bool, err error)
	ForgetDuplicates(ctx context.Context, before time.Time, n int) (more bool, err error)
	ForgetNonces(ctx context.Context, before time.Time, n int) (more bool, err error)
}

// Queue is the retry schedule and the processor behind it.
type Queue interface {
	Claim(ctx context.Context, n int, lease, overdue time.Duration) (store.Claim, error)
	Retry(ctx context.Context, claim store.Claim) ([]store.Result, error)
	Failed(ctx context.Context, claim store.Claim, detail string) ([]store.Result, error)
	Release(ctx context.Context, claim store.Claim) error
	Orphans(ctx context.Context, after int64, n int) ([]store.Parked, error)
	NextDue(ctx context.Context) (due time.Time, ok bool, err error)
	AdoptNext(ctx context.Context, n int) (more bool, err error)
	QueueStats(ctx context.Context) (map[event.Route]store.RouteStats, error)
	QueueDepth(ctx context.Context) (depth int64, oldest time.Time, err error)
}

// Letters are dead letters and their replays.
type Letters interface {
	Letters(ctx context.Context, tenant int64, f store.LetterFilter, p store.Page) ([]store.Letter, int64, error)
	Letter(ctx context.Context, tenant int64, id uuid.UUID) (store.Letter, error)
	LetterStats(ctx context.Context, tenant int64) (store.LetterStats, error)
	LetterCounts(ctx context.Context) (map[store.LetterStatus]int64, error)
	SetLetter(ctx context.Context, tenant int64, id uuid.UUID, from, to store.LetterStatus, actor string) error
	ReplayLetters(ctx context.Context, tenant int64, ids []uuid.UUID) (map[uuid.UUID]store.Result, error)
	SettleBody(ctx context.Context, tenant int64, id uuid.UUID, status store.LetterStatus, reason, detail string) error
	StartReplay(ctx context.Context, tenant int64, ids []uuid.UUID, f store.LetterFilter, dryRun bool, actor string) (store.Replay, error)
	ReplayProgress(ctx context.Context, tenant int64, id uuid.UUID) (store.Replay, error)
	CancelReplay(ctx context.Context, tenant int64, id uuid.UUID, actor string) (store.Replay, error)
	NextReplay(ctx context.Context, n int) (store.ReplayBatch, bool, error)
	FinishReplayBatch(ctx context.Context, b store.ReplayBatch, outcomes map[uuid.UUID]store.Result) error
}

// Campaigns are templates, instances, enrollments and suppressed addresses.
type Campaigns interface {
	CreateTemplate(ctx context.Context, t campaign.Template, idem store.Idempotency) (campaign.Template, error)
	Template(ctx context.Context, tenant int64, id uuid.UUID) (campaign.Template, error)
	Templates(ctx context.Context, tenant int64, p store.Page) ([]campaign.Template, int64, error)
	ReplaceTemplate(ctx context.Context, t campaign.Template) (campaign.Template, error)
	DeleteTemplate(ctx context.Context, tenant int64, id uuid.UUID, actor string) error

	CreateInstance(ctx context.Context, i campaign.Instance, idem store.Idempotency) (campaign.Instance, error)
	Instance(ctx context.Context, tenant int64, id uuid.UUID) (campaign.Instance, error)
	Instances(ctx context.Context, tenant int64, f store.InstanceFilter, p store.Page) ([]campaign.Instance, int64, error)
	PatchInstance(ctx context.Context, tenant int64, id uuid.UUID, patch store.InstancePatch) (campaign.Instance, store.Enrolled, error)

	Enroll(ctx context.Context, tenant int64, instance uuid.UUID, in []campaign.Enrollment, merge bool, idem store.Idempotency) ([]store.Enrolled, error)
	Enrollment(ctx context.Context, tenant int64, id uuid.UUID) (campaign.Enrollment, error)
	Enrollments(ctx context.Context, tenant int64, instance uuid.UUID, f store.EnrollmentFilter, p store.Page) ([]campaign.Enrollment, int64, error)
	PatchEnrollment(ctx context.Context, tenant int64, id uuid.UUID, patch store.EnrollmentPatch) (campaign.Enrollment, store.Enrolled, error)
	AddRefs(ctx context.Context, tenant int64, id uuid.UUID, refs []event.Ref) (store.Enrolled, error)

	Suppressions(ctx context.Context, tenant int64, since time.Time, p store.Page) ([]campaign.Suppression, int64, error)
	Suppression(ctx context.Context, tenant int64, email string) (campaign.Suppression, error)
	PutSuppression(ctx context.Context, tenant int64, email, actor string) (campaign.Suppression, error)
	DeleteSuppression(ctx context.Context, tenant int64, email, actor string) error
}

// Access are tenants, keys, sources, settings and the audit log.
type Access interface {
	CreateTenant(ctx context.Context, n store.Tenant, first store.Key, traces ...store.Trace) (store.Tenant, error)
	Tenant(ctx context.Context, id int64) (store.Tenant, error)
	TenantByUID(ctx context.Context, uid uuid.UUID) (store.Tenant, error)
	Tenants(ctx context.Context, p store.Page) ([]store.Tenant, int64, error)
	UpdateTenant(ctx context.Context, n store.Tenant, traces ...store.Trace) error
	SuspendTenant(ctx context.Context, uid uuid.UUID, at time.Time, traces ...store.Trace) error

	CreateKey(ctx context.Context, k store.Key, traces ...store.Trace) error
	KeyByID(ctx context.Context, tenant int64, id uuid.UUID) (store.Key, error)
	RotateKey(ctx context.Context, old uuid.UUID, k store.Key, until time.Time, traces ...store.Trace) error
	NextKeyExpiry(ctx context.Context) (time.Time, error)
	KeyByHash(ctx context.Context, hash [32]byte) (store.Key, error)
	Keys(ctx context.Context, tenant int64, p store.Page) ([]store.Key, int64, error)
	AllKeys(ctx context.Context, after int64, n int) ([]store.Key, int64, error)
	RevokeKey(ctx context.Context, tenant int64, id uuid.UUID, at time.Time, traces ...store.Trace) error
	CountKeys(ctx context.Context) (int64, error)
	TouchKeys(ctx context.Context, used map[uuid.UUID]time.Time) error

	CreateSource(ctx context.Context, s store.Source, traces ...store.Trace) error
	SourceByToken(ctx context.Context, hash [32]byte) (store.Source, error)
	SourceByID(ctx context.Context, id uuid.UUID) (store.Source, error)
	Source(ctx context.Context, tenant int64, id uuid.UUID) (store.Source, error)
	Sources(ctx context.Context, tenant int64, p store.Page) ([]store.Source, int64, error)
	AllSources(ctx context.Context, after int64, n int) ([]store.Source, int64, error)
	FormerTokens(ctx context.Context, after int64, n int) ([]store.FormerToken, int64, error)
	UpdateSource(ctx context.Context, was, s store.Source, ends time.Time, traces ...store.Trace) error
	DeleteSource(ctx context.Context, tenant int64, id uuid.UUID, at time.Time, traces ...store.Trace) error

	Setting(ctx context.Context, name string) ([]byte, error)
	PutSetting(ctx context.Context, name string, value []byte) error
	Audit(ctx context.Context, a store.Audit) error
	AuditLog(ctx context.Context, tenant int64, f store.AuditFilter, p store.Page) ([]store.Audit, int64, error)
	Recall(ctx context.Context, tenant int64, idem store.Idempotency) (resource uuid.UUID, sealed []byte, err error)
	ForgetAnswers(ctx context.Context, before time.Time) error
}

// Erasures take a contact out.
type Erasures interface {
	Unlock(t store.Tombstones)
	StartErasure(ctx context.Context, tenant int64, c store.Contact, actor string) (store.Erasure, error)
	NextErasure(ctx context.Context, n int) (more bool, err error)
	Erasure(ctx context.Context, tenant int64, id uuid.UUID) (store.Erasure, error)
}

// Reports are the numbers.
type Reports interface {
	Numbers(ctx context.Context, tenant int64, instance uuid.UUID, since, until time.Time) (store.Numbers, error)
	Ledgers(ctx context.Context) ([]store.Ledger, error)
	Balance(ctx context.Context) (store.Balance, error)
}

// Options are what a store is opened with.
type Options struct {
	Path      string // a file that opening again finds as it was left
	TxTimeout time.Duration
	Now       func() time.Time
	Delay     func(n int) (time.Duration, bool)
	Adopted   func([]store.Result)
	Parked    func([]store.Parked)
	Gone      func([]store.Claimed)
	// Generation is how many events a store that indexes behind gathers before
	// it does; 0 takes its default.
	Generation int
	Horizon    time.Duration
}

// Opener opens a store; it fails the test when it cannot.
type Opener func(t testing.TB, o Options) Store

// group is a part of the suite: its scenarios by name.
type group struct {
	name      string
	scenarios map[string]func(*World)
}

// Run puts a store through every scenario.
func Run(t *testing.T, open Opener) {
	t.Helper()
	for _, g := range []group{
		matching(), identities(), nonces(), life(), retries(), beside(), adoptions(), eventsEnroll(), deadLetters(), suppressions(),
		enrollments(), campaigns(), numbers(), assignments(), searches(), accesses(), admissions(), tenants(), durability(),
		erasures(), retentions(),
	} {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			for name, scenario := range g.scenarios {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					scenario(New(t, open))
				})
			}
		})
	}
}
