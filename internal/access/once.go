package access

import (
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// once makes something that is shown once. When an earlier request with the
// same Idempotency-Key made it, again is true, and its id and what was shown of
// it are answered in place of making another.
func (s *Service) once(ctx context.Context, by Principal, idem store.Idempotency, make func() ([]string, error)) (shown []string, id uuid.UUID, again bool, err error) {
	if idem.Key == "" {
		shown, err = make()
		return shown, uuid.Nil, false, err
	}
	shown, id, err = s.recall(ctx, by, idem)
	if !fault.Is(err, fault.NotFound) {
		return shown, id, err == nil, err
	}
	shown, err = make()
	if fault.Is(err, fault.Conflict) { // the same request, a moment ago, or a conflict of its own
		if before, id, rerr := s.recall(ctx, by, idem); rerr == nil {
			return before, id, true, nil
		}
	}
	return shown, uuid.Nil, false, err
}

// recall reads what was shown by an earlier request with the Idempotency-Key.
func (s *Service) recall(ctx context.Context, by Principal, idem store.Idempotency) (shown []string, id uuid.UUID, err error) {
	id, sealed, err := s.store.Recall(ctx, by.Tenant, idem)
	if err != nil {
		return nil, uuid.Nil, fmt.Errorf("find idempotency key: %w", err)
	}
	plain, err := s.sealer.open(sealed, shownOwner(id))
	if err == nil {
		err = json.Unmarshal(plain, &shown)
	}
	if err != nil { // forgotten after a day, or sealed with a former SECRETS_KEY
		return nil, uuid.Nil, fault.New(fault.Conflict, "this Idempotency-Key has made %s; what was shown once is not kept for longer than a day", id)
	}
	return shown, id, nil
}

// sealShown keeps what is shown once with an Idempotency-Key, encrypted.
func (s *Service) sealShown(idem store.Idempotency, id uuid.UUID, shown ...string) (store.Idempotency, error) {
	if idem.Key == "" {
		return idem, nil
	}
	plain, err := json.Marshal(shown)
	if err != nil {
		return idem, fmt.Errorf("encode answer: %w", err)
	}
	idem.Sealed = s.sealer.seal(plain, shownOwner(id))
	return idem, nil
}

// shownOwner is what such an answer is bound to; a source's secrets are bound
// to its id alone.
func shownOwner(id uuid.UUID) []byte { return append([]byte("shown once "), id[:]...) }

// answersKept is how long what was shown once can be asked for again with its
// Idempotency-Key.
const answersKept = 24 * time.Hour

// ForgetAnswers takes away what was shown once longer than a day ago.
func (s *Service) ForgetAnswers(ctx context.Context) error {
	if err := s.store.ForgetAnswers(ctx, s.at().Add(-answersKept)); err != nil {
		return fmt.Errorf("forget answers: %w", err)
	}
	return nil
}
