package store

import (
	"time"

	"tallyhook/internal/event"
)

// QueueState is how a queue beside the database stands.
type QueueState struct {
	Up     bool      // it answers and takes writes
	Since  time.Time // when it came up, or went down
	Reason string    // why it is down; holds no address's credentials
	// Whole is false when it may lack orphans that the database has, because it
	// lost what it held or was never filled: then it is to be rebuilt.
	Whole bool
}

// Finding is one thing about a service beside the database that endangers what
// it is used for.
type Finding struct {
	What   string // the setting or figure, "maxmemory-policy"
	Is     string
	Want   string
	Detail string // what may come of it
}

// Share is how much of a claim each route gets first; what one does not use
// the others may.
func Share(r event.Route) int {
	switch r {
	case event.RouteUrgent:
		return 8
	case event.RouteStandard:
		return 4
	case event.RouteBulk:
		return 1
	}
	return 1
}
