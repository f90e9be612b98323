package access

import (
	"sync/atomic"
	"time"

	"tallyhook/internal/fault"
)

// lookup answers from memory what the store said a moment ago, both what is
// there and what is not. Absence comes from a successful read only.
type lookup[K comparable, V any] struct {
	known  *cache[K, V]
	absent *cache[K, struct{}]
	deaf   *atomic.Bool // changes of other replicas are not heard of
}

func newLookup[K comparable, V any](deaf *atomic.Bool) lookup[K, V] {
	return lookup[K, V]{
		known:  newCache[K, V](knownTTL, knownLimit),
		absent: newCache[K, struct{}](absentTTL, absentLimit),
		deaf:   deaf,
	}
}

// find answers ok false when there is no such row, and an Unavailable when
// that cannot be told. While deaf it asks the store once a second for each row;
// what is known still counts when the store cannot be asked.
func (l lookup[K, V]) find(k K, now time.Time, op string, read func() (V, error)) (v V, ok bool, err error) {
	deaf := l.deaf.Load()
	was, age, known, there := l.known.aged(k, now)
	if there && (!deaf || age < deafTTL) {
		return was, true, nil
	}
	_, age, absent, gone := l.absent.aged(k, now)
	if gone && (!deaf || age < deafTTL) {
		return v, false, nil
	}
	v, err = read()
	switch {
	case err == nil:
		l.known.put(k, v, known, now)
		return v, true, nil
	case fault.Is(err, fault.NotFound):
		if there {
			l.known.drop(func(other K, _ V) bool { return other == k })
		}
		l.absent.put(k, struct{}{}, absent, now)
		return v, false, nil
	case there:
		return was, true, nil
	}
	return v, false, fault.Wrap(fault.Unavailable, op, err)
}

// forget drops the entries that match, on both sides.
func (l lookup[K, V]) forget(known func(K, V) bool, absent func(K) bool) {
	l.known.drop(known)
	l.absent.drop(func(k K, _ struct{}) bool { return absent(k) })
}

func (l lookup[K, V]) forgetAll() {
	l.forget(func(K, V) bool { return true }, func(K) bool { return true })
}
