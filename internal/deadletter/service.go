// Package deadletter inspects and replays what could not be taken in: events
// whose schedule is spent and bodies that could not be read. A replay goes
// through the same processor as a live event.
//
// Guarantees: a bulk replay continues after a restart; each letter of it is
// booked once; a letter that someone else settled meanwhile is skipped or
// counted as a duplicate, never applied twice.
package deadletter

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/telemetry"
)

// Store is what the service needs of the store.
type Store interface {
	Letters(ctx context.Context, tenant int64, f store.LetterFilter, p store.Page) ([]store.Letter, int64, error)
	Letter(ctx context.Context, tenant int64, id uuid.UUID) (store.Letter, error)
	LetterStats(ctx context.Context, tenant int64) (store.LetterStats, error)
	SetLetter(ctx context.Context, tenant int64, id uuid.UUID, from, to store.LetterStatus, actor string) error
	ReplayLetters(ctx context.Context, tenant int64, ids []uuid.UUID) (map[uuid.UUID]store.Result, error)
	SettleBody(ctx context.Context, tenant int64, id uuid.UUID, status store.LetterStatus, reason, detail string) error
	StartReplay(ctx context.Context, tenant int64, ids []uuid.UUID, f store.LetterFilter, dryRun bool, actor string) (store.Replay, error)
	ReplayProgress(ctx context.Context, tenant int64, id uuid.UUID) (store.Replay, error)
	CancelReplay(ctx context.Context, tenant int64, id uuid.UUID, actor string) (store.Replay, error)
	NextReplay(ctx context.Context, n int) (store.ReplayBatch, bool, error)
	FinishReplayBatch(ctx context.Context, b store.ReplayBatch, outcomes map[uuid.UUID]store.Result) error
	Audit(ctx context.Context, a store.Audit) error
}

// Options of the service.
type Options struct {
	// Decode reads a kept body again.
	Decode func(ctx context.Context, l store.Letter) ([]event.Event, error)
	// Accept takes the events of a kept body in.
	Accept  func(ctx context.Context, events []event.Event) ([]store.Result, error)
	Now     func() time.Time
	Logger  *slog.Logger
	Metrics *telemetry.Metrics
}

// Service is the dead letter queue.
type Service struct {
	Store
	opt    Options
	stop   context.CancelFunc
	finish sync.WaitGroup
	wake   chan struct{}
}

const replayBatch = 50

// New makes the service. Bulk replays advance between Start and Stop.
func New(st Store, o Options) *Service {
	return &Service{Store: st, opt: o, stop: func() {}, wake: make(chan struct{}, 1)}
}

// Start starts the worker of bulk replays.
func (s *Service) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.finish.Go(func() { s.work(ctx) })
}

// Stop ends the worker after the batch it is at.
func (s *Service) Stop() {
	s.stop()
	s.finish.Wait()
}

// Replay takes one dead letter in again and answers what became of it.
func (s *Service) Replay(ctx context.Context, tenant int64, id uuid.UUID, actor string) (store.Result, error) {
	l, err := s.Letter(ctx, tenant, id)
	if err != nil {
		return store.Result{}, err
	}
	if l.Status == store.LetterIgnored {
		return store.Result{}, fault.New(fault.Conflict, "the dead letter is ignored; restore it first")
	}
	res, err := s.replay(ctx, []store.Letter{l})
	if err != nil {
		return store.Result{}, err
	}
	if err := s.Audit(ctx, store.Audit{At: s.opt.Now(), Tenant: tenant, Actor: actor, Action: "dead_letter.replay", Subject: id.String(), Detail: string(res[id].Outcome)}); err != nil {
		s.opt.Logger.ErrorContext(ctx, "audit log not written", slog.Any("error", err))
	}
	return res[id], nil
}

// Ignore sets a dead letter aside: no replay and no enrollment takes it in.
func (s *Service) Ignore(ctx context.Context, tenant int64, id uuid.UUID, actor string) (store.Letter, error) {
	if err := s.SetLetter(ctx, tenant, id, store.LetterDead, store.LetterIgnored, actor); err != nil {
		return store.Letter{}, err
	}
	return s.Letter(ctx, tenant, id)
}

// Restore takes an ignored dead letter back.
func (s *Service) Restore(ctx context.Context, tenant int64, id uuid.UUID, actor string) (store.Letter, error) {
	if err := s.SetLetter(ctx, tenant, id, store.LetterIgnored, store.LetterDead, actor); err != nil {
		return store.Letter{}, err
	}
	return s.Letter(ctx, tenant, id)
}

// StartReplay begins a bulk replay; see Store.
func (s *Service) StartReplay(ctx context.Context, tenant int64, ids []uuid.UUID, f store.LetterFilter, dryRun bool, actor string) (store.Replay, error) {
	r, err := s.Store.StartReplay(ctx, tenant, ids, f, dryRun, actor)
	if err == nil && !dryRun {
		s.Wake()
	}
	return r, err
}

// Wake has the worker look now for a bulk replay that runs. It never waits.
func (s *Service) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Service) work(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		wait := time.Second
		more, err := s.step(context.WithoutCancel(ctx))
		switch {
		case err != nil:
			s.opt.Logger.ErrorContext(ctx, "bulk replay failed, it will be tried again", slog.Any("error", err))
			wait = 5 * time.Second
		case more:
			wait = 0
		}
		timer.Reset(wait)
	}
}

func (s *Service) step(ctx context.Context) (more bool, err error) {
	b, ok, err := s.NextReplay(ctx, replayBatch)
	if err != nil || !ok {
		return false, err
	}
	outcomes, err := s.replay(ctx, b.Letters)
	if err != nil {
		return false, err
	}
	return true, s.FinishReplayBatch(ctx, b, outcomes)
}

// replay takes letters of one tenant in again, events in one transaction,
// bodies one by one.
func (s *Service) replay(ctx context.Context, letters []store.Letter) (map[uuid.UUID]store.Result, error) {
	results := make(map[uuid.UUID]store.Result, len(letters))
	var ids []uuid.UUID
	for _, l := range letters {
		if l.Event != nil {
			ids = append(ids, l.ID)
			continue
		}
		res, err := s.replayBody(ctx, l)
		if err != nil {
			return nil, err
		}
		results[l.ID] = res
	}
	if len(ids) > 0 {
		got, err := s.replayEvents(ctx, letters[0].Tenant, ids)
		if err != nil {
			return nil, err
		}
		maps.Copy(results, got)
	}
	for _, res := range results {
		s.opt.Metrics.Replays.WithLabelValues(string(res.Outcome)).Inc()
		if res.Outcome == event.OutcomeApplied {
			s.opt.Metrics.OrphansResolved.WithLabelValues("replay").Inc()
		}
	}
	return results, nil
}

// replayEvents halves what the store refuses for its data, so that one bad
// event keeps nobody else dead.
func (s *Service) replayEvents(ctx context.Context, tenant int64, ids []uuid.UUID) (map[uuid.UUID]store.Result, error) {
	got, err := s.ReplayLetters(ctx, tenant, ids)
	if err == nil || !fault.Is(err, fault.Data) {
		return got, err
	}
	if len(ids) == 1 {
		return map[uuid.UUID]store.Result{ids[0]: {
			Outcome: event.OutcomeDead, State: event.Dead, Reason: store.ReasonPoison, Detail: "the database refuses this event",
		}}, nil
	}
	all := map[uuid.UUID]store.Result{}
	for _, half := range [][]uuid.UUID{ids[:len(ids)/2], ids[len(ids)/2:]} {
		got, err := s.replayEvents(ctx, tenant, half)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, got)
	}
	return all, nil
}

// replayBody decodes a kept body again. Its events enter as live ones; the
// letter is settled after them, so a crash between the two meets duplicates.
func (s *Service) replayBody(ctx context.Context, l store.Letter) (store.Result, error) {
	if l.Status == store.LetterReplayed || l.Status == store.LetterIgnored {
		return store.Result{ID: l.ID, Outcome: event.OutcomeDuplicate, State: event.Dead, Reason: l.Reason}, nil
	}
	dead := func(reason, detail string) (store.Result, error) {
		err := s.SettleBody(ctx, l.Tenant, l.ID, store.LetterDead, reason, detail)
		return store.Result{ID: l.ID, Outcome: event.OutcomeDead, State: event.Dead, Reason: reason, Detail: detail}, err
	}
	if l.Reason == store.ReasonForbiddenInput {
		return dead(l.Reason, l.Error)
	}
	events, err := s.opt.Decode(ctx, l)
	if fault.Is(err, fault.Unavailable) {
		return store.Result{}, err
	}
	if err != nil {
		msg := err.Error()
		if f, ok := errors.AsType[*fault.Error](err); ok && f.Msg != "" {
			msg = f.Msg
		}
		return dead(l.Reason, msg)
	}
	results, err := s.opt.Accept(ctx, events)
	if err != nil {
		return store.Result{}, err
	}
	if err := s.SettleBody(ctx, l.Tenant, l.ID, store.LetterReplayed, l.Reason, l.Error); err != nil {
		return store.Result{}, err
	}
	// One letter, one outcome: the most telling of its events'.
	best := store.Result{ID: l.ID, Outcome: event.OutcomeDuplicate, State: event.Ignored}
	for _, r := range results {
		if better(r.Outcome) > better(best.Outcome) {
			best = r
		}
	}
	return best, nil
}

func better(o event.Outcome) int {
	switch o {
	case event.OutcomeApplied:
		return 4
	case event.OutcomeOrphaned, event.OutcomeSpooled:
		return 3
	case event.OutcomeDead:
		return 2
	case event.OutcomeDuplicate, event.OutcomeIgnored:
		return 1
	}
	return 0
}
