// Package redisq is the orphan queue in Redis: numbers of events, when each is
// due, and leases. SQL is the truth; everything here can be rebuilt from it at
// any moment.
//
// Guarantees: a claimed number is due again when its lease runs out, whatever
// became of who claimed it; only who holds a number settles it; a claim costs
// O(n log N) and nothing ever scans; no call takes longer than Options.Timeout,
// and none is tried while Redis is known to be down; New never waits for Redis.
package redisq

import (
	"cmp"
	"context"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// Options of a queue; zero fields take the defaults.
type Options struct {
	URL     string        // where Redis is; see ParseURL
	Prefix  string        // of every key, "tallyhook"
	Shards  int           // parts that a cluster can spread, 1; every process must use the same number
	Timeout time.Duration // of one call, 500 ms
	Probe   time.Duration // between two looks at whether Redis is there, 500 ms
	Logger  *slog.Logger
}

const failuresToOpen = 2 // failures in a row after which Redis is down

// Queue is the orphan queue in Redis.
type Queue struct {
	opt    Options
	dial   rueidis.ClientOption
	script scripts
	shards []string // the keys' common beginning, with the {tag} of the shard
	turn   atomic.Uint64

	stop    context.CancelFunc
	running sync.WaitGroup
	client  atomic.Pointer[rueidis.Client]
	nudge   chan struct{} // asks for a look at Redis now

	mu       sync.Mutex
	state    store.QueueState
	failures int // in a row
}

// New makes a queue, which connects by itself as soon as Redis is there. An
// error, of kind Invalid, means that the URL cannot be understood.
func New(o Options) (*Queue, error) {
	dial, err := ParseURL(o.URL)
	if err != nil {
		return nil, err
	}
	o.Prefix, o.Shards = cmp.Or(o.Prefix, "tallyhook"), max(o.Shards, 1)
	o.Timeout, o.Probe = cmp.Or(o.Timeout, 500*time.Millisecond), cmp.Or(o.Probe, 500*time.Millisecond)
	dial.Dialer.Timeout, dial.ConnWriteTimeout = o.Timeout, 2*o.Timeout
	// Scripts are not idempotent, and a breaker retries better than a client.
	dial.DisableRetry, dial.DisableCache = true, true
	q := &Queue{opt: o, dial: dial, script: newScripts(), nudge: make(chan struct{}, 1)}
	for n := range o.Shards {
		q.shards = append(q.shards, o.Prefix+":{"+strconv.Itoa(n)+"}")
	}
	q.state = store.QueueState{Since: time.Now(), Reason: "not connected yet"}
	ctx, cancel := context.WithCancel(context.Background())
	q.stop = cancel
	q.running.Go(func() { q.keep(ctx) })
	return q, nil
}

// Close ends the connections. What is claimed stays under its lease.
func (q *Queue) Close() {
	q.stop()
	q.running.Wait()
	if c := q.client.Load(); c != nil {
		(*c).Close()
	}
}

// State tells whether Redis is there and holds what it should. It asks nobody.
func (q *Queue) State() store.QueueState {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.state
}

// run runs a script on one shard. Every error is of kind Unavailable.
func (q *Queue) run(ctx context.Context, s *rueidis.Lua, shard string, args []string) (rueidis.RedisResult, error) {
	if st := q.State(); !st.Up {
		return rueidis.RedisResult{}, fault.New(fault.Unavailable, "Redis is down: %s", st.Reason)
	}
	res, err := q.exec(ctx, s, shard, args)
	if err != nil && !full(err) {
		q.failed(err)
	} else {
		q.worked()
	}
	return res, fault.Wrap(fault.Unavailable, "redis", err)
}

// exec runs a script whatever the state is.
func (q *Queue) exec(ctx context.Context, s *rueidis.Lua, shard string, args []string) (rueidis.RedisResult, error) {
	ctx, cancel := context.WithTimeout(ctx, q.opt.Timeout)
	defer cancel()
	res := s.Exec(ctx, *q.client.Load(), []string{shard}, args)
	return res, res.Error()
}

// shardOf is where a number belongs.
func (q *Queue) shardOf(seq int64) int { return int(uint64(seq) % uint64(len(q.shards))) } //nolint:gosec // numbers are positive, and a wrap would be as good
