package app_test

import (
	"maps"
	"net/http"
	"testing"

	"tallyhook/internal/testenv"
)

// TestMachineReaders tells what a program's open does: it counts, apart from
// people's, and moves no enrollment. An open right after its delivery is a
// program's in a report that asks for that, and in nothing else.
func TestMachineReaders(t *testing.T) {
	t.Parallel()
	c := testenv.Start(t, testenv.Options{Env: []string{"LOG_LEVEL=warn"}}).Client("")
	instance := c.NewInstance("Readers", nil)
	enrollment := c.Post(http.StatusCreated, "/api/campaigns/instances/"+instance+"/enrollments", map[string]any{"email": "ada@example.com"}).At("data.id").Text()
	send := func(kind, at string, more map[string]any) {
		e := map[string]any{
			"event_type": kind, "channel": "email", "timestamp": at, "provider": "resend", "email": "ada@example.com", "provider_event_id": kind + at,
		}
		maps.Copy(e, more)
		c.Post(http.StatusCreated, "/api/events", e)
	}
	send("delivered", "2026-11-20T09:30:00Z", nil)
	send("opened", "2026-11-20T09:30:01Z", nil)
	send("clicked", "2026-11-20T09:30:01Z", map[string]any{"machine": false})
	send("opened", "2026-11-20T10:00:00Z", nil)
	send("clicked", "2026-11-20T10:00:00Z", map[string]any{"machine": true})

	for query, want := range map[string][4]int64{ // people's opens and clicks, programs'
		"":                     {2, 1, 0, 1},
		"?infer_machine=false": {2, 1, 0, 1},
		"?infer_machine=true":  {1, 1, 1, 1},
	} {
		p := c.Get("/api/campaigns/instances/" + instance + "/performance" + query).At("data")
		got := [4]int64{p.At("human.opened").Int(), p.At("human.clicked").Int(), p.At("machine.opened").Int(), p.At("machine.clicked").Int()}
		if got != want {
			t.Errorf("performance%s: got %v, want %v", query, got, want)
		}
		if p.At("totals.opened").Int() != 2 || p.At("enrollment_status.active").Int() != 1 {
			t.Errorf("performance%s: %s", query, p.At("totals").Text())
		}
	}
	if a := c.Do(0, http.MethodGet, "/api/campaigns/instances/"+instance+"/performance?infer_machine=perhaps", nil); a.Status != http.StatusBadRequest {
		t.Errorf("infer_machine=perhaps: status %d, want 400", a.Status)
	}
	if got := c.Get("/api/campaigns/enrollments/" + enrollment).At("data.status").Text(); got != "active" {
		t.Errorf("the enrollment is %s, want active", got)
	}
	for _, row := range c.Rows("/api/events?event_type=opened") { // a report writes nothing
		if machine := row.At("machine"); machine.Text() != "" {
			t.Errorf("an open has become %s's", machine.Text())
		}
	}
	balanced(t, c)
}
