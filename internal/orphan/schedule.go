// Package orphan works the queue of events whose enrollment was not there
// yet: it claims what is due in batches, runs it through the store's
// processor, and continues adoptions that were too large for one transaction.
//
// Guarantees: an infrastructure error never spends an attempt; a claim that is
// lost comes back by itself when its lease runs out; after Stop nothing is
// claimed and nothing is held.
package orphan

import (
	"math/rand/v2"
	"time"
)

// Schedule are the delays before each attempt; its length is the number of
// attempts.
type Schedule []time.Duration

// Delay is the time until the next attempt after n attempts were spent, with
// up to a tenth added so that a burst does not come back as one. ok is false
// when the schedule is spent.
func (s Schedule) Delay(n int) (d time.Duration, ok bool) {
	if n < 0 || n >= len(s) {
		return 0, false
	}
	return s[n] + time.Duration(rand.Int64N(int64(s[n])/10+1)), true //nolint:gosec // jitter needs no secrecy
}
