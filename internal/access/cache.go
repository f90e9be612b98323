package access

import (
	"sync"
	"time"
)

// cache keeps what was read for a time to live, in bounded memory. It holds
// two generations of at most limit entries each; when the young one is full it
// becomes the old one and the old one is forgotten, so that making room costs
// nothing, whatever a flood of guesses puts in.
//
// Guarantee: what was read before a drop is never put in after it. A reader
// takes a stamp before it reads, and put refuses a stamp that a drop has made
// void; else a revoked key could come back for a whole time to live.
type cache[K comparable, V any] struct {
	ttl   time.Duration
	limit int

	mu         sync.Mutex // guards what follows
	stamp      uint64
	young, old map[K]cached[V]
}

type cached[V any] struct {
	value V
	at    time.Time // when it was read
}

func newCache[K comparable, V any](ttl time.Duration, limit int) *cache[K, V] {
	return &cache[K, V]{ttl: ttl, limit: limit, young: map[K]cached[V]{}}
}

// get answers what is known of a key, and the stamp to put with otherwise. An
// entry from the future (a clock that was set back) counts as too old.
func (c *cache[K, V]) get(k K, now time.Time) (v V, stamp uint64, ok bool) {
	v, _, stamp, ok = c.aged(k, now)
	return v, stamp, ok
}

// aged is get that tells, too, how long ago it was read.
func (c *cache[K, V]) aged(k K, now time.Time) (v V, age time.Duration, stamp uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.young[k]
	if !ok {
		e, ok = c.old[k]
	}
	if age = now.Sub(e.at); !ok || age < 0 || age >= c.ttl {
		return v, 0, c.stamp, false
	}
	return e.value, age, c.stamp, true
}

func (c *cache[K, V]) put(k K, v V, stamp uint64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stamp != c.stamp {
		return
	}
	if _, known := c.young[k]; !known && len(c.young) >= c.limit {
		c.young, c.old = make(map[K]cached[V], c.limit/8), c.young
	}
	c.young[k] = cached[V]{value: v, at: now}
}

// drop forgets the entries that match, and whatever is being read just now.
func (c *cache[K, V]) drop(match func(K, V) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stamp++
	for _, m := range []map[K]cached[V]{c.young, c.old} {
		for k, e := range m {
			if match(k, e.value) {
				delete(m, k)
			}
		}
	}
}
