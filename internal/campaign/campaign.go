// Package campaign holds templates, their running instances, and the
// enrollments of contacts in them. It is pure: rules and validation, no store.
//
// Guarantees: an enrollment's status is a function of its facts alone, so it
// comes out the same for any order and any number of deliveries; an instance
// only moves along the transitions listed here.
package campaign

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
)

// Limits of the contract.
const (
	MaxName        = 255   // characters
	MaxDescription = 2000  // characters
	MaxSteps       = 50    // step_number 1..50, each with variants
	MaxDelayHours  = 720   // 30 days
	MaxSubject     = 998   // RFC 5322 line length
	MaxBody        = 65536 // bytes of one step's text
	MaxObject      = 65536 // bytes of settings or metadata
	MaxRefs        = 100   // references in one request
)

// Template is the plan of a campaign: its steps.
type Template struct {
	ID          uuid.UUID
	Tenant      int64
	Name        string
	Description string
	Type        string // email, linkedin, multi_channel
	PathType    string // structured, dynamic_ai
	Settings    []byte // JSON object or nil
	Steps       []Step
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// Step is one message or action of a template. Several steps of one number
// are variants of each other.
type Step struct {
	Number     int    `json:"step_number"`
	Channel    string `json:"channel"`
	Type       string `json:"type,omitempty"`
	Subject    string `json:"subject,omitempty"`
	Body       string `json:"body,omitempty"`
	DelayHours int    `json:"delay_hours,omitempty"`
	Variant    string `json:"variant,omitempty"`
}

// Validate names every wrong field; location is the path before field names.
func (t *Template) Validate(location string) *fault.Error {
	var c checker
	c.at = location
	c.name("name", t.Name, MaxName)
	if utf8.RuneCountInString(t.Description) > MaxDescription {
		c.wrong("description", fmt.Sprintf("is longer than %d characters", MaxDescription))
	}
	c.plain("description", t.Description)
	c.oneOf("type", t.Type, "email", "linkedin", "multi_channel")
	c.oneOf("path_type", t.PathType, "structured", "dynamic_ai")
	c.object("settings", t.Settings)
	seen := map[string]bool{}
	for i := range t.Steps {
		s := &t.Steps[i]
		at := fmt.Sprintf("steps[%d].", i)
		if s.Number < 1 || s.Number > MaxSteps {
			c.wrong(at+"step_number", fmt.Sprintf("must be a whole number from 1 to %d", MaxSteps))
		}
		if !event.Channel(s.Channel).Valid() {
			c.wrong(at+"channel", "is not one of: email, linkedin, video, sms, phone, meeting")
		}
		if s.DelayHours < 0 || s.DelayHours > MaxDelayHours {
			c.wrong(at+"delay_hours", fmt.Sprintf("must be a whole number from 0 to %d", MaxDelayHours))
		}
		if len(s.Type) > 64 || len(s.Variant) > 64 {
			c.wrong(at+"variant", "type and variant have at most 64 bytes")
		}
		if len(s.Subject) > MaxSubject {
			c.wrong(at+"subject", fmt.Sprintf("is longer than %d bytes", MaxSubject))
		}
		if len(s.Body) > MaxBody {
			c.wrong(at+"body", fmt.Sprintf("is longer than %d bytes", MaxBody))
		}
		for _, v := range []string{s.Type, s.Variant, s.Subject, s.Body} {
			c.plain(at+"body", v)
		}
		key := fmt.Sprintf("%d/%s", s.Number, s.Variant)
		if seen[key] {
			c.wrong(at+"variant", "the same step number and variant stands twice")
		}
		seen[key] = true
	}
	if len(t.Steps) > 4*MaxSteps {
		c.wrong("steps", fmt.Sprintf("has more than %d entries", 4*MaxSteps))
	}
	return c.err()
}

// InstanceStatus is where a running campaign stands.
type InstanceStatus string

// The statuses of an instance.
const (
	Draft     InstanceStatus = "draft"
	Active    InstanceStatus = "active"
	Paused    InstanceStatus = "paused"
	Completed InstanceStatus = "completed"
)

// Next lists the statuses that an instance may go to.
func (s InstanceStatus) Next() []InstanceStatus {
	switch s {
	case Draft:
		return []InstanceStatus{Active}
	case Active:
		return []InstanceStatus{Paused, Completed}
	case Paused:
		return []InstanceStatus{Active, Completed}
	case Completed:
		return nil
	}
	return nil
}

// Move checks a change of status; the same status again is no change.
func (s InstanceStatus) Move(to InstanceStatus) *fault.Error {
	if s == to {
		return nil
	}
	names := make([]string, 0, 2)
	for _, n := range s.Next() {
		if n == to {
			return nil
		}
		names = append(names, string(n))
	}
	allowed := "nothing: it is final"
	if len(names) > 0 {
		allowed = strings.Join(names, " or ")
	}
	return fault.New(fault.Conflict, "an instance that is %s cannot become %s; allowed from here: %s", s, to, allowed)
}

// Instance is one run of a template.
type Instance struct {
	ID         uuid.UUID
	Tenant     int64
	TemplateID uuid.UUID
	Name       string
	Status     InstanceStatus
	Settings   []byte // JSON object or nil
	// ProviderCampaigns maps a provider's name to its campaign id.
	ProviderCampaigns map[string]string
	CreatedAt         time.Time
	UpdatedAt         time.Time
	StartedAt         time.Time // first became active; zero while never
	CompletedAt       time.Time
}

// Validate names every wrong field.
func (i *Instance) Validate(location string) *fault.Error {
	var c checker
	c.at = location
	c.name("name", i.Name, MaxName)
	c.object("settings", i.Settings)
	if i.Status != Draft && i.Status != Active && i.Status != Paused && i.Status != Completed {
		c.wrong("status", "is not one of: draft, active, paused, completed")
	}
	if len(i.ProviderCampaigns) > 32 {
		c.wrong("provider_campaigns", "has more than 32 entries")
	}
	for p, v := range i.ProviderCampaigns {
		c.id("provider_campaigns."+p, v)
		c.id("provider_campaigns", p)
	}
	return c.err()
}

// Enrollment is one contact in one instance.
type Enrollment struct {
	ID          uuid.UUID
	Tenant      int64
	InstanceID  uuid.UUID
	ContactID   string // the customer's own id
	Email       string
	LinkedInURL string
	Refs        []event.Ref
	Metadata    []byte // JSON object or nil
	Status      Status
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// Validate names every wrong field.
func (e *Enrollment) Validate(location string) *fault.Error {
	var c checker
	c.at = location
	if e.Email != "" && !event.ValidAddress(e.Email) {
		c.wrong("email", "is not an email address")
	}
	c.plain("email", e.Email)
	if e.ContactID != "" {
		c.id("contact_id", e.ContactID)
	}
	if e.LinkedInURL != "" {
		u, err := url.Parse(e.LinkedInURL)
		if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || len(e.LinkedInURL) > 2048 {
			c.wrong("linkedin_url", "is not an http or https URL")
		}
	}
	c.object("metadata", e.Metadata)
	c.fields = append(c.fields, validRefs(location, e.Refs)...)
	if e.Email == "" && e.ContactID == "" && e.LinkedInURL == "" && len(e.Refs) == 0 {
		c.wrong("", "names nobody: give email, contact_id, linkedin_url or refs")
	}
	return c.err()
}

// ValidRefs checks references alone.
func ValidRefs(location string, refs []event.Ref) *fault.Error {
	if f := validRefs(location, refs); len(f) > 0 {
		return fault.BadInput(f...)
	}
	return nil
}

func validRefs(location string, refs []event.Ref) []fault.Field {
	var c checker
	c.at = location
	if len(refs) > MaxRefs {
		c.wrong("refs", fmt.Sprintf("has more than %d entries", MaxRefs))
	}
	for i, r := range refs {
		at := fmt.Sprintf("refs[%d].", i)
		c.id(at+"provider", r.Provider)
		if !r.Kind.Valid() {
			c.wrong(at+"kind", "is not one of: message, action, lead")
		}
		c.id(at+"value", r.Value)
	}
	return c.fields
}

// ContactKeys are what makes a contact the same contact within an instance.
func (e *Enrollment) ContactKeys() []event.Hash {
	var keys []event.Hash
	if e.ContactID != "" {
		keys = append(keys, event.HashOf("contact", e.ContactID))
	}
	if e.Email != "" {
		keys = append(keys, event.HashOf("address", event.NormalAddress(e.Email)))
	}
	if e.LinkedInURL != "" {
		keys = append(keys, event.HashOf("linkedin", NormalProfile(e.LinkedInURL)))
	}
	return keys
}

// NormalProfile folds a profile URL: no scheme, no www, no query, no trailing
// slash, lower case.
func NormalProfile(raw string) string {
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil {
		return strings.ToLower(raw)
	}
	return strings.TrimPrefix(strings.ToLower(u.Host), "www.") + strings.TrimRight(strings.ToLower(u.Path), "/")
}

// Suppression is why an address must not be written to. Each time is the
// latest of its kind, so the list is a function of the set of events.
type Suppression struct {
	Email          string
	UnsubscribedAt time.Time
	ResubscribedAt time.Time // only a resubscription that lifts
	ComplainedAt   time.Time
	BouncedAt      time.Time
	ManualAt       time.Time // put by hand
	RemovedAt      time.Time // removed by hand: what lies before is void
	UpdatedAt      time.Time
	Erased         bool // its contact was erased: the list does not know the address in clear
}

// Reason names the strongest active reason; empty when the address is free.
func (s *Suppression) Reason() string {
	live := func(t time.Time) bool { return !t.IsZero() && t.After(s.RemovedAt) }
	switch {
	case live(s.ComplainedAt):
		return "complained"
	case live(s.UnsubscribedAt) && !s.ResubscribedAt.After(s.UnsubscribedAt):
		return "unsubscribed"
	case live(s.BouncedAt):
		return "bounced"
	case live(s.ManualAt):
		return "manual"
	}
	return ""
}

// Since is when the active reason was seen; zero when the address is free.
func (s *Suppression) Since() time.Time {
	switch s.Reason() {
	case "complained":
		return s.ComplainedAt
	case "unsubscribed":
		return s.UnsubscribedAt
	case "bounced":
		return s.BouncedAt
	case "manual":
		return s.ManualAt
	}
	return time.Time{}
}

type checker struct {
	at     string
	fields []fault.Field
}

func (c *checker) wrong(name, msg string) {
	loc := c.at
	switch {
	case loc == "":
		loc = name
	case name != "":
		loc += "." + name
	}
	c.fields = append(c.fields, fault.Field{Location: loc, Message: msg})
}

func (c *checker) err() *fault.Error {
	if len(c.fields) == 0 {
		return nil
	}
	return fault.BadInput(c.fields...)
}

func (c *checker) plain(name, v string) {
	if strings.ContainsRune(v, 0) || !utf8.ValidString(v) {
		c.wrong(name, "holds the character U+0000 or is not UTF-8")
	}
}

func (c *checker) name(name, v string, limit int) {
	n := utf8.RuneCountInString(v)
	if strings.TrimSpace(v) == "" || n > limit {
		c.wrong(name, fmt.Sprintf("must have 1 to %d characters", limit))
	}
	c.plain(name, v)
}

func (c *checker) id(name, v string) {
	if strings.TrimSpace(v) == "" || len(v) > event.MaxID {
		c.wrong(name, fmt.Sprintf("must have 1 to %d bytes", event.MaxID))
	}
	c.plain(name, v)
}

func (c *checker) oneOf(name, v string, allowed ...string) {
	if !slices.Contains(allowed, v) {
		c.wrong(name, "is not one of: "+strings.Join(allowed, ", "))
	}
}

func (c *checker) object(name string, v []byte) {
	if len(v) > MaxObject {
		c.wrong(name, fmt.Sprintf("is larger than %d bytes", MaxObject))
	}
	if strings.Contains(string(v), `\u0000`) {
		c.wrong(name, "holds the character U+0000, which cannot be stored")
	}
}
