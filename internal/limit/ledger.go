package limit

import (
	"context"
	"time"
)

// Ledger is where replicas add up what each has let through of a budget.
type Ledger interface {
	// Up tells, without asking anybody, whether booking can be worth it.
	Up() bool
	// Book sets what one stretch of a replica has let through, and gives the sum
	// over all stretches, in the order of the entries. Booking the same again
	// changes nothing. The Left of an entry is 0 when there was no answer, or when
	// its period was over by the ledger's clock.
	Book(ctx context.Context, entries []Entry) []Total
}

// Entry is what one stretch of a replica has let through of a budget in the
// period that runs.
type Entry struct {
	Budget  string        // names the budget to the replicas and tells nobody else whose it is
	Stretch string        // unlike that of any other replica or time
	Count   int           // let through since the period began
	Left    time.Duration // of the period, should the ledger not know the budget yet
	Ends    int64         // when the period ends, as the ledger has told; 0: not yet
}

// Total is what all stretches together have let through.
type Total struct {
	Sum  int
	Left time.Duration // of the period that the first entry began
	Ends int64         // when it ends, by the ledger's clock
}
