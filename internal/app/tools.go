package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"tallyhook/internal/config"
	"tallyhook/internal/orphan"
	"tallyhook/internal/store/sqlite"
)

func openStore(ctx context.Context, cfg config.Config) (*sqlite.Store, error) {
	return sqlite.Open(ctx, sqlite.Options{
		Path: cfg.SQLitePath(), TxTimeout: cfg.TxTimeout, Now: time.Now, Delay: orphan.Schedule(cfg.RetrySchedule).Delay,
	})
}

// Migrate lists the steps of the schema, after applying what is pending when
// up is set.
func Migrate(ctx context.Context, cfg config.Config, up bool) ([]sqlite.Migration, error) {
	if up {
		st, err := openStore(ctx, cfg)
		if err != nil {
			return nil, err
		}
		if err := st.Close(); err != nil {
			return nil, err
		}
	}
	return sqlite.Migrations(ctx, cfg.SQLitePath())
}

// Check is one finding of the doctor.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Doctor examines an installation: it reads, and changes nothing but a
// pending migration. It may run beside a server.
func Doctor(ctx context.Context, cfg config.Config) (checks []Check, err error) {
	checks = []Check{{"settings", true, "all understood"}}
	for _, w := range cfg.Warnings {
		checks = append(checks, Check{"settings", true, "warning: " + w})
	}
	if _, err := os.Stat(cfg.SQLitePath()); err != nil {
		return append(checks, Check{"database", false, fmt.Sprintf("%s is not there; tallyhook serve makes it", cfg.SQLitePath())}), nil
	}
	st, err := openStore(ctx, cfg)
	if err != nil {
		return append(checks, Check{"database", false, err.Error()}), nil
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	steps, err := sqlite.Migrations(ctx, cfg.SQLitePath())
	if err != nil {
		return append(checks, Check{"database", false, err.Error()}), nil
	}
	checks = append(checks, Check{"database", true, fmt.Sprintf("%s, schema at step %d", cfg.SQLitePath(), len(steps))})
	b, err := st.Balance(ctx)
	if err != nil {
		return append(checks, Check{"balance", false, err.Error()}), nil
	}
	for _, t := range b.Tenants {
		l := t.Ledger
		checks = append(checks, Check{"balance", l.Difference() == 0 && t.Counters == 0, fmt.Sprintf(
			"tenant %s: received %d = applied %d + orphaned %d + dead %d + ignored %d + duplicates %d + archived %d",
			t.Tenant, l.Received, l.Applied, l.Orphaned, l.Dead, l.Ignored, l.Duplicates, l.Archived)})
	}
	for _, c := range b.Counters {
		checks = append(checks, Check{"balance", false, fmt.Sprintf("%s of instance %s: %d counted, %d recounted", c.What, c.Instance, c.Counted, c.Recount)})
	}
	return append(checks, Check{"balance", b.Difference == 0, fmt.Sprintf("difference %d", b.Difference)}), nil
}
