package ingest_test

import (
	"fmt"
	"strings"
	"testing"

	"tallyhook/internal/provider"
)

// TestLargestBatch takes a body of more events than the API takes in one array:
// it is committed in parts, and counts once however often it comes.
func TestLargestBatch(t *testing.T) {
	t.Parallel()
	r := receive(t, "brevo", provider.Config{})
	items := make([]string, 2500)
	for i := range items {
		items[i] = fmt.Sprintf(`{"event":"opened","email":"a%d@x.example","message-id":"<m%d@x>","ts_epoch":1778052367000}`, i, i)
	}
	body := "[" + strings.Join(items, ",") + "]"
	if got := r.post(body, accepted); got.Received != 2500 || got.Orphaned != 2500 {
		t.Errorf("got %+v, want 2500 orphaned", got)
	}
	if got := r.post(strings.Replace(body, "a0@x", "b0@x", 1), accepted); got.Received != 2500 || got.Orphaned != 1 || got.Duplicate != 2499 {
		t.Errorf("again, with one that is new: got %+v, want 2499 duplicates", got)
	}
}
