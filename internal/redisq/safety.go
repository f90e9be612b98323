package redisq

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// fullFrom is the share of maxmemory, in percent, from which memory is short.
const fullFrom = 80

// Safety looks at the settings of Redis that a queue depends on, on each node
// that takes writes. No finding means that it is safe; an error, of kind
// Unavailable, that it cannot be asked. It asks INFO alone, which hosted
// services allow too.
func (q *Queue) Safety(ctx context.Context) ([]store.Finding, error) {
	c := q.client.Load()
	if c == nil {
		return nil, fault.New(fault.Unavailable, "Redis is down: %s", q.State().Reason)
	}
	ctx, cancel := context.WithTimeout(ctx, 4*q.opt.Timeout)
	defer cancel()
	var all []store.Finding
	for _, node := range (*c).Nodes() {
		// Sections one by one: only Redis 7 takes several.
		info := map[string]string{}
		for _, section := range []string{"server", "memory", "persistence", "replication"} {
			text, err := node.Do(ctx, node.B().Info().Section(section).Build()).ToString()
			if err != nil {
				return nil, fault.Wrap(fault.Unavailable, "ask Redis for its settings", err)
			}
			parseInfo(info, text)
		}
		if info["role"] != "master" && (*c).Mode() == rueidis.ClientModeCluster {
			continue // a cluster's replicas are not written to
		}
		all = append(all, findings(info)...)
	}
	slices.SortFunc(all, func(a, b store.Finding) int { return strings.Compare(a.What, b.What) })
	return slices.Compact(all), nil
}

func parseInfo(into map[string]string, text string) {
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		if name, value, ok := strings.Cut(strings.TrimSpace(sc.Text()), ":"); ok {
			into[name] = value
		}
	}
}

func findings(info map[string]string) []store.Finding {
	var all []store.Finding
	add := func(what, is, want, detail string) {
		all = append(all, store.Finding{What: what, Is: is, Want: want, Detail: detail})
	}
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(info[name], 10, 64) // what is not there is 0
		return n
	}
	if role := info["role"]; role != "master" {
		add("role", role, "master", "a replica takes no writes: the queue runs in the database")
	}
	if policy := info["maxmemory_policy"]; policy != "noeviction" {
		add("maxmemory-policy", policy, "noeviction",
			"Redis may throw the queue away when memory is short: what is lost waits for the sweep of the database")
	}
	if info["aof_enabled"] != "1" {
		add("appendonly", "no", "yes", "each restart of Redis loses the queue, which is then rebuilt from the database")
	}
	if info["aof_enabled"] == "1" && info["aof_last_write_status"] == "err" {
		add("aof_last_write_status", "err", "ok", "Redis cannot write to its disk")
	}
	if v := info["redis_version"]; info["valkey_version"] == "" && major(v) < 7 {
		add("redis_version", v, "7 or later, or Valkey", "the queue's scripts need Redis 7")
	}
	if n := number("connected_slaves"); info["role"] == "master" && n > 0 && info["min_slaves_good_slaves"] == "" {
		add("min-replicas-to-write", "0", "1 or more",
			fmt.Sprintf("%d replicas follow: a master that is cut off from them goes on taking writes, which a failover throws away", n))
	}
	if limit, used := number("maxmemory"), number("used_memory"); limit > 0 && used*100 >= limit*fullFrom {
		add("used_memory", fmt.Sprintf("%d of %d bytes", used, limit), fmt.Sprintf("less than %d %% of maxmemory", fullFrom),
			"when memory runs out new orphans are refused, and the queue runs in the database")
	}
	return all
}

func major(version string) int {
	n, _, _ := strings.Cut(version, ".")
	m, _ := strconv.Atoi(n) // what is no version is 0
	return m
}
