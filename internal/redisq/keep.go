package redisq

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"tallyhook/internal/store"
)

// keep connects, and from then on looks at Redis every Probe: a look writes,
// so that a Redis that takes no writes counts as down.
func (q *Queue) keep(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-q.nudge:
		}
		q.look(ctx)
		timer.Reset(q.opt.Probe)
	}
}

func (q *Queue) look(ctx context.Context) {
	if q.client.Load() == nil {
		c, err := rueidis.NewClient(q.dial)
		if err != nil {
			q.failed(err)
			return
		}
		q.client.Store(&c)
	}
	whole := true
	for _, shard := range q.shards {
		res, err := q.exec(ctx, q.script.probe, shard, nil)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			q.failed(err)
			return
		}
		n, err := res.AsInt64()
		whole = whole && err == nil && n == 1
	}
	q.up(whole)
}

// failed counts a failure; after a few in a row Redis is down.
func (q *Queue) failed(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failures++
	reason := reasonOf(err)
	switch {
	case !q.state.Up:
		q.state.Reason = reason
	case q.failures >= failuresToOpen:
		q.state = store.QueueState{Since: time.Now(), Reason: reason}
		q.opt.Logger.Warn("redis is down", slog.String("reason", reason))
	default:
		select { // one failure may be chance: look at once
		case q.nudge <- struct{}{}:
		default:
		}
	}
}

func (q *Queue) worked() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failures = 0
}

func (q *Queue) up(whole bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failures = 0
	q.state.Whole = whole
	if !q.state.Up {
		q.state.Up, q.state.Since, q.state.Reason = true, time.Now(), ""
		q.opt.Logger.Info("redis is up", slog.Bool("whole", whole))
	}
}

// reasonOf says in a line why Redis is no use. What a server answers is cut to
// its code where that is known, so that no text of its own gets into a log.
func reasonOf(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	answered, ok := rueidis.IsRedisErr(err)
	if !ok {
		return "no connection: " + err.Error()
	}
	code, _, _ := strings.Cut(answered.Error(), " ")
	switch code {
	case "READONLY":
		return "a read-only replica; the queue needs the master"
	case "LOADING":
		return "it is still loading its data"
	case "MISCONF":
		return "it refuses writes, since it cannot save them to its disk"
	case "NOREPLICAS":
		return "it refuses writes, since too few replicas follow it"
	case "MASTERDOWN":
		return "a replica that has lost its master"
	case "CLUSTERDOWN":
		return "the cluster is down"
	case "NOAUTH", "WRONGPASS":
		return "it refuses the password"
	case "NOPERM":
		return "its user lacks permissions: scripts, and all keys of the prefix"
	}
	return "it answers " + answered.Error()
}

// full tells the refusal of a write for want of memory: nothing was changed,
// and everything but parking goes on.
func full(err error) bool {
	answered, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(answered.Error(), "OOM ")
}
