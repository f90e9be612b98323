package ingest_test

import (
	"strconv"
	"strings"
	"testing"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

// TestForbiddenKeysInside: a key that would reach into a prototype is found
// also where the JSON stands in a text of the body, of which rows are made.
func TestForbiddenKeysInside(t *testing.T) {
	t.Parallel()
	r := receive(t, "phantombuster", provider.Config{Settings: provider.Settings{Agents: map[string]provider.Agent{"1": {EventType: event.ConnectionSent}}}})
	const run = `{"agentId":"1","containerId":"$","resultObject":"[{\"profileUrl\":\"https://l.example/in/ada\",\"more\":{\"KEY\":1}}]"}`
	for key, dead := range map[string]int{"name": 0, "__proto__": 1, "constructor": 1, "__pro\\\\u0074o__": 1} {
		counts := r.post(strings.NewReplacer("$", strconv.Itoa(dead)+key[:1]+strconv.Itoa(len(key)), "KEY", key).Replace(run), accepted)
		if counts.Dead != dead || counts.Orphaned != 1-dead {
			t.Errorf("%s: got %+v, want %d dead", key, counts, dead)
		}
	}
}
