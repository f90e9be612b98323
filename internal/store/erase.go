package store

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
)

// ReasonErased is why an event of an erased contact is ignored.
const ReasonErased = "erased"

const (
	erasedDetail = "its contact was erased; nothing personal was kept"
	byErasure    = "erasure"
)

// Contact names somebody by what is known of them; empty fields name nobody.
type Contact struct {
	Email       string
	LinkedInURL string
	ContactID   string
}

// Erasure is the progress of an erasure.
type Erasure struct {
	ID          uuid.UUID
	Status      string // running, done
	Enrollments int64
	Events      int64
	Letters     int64 // bodies that could not be read and held an address
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// The phases of an erasure, in their order. Each step of one is a transaction
// of its own and notes how far it came, so that a crash costs one step.
const (
	ErasePhaseContact = iota // enrollments and the suppression list
	ErasePhaseEvents         // reference by reference, by number
	ErasePhaseBodies         // dead letters without an event, by number
	ErasePhaseFiles          // what the database itself keeps of former rows
)

// EraseTask is what an erasure is at. Its row holds the contact in clear until
// nothing of it is left to be looked for.
type EraseTask struct {
	Emails      []string // in their normal form
	Profiles    []string
	ContactIDs  []string
	Enrollments []uuid.UUID
}

// NewEraseTask reads what a request names.
func NewEraseTask(c Contact) EraseTask {
	var t EraseTask
	if a := event.NormalAddress(c.Email); a != "" {
		t.Emails = []string{a}
	}
	if c.LinkedInURL != "" {
		t.Profiles = []string{campaign.NormalProfile(c.LinkedInURL)}
	}
	if c.ContactID != "" {
		t.ContactIDs = []string{c.ContactID}
	}
	return t
}

// Include adds an enrollment and its address; it tells whether either is new.
func (t *EraseTask) Include(id uuid.UUID, email string) (grew bool) {
	if !slices.Contains(t.Enrollments, id) {
		t.Enrollments, grew = append(t.Enrollments, id), true
	}
	if a := event.NormalAddress(email); a != "" && !slices.Contains(t.Emails, a) {
		t.Emails, grew = append(t.Emails, a), true
	}
	return grew
}

// ContactKeys are what enrollments are unique by that have one of the contact's own ids.
func (t *EraseTask) ContactKeys() (contacts, profiles []event.Hash) {
	for _, id := range t.ContactIDs {
		contacts = append(contacts, event.HashOf("contact", id))
	}
	for _, p := range t.Profiles {
		profiles = append(profiles, event.HashOf("profile", p))
	}
	return contacts, profiles
}

// Keys are all that the task itself names: what its tombstones are made of,
// beside the references that its enrollments own.
func (t *EraseTask) Keys() []event.Hash {
	contacts, profiles := t.ContactKeys()
	keys := slices.Concat(contacts, profiles)
	for _, a := range t.Emails {
		keys = append(keys, event.AddressKey(a))
	}
	for _, id := range t.Enrollments {
		keys = append(keys, event.EnrollmentKey(id))
	}
	return keys
}

// Concerns tells whether a stored event is the contact's: a reference of the
// search is a short hash, and others may share it.
func (t *EraseTask) Concerns(r *Record) bool {
	return slices.Contains(t.Emails, event.NormalAddress(r.Email)) || (r.Enrollment != uuid.Nil && slices.Contains(t.Enrollments, r.Enrollment))
}

// In tells whether a body holds one of the contact's addresses or its profile,
// in any letter case, as it is, percent-encoded or with JSON's escape of the @.
// What is compressed or in base64 is not found.
func (t *EraseTask) In(body []byte) bool {
	lower := bytes.ToLower(body)
	for _, name := range slices.Concat(t.Emails, t.Profiles) {
		for _, form := range []string{name, strings.ToLower(url.QueryEscape(name)), strings.ReplaceAll(name, "@", "%40"), strings.ReplaceAll(name, "@", `\u0040`)} {
			if bytes.Contains(lower, []byte(form)) {
				return true
			}
		}
	}
	return false
}

// Strip takes out of an event what is personal: address, link, payload,
// metadata but for the variant that counts go by, the vendor's ids of the
// person, and its other ids where one of the addresses is in them.
func (t *EraseTask) Strip(e event.Event) event.Event {
	hide := func(id string) string {
		if t.In([]byte(id)) {
			return ""
		}
		return id
	}
	e.ProviderEventID, e.ProviderMessageID, e.Campaign = hide(e.ProviderEventID), hide(e.ProviderMessageID), hide(e.Campaign)
	if _, err := uuid.Parse(e.EnrollmentID); err != nil {
		e.EnrollmentID = ""
	}
	e.Email, e.URL, e.LeadID, e.ActionID, e.Tags, e.Payload = "", "", "", "", nil, []byte("{}")
	e.Metadata = campaign.OnlyVariant(e.Metadata)
	return e
}

// Tombstones are made with a key of the installation's own: from the database
// alone nobody can try addresses against them.
type Tombstones struct{ secret []byte }

// NewTombstones derives the key from the key of the secrets.
func NewTombstones(secretsKey [32]byte) Tombstones {
	mac := hmac.New(sha256.New, secretsKey[:])
	mac.Write([]byte("tombstones of erased contacts"))
	return Tombstones{mac.Sum(nil)}
}

// Of is the tombstone of a match key of a tenant.
func (s Tombstones) Of(tenant int64, key event.Hash) event.Hash {
	mac := hmac.New(sha256.New, s.secret)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(tenant))) //nolint:gosec // any 64 bits will do
	mac.Write(key[:])
	return event.Hash(mac.Sum(nil)[:len(event.Hash{})])
}

// Mark is a tombstone that an event may have.
type Mark struct {
	Tenant int64
	Key    event.Hash
	At     int64 // which of the works
}

// Marks are the tombstones that would say of new events that their contact is
// erased. A person's own act names nobody by more than an enrollment.
func (s Tombstones) Marks(works []*Work) []Mark {
	marks := make([]Mark, 0, 3*len(works))
	for i, w := range works {
		if w.Event.Scope == "manual" {
			continue
		}
		for _, k := range w.Event.Keys() {
			if k.Rank != event.RankCampaign {
				marks = append(marks, Mark{w.Event.Tenant, s.Of(w.Event.Tenant, k.Hash), int64(i)})
			}
		}
	}
	return marks
}

// Erase makes a new event of an erased contact one without anything personal,
// that is ignored. What it says of its address still counts for the
// suppression list, which knows the address by its tombstone. The identity has
// been taken before, so that the next delivery of the event meets it.
func (s Tombstones) Erase(w *Work) {
	if a := event.NormalAddress(w.Event.Email); a != "" {
		w.Address = s.Of(w.Event.Tenant, event.AddressKey(a))
	}
	bare := (&EraseTask{Emails: NewEraseTask(Contact{Email: w.Event.Email}).Emails}).Strip(*w.Event)
	bare.ID = w.Event.ID
	w.Event, w.Erase = &bare, true
}

// EraseWorks gives the stored events of an erasure that still wait for
// something: they are taken through the processor and ignored.
func EraseWorks(records []Record) []*Work {
	var works []*Work
	for i := range records {
		if r := &records[i]; r.State == event.Orphaned || r.State == event.Dead {
			w := WorkOf(r, byErasure)
			w.Erase = true
			works = append(works, w)
		}
	}
	return works
}

// hush finds the stored events that would have an address put on the
// suppression list and whose contact is erased: it is there by its tombstone.
func hush(s Steps, works []*Work) error {
	var speaking []*Work
	for _, w := range works {
		if !w.Fresh && w.Changed && w.speaks() {
			speaking = append(speaking, w)
		}
	}
	gone, err := erasedAmong(s, speaking)
	for w := range gone {
		w.Hushed = true
	}
	return err
}

// erasedAmong gives those of the events that are of a contact who was erased,
// by any key but the provider's campaign.
func erasedAmong(s Steps, works []*Work) (map[*Work]bool, error) {
	by := map[TenantKey][]*Work{}
	for _, w := range works {
		for _, k := range w.Event.Keys() {
			if k.Rank != event.RankCampaign {
				tk := TenantKey{w.Event.Tenant, k.Hash}
				by[tk] = append(by[tk], w)
			}
		}
		if id := w.Decision.Enrollment; id != uuid.Nil {
			tk := TenantKey{w.Event.Tenant, event.EnrollmentKey(id)}
			by[tk] = append(by[tk], w)
		}
	}
	if len(by) == 0 {
		return nil, nil //nolint:nilnil // none is erased
	}
	keys, err := s.Erased(slices.Collect(maps.Keys(by)))
	if err != nil {
		return nil, err
	}
	gone := map[*Work]bool{}
	for k := range keys {
		for _, w := range by[k] {
			gone[w] = true
		}
	}
	return gone, nil
}

// ErasedAt is the entry of an erased event's timeline.
func ErasedAt(now time.Time) Moment {
	return Moment{At: now, What: "erased", Detail: "what was personal was taken out"}
}

// ErrErased refuses to take an erased contact in again.
func ErrErased() error {
	return fault.New(fault.Conflict, "the contact was erased; take its address off the suppression list first, if it has come back of its own will")
}

// EnrollKeys are the keys by which an enrollment is refused as erased: the
// address, or, of a contact without one, its other names.
func EnrollKeys(e *campaign.Enrollment) []event.Hash {
	if e.Email != "" {
		return []event.Hash{event.AddressKey(e.Email)}
	}
	t := NewEraseTask(Contact{LinkedInURL: e.LinkedInURL, ContactID: e.ContactID})
	return t.Keys()
}
