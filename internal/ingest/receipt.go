// Package ingest takes events in: it receives webhooks, makes events durable
// by group commit, and answers what became of each.
//
// Guarantees: Accept returns without an error only when the events are on
// disk, in the store or, while that is away, in the spool; an event keeps its
// id when a commit of unknown outcome is retried, spooled and replayed.
package ingest

import (
	"tallyhook/internal/event"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
)

// Receipt says what became of the events of one webhook.
type Receipt struct {
	Provider *provider.Provider // nil when the source is unknown
	Counts   Counts
}

// Counts are the outcomes of one request's events.
type Counts struct {
	Received, Applied, Duplicate, Orphaned, Ignored, Dead, Spooled int
}

// Add counts one outcome.
func (c *Counts) Add(r store.Result) {
	c.Received++
	switch r.Outcome {
	case event.OutcomeApplied:
		c.Applied++
	case event.OutcomeDuplicate:
		c.Duplicate++
	case event.OutcomeOrphaned:
		c.Orphaned++
	case event.OutcomeIgnored:
		c.Ignored++
	case event.OutcomeDead:
		c.Dead++
	case event.OutcomeSpooled:
		c.Spooled++
	}
}
