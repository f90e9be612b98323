package app

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/config"
	"tallyhook/internal/limit"
	"tallyhook/internal/redisq"
	"tallyhook/internal/store"
)

// redisWait is how long a look at the safety of Redis waits for it to be there.
const redisWait = 5 * time.Second

// openRedis makes the queue in Redis, nil when none is configured. It connects
// by itself as soon as Redis is there.
func openRedis(cfg config.Config, installation string, log *slog.Logger) (*redisq.Queue, error) {
	if cfg.RedisURL == "" {
		return nil, nil //nolint:nilnil // no Redis is a way to run
	}
	q, err := redisq.New(redisq.Options{URL: cfg.RedisURL.Reveal(), Prefix: "tallyhook:" + installation, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	return q, nil
}

// installationOf names an installation in a Redis that several share: the same
// for each of its replicas, also while the database is away.
func installationOf(secretsKey [32]byte) string {
	mac := hmac.New(sha256.New, secretsKey[:])
	mac.Write([]byte("name of the installation"))
	return hex.EncodeToString(mac.Sum(nil)[:6])
}

// sharing says how replicas of an installation share limits.
func sharing(secretsKey [32]byte) limit.ExchangeOptions {
	mac := hmac.New(sha256.New, secretsKey[:])
	mac.Write([]byte("names of budgets"))
	return limit.ExchangeOptions{Replica: uuid.NewString(), Secret: [32]byte(mac.Sum(nil))}
}

// safety waits for Redis and looks whether it is safe to work with.
func safety(ctx context.Context, q *redisq.Queue) ([]store.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, redisWait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !q.State().Up {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("redis is down: %s", q.State().Reason)
		case <-tick.C:
		}
	}
	return q.Safety(ctx)
}

// unsafe is an error when Redis is down or not safe; nil without one.
func (a *App) unsafe(ctx context.Context) error {
	if a.redis == nil {
		return nil
	}
	findings, err := safety(ctx, a.redis)
	if err != nil {
		return fmt.Errorf("--strict: %w", err)
	}
	if len(findings) == 0 {
		return nil
	}
	lines := make([]string, len(findings))
	for i, f := range findings {
		lines[i] = findingText(f)
	}
	return errors.New("--strict: Redis is not safe: " + strings.Join(lines, "; "))
}

func findingText(f store.Finding) string {
	return fmt.Sprintf("%s is %s, want %s (%s)", f.What, f.Is, f.Want, f.Detail)
}

// redisHealth is the component redis of /health, and whether the whole is
// degraded by it.
func (a *App) redisHealth() (component map[string]any, degraded bool) {
	if a.redis == nil {
		return map[string]any{"status": "disabled", "detail": "no REDIS_URL is set; the queue is in the database"}, false
	}
	st := a.redis.State()
	since := st.Since.UTC().Format(time.RFC3339)
	if !st.Up {
		return map[string]any{
			"status": "down", "since": since, "reason": st.Reason,
			"detail": "the queue is worked in the database meanwhile; ingestion and adoption go on, nothing is lost",
		}, true
	}
	component = map[string]any{"status": "up", "since": since}
	if w := a.worker.Load(); w != nil {
		if findings := w.Status().Findings; len(findings) > 0 {
			lines := make([]string, len(findings))
			for i, f := range findings {
				lines[i] = findingText(f)
			}
			component["status"], component["unsafe"] = "degraded", lines
			return component, true
		}
	}
	return component, false
}
