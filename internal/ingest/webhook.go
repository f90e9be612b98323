package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/guard"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
	"tallyhook/internal/telemetry"
)

// Sources open a source for verification.
type Sources interface {
	SourceByToken(ctx context.Context, token string) (access.Opened, error)
	OpenSource(ctx context.Context, id uuid.UUID) (access.Opened, error)
	Reject(source uuid.UUID, r access.Rejection)
}

// Bodies keep authentic bodies that cannot be read.
type Bodies interface {
	CommitBody(ctx context.Context, l store.Letter) (store.Result, error)
}

// Budgets bound how fast a source may send, and how often an address may fail
// to verify for one. Their errors are faults of kind Throttled.
type Budgets interface {
	Verified(source [16]byte) error
	Failed(from netip.Addr, source [16]byte) error
}

// Receiver takes a webhook the whole way: source by token, verify over the
// raw bytes, only then decode, accept.
type Receiver struct {
	Sources   Sources
	Budgets   Budgets // nil: no limits
	Bodies    Bodies
	Committer *Committer
	Now       func() time.Time
	Logger    *slog.Logger
	Metrics   *telemetry.Metrics
	// Certificate gets a vendor's signing certificate; see provider.Config. Nil:
	// vendors that sign with one are answered that it cannot be had.
	Certificate func(ctx context.Context, address string) ([]byte, error)
	// Confirm calls an address that a vendor wants to be called; see
	// provider.Provider. Nil: none is.
	Confirm func(ctx context.Context, address string) error
}

// Receive takes one webhook. The Receipt names the provider also when there
// is an error, so that the refusal can be in its dialect. A body that is
// authentic but unreadable is no error: it is kept as a dead letter.
func (r *Receiver) Receive(ctx context.Context, token string, req provider.Request) (Receipt, error) {
	src, err := r.Sources.SourceByToken(ctx, token)
	if err != nil {
		name := "unknown"
		if src.Provider != nil {
			name = src.Provider.Name
		}
		if fault.Is(err, fault.NotFound) {
			r.Metrics.WebhooksRejected.WithLabelValues(name, "unknown_source").Inc()
		}
		return Receipt{Provider: src.Provider}, err
	}
	receipt := Receipt{Provider: src.Provider}
	if err := r.verify(ctx, src, req); err != nil {
		return receipt, err
	}
	if key := guard.ForbiddenKey(req.Body); key != "" {
		return r.keep(ctx, receipt, src, req, store.ReasonForbiddenInput, "the body has the key "+key)
	}
	req.Settings = src.Config.Settings
	events, err := decode(src.Provider, req)
	if err != nil {
		return r.keep(ctx, receipt, src, req, store.ReasonUndecodable, err.Error())
	}
	if key := forbiddenIn(src.Provider, events); key != "" {
		return r.keep(ctx, receipt, src, req, store.ReasonForbiddenInput, "an event has the key "+key)
	}
	for i := range events {
		own(&events[i], src)
	}
	if src.Provider.Nonce != nil {
		nonce := event.NonceOf(src.ID.String(), src.Provider.Nonce(req), events)
		for i := range events {
			events[i].Nonce = nonce
		}
	}
	results, err := r.accept(ctx, events)
	switch {
	case errors.Is(err, errNonce):
		return receipt, r.refuse(ctx, src, req, err)
	case err != nil:
		return receipt, err
	}
	for _, res := range results {
		receipt.Counts.Add(res)
	}
	return receipt, r.confirm(ctx, src, req)
}

// accept hands events over in parts, so that a vendor's largest batch is no
// larger a transaction than the API's. When a part fails the vendor sends all of
// them again, and those before it are duplicates.
func (r *Receiver) accept(ctx context.Context, events []event.Event) ([]store.Result, error) {
	results := make([]store.Result, 0, len(events))
	for part := range slices.Chunk(events, event.MaxArray) {
		some, err := r.Committer.Accept(ctx, part)
		if err != nil {
			return nil, err
		}
		results = append(results, some...)
	}
	return results, nil
}

// errNonce is what becomes of a request whose nonce the store has with another event.
var errNonce = fmt.Errorf("%w: its token came with another event before", provider.ErrMismatch)

// confirm calls the address that a request wants to be called, if there is
// one. When that fails the sender is told to try again: the events are safe and
// will be duplicates.
func (r *Receiver) confirm(ctx context.Context, src access.Opened, req provider.Request) error {
	if src.Provider.Confirm == nil || r.Confirm == nil {
		return nil
	}
	address := src.Provider.Confirm(src.Config, req)
	if address == "" {
		return nil
	}
	attrs := []any{slog.String("source_id", src.ID.String()), slog.String("provider", src.Provider.Name)}
	if err := r.Confirm(ctx, address); err != nil {
		r.Logger.WarnContext(ctx, "subscription not confirmed", append(attrs, slog.Any("error", err))...)
		return &fault.Error{Kind: fault.Unavailable, Op: "confirm subscription", Msg: "the subscription could not be confirmed", Err: err}
	}
	r.Logger.InfoContext(ctx, "subscription confirmed", attrs...)
	return nil
}

// SignedBy authenticates a request to the API that is signed for a source of
// provider generic in place of an API key.
func (r *Receiver) SignedBy(ctx context.Context, source uuid.UUID, req provider.Request) (access.Opened, error) {
	src, err := r.Sources.OpenSource(ctx, source)
	if err != nil {
		if fault.Is(err, fault.NotFound) {
			return src, fault.New(fault.Unauthenticated, "X-Source-ID names no source; send an API key or the id of a generic source")
		}
		return src, err
	}
	if src.Provider.Name != "generic" {
		return src, fault.New(fault.Unauthenticated, "X-Source-ID names a source of another provider than generic; send an API key")
	}
	return src, r.verify(ctx, src, req)
}

func (r *Receiver) verify(ctx context.Context, src access.Opened, req provider.Request) error {
	cfg := src.Config
	if r.Certificate != nil {
		cfg.Certificate = func(address string) ([]byte, error) { return r.Certificate(ctx, address) }
	}
	err := src.Provider.Verify(r.Now(), cfg, req)
	switch {
	case err == nil && r.Budgets == nil:
		return nil
	case err == nil: // only what is authentic spends: a forger cannot use up a vendor's budget
		return r.Budgets.Verified(src.ID)
	case errors.Is(err, provider.ErrUnavailable), r.Budgets == nil: // ours, not the sender's
	default:
		from, perr := netip.ParseAddr(req.RemoteAddr)
		if perr != nil {
			from = netip.Addr{} // senders that cannot be told apart share a budget
		}
		if over := r.Budgets.Failed(from, src.ID); over != nil {
			return over // neither recorded nor logged: a flood of forgeries leaves nothing but its count
		}
	}
	return r.refuse(ctx, src, req, err)
}

// refuse records that a request did not verify. What could not be looked up is
// not the sender's fault, and is told as such.
func (r *Receiver) refuse(ctx context.Context, src access.Opened, req provider.Request, err error) error {
	refusal, failed := provider.RefuseAuth, &fault.Error{Kind: fault.Unauthenticated, Op: "verify", Msg: err.Error()}
	if errors.Is(err, provider.ErrUnavailable) {
		refusal, failed = provider.RefuseUnavailable, &fault.Error{
			Kind: fault.Unavailable, Op: "verify", Msg: provider.ErrUnavailable.Error(), Err: err, RetryAfter: 20 * time.Second,
		}
	}
	reason := rejection(err)
	r.Metrics.WebhooksRejected.WithLabelValues(src.Provider.Name, reason).Inc()
	r.Sources.Reject(src.ID, access.Rejection{
		At: r.Now().UTC(), Reason: err.Error(), Status: src.Provider.Status(refusal), Headers: req.HeaderNames,
	})
	r.Logger.WarnContext(ctx, "webhook refused", slog.String("source_id", src.ID.String()), slog.String("provider", src.Provider.Name), slog.String("reason", reason))
	return failed
}

// rejection is a bounded name for a metric.
func rejection(err error) string {
	switch {
	case errors.Is(err, provider.ErrMissing):
		return "missing"
	case errors.Is(err, provider.ErrMalformed):
		return "malformed"
	case errors.Is(err, provider.ErrExpired):
		return "expired"
	case errors.Is(err, provider.ErrNoSecret):
		return "no_secret"
	case errors.Is(err, provider.ErrAddress):
		return "address"
	case errors.Is(err, provider.ErrTopic):
		return "topic"
	case errors.Is(err, provider.ErrUnavailable):
		return "unavailable"
	}
	return "mismatch"
}

func decode(p *provider.Provider, req provider.Request) ([]event.Event, error) {
	events, err := p.Decode(req)
	if err != nil {
		return nil, err
	}
	for i := range events {
		if err := events[i].Check(); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// forbiddenIn finds a forbidden key of events whose JSON stood inside of a text
// or a form, where the scan of the body does not see it; "" when there is none.
func forbiddenIn(p *provider.Provider, events []event.Event) string {
	for i := range events {
		if key := guard.ForbiddenKey(events[i].Metadata); key != "" {
			return key
		}
		if !p.Nested {
			continue
		}
		if key := guard.ForbiddenKey(events[i].Payload); key != "" {
			return key
		}
	}
	return ""
}

// own makes an event the source's, and holds it against the source's settings.
func own(e *event.Event, src access.Opened) {
	e.Tenant, e.SourceID, e.Scope = src.Tenant, src.ID, src.ID.String()
	settings := src.Config.Settings
	e.IgnoreUnmatched = settings.OnUnmatched == provider.IgnoreUnmatched
	e.EnrollUnmatched = settings.OnUnmatched == provider.EnrollUnmatched
	if !e.Control && !settings.Accept.Takes(e) {
		e.Control, e.Type, e.Bounce = true, "", ""
	}
	if e.Provider == "" {
		e.Provider = src.Provider.Name
	}
}

// keep stores an authentic body that cannot be taken in as a dead letter.
func (r *Receiver) keep(ctx context.Context, receipt Receipt, src access.Opened, req provider.Request, reason, detail string) (Receipt, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return receipt, fault.Wrap(fault.Unavailable, "make id", err)
	}
	body := req.Body
	if src.Provider.Mask != nil {
		body = src.Provider.Mask(body)
	}
	res, err := r.Bodies.CommitBody(ctx, store.Letter{
		ID: id, Tenant: src.Tenant, SourceID: src.ID, Provider: src.Provider.Name, Reason: reason, Error: detail,
		Body: body, Headers: headersToKeep(req),
	})
	if err != nil {
		return receipt, fault.Wrap(fault.Unavailable, "keep body", err)
	}
	if res.Outcome == event.OutcomeDead {
		r.Metrics.DeadLetters.WithLabelValues(reason).Inc()
	}
	receipt.Counts.Add(res)
	return receipt, nil
}

// headersToKeep are the headers that decoding may need again; never credentials.
func headersToKeep(req provider.Request) map[string]string {
	kept := map[string]string{}
	for _, name := range []string{"content-type", "webhook-id", "svix-id", "webhook-signature", "svix-signature"} {
		if v := req.Header.Get(name); v != "" {
			kept[name] = v
		}
	}
	return kept
}

// Redecode reads a kept body again, as for a webhook that has just come in,
// with the settings that its source has now.
func (r *Receiver) Redecode(ctx context.Context, l store.Letter) ([]event.Event, error) {
	p := provider.ByName(l.Provider)
	if p == nil {
		return nil, fault.New(fault.Conflict, "this release has no provider %q", l.Provider)
	}
	if key := guard.ForbiddenKey(l.Body); key != "" {
		return nil, fault.New(fault.Conflict, "the body has the key %s", key)
	}
	src, err := r.Sources.OpenSource(ctx, l.SourceID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	// A source that is gone has no settings; its bodies are read all the same.
	req := provider.Request{Method: "POST", Header: keptHeader(l.Headers), Body: l.Body, Settings: src.Config.Settings}
	events, err := decode(p, req)
	if err != nil {
		return nil, err
	}
	if key := forbiddenIn(p, events); key != "" {
		return nil, fault.New(fault.Conflict, "an event has the key %s", key)
	}
	src = access.Opened{ID: l.SourceID, Tenant: l.Tenant, Provider: p, Config: src.Config}
	for i := range events {
		own(&events[i], src)
		events[i].ReceivedAt = l.FirstReceivedAt
	}
	return events, nil
}

type keptHeader map[string]string

// Get implements provider.Header.
func (h keptHeader) Get(name string) string { return h[strings.ToLower(name)] }
