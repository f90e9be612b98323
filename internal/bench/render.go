package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// table is one of a report: the first row is the heading.
type table struct {
	title string
	rows  [][]string
}

// WriteJSON writes the report for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteText writes the report for a terminal.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, l := range r.facts() {
		b.WriteString(l + "\n")
	}
	for _, t := range r.tables() {
		b.WriteString("\n" + t.title + "\n")
		tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, row := range t.rows {
			if _, err := fmt.Fprintln(tw, "  "+strings.Join(row, "\t")); err != nil {
				return err
			}
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	for _, part := range []struct {
		title string
		lines []string
	}{{"Checked", r.Checks}, {"PROBLEMS", r.Problems}} {
		if len(part.lines) > 0 {
			b.WriteString("\n" + part.title + "\n  " + strings.Join(part.lines, "\n  ") + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteMarkdown writes the report for a document.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	for _, l := range r.facts() {
		b.WriteString("- " + l + "\n")
	}
	for _, t := range r.tables() {
		b.WriteString("\n" + t.title + "\n\n")
		for i, row := range t.rows {
			b.WriteString("| " + strings.Join(row, " | ") + " |\n")
			if i == 0 {
				b.WriteString("|" + strings.Repeat("---|", len(row)) + "\n")
			}
		}
	}
	for _, part := range []struct {
		title string
		lines []string
	}{{"Checked", r.Checks}, {"Problems", r.Problems}} {
		if len(part.lines) > 0 {
			b.WriteString("\n" + part.title + ":\n\n- " + strings.Join(part.lines, "\n- ") + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) facts() []string {
	m := r.Machine
	lines := []string{
		fmt.Sprintf("tallyhook %s, %s, %s", r.Version, m.Go, r.Date.Format("2006-01-02 15:04 UTC")),
		fmt.Sprintf("Machine: %d CPUs, %s, %d MiB, %s, data on %s; generator and server share it", m.CPUs, m.Model, m.MemoryMiB, m.System, m.FileSystem),
		"Mix: " + r.Mix,
		fmt.Sprintf("%g s a cell after warming up for a tenth of that; %s in all", r.CellSeconds, seconds(r.TookSeconds)),
	}
	if r.LogLevel != "" {
		lines = append(lines, "Server with default settings, RETRY_SCHEDULE=24h, LOG_LEVEL="+r.LogLevel+", its log in a file")
	}
	if m.FileSystem == "tmpfs" {
		lines = append(lines, "WARNING: tmpfs makes nothing durable: these figures say little; choose another folder with --dir")
	}
	return lines
}

func (r *Report) tables() []table {
	var all []table
	if len(r.SQLite)+len(r.HTTP) > 0 {
		t := table{title: "Yardsticks of this machine in this run", rows: [][]string{
			{"yardstick", "events/s", "p50 ms", "p99 ms", "p999 ms", "CPU s/1,000"},
		}}
		for _, c := range r.HTTP {
			t.rows = append(t.rows, []string{
				c.what(), count(c.PerSecond), figure(c.Latency.P50), figure(c.Latency.P99), figure(c.Latency.P999), figure(c.CPU),
			})
		}
		for _, y := range r.SQLite {
			t.rows = append(t.rows, []string{
				fmt.Sprintf("bare SQLite insert with identity, WAL, synchronous=FULL, %d rows a transaction", y.Batch), count(y.PerSecond), "", "", "", "",
			})
		}
		all = append(all, t)
	}
	if len(r.Cells) > 0 {
		t := table{title: "Durable ingestion over HTTP (an answer means that the event is on disk and matched)", rows: [][]string{
			{"load", "events/s", "p50 ms", "p99 ms", "p999 ms", "max ms", "CPU s/1,000", "peak MiB", "/ HTTP", "/ SQLite 500", "refused", "errors"},
		}}
		for _, c := range r.Cells {
			t.rows = append(t.rows, []string{
				c.what(), count(c.PerSecond), figure(c.Latency.P50), figure(c.Latency.P99), figure(c.Latency.P999), figure(c.Latency.Max),
				figure(c.CPU), figure(c.PeakMiB), figure(c.OfHTTP), figure(c.OfSQLite), strconv.FormatUint(c.Refused, 10), strconv.FormatUint(c.Errors, 10),
			})
		}
		all = append(all, t)
	}
	if len(r.Adoption) > 0 {
		t := table{title: "An enrolling request that adopts one early event, applied when it answers, beside one that adopts nothing", rows: [][]string{
			{"other orphans parked", "times", "adopting p50 ms", "p99 ms", "max ms", "plain p50 ms", "p99 ms", "max ms", "parked/s"},
		}}
		for _, a := range r.Adoption {
			t.rows = append(t.rows, []string{
				count(float64(a.Parked)), strconv.Itoa(a.Repetitions), figure(a.With.P50), figure(a.With.P99), figure(a.With.Max),
				figure(a.Without.P50), figure(a.Without.P99), figure(a.Without.Max), count(a.ParkedPerS),
			})
		}
		all = append(all, t)
	}
	return all
}

// what names a cell.
func (c *Cell) what() string {
	name := map[string]string{
		PartAPI: "POST /api/events, one event, API key", PartWebhook: "POST /webhooks/{token}, one event, HMAC",
		PartOpen: "POST /api/events, API key", PartYardstick: "net/http, HMAC-SHA256 check, 202, nothing stored",
		PartArray: fmt.Sprintf("POST /api/events, arrays of %d, API key", c.Array),
	}[c.Part]
	if c.Rate > 0 {
		return fmt.Sprintf("%s, open loop at %s requests/s", name, count(c.Rate))
	}
	if c.Connections == 1 {
		return name + ", 1 connection"
	}
	return fmt.Sprintf("%s, %d connections", name, c.Connections)
}

// count is a whole number with commas.
func count(v float64) string {
	s := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

// figure has about three digits; nothing when it was not measured.
func figure(v float64) string {
	switch {
	case v == 0:
		return ""
	case v >= 100:
		return count(v)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

func seconds(v float64) string { return strconv.FormatFloat(v, 'f', 0, 64) + " s" }
