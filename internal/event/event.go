// Package event holds the canonical event: what every provider's webhook and
// every API call becomes before anything else looks at it. It is pure: no
// clock, no store, no network.
//
// Guarantees: a decoded event is valid (Validate); its identity depends only
// on what the sender submitted, never on when or how often it arrived; its
// match keys come most specific first and have a bounded length.
package event

import (
	"time"

	"github.com/google/uuid"
)

// Type is the canonical name of what happened.
type Type string

// The canonical event types.
const (
	Queued                Type = "queued"
	Sent                  Type = "sent"
	Delivered             Type = "delivered"
	Deferred              Type = "deferred"
	Bounced               Type = "bounced"
	Dropped               Type = "dropped"
	Failed                Type = "failed"
	Opened                Type = "opened"
	Clicked               Type = "clicked"
	Replied               Type = "replied"
	Autoresponded         Type = "autoresponded"
	Complained            Type = "complained"
	Unsubscribed          Type = "unsubscribed"
	Resubscribed          Type = "resubscribed"
	ProfileVisited        Type = "profile_visited"
	ConnectionSent        Type = "connection_sent"
	ConnectionAccepted    Type = "connection_accepted"
	ConnectionRejected    Type = "connection_rejected"
	MessageSent           Type = "message_sent"
	MessageRead           Type = "message_read"
	MessageReplied        Type = "message_replied"
	VoiceMessageSent      Type = "voice_message_sent"
	VideoGenerated        Type = "video_generated"
	VideoGenerationFailed Type = "video_generation_failed"
	VideoViewed           Type = "video_viewed"
	VideoCompleted        Type = "video_completed"
	VideoShared           Type = "video_shared"
	MeetingBooked         Type = "meeting_booked"
)

// Types lists every canonical type, in the order of the contract.
func Types() []Type {
	return []Type{
		Queued, Sent, Delivered, Deferred, Bounced, Dropped, Failed, Opened, Clicked, Replied,
		Autoresponded, Complained, Unsubscribed, Resubscribed, ProfileVisited, ConnectionSent,
		ConnectionAccepted, ConnectionRejected, MessageSent, MessageRead, MessageReplied,
		VoiceMessageSent, VideoGenerated, VideoGenerationFailed, VideoViewed, VideoCompleted,
		VideoShared, MeetingBooked,
	}
}

// Valid tells whether t is one of the canonical types.
func (t Type) Valid() bool {
	switch t {
	case Queued, Sent, Delivered, Deferred, Bounced, Dropped, Failed, Opened, Clicked, Replied,
		Autoresponded, Complained, Unsubscribed, Resubscribed, ProfileVisited, ConnectionSent,
		ConnectionAccepted, ConnectionRejected, MessageSent, MessageRead, MessageReplied,
		VoiceMessageSent, VideoGenerated, VideoGenerationFailed, VideoViewed, VideoCompleted,
		VideoShared, MeetingBooked:
		return true
	}
	return false
}

// Channel is the medium an event happened on.
type Channel string

// The channels.
const (
	Email    Channel = "email"
	LinkedIn Channel = "linkedin"
	Video    Channel = "video"
	SMS      Channel = "sms"
	Phone    Channel = "phone"
	Meeting  Channel = "meeting"
)

// Channels lists every channel.
func Channels() []Channel { return []Channel{Email, LinkedIn, Video, SMS, Phone, Meeting} }

// Valid tells whether c is one of the channels.
func (c Channel) Valid() bool {
	switch c {
	case Email, LinkedIn, Video, SMS, Phone, Meeting:
		return true
	}
	return false
}

// Bounce is the hardness of a bounce; empty on every other type.
type Bounce string

// The kinds of bounce. A bounce that does not say is soft: only a hard one
// ends an enrollment, and that is never guessed.
const (
	Hard Bounce = "hard"
	Soft Bounce = "soft"
)

// Machine says whether a program, not a person, opened or clicked.
type Machine int8

// The three answers; most providers do not say.
const (
	MachineUnknown Machine = 0
	MachineYes     Machine = 1
	MachineNo      Machine = 2
)

// State is where an event stands.
type State string

// The states. Spooled exists only in an answer, never in the store.
const (
	Applied  State = "applied"
	Orphaned State = "orphaned"
	Dead     State = "dead"
	Ignored  State = "ignored"
	Spooled  State = "spooled"
)

// Outcome is what became of one submitted event.
type Outcome string

// The outcomes. Duplicate is an outcome and not a state: it is a count on the
// first event of that identity.
const (
	OutcomeApplied   Outcome = "applied"
	OutcomeOrphaned  Outcome = "orphaned"
	OutcomeDuplicate Outcome = "duplicate"
	OutcomeIgnored   Outcome = "ignored"
	OutcomeDead      Outcome = "dead"
	OutcomeSpooled   Outcome = "spooled" // durable beside the database, which is away
)

// Limits of one event's fields, in bytes.
const (
	MaxID       = 1024  // provider ids and campaign names
	MaxEmail    = 320   // RFC 3696 errata 1690: 64 + 1 + 255
	MaxURL      = 8192  // a clicked link
	MaxMetadata = 65536 // the metadata object
	MaxArray    = 1000  // events in one array
)

// Event is one canonical event. The zero value of a field means "not told".
type Event struct {
	ID         uuid.UUID // UUIDv7, given at Accept; survives a retry of the commit
	Tenant     int64
	SourceID   uuid.UUID // uuid.Nil for events submitted with an API key
	Scope      string    // identity scope: the source id, or "api:<provider>"
	Provider   string
	Kind       string // the vendor's own name of the event
	Control    bool   // not an outreach event: kept as ignored, Type is empty
	ReceivedAt time.Time

	Type              Type
	Channel           Channel
	ProviderEventID   string
	ProviderMessageID string
	ActionID          string // provider's id of an action (a LinkedIn visit, a run)
	LeadID            string // provider's id of the contact in its campaign
	EnrollmentID      string // our own id, passed back
	Email             string
	Campaign          string // provider's campaign id
	StepNumber        int    // 1..; 0 = not told
	Bounce            Bounce
	Machine           Machine
	URL               string
	OccurredAt        time.Time // UTC; receipt time when OccurredAtEstimated
	// OccurredAtEstimated is true when the payload had no time.
	OccurredAtEstimated bool
	Metadata            []byte // JSON object, nil when none

	Payload []byte // the event as it was submitted, byte for byte

	// What a source's settings are held against; neither is stored.
	Stream string   // the provider's message stream, or what it has in its place
	Tags   []string // the mail's tags or categories
	// IgnoreUnmatched makes an event without an enrollment ignored, where it
	// would wait. It is not stored: an event that waits already goes on waiting.
	IgnoreUnmatched bool
	// EnrollUnmatched makes an event without an enrollment make one, where its
	// campaign is mapped to an active instance and it tells of whom it is. It is
	// stored: an event that waits by now enrolls when its campaign is mapped.
	EnrollUnmatched bool

	// IdentityParts are what makes this event this event when the default
	// (the provider's id with its type, else the submitted fields) is wrong
	// for a provider. Only signed or submitted values, never the receipt time.
	IdentityParts []string

	// Nonce ties the event to what its sender uses for one request only; the
	// zero value with most. It is kept beside the event, in its commit.
	Nonce Nonce
}

// DefaultChannel is the channel a type happens on when a provider does not say.
func DefaultChannel(t Type) Channel {
	switch t {
	case ProfileVisited, ConnectionSent, ConnectionAccepted, ConnectionRejected, MessageSent,
		MessageRead, MessageReplied, VoiceMessageSent:
		return LinkedIn
	case VideoGenerated, VideoGenerationFailed, VideoViewed, VideoCompleted, VideoShared:
		return Video
	case MeetingBooked:
		return Meeting
	case Queued, Sent, Delivered, Deferred, Bounced, Dropped, Failed, Opened, Clicked, Replied,
		Autoresponded, Complained, Unsubscribed, Resubscribed:
		return Email
	}
	return Email
}

// Suppresses tells whether the event puts its address on the suppression list.
func (e *Event) Suppresses() bool {
	return e.Type == Unsubscribed || e.Type == Complained || (e.Type == Bounced && e.Bounce == Hard)
}

// Lifts tells whether a resubscribed event may lift an unsubscription: its
// time must be told and must not lie in the future of its receipt.
func (e *Event) Lifts() bool {
	return e.Type == Resubscribed && !e.OccurredAtEstimated && !e.OccurredAt.After(e.ReceivedAt)
}

// Answers tells whether the event is a person's answer, which completes an
// enrollment.
func (t Type) Answers() bool { return t == Replied || t == MessageReplied }

// Route is the class of the orphan queue that an event waits in.
func (e *Event) Route() Route {
	switch {
	case e.Type.Answers(), e.Type == Unsubscribed, e.Type == Complained, e.Type == Bounced:
		return RouteUrgent
	case e.Type == Opened, e.Type == Sent:
		return RouteBulk
	}
	return RouteStandard
}

// Route names a class of the orphan queue.
type Route string

// The three classes, by weight.
const (
	RouteUrgent   Route = "urgent"
	RouteStandard Route = "standard"
	RouteBulk     Route = "bulk"
)

// Routes lists the classes, heaviest first.
func Routes() []Route { return []Route{RouteUrgent, RouteStandard, RouteBulk} }
