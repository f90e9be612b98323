package store

import (
	"math"

	"tallyhook/internal/event"
)

// TakeIn shares the room of a transaction out among keys that events wait for,
// by the numbers of the first room+1 events of each, which ascend. It gives the
// events that are taken in, each once, and for each key up to which number it
// was served: math.MaxInt64 where that is all of them.
func TakeIn(waiting [][]int64, room int) (taken map[int64]int, until []int64) {
	taken = map[int64]int{} // an event may wait for several of the keys; by the first of them
	until = make([]int64, len(waiting))
	for i, seqs := range waiting {
		after := int64(0)
		until[i] = math.MaxInt64
		for _, seq := range seqs {
			if _, ok := taken[seq]; !ok && len(taken) == room {
				until[i] = after
				break
			}
			if _, ok := taken[seq]; !ok {
				taken[seq] = i
			}
			after = seq
		}
	}
	return taken, until
}

// Adopt takes waiting events through the processor, in the transaction of
// whatever gave them a key, and gives the results of those that were applied.
// process must leave nothing behind when it fails. Events that the database
// refuses are found by halving, and left where they are: their next retry finds
// them alone.
func Adopt[T any](seqs []T, load func([]T) ([]*Work, error), process func([]*Work) error, refused func(error) bool) ([]Result, error) {
	if len(seqs) == 0 {
		return nil, nil
	}
	works, err := load(seqs)
	if err != nil || len(works) == 0 {
		return nil, err
	}
	var applied []Result
	err = process(works)
	switch {
	case err == nil:
		for _, w := range works {
			if w.Changed && w.To == event.Applied {
				applied = append(applied, w.Result)
			}
		}
		return applied, nil
	case !refused(err):
		return nil, err
	case len(works) == 1:
		return nil, nil
	}
	for _, half := range [][]T{seqs[:len(seqs)/2], seqs[len(seqs)/2:]} {
		got, err := Adopt(half, load, process, refused)
		if err != nil {
			return nil, err
		}
		applied = append(applied, got...)
	}
	return applied, nil
}
