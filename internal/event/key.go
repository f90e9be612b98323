package event

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"github.com/google/uuid"
)

// Rank orders match keys: the lower, the more specific. Two keys of one rank
// that point to different enrollments contradict each other.
type Rank uint8

// The ranks, in the order of the contract.
const (
	RankEnrollment Rank = iota // our own enrollment id
	RankMessage                // provider message or action id
	RankLead                   // provider lead id
	RankCampaign               // provider campaign id, with the address
	RankAddress                // the address alone
)

// Hash is a match key: the first 16 bytes of SHA-256 over length-prefixed
// parts, so that keys have a bounded length and no two kinds can be mistaken.
type Hash [16]byte

// Key is one way to find the enrollment of an event.
type Key struct {
	Rank Rank
	Hash Hash
}

// RefKind says what a provider's reference names.
type RefKind string

// The kinds of reference an enrollment can own.
const (
	RefMessage RefKind = "message"
	RefAction  RefKind = "action"
	RefLead    RefKind = "lead"
)

// Valid tells whether k is one of the kinds.
func (k RefKind) Valid() bool { return k == RefMessage || k == RefAction || k == RefLead }

// Ref is a provider's id that an enrollment owns.
type Ref struct {
	Provider string
	Kind     RefKind
	Value    string
}

// Key is the match key of the reference.
func (r Ref) Key() Key {
	rank := RankMessage
	if r.Kind == RefLead {
		rank = RankLead
	}
	return Key{Rank: rank, Hash: HashOf("ref", string(r.Kind), r.Provider, NormalID(r.Value))}
}

// AddressKey is the match key of an address.
func AddressKey(email string) Hash { return HashOf("address", NormalAddress(email)) }

// CampaignKey is the key that events of a provider's campaign wait for until
// that campaign is mapped to an instance.
func CampaignKey(provider, campaign string) Hash {
	return HashOf("campaign", provider, NormalID(campaign))
}

// EnrollmentKey is the key that events naming an enrollment wait for.
func EnrollmentKey(id uuid.UUID) Hash { return HashOf("enrollment", id.String()) }

// NormalAddress folds an address as mailbox providers do in practice: no
// space around it, no angle brackets, lower case.
func NormalAddress(email string) string {
	s := strings.TrimSpace(email)
	if strings.HasSuffix(s, ">") {
		if i := strings.LastIndexByte(s, '<'); i >= 0 {
			s = s[i+1 : len(s)-1]
		}
	}
	return strings.ToLower(strings.TrimSpace(s))
}

// NormalID takes the angle brackets off a message id (RFC 5322 msg-id), which
// some vendors send and others do not, and the space around it.
func NormalID(id string) string {
	s := strings.TrimSpace(id)
	for len(s) >= 2 && s[0] == '<' && s[len(s)-1] == '>' {
		s = strings.TrimSpace(s[1 : len(s)-1])
	}
	return s
}

// HashOf hashes length-prefixed parts: ("ab","c") differs from ("a","bc").
func HashOf(parts ...string) Hash {
	n := 0
	for _, p := range parts {
		n += 4 + len(p)
	}
	var stack [512]byte
	buf := stack[:0]
	if n > len(stack) {
		buf = make([]byte, 0, n)
	}
	for _, p := range parts {
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(p))) //nolint:gosec // parts are bounded by the body limit
		buf = append(buf, p...)
	}
	sum := sha256.Sum256(buf)
	return Hash(sum[:16])
}

// Keys are the match keys of an event, most specific first. RankCampaign
// carries the campaign alone: the address is the event's. An id of nothing but
// space or brackets is none: strangers would share its key.
func (e *Event) Keys() []Key {
	keys := make([]Key, 0, 5)
	if id, err := uuid.Parse(e.EnrollmentID); err == nil {
		keys = append(keys, Key{RankEnrollment, EnrollmentKey(id)})
	}
	if NormalID(e.ProviderMessageID) != "" {
		keys = append(keys, Ref{e.Provider, RefMessage, e.ProviderMessageID}.Key())
	}
	if NormalID(e.ActionID) != "" {
		keys = append(keys, Ref{e.Provider, RefAction, e.ActionID}.Key())
	}
	if NormalID(e.LeadID) != "" {
		keys = append(keys, Ref{e.Provider, RefLead, e.LeadID}.Key())
	}
	told := NormalAddress(e.Email) != ""
	// Without an address nobody is found by the campaign, but who enrolls leads waits for it.
	if NormalID(e.Campaign) != "" && (told || (e.EnrollUnmatched && NormalID(e.LeadID) != "")) {
		keys = append(keys, Key{RankCampaign, CampaignKey(e.Provider, e.Campaign)})
	}
	if told {
		keys = append(keys, Key{RankAddress, AddressKey(e.Email)})
	}
	return keys
}
