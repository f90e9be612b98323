package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"tallyhook/internal/config"
	"tallyhook/internal/store"
)

// Migrate lists the steps of the schema, after applying what is pending when
// up is set.
func Migrate(ctx context.Context, cfg config.Config, up bool) ([]store.Migration, error) {
	if up {
		st, err := openEngine(ctx, cfg, false, hooks{})
		if err != nil {
			return nil, err
		}
		if err := st.Close(); err != nil {
			return nil, err
		}
	}
	return migrations(ctx, cfg)
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
	if err := missing(cfg); err != nil {
		return append(checks, Check{"database", false, err.Error()}), nil
	}
	st, err := openEngine(ctx, cfg, false, hooks{})
	if err != nil {
		return append(checks, Check{"database", false, err.Error()}), nil
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	steps, err := migrations(ctx, cfg)
	if err != nil {
		return append(checks, Check{"database", false, err.Error()}), nil
	}
	checks = append(checks, Check{"database", true, fmt.Sprintf("%s, schema at step %d", st.where, len(steps))})
	if cfg.RedisURL != "" {
		checks = append(checks, redisChecks(ctx, cfg)...)
	}
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

// redisChecks tell whether Redis is there and safe to work with.
func redisChecks(ctx context.Context, cfg config.Config) []Check {
	q, err := openRedis(cfg, "doctor", slog.New(slog.DiscardHandler)) //nolint:contextcheck // closed below
	if err != nil {
		return []Check{{"redis", false, err.Error()}}
	}
	defer q.Close()
	findings, err := safety(ctx, q)
	if err != nil {
		return []Check{{"redis", false, err.Error()}}
	}
	if len(findings) == 0 {
		return []Check{{"redis", true, "up, and safe to work with"}}
	}
	checks := make([]Check, len(findings))
	for i, f := range findings {
		checks[i] = Check{"redis", false, findingText(f)}
	}
	return checks
}
