// Package bench measures a server from outside, over HTTP, and this machine
// itself in the same run, so that figures can be told as ratios: absolute ones
// move with the machine and the day.
//
// Guarantees: everything is bounded in time; a request that is not answered
// with 2xx counts as refused or failed, never as work done; children are ended by their
// id and temporary files removed, also when the context ends early; Self
// fails when the server lost, doubled or miscounted anything.
package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// Parts of the suite, as Options.Only names them.
const (
	PartYardstick = "yardstick" // HTTP without storing, SQLite without HTTP
	PartAPI       = "api"       // single events with an API key
	PartArray     = "array"     // arrays with an API key
	PartWebhook   = "webhook"   // single events signed for a source
	PartOpen      = "open"      // single events at half of the greatest rate
	PartAdoption  = "adoption"  // enrolling with orphans parked
)

// Parts lists them in the order they run in.
func Parts() []string {
	return []string{PartYardstick, PartAPI, PartArray, PartWebhook, PartOpen, PartAdoption}
}

// Options of a run.
type Options struct {
	Duration    time.Duration // of each cell
	Connections []int         // of the closed-loop cells
	Array       int           // events in an array
	Orphans     []int         // parked beside an adoption, growing
	Repetitions int           // of an adoption; the suite's default is 200
	Rate        float64       // of Load: requests a second, open loop; 0: closed loop
	Only        []string      // parts; empty: all
	Dir         string        // where Self makes its temporary folder; empty: the system's
	LogLevel    string        // of Self's server
	Executable  string        // this program, which Self starts again
	Version     string
	Progress    io.Writer // may be nil
}

func (o *Options) has(part string) bool { return len(o.Only) == 0 || slices.Contains(o.Only, part) }

func (o *Options) progress(format string, args ...any) {
	if o.Progress != nil {
		_, _ = fmt.Fprintf(o.Progress, "bench: "+format+"\n", args...) // nobody is reading then
	}
}

// Latency in milliseconds; a percentile is at most 1/64 too large.
type Latency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

func latencyOf(h *Histogram) Latency {
	return Latency{milliseconds(h.Quantile(0.5)), milliseconds(h.Quantile(0.99)), milliseconds(h.Quantile(0.999)), milliseconds(h.Max())}
}

// Cell is one load on one way in.
type Cell struct {
	Part        string  `json:"part"`
	Connections int     `json:"connections,omitempty"`
	Rate        float64 `json:"rate,omitempty"`  // requests a second asked for; open loop
	Array       int     `json:"array,omitempty"` // events in a request; 0: one, not in an array
	Events      uint64  `json:"events"`
	Refused     uint64  `json:"refused"` // requests answered 429 or 503
	Errors      uint64  `json:"errors"`  // with any other answer than 2xx, or none
	ErrorSample string  `json:"error_sample,omitempty"`
	PerSecond   float64 `json:"events_per_second"`
	Latency     Latency `json:"latency_ms"`                              // of a request
	CPU         float64 `json:"cpu_seconds_per_1000_events,omitempty"`   // of the server
	PeakMiB     float64 `json:"peak_memory_mib,omitempty"`               // of the server
	OfHTTP      float64 `json:"ratio_to_http_yardstick,omitempty"`       // at as many connections
	OfSQLite    float64 `json:"ratio_to_sqlite_500_yardstick,omitempty"` // 500 rows a transaction
}

// Report is all that a run found.
type Report struct {
	Version     string            `json:"version"`
	Date        time.Time         `json:"date"`
	Machine     Machine           `json:"machine"`
	CellSeconds float64           `json:"cell_seconds"`
	LogLevel    string            `json:"log_level,omitempty"`
	Mix         string            `json:"mix"`
	SQLite      []SQLiteYardstick `json:"sqlite_yardsticks,omitempty"`
	HTTP        []Cell            `json:"http_yardsticks,omitempty"`
	Cells       []Cell            `json:"cells,omitempty"`
	Adoption    []Adoption        `json:"adoption,omitempty"`
	Checks      []string          `json:"checks,omitempty"`   // what was verified
	Problems    []string          `json:"problems,omitempty"` // why the run failed
	TookSeconds float64           `json:"took_seconds"`

	acknowledged uint64 // events answered with 2xx by the server of the current part
}

func newReport(o *Options, dir, mix string) *Report {
	return &Report{
		Version: o.Version, Date: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(dir),
		CellSeconds: o.Duration.Seconds(), LogLevel: o.LogLevel, Mix: mix,
	}
}

func newMix() (*Mix, error) {
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("name the run: %w", err)
	}
	return NewMix(hex.EncodeToString(b[:]), time.Now()), nil
}

// Load puts a load on a server that runs already. It leaves an instance with
// its enrollments and all events there.
func Load(ctx context.Context, t Target, o Options) (*Report, error) {
	begin := time.Now()
	m, err := newMix()
	if err != nil {
		return nil, err
	}
	r := newReport(&o, ".", m.Describe())
	r.Machine.FileSystem = "unknown: the server may be elsewhere"
	a := newAPI(t)
	defer a.close()
	if err := a.enroll(ctx, m); err != nil {
		return nil, err
	}
	part := PartAPI
	if o.Array > 0 {
		part = PartArray
	}
	if o.Rate > 0 {
		err = openCell(ctx, a, &o, m, o.Array, o.Rate, r)
	} else {
		err = closedCells(ctx, a.target, &o, part, a.direct(m, o.Array), r)
	}
	r.finish(begin)
	return r, err
}

// Measure runs the parts of the suite that need the server, but not the
// yardsticks, against one. Adoption is first, since it counts what is parked.
func Measure(ctx context.Context, t Target, o Options) (*Report, error) {
	begin := time.Now()
	m, err := newMix()
	if err != nil {
		return nil, err
	}
	r := newReport(&o, ".", m.Describe())
	if o.has(PartAdoption) {
		if err := adoption(ctx, t, &o, m, r); err != nil {
			return nil, err
		}
	}
	if err := ingestion(ctx, t, &o, m, r); err != nil {
		return nil, err
	}
	if err := r.account(ctx, t); err != nil {
		return nil, err
	}
	r.finish(begin)
	return r, nil
}

// Self starts servers of its own, on temporary data, measures everything in
// one run, and proves that they kept count.
func Self(ctx context.Context, o Options) (r *Report, err error) {
	begin := time.Now()
	m, err := newMix()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.Dir, "tallyhook-bench-")
	if err != nil {
		return nil, fmt.Errorf("make temporary folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	defer func() {
		if ctx.Err() != nil {
			r, err = nil, fmt.Errorf("ended early: %w", ctx.Err()) // the rest only follows from it
		}
	}()
	r = newReport(&o, dir, m.Describe())
	if o.has(PartYardstick) {
		if err := sqliteYardsticks(ctx, dir, &o, m, r); err != nil {
			return nil, err
		}
		p, err := startProcess(ctx, o.Executable, dir, "yardstick", nil, []string{"bench", "yardstick-http"})
		if err != nil {
			return nil, err
		}
		err = httpYardsticks(ctx, Target{URL: p.url, PID: p.pid()}, &o, m, r)
		if err = errors.Join(err, p.stop(ctx)); err != nil {
			return nil, err
		}
	}
	type stage struct {
		name string
		want bool
		run  func(context.Context, Target, *Options, *Mix, *Report) error
	}
	for _, s := range []stage{
		{"ingestion", o.has(PartAPI) || o.has(PartArray) || o.has(PartWebhook) || o.has(PartOpen), ingestion},
		{"adoption", o.has(PartAdoption), adoption},
	} {
		if !s.want {
			continue
		}
		if err := r.stage(ctx, dir, s.name, &o, func(t Target) error { return s.run(ctx, t, &o, m, r) }); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	r.finish(begin)
	return r, nil
}

// stage runs fn against a fresh server and checks how that one ends.
func (r *Report) stage(ctx context.Context, dir, name string, o *Options, fn func(Target) error) error {
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	key := hex.EncodeToString(secret[:])
	env := []string{
		"API_KEY=" + key, "DATABASE_URL=sqlite:" + filepath.Join(dir, name+".db"), "PORT=0", "LOG_LEVEL=" + o.LogLevel,
		"RETRY_SCHEDULE=24h",                       // parked orphans are left alone
		"RATE_LIMIT_API=0", "RATE_LIMIT_WEBHOOK=0", // one key and one source send all of it
	}
	p, err := startProcess(ctx, o.Executable, dir, name, env, []string{"serve"})
	if err != nil {
		return err
	}
	t := Target{URL: p.url, Key: key, PID: p.pid()}
	r.acknowledged = 0
	err = fn(t)
	if err == nil {
		err = r.account(ctx, t)
	}
	if err = errors.Join(err, p.stop(ctx)); err != nil {
		return err
	}
	r.Checks = append(r.Checks, name+": the server ended with exit code 0 after SIGTERM")
	o.progress("doctor on the data of %s", name)
	return r.doctor(ctx, o.Executable, dir, name, env)
}

// account compares what was acknowledged with what the server counted.
func (r *Report) account(ctx context.Context, t Target) error {
	a := newAPI(t)
	defer a.close()
	received, err := a.received(ctx)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%d events acknowledged, %d counted as received", r.acknowledged, received)
	switch {
	case received == r.acknowledged:
		r.Checks = append(r.Checks, text)
	case received > r.acknowledged && r.failed() > 0: // what was not answered in time is stored all the same
		r.Checks = append(r.Checks, text+" (requests failed, so more is possible)")
	default:
		r.Problems = append(r.Problems, text)
	}
	return nil
}

func (r *Report) doctor(ctx context.Context, executable, dir, name string, env []string) error {
	cmd := exec.CommandContext(ctx, executable, "doctor", "--json")
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.Output()
	var found struct {
		OK     bool `json:"ok"`
		Checks []struct {
			Name   string `json:"name"`
			OK     bool   `json:"ok"`
			Detail string `json:"detail"`
		} `json:"checks"`
	}
	if jsonErr := json.Unmarshal(out, &found); jsonErr != nil {
		return fmt.Errorf("doctor: %w", errors.Join(err, jsonErr))
	}
	for _, c := range found.Checks {
		switch {
		case !c.OK:
			r.Problems = append(r.Problems, name+": doctor: "+c.Name+": "+c.Detail)
		case c.Name == "balance":
			r.Checks = append(r.Checks, name+": doctor: "+c.Detail)
		}
	}
	if err != nil && found.OK {
		return fmt.Errorf("doctor: %w", err)
	}
	return nil
}

func ingestion(ctx context.Context, t Target, o *Options, m *Mix, r *Report) error {
	a := newAPI(t)
	defer a.close()
	if err := a.enroll(ctx, m); err != nil {
		return err
	}
	if o.has(PartAPI) {
		if err := closedCells(ctx, a.target, o, PartAPI, a.direct(m, 0), r); err != nil {
			return err
		}
	}
	if o.has(PartWebhook) {
		s, err := a.signed(ctx, m)
		if err != nil {
			return err
		}
		if err := closedCells(ctx, a.target, o, PartWebhook, s, r); err != nil {
			return err
		}
	}
	if o.has(PartOpen) {
		best := 0.0
		for _, c := range r.Cells {
			if c.Part == PartAPI {
				best = max(best, c.PerSecond)
			}
		}
		if best == 0 { // the cells it builds on were left out
			c, err := closedCell(ctx, t, o, PartAPI, a.direct(m, 0), slices.Max(o.Connections))
			if err != nil {
				return err
			}
			best = c.PerSecond
			r.keep(c)
		}
		if err := openCell(ctx, a, o, m, 0, best/2, r); err != nil {
			return err
		}
	}
	if o.has(PartArray) {
		return closedCells(ctx, a.target, o, PartArray, a.direct(m, o.Array), r)
	}
	return nil
}

func closedCells(ctx context.Context, t Target, o *Options, part string, s shot, r *Report) error {
	for _, n := range o.Connections {
		c, err := closedCell(ctx, t, o, part, s, n)
		if err != nil {
			return err
		}
		r.keep(c)
	}
	return nil
}

func (r *Report) keep(c measured) {
	r.acknowledged += c.acknowledged
	r.Cells = append(r.Cells, c.Cell)
}
