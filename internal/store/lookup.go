package store

import (
	"github.com/google/uuid"

	"tallyhook/internal/event"
)

// Probe is one match key of one event, to be looked up.
type Probe struct {
	Ord  int // its place among the probes of its kind
	work *Work
	slot int // of the work's keys
}

// Tenant is whose key it is.
func (p *Probe) Tenant() int64 { return p.work.Event.Tenant }

// Hash is the key; of no meaning for a probe of an enrollment.
func (p *Probe) Hash() event.Hash { return p.work.Keys[p.slot].Hash }

// Address is the key of the event's address, for a probe of a campaign.
func (p *Probe) Address() event.Hash { return event.AddressKey(p.work.Event.Email) }

// Enrollment is the enrollment that the event, or a person, names.
func (p *Probe) Enrollment() uuid.UUID {
	if p.work.Forced != uuid.Nil {
		return p.work.Forced
	}
	id, _ := uuid.Parse(p.work.Event.EnrollmentID) // Keys has parsed it
	return id
}

// Lookup is what a batch of events asks a store, by the kind of key, and what
// the store has answered.
type Lookup struct {
	Owned       []Probe // messages, actions, leads and addresses
	Enrollments []Probe // enrollments named by their id
	Campaigns   []Probe // providers' campaigns, with an address

	works     []*Work
	instances map[uuid.UUID]uuid.UUID
}

// NewLookup makes the questions that the events need answered.
func NewLookup(works []*Work) *Lookup {
	l := &Lookup{works: works, instances: map[uuid.UUID]uuid.UUID{}}
	for _, w := range works {
		switch {
		case w.Event.Control || w.Bury != "" || w.Erase:
			continue
		case w.Forced != uuid.Nil:
			w.Keys = []event.Key{{Rank: event.RankEnrollment}}
		default:
			w.Keys = w.Event.Keys()
		}
		w.Found = make([]Found, len(w.Keys))
		for i := range w.Keys {
			switch w.Keys[i].Rank {
			case event.RankEnrollment:
				l.Enrollments = append(l.Enrollments, Probe{len(l.Enrollments), w, i})
			case event.RankCampaign:
				l.Campaigns = append(l.Campaigns, Probe{len(l.Campaigns), w, i})
			case event.RankMessage, event.RankLead, event.RankAddress:
				l.Owned = append(l.Owned, Probe{len(l.Owned), w, i})
			}
		}
	}
	return l
}

// Owner answers a probe with one of the owners of its key. Two are enough to
// tell one from several.
func (l *Lookup) Owner(p *Probe, enrollment, instance uuid.UUID) {
	l.instances[enrollment] = instance
	f := &p.work.Found[p.slot]
	if f.Min == uuid.Nil {
		f.Min = enrollment
	}
	f.Max = enrollment
}

// Mapped answers a probe of a campaign: the instance it is mapped to and
// whether that is active, and the address's enrollment there, uuid.Nil when it
// has none.
func (l *Lookup) Mapped(p *Probe, enrollment, instance uuid.UUID, active bool) {
	if enrollment != uuid.Nil {
		l.instances[enrollment] = instance
	}
	p.work.Found[p.slot] = Found{Min: enrollment, Max: enrollment, Instance: instance, Active: active}
}

// Decide makes the decisions that the answers amount to.
func (l *Lookup) Decide() {
	for _, w := range l.works {
		if w.Keys != nil {
			w.Decision = Match(w.Keys, w.Found)
			w.Instance = l.instances[w.Decision.Enrollment]
		}
	}
}

// match finds the enrollment of each event.
func match(s Steps, works []*Work) error {
	l := NewLookup(works)
	if err := s.Lookup(l); err != nil {
		return err
	}
	l.Decide()
	return nil
}
