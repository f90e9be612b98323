package access

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tallyhook/internal/fault"
)

const (
	readWait  = time.Second // for the database, where there is a snapshot to go by
	probeWait = time.Second // a database that is away is asked so often
)

// outage remembers that the database is away, so that requests are answered
// from the snapshot and do not each wait for it.
type outage struct {
	mu   sync.Mutex
	away bool
	next time.Time // when it is asked again
}

// ask tells whether the caller shall ask the database; while it is away, one
// caller in each second.
func (o *outage) ask(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if wait := o.next.Sub(now); o.away && wait > 0 && wait <= probeWait { // not when the clock was set back
		return false
	}
	o.next = now.Add(probeWait)
	return true
}

// note takes what the database said; back is true when it was away before.
func (o *outage) note(now time.Time, there bool) (back bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	back = o.away && there
	o.away, o.next = !there, now.Add(probeWait)
	return back
}

func (o *outage) is() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.away
}

// ask reads from the database, unless it is known to be away.
func ask[T any](ctx context.Context, s *Service, read func(ctx context.Context) (T, error)) (v T, err error) {
	if s.file == "" {
		return read(ctx)
	}
	if !s.outage.ask(s.now()) {
		return v, fault.New(fault.Unavailable, "the database is away")
	}
	within, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	v, err = read(within)
	there := err == nil || fault.Is(err, fault.NotFound)
	if !there && ctx.Err() != nil {
		return v, err // the caller is gone: that says nothing about the database
	}
	if there {
		s.back()
	} else {
		s.outage.note(s.now(), false)
	}
	return v, err
}

// fromSnapshot gives the snapshot while the database is away. instead is the
// error of the database: what is not known is Unavailable, never absent.
func (s *Service) fromSnapshot(ctx context.Context, instead error) (*snapshot, error) {
	if s.file == "" || !s.outage.is() {
		return nil, instead
	}
	snap, first, err := s.offline.get(s.loadSnapshot)
	switch {
	case err != nil:
		if first {
			s.log.ErrorContext(ctx, "the database is away, and the snapshot is of no use", slog.Any("error", err))
		}
		return nil, instead
	case !snap.believed(s.now()):
		return nil, fault.New(fault.Unavailable, "the database is away for longer than the snapshot of sources and keys may be used")
	}
	if first {
		s.log.WarnContext(ctx, "the database is away, sources and keys are taken from the snapshot", slog.Time("as_of", snap.at))
	}
	return snap, nil
}

// principalAway finds the principal of a key in the snapshot: it may write
// events and nothing else.
func (s *Service) principalAway(ctx context.Context, hash [32]byte, instead error) (Principal, error) {
	snap, err := s.fromSnapshot(ctx, instead)
	if err != nil {
		return Principal{}, err
	}
	k, ok := snap.keys[hash]
	if !ok || (!k.ExpiresAt.IsZero() && !s.now().Before(k.ExpiresAt)) || s.hasEnded(k.ID) {
		return Principal{}, instead
	}
	s.touch(k.ID, s.now())
	return Principal{Tenant: k.Tenant, KeyID: k.ID, Scopes: []string{ScopeEventsWrite}, Away: true, AllowedIPs: k.AllowedIPs}, nil
}

// sourceAway finds a source in the snapshot.
func (s *Service) sourceAway(ctx context.Context, find func(*snapshot) (int, bool), instead error) (Opened, error) {
	snap, err := s.fromSnapshot(ctx, instead)
	if err != nil {
		return Opened{}, err
	}
	i, ok := find(snap)
	if !ok {
		return Opened{}, instead
	}
	o, err := s.openRow(snap.sources[i], nil)
	if err != nil {
		return Opened{}, fault.Wrap(fault.Unavailable, "read source from the snapshot", err)
	}
	return o, nil
}

// startAway lets a service begin without the database, if the snapshot can be
// opened with this SECRETS_KEY. What New and Bootstrap would have done is left
// to Keep.
func (s *Service) startAway(ctx context.Context, cause error) error {
	s.outage.note(s.now(), false)
	snap, _, err := s.offline.get(s.loadSnapshot)
	if err != nil {
		return fmt.Errorf("%w (%w)", err, cause)
	}
	s.log.WarnContext(ctx, "started without the database: events are accepted from the sources and keys of the snapshot",
		slog.Time("as_of", snap.at), slog.Bool("too_old", !snap.believed(s.now())), slog.Any("error", cause))
	s.unchecked.Store(true)
	return nil
}

// Keep is to be called about once a minute. It does what a start without the
// database had to leave, and writes the snapshot when something has changed.
// Without a snapshot there is nothing to do.
func (s *Service) Keep(ctx context.Context) error {
	return s.keep(ctx, false)
}

// Save writes the snapshot at a shutdown. A database that is away is no
// error: the former snapshot stays.
func (s *Service) Save(ctx context.Context) error {
	if s.outage.is() {
		return nil
	}
	err := s.keep(ctx, true)
	if fault.Is(err, fault.Unavailable) {
		s.log.WarnContext(ctx, "the snapshot of sources and keys stays as it was", slog.Any("error", err))
		return nil
	}
	return err
}

func (s *Service) keep(ctx context.Context, always bool) error {
	if s.file == "" {
		return nil
	}
	s.keeping.Lock()
	defer s.keeping.Unlock()
	if err := s.catchUp(ctx); err != nil {
		return err
	}
	changed := s.changed.Swap(false)
	if age := s.now().Sub(s.written); !always && age >= 0 && (age < snapshotEvery || (!changed && age < snapshotFresh)) {
		if changed {
			s.changed.Store(true)
		}
		return nil
	}
	began := s.now()
	if err := s.writeSnapshot(ctx); err != nil {
		s.changed.Store(true)
		return fmt.Errorf("write the snapshot of sources and keys: %w", err)
	}
	s.written = began
	s.back()
	return nil
}

// back notes that the database has answered: from now on everything is read.
func (s *Service) back() {
	if s.outage.note(s.now(), true) {
		s.offline.drop()
	}
}

// catchUp does what a start without the database has left.
func (s *Service) catchUp(ctx context.Context) error {
	if !s.unchecked.Load() {
		return nil
	}
	if err := s.checkCanary(ctx); err != nil {
		return err
	}
	s.unchecked.Store(false)
	s.back()
	if s.pending == "" {
		return nil
	}
	if _, _, err := s.Bootstrap(ctx, s.pending); err != nil {
		s.unchecked.Store(true)
		return fmt.Errorf("first API key: %w", err)
	}
	s.pending = ""
	return nil
}

// change notes that the snapshot has to be written anew.
func (s *Service) change() { s.changed.Store(true) }
