package ingest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
)

// testKind is the kind of the events of samples, by which they are told from a
// provider's own.
const testKind = "tallyhook.test"

// Trial is what became of a source's sample.
type Trial struct {
	Provider *provider.Provider
	// Unsigned says why the sample could not be signed, so that verification was
	// tried no further than to the signature; empty: it was, and has verified.
	Unsigned string
	// Refused is why the source would refuse the webhook; nil: it would not.
	Refused error
	// Type and Channel are what the sample was read as, before it was set aside.
	// No type: the provider tells nothing that is canonical.
	Type    event.Type
	Channel event.Channel
	Result  store.Result // of an event that is kept as ignored; zero when refused
}

// Try sends a sample of a source's own provider the way of a webhook: it is
// verified with the source's secrets and settings, read, and committed. Its event
// is kept as ignored, so it has no effect on any enrollment, counter or address;
// it is in the sum of events that the source has brought. A refusal is an answer
// and no error, and is not recorded as one.
func (r *Receiver) Try(ctx context.Context, source uuid.UUID, url string) (Trial, error) {
	src, err := r.Sources.OpenSource(ctx, source)
	if err != nil {
		return Trial{}, err
	}
	var id [12]byte
	if _, err := rand.Read(id[:]); err != nil {
		return Trial{}, fmt.Errorf("read random bytes: %w", err)
	}
	trial := Trial{Provider: src.Provider}
	var req provider.Request
	req, trial.Unsigned = src.Provider.MakeSample(provider.Sampling{
		Now: r.Now(), ID: hex.EncodeToString(id[:]), URL: url, Config: src.Config,
	})
	err = src.Provider.Verify(r.Now(), src.Config, req)
	switch {
	case err == nil:
	case trial.Unsigned != "" && (errors.Is(err, provider.ErrMissing) || errors.Is(err, provider.ErrMalformed)):
		// As it should be: without a signature it comes as far as to that.
	default:
		trial.Refused = err
		return trial, nil
	}
	events, err := decode(src.Provider, req)
	if err != nil {
		return trial, fmt.Errorf("read the sample of %s: %w", src.Provider.Name, err)
	}
	if len(events) != 1 {
		return trial, fmt.Errorf("the sample of %s has %d events", src.Provider.Name, len(events))
	}
	e := &events[0]
	trial.Type, trial.Channel = e.Type, e.Channel
	own(e, src)
	e.Kind, e.Control, e.Type, e.Bounce = testKind, true, "", ""
	results, err := r.Committer.Accept(ctx, events)
	if err != nil {
		return trial, err
	}
	trial.Result = results[0]
	return trial, nil
}
