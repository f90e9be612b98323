package bench

import (
	"context"
	"net/http"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// openLoop sends at a fixed rate whether or not earlier requests are answered,
// so that a slow answer delays nobody else and is not hidden. At most 4,096
// requests are in flight.
func openLoop(ctx context.Context, s shot, rate float64, d time.Duration, begin func()) (*load, error) {
	attack := func(d time.Duration) *load {
		a := vegeta.NewAttacker(vegeta.Timeout(answerTimeout), vegeta.Workers(64), vegeta.MaxWorkers(4096), vegeta.Connections(4096))
		stop := context.AfterFunc(ctx, func() { a.Stop() })
		defer stop()
		target := func(t *vegeta.Target) error {
			body := s.body(nil)
			t.Method, t.URL, t.Body = http.MethodPost, s.url, body
			t.Header = http.Header{"Content-Type": {"application/json"}}
			for _, h := range s.header {
				t.Header.Set(h[0], h[1])
			}
			return nil
		}
		l := &load{}
		start := time.Now()
		// Vegeta's rate is a whole number for a unit of time.
		pace := vegeta.ConstantPacer{Freq: max(1, int(rate*60)), Per: time.Minute}
		for r := range a.Attack(target, pace, d, "") {
			l.requests++
			if r.Error != "" {
				l.failed(int(r.Code), r.Error)
				continue
			}
			l.latency.Add(r.Latency)
			l.events += uint64(s.events()) //nolint:gosec // a small count
		}
		l.took = time.Since(start)
		return l
	}
	warm := attack(min(d/10, time.Second))
	if begin != nil {
		begin()
	}
	l := attack(d)
	l.warmedBy(warm)
	return l, ctx.Err()
}
