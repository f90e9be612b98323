package limit

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"
)

const (
	exchangeBatch = 256 // budgets booked in one call
	exchangePace  = 5 * time.Millisecond
	exchangeAway  = 100 * time.Millisecond // between two looks at a ledger that is away
)

// ExchangeOptions say how budgets are shared.
type ExchangeOptions struct {
	// Replica names this process, unlike any other and any earlier one.
	Replica string
	// Secret is the same on all replicas: with it the keys of budgets, client
	// addresses among them, are made into names that tell nothing.
	Secret [32]byte
	// Patience is how long an answer of the ledger is counted on, 100 ms.
	Patience time.Duration
}

// Exchange books budgets in a ledger, in the background, until it is closed.
type Exchange struct {
	ledger Ledger
	opt    ExchangeOptions
	stop   context.CancelFunc
	finish sync.WaitGroup
	bell   chan struct{} // something is to be booked

	mu   sync.Mutex // guards jobs; taken while a window's is held, never the other way round
	jobs []job
}

type job struct {
	of  *Shared
	key Key
}

// Share has the budgets shared by all replicas that use the same ledger. It is
// to be called before they are used, and the exchange to be closed after.
func (b *Budgets) Share(l Ledger, o ExchangeOptions) *Exchange {
	o.Patience = cmp.Or(o.Patience, 100*time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	x := &Exchange{ledger: l, opt: o, stop: cancel, bell: make(chan struct{}, 1)}
	for kind, limiter := range map[Kind]*Limiter{Anonymous: &b.Anonymous, API: &b.API, Webhook: &b.Webhook, Signature: &b.Signature} {
		if w, ok := (*limiter).(*Window); ok {
			*limiter = share(w, kind, x)
		}
	}
	x.finish.Go(func() { x.run(ctx) })
	return x
}

// Close ends the exchange. Budgets go on with what is known.
func (x *Exchange) Close() {
	x.stop()
	x.finish.Wait()
}

// name is the name of a budget in the ledger.
func (x *Exchange) name(kind Kind, k Key) string {
	mac := hmac.New(sha256.New, x.opt.Secret[:])
	mac.Write([]byte(kind))
	mac.Write(k[:])
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// queue has a budget booked; false when too many wait already.
func (x *Exchange) queue(s *Shared, k Key) bool {
	x.mu.Lock()
	full := len(x.jobs) >= len(Kinds())*mostShared
	if !full {
		x.jobs = append(x.jobs, job{s, k})
	}
	x.mu.Unlock()
	select {
	case x.bell <- struct{}{}:
	default:
	}
	return !full
}

func (x *Exchange) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-x.bell:
		}
		// The pace has what comes meanwhile share the next call.
		for more := true; more; {
			pace := exchangePace
			if x.ledger.Up() {
				more = x.book(ctx)
			} else {
				pace = exchangeAway
			}
			timer.Reset(pace)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		}
	}
}

// book books what waits, one call's worth; more is true while something waits.
func (x *Exchange) book(ctx context.Context) (more bool) {
	jobs, more := x.take()
	kept := jobs[:0]
	entries := make([]Entry, 0, len(jobs))
	for _, j := range jobs {
		if e, ok := j.of.entry(j.key); ok {
			kept, entries = append(kept, j), append(entries, e)
		}
	}
	if len(entries) == 0 {
		return more
	}
	// What is not answered is asked for again when its budget is.
	for i, t := range x.ledger.Book(ctx, entries) {
		kept[i].of.answer(kept[i].key, entries[i], t)
	}
	return more
}

func (x *Exchange) take() (jobs []job, more bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := min(len(x.jobs), exchangeBatch)
	jobs, x.jobs = x.jobs[:n:n], x.jobs[n:]
	if len(x.jobs) == 0 {
		x.jobs = nil
	}
	return jobs, len(x.jobs) > 0
}
