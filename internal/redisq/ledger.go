package redisq

import (
	"context"
	"hash/fnv"
	"strconv"
	"time"

	"tallyhook/internal/limit"
)

// Ledger is where replicas share limits, in the Redis of a queue: a hash for
// each budget, from the stretch of a replica to what it has let through, which
// expires with the budget's period. It answers within the queue's timeout.
type Ledger struct{ q *Queue }

var _ limit.Ledger = Ledger{}

// Ledger gives the queue's Redis as a ledger of limits.
func (q *Queue) Ledger() Ledger { return Ledger{q} }

// Up implements limit.Ledger.
func (l Ledger) Up() bool { return l.q.State().Up }

// Book implements limit.Ledger.
func (l Ledger) Book(ctx context.Context, entries []limit.Entry) []limit.Total {
	totals := make([]limit.Total, len(entries))
	for shard, base := range l.q.shards {
		var args []string
		var at []int
		for i, e := range entries {
			if l.shardOf(e.Budget) == shard {
				args = append(args, e.Budget, e.Stretch, strconv.Itoa(e.Count), millis(max(e.Left, time.Millisecond)), decimal(e.Ends))
				at = append(at, i)
			}
		}
		if len(at) == 0 {
			continue
		}
		res, err := l.q.run(ctx, l.q.script.book, base, args)
		if err != nil {
			continue // the state says what is wrong
		}
		answers, err := res.AsIntSlice()
		if err != nil || len(answers) != 3*len(at) {
			continue
		}
		for n, i := range at {
			totals[i] = limit.Total{Sum: int(answers[3*n]), Left: time.Duration(answers[3*n+1]) * time.Millisecond, Ends: answers[3*n+2]}
		}
	}
	return totals
}

// shardOf is where a budget belongs.
func (l Ledger) shardOf(budget string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(budget)) // never fails
	return int(h.Sum32()) % len(l.q.shards)
}
