package app

import (
	"context"
	"fmt"
	"time"

	"tallyhook/internal/config"
	"tallyhook/internal/store"
)

const (
	retainEvery = 2 * time.Second  // whether a pass is due
	retainPause = 10 * time.Minute // between two passes: each looks at what is old and stays, too
	retainBatch = 200              // events looked at in one transaction
	day         = 24 * time.Hour
)

// horizon is how far back duplicates are told where old events are removed: as
// long as events are kept, and not less than what waits in a spool or among the
// dead letters may take. 0: for ever.
func horizon(cfg config.Config) time.Duration {
	if cfg.RetentionEvents == 0 {
		return 0
	}
	return max(cfg.RetentionEvents, duplicatesKept)
}

// retention removes old events, pass by pass. What a pass has removed is a
// line of the audit log at its end; a crash costs the line, not the pass.
type retention struct {
	app            *App
	events, bodies int64 // removed by this pass so far
	due            time.Time
}

// lastRetention is what the last pass did that came to an end.
type lastRetention struct {
	at             time.Time
	events, bodies int64
}

func (r *retention) run(ctx context.Context, ending <-chan struct{}) error {
	a := r.app
	now := time.Now()
	if now.Before(r.due) {
		return nil
	}
	limits := store.Retention{Events: now.Add(-a.cfg.RetentionEvents), Identities: now.Add(-horizon(a.cfg))}
	for more := true; more; {
		select {
		case <-ending:
			return nil
		default:
		}
		done, err := a.store.Retire(ctx, limits, retainBatch)
		if err != nil {
			return err
		}
		r.events, r.bodies, more = r.events+done.Events, r.bodies+done.Bodies, done.More
	}
	last := &lastRetention{now, r.events, r.bodies}
	if r.events+r.bodies > 0 {
		if err := a.store.Audit(ctx, store.Audit{
			At: now, Tenant: store.DefaultTenant, Actor: "system", Action: "retention",
			Detail: fmt.Sprintf("%d events and %d bodies of before %s removed", r.events, r.bodies, limits.Events.UTC().Format(time.RFC3339)),
		}); err != nil {
			return err
		}
	}
	r.events, r.bodies = 0, 0
	a.retired.Store(last)
	r.due = time.Now().Add(retainPause)
	return nil
}

// retentionHealth tells of the last pass of this server.
func (a *App) retentionHealth() map[string]any {
	h := map[string]any{"keep_days": int64(a.cfg.RetentionEvents / day)}
	if last := a.retired.Load(); last != nil {
		h["last_run"], h["removed"] = last.at.UTC().Format(time.RFC3339), last.events+last.bodies
	}
	return h
}
