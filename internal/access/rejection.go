package access

import (
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Bounds of what is kept of refused webhooks.
const (
	rejectionsKept   = 50   // of one source
	rejectionSources = 1000 // sources with any
	rejectionHeaders = 64   // names of one request
	rejectionText    = 200  // bytes of a reason or a header's name
)

// rejections are the recent refused webhooks, in memory: nothing is written
// for a request that fails verification.
type rejections struct {
	mu sync.Mutex // guards of, and all that is in it
	of map[uuid.UUID]*refusals
}

type refusals struct {
	recent []Rejection // oldest first
	last   time.Time
	count  int64
}

// Reject records a refused webhook of a source. With too many sources refused
// at once, the one that has been quiet longest is forgotten, its count too.
func (s *Service) Reject(source uuid.UUID, r Rejection) {
	if r.At.IsZero() {
		r.At = s.at()
	}
	r.Reason = cut(r.Reason)
	headers := make([]string, 0, min(len(r.Headers), rejectionHeaders))
	for _, h := range r.Headers[:cap(headers)] {
		headers = append(headers, cut(h))
	}
	slices.Sort(headers)
	r.Headers = headers
	s.refused.add(source, r)
}

func (x *rejections) add(source uuid.UUID, r Rejection) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f := x.of[source]
	if f == nil {
		if len(x.of) >= rejectionSources {
			x.forgetQuietest()
		}
		f = &refusals{}
		x.of[source] = f
	}
	if len(f.recent) == rejectionsKept {
		f.recent = slices.Delete(f.recent, 0, 1)
	}
	f.recent = append(f.recent, r)
	f.count++
	if r.At.After(f.last) {
		f.last = r.At
	}
}

func (x *rejections) forgetQuietest() {
	var quietest uuid.UUID
	var at time.Time
	for id, f := range x.of {
		if at.IsZero() || f.last.Before(at) {
			quietest, at = id, f.last
		}
	}
	delete(x.of, quietest)
}

// summary answers how many there were, and when the last one was.
func (x *rejections) summary(source uuid.UUID) (int64, time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.of[source]; f != nil {
		return f.count, f.last
	}
	return 0, time.Time{}
}

// list answers the recent ones, newest first.
func (x *rejections) list(source uuid.UUID) []Rejection {
	x.mu.Lock()
	defer x.mu.Unlock()
	f := x.of[source]
	if f == nil {
		return []Rejection{}
	}
	recent := slices.Clone(f.recent)
	slices.Reverse(recent)
	for i := range recent {
		recent[i].Headers = slices.Clone(recent[i].Headers)
	}
	return recent
}

func (x *rejections) forget(source uuid.UUID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.of, source)
}

func cut(s string) string {
	if len(s) > rejectionText {
		return s[:rejectionText]
	}
	return s
}
