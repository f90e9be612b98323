// Package telemetry is what Tallyhook says about itself: its log and its
// metrics.
//
// Guarantees: nothing is global, the logger and the registry are handed out
// and passed on; metric names are those of the contract and no unbounded value
// (an address, an id) has a label; a store that does not answer costs its own
// series and never the scrape; times are UTC.
package telemetry

import (
	"io"
	"log/slog"
)

// NewLogger makes the logger that is passed to everything. format is "text"
// for people or "json" for machines; level may change while running
// (*slog.LevelVar).
func NewLogger(w io.Writer, level slog.Leveler, format string) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: inUTC}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

// inUTC makes lines of machines in several time zones comparable.
func inUTC(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindTime {
		a.Value = slog.TimeValue(a.Value.Time().UTC())
	}
	return a
}
