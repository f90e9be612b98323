package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"tallyhook/internal/store"
)

const (
	duePace = 250 * time.Millisecond // between two words that something is due: workers poll no more often
	dueWait = 2 * time.Second        // for one of them to be sent
)

// hearing hears what other replicas tell, and tells them when something is due
// soon. Changes of keys and sources are told by the store itself, with their
// commit. Where there is only one replica it does nothing.
type hearing struct {
	app    *App
	cancel context.CancelFunc
	finish sync.WaitGroup
	soon   chan struct{} // something is due before the others look
}

func newHearing(a *App) *hearing {
	return &hearing{app: a, cancel: func() {}, soon: make(chan struct{}, 1)}
}

func (h *hearing) start() {
	if h.app.store.replicas == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	h.app.access.Listening(false) // until it is
	h.finish.Go(func() { h.listen(ctx) })
	h.finish.Go(func() { h.tell(ctx) })
}

func (h *hearing) stop() {
	h.cancel()
	h.finish.Wait()
}

// due takes note, and never waits.
func (h *hearing) due() {
	select {
	case h.soon <- struct{}{}:
	default:
	}
}

// listen drops from memory what another replica has changed, and wakes the
// workers when there is something to do.
func (h *hearing) listen(ctx context.Context) {
	log, on := h.app.log, false
	heard := func(c store.Change) {
		h.app.access.Heard(c)
		if c.Kind == store.ChangedWork {
			h.wake()
		}
		log.DebugContext(ctx, "heard of a change", slog.String("kind", string(c.Kind)), slog.String("id", c.ID.String()))
	}
	listening := func(err error) {
		switch {
		case err == nil:
			h.app.access.Listening(true)
			h.wake() // whatever was told meanwhile
			log.InfoContext(ctx, "changes of other replicas are heard")
			h.finish.Go(func() { // hearing goes on meanwhile
				if err := h.app.access.Learn(ctx); err != nil && ctx.Err() == nil { // the keeper tries again
					log.WarnContext(ctx, "keys and sources not read ahead", slog.Any("error", err))
				}
			})
		case on:
			h.app.access.Listening(false)
			log.WarnContext(ctx, "changes of other replicas are not heard, keys and sources are asked for each second meanwhile", slog.Any("error", err))
		}
		on = err == nil
	}
	h.app.store.replicas.Listen(ctx, heard, listening)
}

func (h *hearing) wake() {
	h.app.worker.Load().Wake()
	h.app.letters.Wake()
}

// tell sends word that something is due soon, not too often. One that is lost
// costs the others the wait until their next look.
func (h *hearing) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.soon:
		}
		within, cancel := context.WithTimeout(ctx, dueWait)
		err := h.app.store.replicas.Tell(within, store.Change{Kind: store.ChangedWork})
		cancel()
		if err != nil && ctx.Err() == nil {
			h.app.log.DebugContext(ctx, "other replicas not told that something is due", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(duePace):
		}
	}
}
