package bench

import (
	"context"
	"fmt"
	"time"
)

// measured is a cell with what it adds to the account.
type measured struct {
	Cell

	acknowledged uint64
}

// gauge reads what the server uses while it is loaded.
type gauge struct {
	pid    int
	before time.Duration
	err    error
}

func (g *gauge) begin() {
	if g.pid != 0 {
		forgetPeak(g.pid)
		g.before, g.err = cpuTime(g.pid)
	}
}

func (g *gauge) end(c *Cell) {
	if g.pid == 0 || g.err != nil || c.Events == 0 {
		return
	}
	after, err := cpuTime(g.pid)
	if err != nil {
		return
	}
	c.CPU = (after - g.before).Seconds() / float64(c.Events) * 1000
	c.PeakMiB = peakMemory(g.pid)
}

func closedCell(ctx context.Context, t Target, o *Options, part string, s shot, connections int) (measured, error) {
	o.progress("%s, %d connections, %d events a request", part, connections, s.events())
	g := gauge{pid: t.PID}
	l, err := closedLoop(ctx, s, connections, o.Duration, g.begin)
	if err != nil {
		return measured{}, err
	}
	m := l.cell(part, s.array)
	m.Connections = connections
	g.end(&m.Cell)
	return m, nil
}

func openCell(ctx context.Context, a *api, o *Options, m *Mix, array int, rate float64, r *Report) error {
	o.progress("open loop, %.0f requests/s", rate)
	g := gauge{pid: a.target.PID}
	l, err := openLoop(ctx, a.direct(m, array), rate, o.Duration, g.begin)
	if err != nil {
		return err
	}
	c := l.cell(PartOpen, array)
	c.Rate = rate
	g.end(&c.Cell)
	r.keep(c)
	return nil
}

func (l *load) cell(part string, array int) measured {
	return measured{Cell{
		Part: part, Array: array, Events: l.events, Refused: l.refused, Errors: l.errs, ErrorSample: l.sample,
		PerSecond: float64(l.events) / l.took.Seconds(), Latency: latencyOf(&l.latency),
	}, l.events + l.warm}
}

// failed is how many requests had no 2xx answer.
func (r *Report) failed() uint64 {
	var n uint64
	for _, c := range r.Cells {
		n += c.Errors + c.Refused
	}
	return n
}

// finish works out what only the whole run shows.
func (r *Report) finish(begin time.Time) {
	r.TookSeconds = time.Since(begin).Seconds()
	best := 0.0
	for _, y := range r.SQLite {
		if y.Batch == 500 {
			best = y.PerSecond
		}
	}
	for i := range r.Cells {
		c := &r.Cells[i]
		if best > 0 && c.Rate == 0 {
			c.OfSQLite = c.PerSecond / best
		}
		for _, y := range r.HTTP {
			if c.Rate == 0 && c.Array == 0 && y.Connections == c.Connections && y.PerSecond > 0 {
				c.OfHTTP = c.PerSecond / y.PerSecond
			}
		}
	}
	for _, cells := range [][]Cell{r.HTTP, r.Cells} {
		for _, c := range cells {
			switch {
			case c.Errors > 0:
				r.Problems = append(r.Problems, fmt.Sprintf("%s: %d requests failed: %s", c.what(), c.Errors, c.ErrorSample))
			case c.Refused > 0: // a server under more load than it takes does well to say so
				r.Checks = append(r.Checks, fmt.Sprintf("%s: %d requests refused: %s", c.what(), c.Refused, c.ErrorSample))
			}
		}
	}
}
