// Package access decides who may do what: API keys with scopes, and the
// sources whose webhooks are verified. It keeps what it looked up in memory,
// so that a known key or source costs no query, and a guessed one is refused
// by its own check part before any.
//
// Guarantees: a key or a token is stored only as a hash; absence is answered
// only after a successful read of the store; secrets are encrypted at rest.
// While the store is away, a sealed snapshot of at most an hour ago stands in
// for it, for the writing of events alone.
package access

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/provider"
	"tallyhook/internal/store"
)

// The scopes of the contract. Admin has all of them.
const (
	ScopeCampaignsRead  = "campaigns:read"
	ScopeCampaignsWrite = "campaigns:write"
	ScopeEventsRead     = "events:read"
	ScopeEventsWrite    = "events:write"
	ScopeDLQRead        = "dlq:read"
	ScopeDLQWrite       = "dlq:write"
	ScopeAdmin          = "admin"
)

// Scopes lists every scope.
func Scopes() []string {
	return []string{
		ScopeCampaignsRead, ScopeCampaignsWrite, ScopeEventsRead, ScopeEventsWrite,
		ScopeDLQRead, ScopeDLQWrite, ScopeAdmin,
	}
}

// Principal is who a request comes from.
type Principal struct {
	Tenant int64
	KeyID  uuid.UUID
	Scopes []string
	Away   bool // from the snapshot, while the database is away: whether it may do more is not known
}

// Has tells whether the principal may do what the scope stands for.
func (p Principal) Has(scope string) bool {
	return slices.Contains(p.Scopes, ScopeAdmin) || slices.Contains(p.Scopes, scope)
}

// Actor names the principal in the audit log.
func (p Principal) Actor() string { return "key:" + p.KeyID.String() }

// SourceInput asks for a new source.
type SourceInput struct {
	Provider string
	Name     string
	Secret   string // empty: generated where the scheme needs one
	Settings provider.Settings
}

// SourcePatch changes what is not nil.
type SourcePatch struct {
	Name     *string
	Secret   *string
	Settings *provider.Settings
}

// SourceView is a source as it is shown: no token, no secret.
type SourceView struct {
	store.Source
	HasSecret      bool
	Settings       provider.Settings // passwords and header values masked
	LastRejectedAt time.Time
	Rejected       int64 // since the start of this process
}

// CreatedSource is a new source with what is shown only once.
type CreatedSource struct {
	SourceView
	URL     string
	Secret  string // only where it was generated
	Warning string // such as a public URL that vendors cannot reach
}

// Opened is a source ready to verify with.
type Opened struct {
	ID       uuid.UUID
	Tenant   int64
	Provider *provider.Provider
	Config   provider.Config
	gone     bool // deleted; only the provider is told, for its dialect of refusals

	former    []formerSecret
	tokenEnds time.Time // of a former token that it was found by
}

// Rejection is one refused webhook.
type Rejection struct {
	At      time.Time
	Reason  string
	Status  int
	Headers []string // names only
}
