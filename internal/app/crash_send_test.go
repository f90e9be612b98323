package app_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"tallyhook/internal/testenv"
)

// deliver sends a request until it is answered. Some are given up after the
// first failure: their events may or may not be there, but not twice.
func (st *storm) deliver(c *testenv.Client, random *rand.Rand, d *delivery) {
	patient := random.IntN(100) < 85
	for attempt := 0; !st.t.Failed(); attempt++ {
		if !st.aim(c) {
			if !st.rest(10 * time.Millisecond) {
				return
			}
			continue
		}
		var headers []testenv.Header
		switch {
		case d.secret != "":
			h, err := testenv.Sign(d.secret, d.id, time.Now(), d.body)
			if err != nil {
				st.t.Errorf("sign: %v", err)
				return
			}
			headers = h
		case d.path == st.postmark.Path:
			headers = []testenv.Header{{Name: "Authorization", Value: "Basic c3Rvcm06cGFzc3dvcmQ="}} // storm:password
		}
		st.sending(d, attempt > 0)
		a, err := c.Try("POST", d.path, d.body, headers...)
		switch {
		case a.Status/100 == 2:
			st.answered(d, a, err == nil)
			return
		case err == nil && a.Status != 503:
			st.t.Errorf("POST %s: status %d: %s", route(d.path), a.Status, a.Body)
			return
		}
		st.lost()
		if !patient {
			return
		}
		select { // the storm's end does not end the patience
		case <-st.t.Context().Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// route is a path without its token.
func route(path string) string {
	if strings.HasPrefix(path, "/webhooks/") {
		return "/webhooks/..."
	}
	return path
}

func (st *storm) sending(d *delivery, again bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if again {
		st.retried++
	}
	for _, m := range d.markers {
		if m != "" {
			st.sent[m].attempts++
		}
	}
}

func (st *storm) lost() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.unanswered++
}

// answered puts an acknowledgement on the record. A status that arrived
// without its whole body is one too.
func (st *storm) answered(d *delivery, a testenv.Answer, whole bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !slices.Contains(st.deliveries, d) {
		st.deliveries = append(st.deliveries, d)
	}
	note := func(marker, outcome, id string) {
		s := st.sent[marker]
		s.acked++
		switch outcome {
		case "":
			s.blurred = true
		case "duplicate":
		case "applied", "orphaned":
			s.first++
		case "spooled":
			// What becomes of it is decided when the database is back; the same event
			// may have gone to another server meanwhile, under another id.
			s.blurred, id = true, ""
		default:
			st.t.Errorf("%s: the outcome of %s is %q", route(d.path), marker, outcome)
		}
		if id != "" {
			if s.id != "" && s.id != id {
				st.t.Errorf("%s was answered with the id %s and with %s", marker, s.id, id)
			}
			s.id = id
		}
	}
	switch {
	case !whole:
		for _, m := range d.markers {
			if m != "" {
				note(m, "", "")
			}
		}
	case d.many:
		results := a.At("data.results").List()
		if len(results) != len(d.markers) {
			st.t.Errorf("%d results for %d items", len(results), len(d.markers))
			return
		}
		for i, m := range d.markers {
			outcome := results[i].At("outcome").Text()
			if m == "" {
				if outcome != "rejected" {
					st.t.Errorf("the outcome of an item that is no event is %q", outcome)
				}
				continue
			}
			note(m, outcome, results[i].At("id").Text())
		}
	case strings.HasPrefix(d.path, "/webhooks/"):
		received, dup, spooled := int(a.At("data.received").Int()), int(a.At("data.duplicate").Int()), a.At("data.spooled").Int()
		if a.Status != 200 || received != len(d.markers) {
			st.t.Errorf("webhook answered %d: %s", a.Status, a.Body)
		}
		outcome := ""
		switch {
		case spooled > 0:
			outcome = "spooled"
		case dup == len(d.markers):
			outcome = "duplicate"
		case dup == 0:
			outcome = "orphaned"
			if a.At("data.applied").Int() == int64(received) {
				outcome = "applied"
			}
		}
		for _, m := range d.markers {
			note(m, outcome, "")
		}
	default:
		outcome := map[int]string{201: "applied", 202: "orphaned", 200: "duplicate"}[a.Status]
		if a.At("data.state").Text() == "spooled" {
			outcome = "spooled"
		}
		note(d.markers[0], outcome, a.At("data.id").Text())
	}
}

// enroll enrolls a contact; a request that was not answered is repeated with
// the same key until it is.
func (st *storm) enroll(c *testenv.Client, who *contact) {
	body := map[string]any{"contact_id": fmt.Sprintf("crm-%d", who.n)}
	if who.way == byEmail {
		body["email"] = who.email()
	} else {
		body["refs"] = []any{
			map[string]any{"provider": "postmark", "kind": "message", "value": who.message()},
			map[string]any{"provider": "lemlist", "kind": "lead", "value": who.lead()},
		}
	}
	for !st.t.Failed() {
		if st.aim(c) {
			a, err := c.Try("POST", "/api/campaigns/instances/"+st.instances[who.instance]+"/enrollments", body,
				testenv.Header{Name: "Idempotency-Key", Value: fmt.Sprintf("enroll-%d", who.n)})
			switch {
			case err == nil && a.Status == 201:
				st.mu.Lock()
				who.id = a.At("data.id").Text()
				st.mu.Unlock()
				return
			case err == nil && a.Status != 503:
				st.t.Errorf("enroll: status %d: %s", a.Status, a.Body)
				return
			}
		}
		select {
		case <-st.t.Context().Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// replayAll starts a bulk replay of all that is dead; it will be killed too.
func (st *storm) replayAll(c *testenv.Client) {
	if !st.aim(c) {
		return
	}
	a, err := c.Try("POST", "/api/admin/dlq/replay", map[string]any{"filter": map[string]any{"reason": "no_enrollment"}})
	switch {
	case err != nil || a.Status == 503:
	case a.Status == 202:
		st.mu.Lock()
		st.replays = append(st.replays, a.At("data.replay_id").Text())
		st.mu.Unlock()
	default:
		st.t.Errorf("replay: status %d: %s", a.Status, a.Body)
	}
}
