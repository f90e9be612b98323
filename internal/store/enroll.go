package store

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
)

// TenantKey is a match key of one tenant.
type TenantKey struct {
	Tenant int64
	Key    event.Hash
}

// Joiner is somebody whom events tell of whose source enrolls: a new
// enrollment, or one of which they tell more than is known.
type Joiner struct {
	Tenant   int64
	Instance uuid.UUID
	ID       uuid.UUID // of the enrollment
	New      bool
	Email    string      // "" where none is told; an enrollment that has one keeps it
	Refs     []event.Ref // leads that nobody owned
}

// home is the key of the event's campaign among its keys and what is known of
// it; ok is false when the campaign is told by none or mapped to nothing.
func (w *Work) home() (found Found, ok bool) {
	for i, k := range w.Keys {
		if k.Rank == event.RankCampaign && w.Found[i].Instance != uuid.Nil {
			return w.Found[i], true
		}
	}
	return Found{}, false
}

// address is the event's recipient, if an enrollment may have it.
func (w *Work) address() string {
	if !event.ValidAddress(w.Event.Email) {
		return ""
	}
	return event.NormalAddress(w.Event.Email)
}

// lead is the event's lead, and whether nobody owns it.
func (w *Work) lead() (ref event.Ref, unowned bool) {
	for i, k := range w.Keys {
		if k.Rank == event.RankLead {
			return event.Ref{Provider: w.Event.Provider, Kind: event.RefLead, Value: w.Event.LeadID}, w.Found[i].Min == uuid.Nil
		}
	}
	return event.Ref{}, false
}

// Enrolls tells, of an event that was looked up, whether it is to make an
// enrollment, or tells of its enrollment what is not known yet. Neither is done
// for an event that names an enrollment which does not exist, nor where several
// fit, nor in an instance that is not active.
func (w *Work) Enrolls() bool {
	if !w.Event.EnrollUnmatched || w.Forced != uuid.Nil || len(w.Keys) == 0 {
		return false
	}
	home, ok := w.home()
	if !ok || !home.Active {
		return false
	}
	lead, unowned := w.lead()
	if w.Decision.Enrollment != uuid.Nil {
		return w.Instance == home.Instance && (unowned || (home.Min == uuid.Nil && w.address() != ""))
	}
	return w.Decision.Reason == ReasonNoEnrollment && w.Keys[0].Rank != event.RankEnrollment && (lead.Value != "" || w.address() != "")
}

// enroll makes the enrollments of events whose sources enroll. For a batch
// without such an event it asks nothing. What else found no enrollment is
// looked up once more: it may belong to a new one.
func (r Rules) enroll(s Steps, works []*Work) error {
	asking := enrolling(works)
	if len(asking) == 0 {
		return nil
	}
	fresh := !slices.ContainsFunc(works, func(w *Work) bool { return !w.Fresh })
	again, err := s.Hold(keysOf(asking), fresh)
	if err != nil {
		return err
	}
	if again {
		if err := match(s, asking); err != nil {
			return err
		}
		asking = enrolling(asking)
	}
	if asking, err = unerased(s, asking); err != nil {
		return err
	}
	if len(asking) == 0 {
		return nil
	}
	joiners, entries := r.join(asking)
	if err := s.Enroll(joiners, works); err != nil {
		return err
	}
	var missed []*Work
	for _, w := range works {
		if w.Keys != nil && w.Decision.Enrollment == uuid.Nil {
			missed = append(missed, w)
		}
	}
	if len(missed) > 0 {
		if err := match(s, missed); err != nil {
			return err
		}
	}
	if len(entries) == 0 {
		return nil
	}
	return s.Remember(entries)
}

// enrolling are the events of a batch that enroll. Of the others it says why
// they do not where that can change.
func enrolling(works []*Work) []*Work {
	var asking []*Work
	for _, w := range works {
		if w.Enrolls() {
			asking = append(asking, w)
		} else if home, ok := w.home(); ok && w.Event.EnrollUnmatched && !home.Active && w.Decision.Reason == ReasonNoEnrollment {
			w.Decision.Detail = "the instance that the provider's campaign is mapped to is not active, so nobody is enrolled in it"
		}
	}
	return asking
}

// unerased leaves out the events of contacts who were erased: nobody is taken
// in again by what waited for him, or came in at the same moment. The erasure
// comes to these events.
func unerased(s Steps, works []*Work) ([]*Work, error) {
	gone, err := erasedAmong(s, works)
	if err != nil || len(gone) == 0 {
		return works, err
	}
	var left []*Work
	for _, w := range works {
		switch {
		case !gone[w]:
			left = append(left, w)
		case w.Decision.Enrollment == uuid.Nil:
			w.Decision.Detail = "its contact was erased, so nobody is enrolled"
		}
	}
	return left, nil
}

// keysOf are the keys that the enrollments of events will own, each once.
func keysOf(works []*Work) []TenantKey {
	keys := make(map[TenantKey]bool, 2*len(works))
	for _, w := range works {
		if lead, _ := w.lead(); lead.Value != "" {
			keys[TenantKey{w.Event.Tenant, lead.Key().Hash}] = true
		}
		if a := w.address(); a != "" {
			keys[TenantKey{w.Event.Tenant, event.AddressKey(a)}] = true
		}
	}
	return slices.Collect(maps.Keys(keys))
}

// join makes of events that enroll the people they tell of, each once, and
// decides that the events belong to them. Who is known already comes first, and
// then whoever tells lead and address, which ties the two together for those
// that tell one of them.
func (r Rules) join(works []*Work) ([]*Joiner, []Entry) {
	type place struct {
		tenant   int64
		instance uuid.UUID
		key      event.Hash
	}
	by := map[place]*Joiner{}
	known := map[uuid.UUID]*Joiner{}
	var joiners []*Joiner
	var entries []Entry
	order := slices.Clone(works)
	slices.SortStableFunc(order, func(a, b *Work) int { return b.tells() - a.tells() })
	for _, w := range order {
		home, _ := w.home()
		lead, unowned := w.lead()
		email := w.address()
		at := func(key event.Hash) place { return place{w.Event.Tenant, home.Instance, key} }
		var j *Joiner
		if w.Decision.Enrollment != uuid.Nil {
			j = known[w.Decision.Enrollment]
		}
		if j == nil && w.Decision.Enrollment == uuid.Nil && lead.Value != "" {
			j = by[at(lead.Key().Hash)]
		}
		if j == nil && w.Decision.Enrollment == uuid.Nil && email != "" {
			j = by[at(event.AddressKey(email))]
		}
		if j == nil {
			j = &Joiner{Tenant: w.Event.Tenant, Instance: home.Instance, ID: w.Decision.Enrollment}
			if j.ID == uuid.Nil {
				j.ID, j.New = uuid.Must(uuid.NewV7()), true
				entries = append(entries, Entry{w.Event.Tenant, w.Seq, Moment{
					r.Now, "enrolled", fmt.Sprintf("enrollment %s in instance %s was made by this event", j.ID, j.Instance),
				}})
			}
			known[j.ID] = j
			joiners = append(joiners, j)
		}
		if unowned && by[at(lead.Key().Hash)] == nil {
			by[at(lead.Key().Hash)] = j
			j.Refs = append(j.Refs, lead)
		}
		if email != "" && home.Min == uuid.Nil && by[at(event.AddressKey(email))] == nil && j.Email == "" {
			by[at(event.AddressKey(email))] = j
			j.Email = email
		}
		w.Decision, w.Instance = Decision{Enrollment: j.ID}, j.Instance
	}
	return joiners, entries
}

// tells ranks an event by how much it tells of whom it is.
func (w *Work) tells() int {
	n := 0
	if w.Decision.Enrollment != uuid.Nil {
		n += 4
	}
	if lead, _ := w.lead(); lead.Value != "" {
		n++
	}
	if w.address() != "" {
		n++
	}
	return n
}

// CampaignKeys are the keys that events wait for until an instance's campaigns
// are mapped, or the instance is active, in the order of the keys.
func CampaignKeys(i *campaign.Instance) []TenantKey {
	keys := make([]TenantKey, 0, len(i.ProviderCampaigns))
	for provider, name := range i.ProviderCampaigns {
		keys = append(keys, TenantKey{i.Tenant, event.CampaignKey(strings.ToLower(provider), name)})
	}
	slices.SortFunc(keys, func(a, b TenantKey) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return keys
}

// Rounds parts rows that own a key so that a statement may count the owners a
// key has before it: the first round has one row of each key, the second one
// more, and the third all others, which come after two.
func Rounds[R any](rows []R, key func(R) TenantKey) [][]R {
	var rounds [][]R
	n := map[TenantKey]int{}
	for _, r := range rows {
		at := min(n[key(r)], 2)
		n[key(r)]++
		for len(rounds) <= at {
			rounds = append(rounds, nil)
		}
		rounds[at] = append(rounds[at], r)
	}
	return rounds
}
