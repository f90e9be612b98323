package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Adoption is how long an enrolling request takes with that many other
// orphans parked.
type Adoption struct {
	Parked      int     `json:"parked"`
	Repetitions int     `json:"repetitions"`
	With        Latency `json:"with_orphan_ms"`    // one early event is applied inside the request
	Without     Latency `json:"without_orphan_ms"` // nothing waits for the contact
	ParkedPerS  float64 `json:"parked_per_second"` // how fast the others were taken in, arrays of 1,000 over one connection
}

// adoption measures with growing numbers of parked orphans. The two kinds of
// request alternate, so that both see the same machine.
func adoption(ctx context.Context, t Target, o *Options, m *Mix, r *Report) error {
	a := newAPI(t)
	defer a.close()
	instance, err := a.instance(ctx, "bench-adoption-"+m.run)
	if err != nil {
		return err
	}
	path := "/api/campaigns/instances/" + instance + "/enrollments"
	parked := 0
	for _, n := range o.Orphans {
		res := Adoption{Parked: n, Repetitions: o.Repetitions}
		if more := n - parked; more > 0 {
			o.progress("parking %d orphans", more)
			start := time.Now()
			if err := park(ctx, a.direct(m, 0), more); err != nil {
				return err
			}
			res.ParkedPerS = float64(more) / time.Since(start).Seconds()
			parked = n
			r.acknowledged += uint64(more)
		}
		o.progress("adoption with %d other orphans parked", parked)
		var with, without Histogram
		for i := range o.Repetitions {
			name := fmt.Sprintf("%d-%d.%s@early.example", n, i, m.run)
			if err := a.early(ctx, "a"+name); err != nil {
				return err
			}
			r.acknowledged++
			for _, kind := range []struct {
				prefix  string
				adopted int
				to      *Histogram
			}{{"a", 1, &with}, {"b", 0, &without}} {
				took, adopted, err := a.enrollOne(ctx, path, kind.prefix+name)
				if err != nil {
					return err
				}
				if adopted != kind.adopted {
					return fmt.Errorf("an enrollment took in %d waiting events, not %d", adopted, kind.adopted)
				}
				kind.to.Add(took)
			}
		}
		res.With, res.Without = latencyOf(&with), latencyOf(&without)
		r.Adoption = append(r.Adoption, res)
	}
	return nil
}

// early posts an event that comes before its enrollment.
func (a *api) early(ctx context.Context, email string) error {
	var got struct {
		State string `json:"state"`
	}
	err := a.call(ctx, http.MethodPost, "/api/events", map[string]string{
		"event_type": "opened", "channel": "email", "provider": vendor, "provider_event_id": "evt." + email, "email": email,
	}, &got)
	if err == nil && got.State != "orphaned" {
		err = fmt.Errorf("an early event is %s, not orphaned", got.State)
	}
	return err
}

func (a *api) enrollOne(ctx context.Context, path, email string) (took time.Duration, adopted int, err error) {
	body, err := json.Marshal(contact{Email: email})
	if err != nil {
		return 0, 0, fmt.Errorf("render contact: %w", err)
	}
	var got struct {
		Adopted int `json:"adopted"`
	}
	took, err = a.send(ctx, http.MethodPost, path, body, &got)
	return took, got.Adopted, err
}
