package app

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	indexBatch     = 2000 // rows of the index written in one turn of the writer
	indexEvery     = 500 * time.Millisecond
	flushEvery     = 30 * time.Second
	learnEvery     = 30 * time.Second // as long as a cache of keys may be wrong
	probeEvery     = time.Second      // while the database refuses writes
	forgetEvery    = 10 * time.Minute
	forgetBatch    = 1000
	eraseEvery     = 500 * time.Millisecond
	eraseBatch     = 200                 // events of a contact in one transaction
	duplicatesKept = 35 * 24 * time.Hour // longer than events stay in a spool
	noncesKept     = time.Hour           // three times as long as Mailgun's signature is taken, ten minutes both ways
	snapshotEvery  = 5 * time.Second     // it decides itself whether there is something to write
)

// keeper does what is due now and then: full stretches of the index are
// written, a database that refuses writes is tried again, and the last use of
// keys is noted.
type keeper struct {
	cancel context.CancelFunc
	finish sync.WaitGroup
}

func startKeeper(a *App) *keeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keeper{cancel: cancel}
	pass := retention{app: a}
	every := func(period time.Duration, op string, fn func(context.Context) error) {
		k.finish.Go(func() {
			tick := time.NewTicker(period)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if err := fn(context.WithoutCancel(ctx)); err != nil {
					a.log.Warn("housekeeping failed, it will be tried again", slog.String("op", op), slog.Any("error", err))
				}
			}
		})
	}
	every(indexEvery, "index events", func(c context.Context) error {
		for ctx.Err() == nil {
			more, err := a.store.index(c, indexBatch)
			if err != nil || !more {
				return err
			}
		}
		return nil
	})
	every(eraseEvery, "erase contacts", func(c context.Context) error {
		for ctx.Err() == nil {
			more, err := a.store.NextErasure(c, eraseBatch)
			if err != nil || !more {
				return err
			}
		}
		return nil
	})
	every(probeEvery, "probe database", func(c context.Context) error {
		if _, _, ok := a.store.refusing(); ok {
			return nil
		}
		return a.store.probe(c)
	})
	forget := func(op string, kept time.Duration, fn func(ctx context.Context, before time.Time, n int) (more bool, err error)) {
		every(forgetEvery, op, func(c context.Context) error {
			for ctx.Err() == nil {
				more, err := fn(c, time.Now().Add(-kept), forgetBatch)
				if err != nil || !more {
					return err
				}
			}
			return nil
		})
	}
	forget("forget duplicates", duplicatesKept, a.store.ForgetDuplicates)
	forget("forget nonces", noncesKept, a.store.ForgetNonces)
	if a.cfg.RetentionEvents > 0 {
		every(retainEvery, "remove old events", func(c context.Context) error { return pass.run(c, ctx.Done()) })
	}
	every(flushEvery, "flush key use", a.access.Flush)
	every(forgetEvery, "forget answers", a.access.ForgetAnswers)
	if a.cfg.SpoolDir != "" {
		every(snapshotEvery, "keep access snapshot", a.access.Keep)
	}
	every(learnEvery, "learn keys and sources", a.access.Learn)
	return k
}

func (k *keeper) stop() {
	k.cancel()
	k.finish.Wait()
}
