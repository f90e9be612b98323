package bench

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// What the flood and its neighbour send.
const (
	floodArrays   = 16        // connections with arrays
	floodSingles  = 48        // connections with single events
	floodArray    = 1000      // events in an array, the most there may be
	floodAtMost   = time.Hour // it is ended by then
	neighbourRate = 40.0      // requests a second of a single event each
)

// Neighbours is what one tenant's flood does to another tenant's requests.
type Neighbours struct {
	Alone  Cell    `json:"alone"`  // the neighbour's requests while nobody else sends
	Beside Cell    `json:"beside"` // the same beside the flood
	Flood  []Cell  `json:"flood"`  // of the other tenant: arrays, and single events
	P50    float64 `json:"factor_p50"`
	P99    float64 `json:"factor_p99"`
}

// Neighbour measures a tenant that sends at a modest, steady rate: alone, and
// while another tenant sends all it can over many connections. The two targets
// are one server, with a key of each tenant; it has no limits, so what holds
// the flood back is the server's own fairness.
func Neighbour(ctx context.Context, neighbour, flooder Target, o Options) (*Neighbours, error) {
	n := &Neighbours{}
	steady := func() (Cell, error) {
		m, err := newMix()
		if err != nil {
			return Cell{}, err
		}
		a := newAPI(neighbour)
		defer a.close()
		l, err := openLoop(ctx, a.direct(m, 0), neighbourRate, o.Duration, nil)
		if err != nil {
			return Cell{}, err
		}
		c := l.cell("neighbour", 0).Cell
		c.Rate = neighbourRate
		return c, nil
	}
	var err error
	o.progress("one tenant alone, %.0f requests/s", neighbourRate)
	if n.Alone, err = steady(); err != nil {
		return nil, err
	}
	o.progress("the same beside another tenant's flood, %d connections", floodArrays+floodSingles)
	flood, stop := context.WithCancel(ctx)
	defer stop()
	floods, err := startFlood(flood, flooder)
	if err != nil {
		return nil, err
	}
	n.Beside, err = steady()
	stop()
	cells, ferr := floods()
	if err != nil {
		return nil, err
	}
	if ferr != nil {
		return nil, ferr
	}
	n.Flood = cells
	n.P50 = n.Beside.Latency.P50 / max(n.Alone.Latency.P50, 0.001)
	n.P99 = n.Beside.Latency.P99 / max(n.Alone.Latency.P99, 0.001)
	return n, nil
}

// startFlood sends until its context ends; the function it gives waits for
// that, and tells what was sent.
func startFlood(ctx context.Context, t Target) (wait func() ([]Cell, error), err error) {
	m, err := newMix()
	if err != nil {
		return nil, err
	}
	a := newAPI(t)
	cells := make([]Cell, 2)
	var wg sync.WaitGroup
	for i, s := range []struct{ connections, array int }{{floodArrays, floodArray}, {floodSingles, 0}} {
		wg.Go(func() {
			// It is ended by the context, and so is no failure.
			l, _ := closedLoop(ctx, a.direct(m, s.array), s.connections, floodAtMost, nil)
			if l == nil {
				return
			}
			cells[i] = l.cell("flood", s.array).Cell
			cells[i].Connections = s.connections
		})
	}
	return func() ([]Cell, error) {
		wg.Wait()
		a.close()
		for _, c := range cells {
			if c.Errors > 0 {
				return nil, fmt.Errorf("the flood failed: %s", c.ErrorSample)
			}
		}
		return cells, nil
	}, nil
}

// String is what an operator reads of it.
func (n *Neighbours) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "a tenant with %.0f requests/s: alone p50 %.2f ms, p99 %.2f ms; beside another's flood p50 %.2f ms, p99 %.2f ms (refused %d, failed %d); factor %.1f and %.1f",
		neighbourRate, n.Alone.Latency.P50, n.Alone.Latency.P99, n.Beside.Latency.P50, n.Beside.Latency.P99, n.Beside.Refused, n.Beside.Errors, n.P50, n.P99)
	for _, c := range n.Flood {
		fmt.Fprintf(&text, "; flood over %d connections, %d events a request: %.0f events/s, %d refused", c.Connections, max(c.Array, 1), c.PerSecond, c.Refused)
	}
	return text.String()
}
