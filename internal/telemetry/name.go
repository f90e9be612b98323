package telemetry

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of names that others choose: vendors name their events, some after
// what a customer typed.
const (
	nameLimit   = 50 // of one provider
	nameLength  = 64 // bytes
	nameOfOther = "other"
)

// Names counts by names that others choose, and stays bounded: the first 50
// names of each provider count for themselves, and every other one, and what
// does not look like a name of an event, counts as "other". Providers must be
// few. It is safe for concurrent use.
type Names struct {
	counter *prometheus.CounterVec // provider, kind

	mu    sync.Mutex // guards what follows
	known map[string]map[string]bool
}

// Inc counts one of the name.
func (n *Names) Inc(provider, name string) {
	n.counter.WithLabelValues(provider, n.bounded(provider, name)).Inc()
}

func (n *Names) bounded(provider, name string) string {
	if name == "" || len(name) > nameLength || strings.ContainsFunc(name, notOfName) {
		return nameOfOther
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.known[provider]
	switch {
	case known[name]:
	case len(known) >= nameLimit:
		return nameOfOther
	case known == nil:
		if n.known == nil {
			n.known = map[string]map[string]bool{}
		}
		n.known[provider] = map[string]bool{name: true}
	default:
		known[name] = true
	}
	return name
}

// notOfName tells the characters that no vendor's event names have. A space is
// one that they have.
func notOfName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_.- ", r)
}
