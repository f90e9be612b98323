package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Stop ends the server in order, all under ctx's deadline. An error says what
// could not be settled in time; nothing that was acknowledged is lost by it.
func (a *App) Stop(ctx context.Context) error {
	var errs []error
	begin := time.Now()
	step := func(name string, fn func() error) {
		start := time.Now()
		err := fn()
		attrs := []any{slog.String("step", name), slog.Int64("took_ms", time.Since(start).Milliseconds())}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			a.log.ErrorContext(ctx, "shutdown step failed", append(attrs, slog.Any("error", err))...)
			return
		}
		a.log.InfoContext(ctx, "shutdown step", attrs...)
	}
	step("not ready", func() error { a.ready.Store(false); return nil })
	step("close listener, finish requests", func() error {
		// Connections on which no request was ever begun would hold Shutdown up.
		stop := context.AfterFunc(ctx, a.connections.closeAll)
		defer stop()
		a.connections.closeNew()
		err := a.server.Shutdown(ctx)
		if err != nil {
			err = errors.Join(err, a.server.Close())
		}
		return err
	})
	step("commit what is in flight", func() error { return within(ctx, a.committer.Close) })
	step("settle workers", func() error {
		return within(ctx, func() { //nolint:contextcheck // within bounds the wait
			a.hearing.stop()
			a.worker.Load().Stop()
			a.letters.Stop()
			a.keeper.stop()
		})
	})
	step("flush", func() error { return errors.Join(a.access.Flush(ctx), a.access.Save(ctx)) })
	if a.metricsServer != nil {
		step("close metrics", func() error { return a.metricsServer.Shutdown(ctx) })
	}
	a.serving.Wait()
	step("close store", a.closeStores)
	a.log.InfoContext(ctx, "stopped", slog.Int64("took_ms", time.Since(begin).Milliseconds()))
	return errors.Join(errs...)
}

// within waits for fn, but not longer than ctx.
func within(ctx context.Context, fn func()) error {
	done := make(chan struct{})
	go func() { fn(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connections knows the connections that have not begun a request, which
// http.Server.Shutdown would wait five seconds for.
type connections struct {
	mu      sync.Mutex
	all     map[net.Conn]http.ConnState
	closing bool // a connection that the listener still hands over is closed at once
}

func newConnections() *connections { return &connections{all: map[net.Conn]http.ConnState{}} }

func (c *connections) track(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(c.all, conn)
		return
	}
	c.all[conn] = state
	if c.closing && state == http.StateNew {
		_ = conn.Close()
	}
}

// closeNew closes the connections without a request, those too that were
// accepted and come only now.
func (c *connections) closeNew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	for conn, state := range c.all {
		if state == http.StateNew {
			_ = conn.Close()
		}
	}
}

func (c *connections) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.all {
		_ = conn.Close()
	}
}
