package store

import (
	"fmt"

	"github.com/google/uuid"

	"tallyhook/internal/event"
)

// Found is what a store knows of one match key: the smallest and the largest
// enrollment that owns it (uuid.Nil when none does). Two are enough to tell
// "one" from "several" without reading a million owners.
type Found struct {
	Min, Max uuid.UUID
	// Instance is, for RankCampaign, the instance that the provider's campaign
	// is mapped to; Min and Max are then the address's enrollment in it.
	Instance uuid.UUID
	Active   bool // that instance takes enrollments in by itself
}

// Decision is where an event belongs, or why that cannot be said.
type Decision struct {
	Enrollment uuid.UUID // uuid.Nil: orphan
	Reason     string
	Detail     string
}

// Match finds an event's enrollment: the most specific key wins. An unknown
// message, action or lead id falls through to the next key; an unknown
// enrollment id, or a campaign mapped to an instance in which the address is
// not enrolled, does not. Two owners within one rank are a contradiction, and
// ambiguity is never guessed.
func Match(keys []event.Key, found []Found) Decision {
	for i := 0; i < len(keys); {
		rank := keys[i].Rank
		owner, several, mapped := uuid.Nil, false, false
		for ; i < len(keys) && keys[i].Rank == rank; i++ {
			f := found[i]
			mapped = mapped || f.Instance != uuid.Nil
			if f.Min == uuid.Nil {
				continue
			}
			if f.Min != f.Max || (owner != uuid.Nil && owner != f.Min) {
				several = true
			}
			owner = f.Min
		}
		switch {
		case several:
			return Decision{Reason: ReasonAmbiguous, Detail: fmt.Sprintf("%s belongs to more than one enrollment", rankName(rank))}
		case owner != uuid.Nil:
			return Decision{Enrollment: owner}
		case rank == event.RankEnrollment:
			return Decision{Reason: ReasonNoEnrollment, Detail: "the enrollment id that the event names does not exist"}
		case rank == event.RankCampaign && mapped:
			return Decision{Reason: ReasonNoEnrollment, Detail: "the address is not enrolled in the instance that the provider's campaign is mapped to"}
		}
	}
	if len(keys) == 0 {
		return Decision{Reason: ReasonNoEnrollment, Detail: "the event names neither an enrollment, a message, a lead nor an address"}
	}
	return Decision{Reason: ReasonNoEnrollment, Detail: "no enrollment owns any of the event's keys: " + rankNames(keys)}
}

func rankName(r event.Rank) string {
	switch r {
	case event.RankEnrollment:
		return "the enrollment id"
	case event.RankMessage:
		return "the message or action id"
	case event.RankLead:
		return "the lead id"
	case event.RankCampaign:
		return "the address in the mapped campaign"
	case event.RankAddress:
		return "the address"
	}
	return "the key"
}

func rankNames(keys []event.Key) string {
	var s string
	last := event.Rank(255)
	for _, k := range keys {
		if k.Rank == last {
			continue
		}
		if s != "" {
			s += ", "
		}
		s += rankName(k.Rank)
		last = k.Rank
	}
	return s
}
