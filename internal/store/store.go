// Package store holds the types that every SQL store speaks, the matching
// rule and the sums that all of them share (so that no two stores can drift
// apart), and the conformance suite in storetest. The stores themselves are
// store/sqlite and, later, store/postgres.
//
// Guarantees a store gives: what it returned as accepted is on disk; every
// change of an event's state compares the state it had; effects on
// enrollments and counters come only from rows that really changed.
package store

import (
	"net/netip"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
)

// DefaultTenant is the tenant that exists from the first start.
const DefaultTenant int64 = 1

// Tenant owns everything else.
type Tenant struct {
	ID          int64
	UID         uuid.UUID // what it is called by outside
	Name        string
	Limits      Limits
	CreatedAt   time.Time
	SuspendedAt time.Time // zero: it is served
}

// Key is an API key; the key itself is never stored, only its SHA-256.
type Key struct {
	ID         uuid.UUID
	Tenant     int64
	Name       string
	Hash       [32]byte
	Prefix     string // the first characters, to tell keys apart in a list
	Scopes     []string
	CreatedAt  time.Time
	ExpiresAt  time.Time // zero: never
	LastUsedAt time.Time
	RevokedAt  time.Time
	AllowedIPs []netip.Prefix // where it may be used from; empty: everywhere
	ReplacedBy uuid.UUID      // the key that a rotation made in its place; uuid.Nil: none
}

// Source is one provider's webhook endpoint for one tenant.
type Source struct {
	ID             uuid.UUID
	Tenant         int64
	Provider       string
	Name           string
	TokenHash      [32]byte // SHA-256 of the URL's token
	Sealed         []byte   // secrets and settings, encrypted
	CreatedAt      time.Time
	UpdatedAt      time.Time
	DeletedAt      time.Time // sources are soft-deleted
	Received       int64     // events accepted, duplicates included
	LastReceivedAt time.Time
	TokenEndsAt    time.Time // set by SourceByToken alone: the token is a former one and works until then
}

// FormerToken is a token that a source's URL had before.
type FormerToken struct {
	Hash   [32]byte
	Source uuid.UUID
	EndsAt time.Time // it works until then
}

// FormerTokenKept is how long it is known whose a token was after it has ended.
const FormerTokenKept = 30 * 24 * time.Hour

// Result is what became of one submitted event.
type Result struct {
	ID      uuid.UUID // the event's id; a duplicate's is the first one's
	Outcome event.Outcome
	// State is where the event (for a duplicate: the first one) stands now.
	State  event.State
	Reason string // why it is orphaned or dead
	Detail string // the same for a human
	// Enrollment is what the event was tied to; uuid.Nil when it was not.
	Enrollment    uuid.UUID
	NextAttemptAt time.Time // of an orphan
	Waited        time.Duration
	By            string // who settled it: live, adoption, retry, replay, assign
	Retired       bool   // of a duplicate: the first one is counted and removed by now
	// Refused says that the event's nonce has come with another event before:
	// nothing of it was stored, and nothing else here is set.
	Refused bool
	// Seq is set by Retry and Failed: which of the claimed events this is.
	Seq int64
}

// Reasons an event is orphaned or dead.
const (
	ReasonNoEnrollment   = "no_enrollment"
	ReasonAmbiguous      = "ambiguous"
	ReasonUndecodable    = "undecodable"
	ReasonForbiddenInput = "forbidden_input"
	ReasonPoison         = "poison"
	ReasonNonceReused    = "nonce_reused" // found when it had been accepted already, into a spool
)

// Record is an event as it is stored.
type Record struct {
	event.Event
	Seq             int64 // order of receipt within this store
	State           event.State
	Reason          string
	Detail          string
	Enrollment      uuid.UUID // uuid.Nil: none
	Instance        uuid.UUID
	Duplicates      int64
	LastDuplicateAt time.Time
	ParkedAt        time.Time // zero: was never an orphan
	SettledAt       time.Time
	SettledBy       string
	Attempts        int
	NextAttemptAt   time.Time
}

// Moment is one entry of an event's timeline.
type Moment struct {
	At     time.Time
	What   string // received, parked, attempt, enrolled, applied, adopted, buried, replayed, assigned, duplicate, ignored
	Detail string
}

// EventFilter narrows a search; zero fields do not.
type EventFilter struct {
	State      event.State
	Provider   string
	Source     uuid.UUID
	Type       event.Type
	Email      string
	Enrollment uuid.UUID
	MessageID  string
	Since      time.Time // by the event's own time, inclusive
	Until      time.Time // exclusive
}

// Page asks for rows after a cursor. Lists run newest first unless they say
// otherwise; After is the last row's number, 0 for the first page.
type Page struct {
	Limit int
	After int64
}

// Claimed is one orphan taken for a retry.
type Claimed struct {
	Seq      int64
	Tenant   int64
	Route    event.Route
	Attempts int // attempts seen when claimed
}

// Claim is a batch of orphans held under a lease.
type Claim struct {
	Token  int64
	Events []Claimed
	// External is set when the lease is not the store's own (a queue beside the
	// database gave it): then no token is compared, and that an attempt is due
	// is what keeps two claimers from spending it twice. Attempts of its events
	// are unknown.
	External bool
}

// Parked is an event that waits, as a queue beside the database holds it: no
// payload, and no instant, since that queue goes by a clock of its own.
type Parked struct {
	Seq    int64
	Tenant int64
	Route  event.Route
	Delay  time.Duration // until its next attempt; not negative
}

// RouteStats are the depths of one route of the orphan queue.
type RouteStats struct {
	Depth    int64
	Due      int64
	Leased   int64
	OldestAt time.Time // receipt of the oldest waiting event; zero: none
}

// LetterStatus is where a dead letter stands.
type LetterStatus string

// The statuses of a dead letter.
const (
	LetterDead      LetterStatus = "dead"
	LetterReplaying LetterStatus = "replaying"
	LetterReplayed  LetterStatus = "replayed"
	LetterIgnored   LetterStatus = "ignored"
)

// Letter is a dead letter: an event whose schedule is spent, or an authentic
// body that could not be read.
type Letter struct {
	Seq             int64
	ID              uuid.UUID
	Tenant          int64
	Reason          string
	Error           string
	Status          LetterStatus
	Attempts        int
	FirstReceivedAt time.Time
	LastAttemptAt   time.Time
	Event           *Record // nil for a body that could not be read
	// What follows is set only where Event is nil.
	SourceID uuid.UUID
	Provider string
	Body     []byte
	Headers  map[string]string // the headers that decoding may need
}

// LetterFilter narrows a list or a replay; zero fields do not.
type LetterFilter struct {
	Reason   string
	Provider string
	Type     event.Type
	Status   LetterStatus
	Email    string
	Since    time.Time // by first receipt
	Until    time.Time
}

// LetterStats count dead letters.
type LetterStats struct {
	Total      int64
	ByStatus   map[LetterStatus]int64
	ByReason   map[string]int64 // of status dead
	ByProvider map[string]int64 // of status dead
	OldestAt   time.Time        // of status dead; zero: none
}

// Replay is a bulk replay's progress.
type Replay struct {
	ID        uuid.UUID
	Status    string // running, done, cancelled, failed
	Matched   int64
	Applied   int64
	Orphaned  int64
	Duplicate int64
	Dead      int64
	Skipped   int64
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Enrolled is the result of one enrollment of a request.
type Enrolled struct {
	ID       uuid.UUID // the existing one's on conflict
	Conflict bool      // the contact is enrolled already
	Merged   bool      // on_conflict merge added the references
	Adopted  int       // waiting events taken in, in the same transaction
	Adopting int64     // waiting events that follow at once
	Err      error     // for bulk: why this item failed
}

// Ledger is the durable account of one tenant's events.
type Ledger struct {
	Tenant      int64
	Received    int64
	Duplicates  int64
	Applied     int64
	Orphaned    int64
	Dead        int64
	Ignored     int64
	Archived    int64
	Undecodable int64 // bodies kept as dead letters without an event; not in Received
}

// Difference is what the account is off by; it must be 0.
func (l Ledger) Difference() int64 {
	return l.Received - l.Applied - l.Orphaned - l.Dead - l.Ignored - l.Duplicates - l.Archived
}

// Off sums up what two accounts of one tenant differ by, and what this one is
// off by in itself.
func (l Ledger) Off(r Ledger) int64 {
	off := int64(0)
	for _, n := range []int64{
		l.Difference(), l.Received - r.Received, l.Duplicates - r.Duplicates, l.Applied - r.Applied, l.Orphaned - r.Orphaned,
		l.Dead - r.Dead, l.Ignored - r.Ignored, l.Undecodable - r.Undecodable,
	} {
		off += max(n, -n)
	}
	return off
}

// Balance is the full conservation check.
type Balance struct {
	Difference int64
	Tenants    []TenantBalance
	Counters   []CounterDrift // only those that differ
}

// TenantBalance holds a tenant's ledger against a recount of its rows.
type TenantBalance struct {
	Tenant   uuid.UUID
	Ledger   Ledger
	Recount  Ledger
	Counters int64 // sum of absolute differences of counters and facts against a recount
}

// CounterDrift is one counter that differs from a recount of the events.
type CounterDrift struct {
	Instance uuid.UUID
	What     string // counter or fact, with its type
	Counted  int64
	Recount  int64
}

// Off is by how many the counter differs.
func (d CounterDrift) Off() int64 { return max(d.Counted-d.Recount, d.Recount-d.Counted) }

// Tally is one counter of an instance: events of a kind in a quarter of an hour.
type Tally struct {
	Bucket    time.Time // start of the quarter hour of the events' own time
	Type      event.Type
	Qualifier string
	Step      int
	Machine   event.Machine
	Provider  string
	Variant   string
	Count     int64
}

// UniqueRow says that an enrollment has a fact: one row of an instance's
// facts folded to what reports group by.
type UniqueRow struct {
	Enrollment uuid.UUID
	Type       event.Type
	Qualifier  string
	Step       int
	Machine    event.Machine
	Provider   string
	Variant    string
	Count      int64
	FirstAt    time.Time // of the first event, by its own time
	LastAt     time.Time // of the last one
}

// Numbers are the raw material of a performance report.
type Numbers struct {
	Tallies []Tally
	Uniques []UniqueRow
	Status  map[string]int64 // enrollments by status
}

// Audit is one line of the audit log.
type Audit struct {
	At      time.Time
	Tenant  int64
	Actor   string // key id or "system"
	Action  string // "key.create", "event.assign"
	Subject string // id of what was acted on
	Detail  string
	Origin  // left to the store: it takes that of the context
}

// Idempotency ties a creating request to its key: the same key and request
// again answers what the first one made. The zero value means none was given.
type Idempotency struct {
	Key     string
	Request [32]byte // SHA-256 of method, path and body
	// Sealed is what is answered again where that cannot be read back, since
	// it holds what is shown once: encrypted, and kept for a day.
	Sealed []byte
}

// InstanceFilter narrows a list of instances; zero fields do not.
type InstanceFilter struct {
	Status   string
	Template uuid.UUID
}

// InstancePatch changes what is not nil.
type InstancePatch struct {
	Name              *string
	Status            *string
	Settings          []byte
	ProviderCampaigns map[string]string // replaces the whole map
}

// EnrollmentFilter narrows a list of enrollments; zero fields do not.
type EnrollmentFilter struct {
	Status string
	Email  string
}

// EnrollmentPatch changes what is not nil. Status is not here: a person's
// change of status is an event.
type EnrollmentPatch struct {
	ContactID   *string
	Email       *string
	LinkedInURL *string
	Metadata    []byte
}

// ReplayBatch is the next part of a running bulk replay; without letters it
// is the end.
type ReplayBatch struct {
	ID      uuid.UUID
	Tenant  int64
	After   int64 // number of the last letter before this part
	Letters []Letter
}

// Migration is one step of a store's schema.
type Migration struct {
	Version   int64
	AppliedAt time.Time // zero: pending
}

// Bounds of what one transaction takes on.
const (
	AdoptLimit  = 1000 // waiting events that one transaction takes in, whatever it enrolls
	EnrollChunk = 200  // contacts of a bulk request in one transaction
	EraseBodies = 20   // bodies that an erasure reads in one step: each may have megabytes
)
