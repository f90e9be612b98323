package redisq

import "context"

// BeginRebuild notes that all orphans are about to be parked, as a generation
// with a random name.
func (q *Queue) BeginRebuild(ctx context.Context, generation string) error {
	for _, shard := range q.shards {
		if _, err := q.run(ctx, q.script.begin, shard, []string{generation}); err != nil {
			return err
		}
	}
	return nil
}

// FinishRebuild notes that all are parked, after which State says whole. ok is
// false when Redis lost something meanwhile (a flush, a restart), or when
// another process finished a rebuild: the next look tells which.
func (q *Queue) FinishRebuild(ctx context.Context, generation string) (ok bool, err error) {
	ok = true
	for _, shard := range q.shards {
		res, err := q.run(ctx, q.script.finish, shard, []string{generation})
		if err != nil {
			return false, err
		}
		n, err := res.AsInt64()
		ok = ok && err == nil && n == 1
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.state.Whole = ok && q.state.Up
	return ok, nil
}
