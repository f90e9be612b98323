package smoke_test

import (
	"context"
	"testing"
	"time"

	"tallyhook/internal/smoke"
	"tallyhook/internal/testenv"
)

// TestInterrupted: a run that is ended in the middle of the way takes away
// what it has made.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{})
	c := server.Client("")
	for _, at := range []string{"make a template", "make an instance", "start the instance", "make a source", "find it waiting", "enroll its contact"} {
		ctx, interrupt := context.WithCancel(t.Context())
		result := smoke.Run(ctx, smoke.Options{URL: server.URL, Key: testenv.AdminKey, Timeout: time.Minute, Report: func(s smoke.Step) {
			if s.Name == at {
				interrupt()
			}
		}})
		interrupt()
		failed := result.Failed()
		if result.OK || len(failed) != 1 {
			t.Errorf("interrupted after %q: %+v, want one failed step", at, result)
		}
		for _, path := range []string{"/api/sources", "/api/campaigns/templates"} {
			if rows := c.Rows(path); len(rows) != 0 {
				t.Errorf("interrupted after %q: %s still has %d rows", at, path, len(rows))
			}
		}
		for _, i := range c.Rows("/api/campaigns/instances") {
			if i.At("status").Text() == "active" {
				t.Errorf("interrupted after %q: an instance is still active", at)
			}
		}
	}
}
