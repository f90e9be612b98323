package store

import (
	"time"

	"tallyhook/internal/event"
)

// Spooled is one thing that was accepted while the database was away: an
// event, or, where Body is not nil, an authentic body that cannot be read.
type Spooled struct {
	Seq   int64 // its number in the spool; younger ones have higher numbers
	Event event.Event
	Body  *Letter
}

// SpoolStats say what a spool holds.
type SpoolStats struct {
	Events   int64     // bodies included
	Bytes    int64     // payloads with their overhead; what the bound is on
	Limit    int64     // bytes
	Aside    int64     // of Events: those that are not read until the next start
	OldestAt time.Time // when the oldest was put in; zero: it is empty
}
