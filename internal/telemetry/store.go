package telemetry

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyhook/internal/event"
)

// Snapshot is what the store holds at one moment.
type Snapshot struct {
	Orphans, Due, Leased map[string]int64         // events, by route
	OldestAge            map[string]time.Duration // by route
	DeadLetters          map[string]int64         // by status
	BalanceDifference    int64                    // events; must be 0
	Backend              string                   // of the queue: "redis", "sql", "sql-fallback"
	KeyExpiry            time.Time                // of the live API key that ends first; zero: none does
}

// StoreCollector exports a Snapshot, read anew at each scrape.
type StoreCollector struct {
	read func() (Snapshot, error)

	orphans, due, leased, oldest, deadLetters, databaseUp, backend, balance, keyExpiry *prometheus.Desc
}

// NewStoreCollector makes a collector to register. read is called once a
// scrape, by several goroutines when scrapes overlap, and must bound its own
// time. When it fails, database_up is 0 and the other series are absent: an
// old number would look like a fresh one.
func NewStoreCollector(read func() (Snapshot, error)) *StoreCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	}
	return &StoreCollector{
		read:        read,
		orphans:     desc("orphans", "Events that wait for their enrollment, by route.", "route"),
		due:         desc("orphans_due", "Orphans whose next attempt is due, by route.", "route"),
		leased:      desc("orphans_leased", "Orphans that a worker holds now, by route.", "route"),
		oldest:      desc("orphan_oldest_age_seconds", "Age of the oldest orphan since its receipt, in seconds, by route; 0 when there is none.", "route"),
		deadLetters: desc("dead_letters_stored", "Dead letters in the store, by status: dead, replaying, replayed, ignored.", "status"),
		databaseUp:  desc("database_up", "1 when the database answered this scrape, else 0."),
		backend:     desc("queue_backend", "Always 1; its label is the backend of the orphan queue in use: redis, sql, sql-fallback.", "backend"),
		balance: desc("balance_difference",
			"Events received less events accounted for (applied, orphaned, dead, ignored, duplicate); must be 0."),
		keyExpiry: desc("key_expiry_timestamp_seconds",
			"When the API key that ends first ends, in seconds since 1970; 0 when none does. Keys that were rotated do not count."),
	}
}

// Describe implements prometheus.Collector.
func (c *StoreCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.orphans, c.due, c.leased, c.oldest, c.deadLetters, c.databaseUp, c.backend, c.balance, c.keyExpiry,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *StoreCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s, err := c.read()
	if err != nil {
		gauge(c.databaseUp, 0)
		return
	}
	gauge(c.databaseUp, 1)
	// Every known label value is there, at 0 if need be: an alert on an absent
	// series never fires.
	for _, route := range names(routes(), s.Orphans, s.Due, s.Leased) {
		gauge(c.orphans, float64(s.Orphans[route]), route)
		gauge(c.due, float64(s.Due[route]), route)
		gauge(c.leased, float64(s.Leased[route]), route)
		gauge(c.oldest, s.OldestAge[route].Seconds(), route)
	}
	for _, status := range names([]string{"dead", "replaying", "replayed", "ignored"}, s.DeadLetters) {
		gauge(c.deadLetters, float64(s.DeadLetters[status]), status)
	}
	gauge(c.balance, float64(s.BalanceDifference))
	expiry := 0.0
	if !s.KeyExpiry.IsZero() {
		expiry = float64(s.KeyExpiry.Unix())
	}
	gauge(c.keyExpiry, expiry)
	if s.Backend != "" {
		gauge(c.backend, 1, s.Backend)
	}
}

func routes() []string {
	all := make([]string, 0, 3)
	for _, r := range event.Routes() {
		all = append(all, string(r))
	}
	return all
}

// names gives the known names and those that occur, each once.
func names(known []string, counts ...map[string]int64) []string {
	for _, m := range counts {
		known = slices.AppendSeq(known, maps.Keys(m))
	}
	slices.Sort(known)
	return slices.Compact(known)
}
