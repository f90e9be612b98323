package yardstick_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/store/yardstick"
)

func TestInsert(t *testing.T) {
	t.Parallel()
	for name, batch := range map[string]int{"Single": 1, "Many": 50} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := yardstick.Options{
				Path: filepath.Join(t.TempDir(), "y.db"), Batch: batch, Duration: time.Millisecond,
				Samples: []event.Event{{Provider: "p", Type: event.Opened, Channel: event.Email, Payload: []byte("{}")}},
			}
			got, err := yardstick.Insert(context.Background(), o)
			if err != nil {
				t.Fatal(err)
			}
			if got.Transactions < 1 || got.Rows != got.Transactions*int64(batch) || got.Took < o.Duration {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestInsertEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := yardstick.Insert(ctx, yardstick.Options{
		Path: filepath.Join(t.TempDir(), "y.db"), Batch: 1, Duration: time.Hour, Samples: make([]event.Event, 1),
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}
