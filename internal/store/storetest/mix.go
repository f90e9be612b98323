package storetest

import (
	"fmt"

	"github.com/google/uuid"

	"tallyhook/internal/event"
)

// Mix makes a batch of n events of every kind there is: applied by each rank,
// orphaned, duplicate, suppressing, ignored, of two tenants and a source.
func (w *World) Mix(other int64, source uuid.UUID, round, n int) []event.Event {
	batch := make([]event.Event, n)
	for i := range batch {
		opts := []Option{Address(fmt.Sprintf("p%d@example.com", i%5))}
		typ := event.Opened
		switch i % 10 {
		case 1:
			typ = event.Unsubscribed
		case 2:
			opts = append(opts, Message("m"))
		case 3:
			opts = []Option{Lead(fmt.Sprintf("unknown %d %d", round, i))}
		case 4:
			opts = append(opts, ID(fmt.Sprint("the same in round ", round)))
		case 5:
			opts = append(opts, For(other))
		case 6:
			opts = append(opts, func(e *event.Event) { e.SourceID, e.Scope = source, source.String() })
		case 7:
			opts = append(opts, InCampaign("cam"))
		case 8:
			opts = append(opts, func(e *event.Event) { e.Control, e.Kind, e.Type, e.Channel = true, "note", "", "" })
		case 9:
			opts = append(opts, Of(uuid.Must(uuid.NewV7())))
		}
		batch[i] = w.Event(typ, opts...)
	}
	return batch
}
