package store

import (
	"fmt"
	"slices"

	"tallyhook/internal/event"
)

// Timeline tells an event's life by time: what its columns tell, and the
// entries that were written because they are rare.
func Timeline(r *Record, rare []Moment) []Moment {
	all := append([]Moment{{At: r.ReceivedAt, What: "received", Detail: "from " + r.Provider}}, rare...)
	parked := slices.ContainsFunc(rare, func(m Moment) bool { return m.What == "parked" })
	if !r.ParkedAt.IsZero() && !parked {
		detail := "no enrollment was found"
		if r.Reason != "" && r.State == event.Orphaned {
			detail = r.Reason + ": " + r.Detail
		}
		all = append(all, Moment{At: r.ParkedAt, What: "parked", Detail: detail})
	}
	if r.Duplicates > 0 {
		times := "1 time"
		if r.Duplicates > 1 {
			times = fmt.Sprintf("%d times", r.Duplicates)
		}
		all = append(all, Moment{At: r.LastDuplicateAt, What: "duplicate", Detail: "received again, the last of " + times})
	}
	switch r.State {
	case event.Applied:
		all = append(all, Settled(r))
	case event.Ignored:
		detail := r.Kind + " is not an outreach event"
		if r.Reason == ReasonErased {
			detail = r.Detail
		}
		all = append(all, Moment{At: r.ReceivedAt, What: "ignored", Detail: detail})
	case event.Orphaned, event.Dead, event.Spooled:
	}
	slices.SortStableFunc(all, func(a, b Moment) int { return a.At.Compare(b.At) })
	return all
}

// Settled is the entry of the timeline that an applied event's columns tell.
func Settled(r *Record) Moment {
	what := "applied"
	if r.SettledBy == ByAdoption {
		what = "adopted"
	}
	return Moment{At: r.SettledAt, What: what, Detail: "to enrollment " + r.Enrollment.String() + " by " + r.SettledBy}
}
