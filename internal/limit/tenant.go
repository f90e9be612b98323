package limit

import (
	"encoding/binary"
	"sync"
	"time"
)

// Tenant is the kind of a whole tenant's budgets: what all its API keys, or all
// its sources, may do together.
const Tenant Kind = "tenant"

// tenants are such budgets, in the memory of this process: of two replicas each
// counts for itself. There are as many as tenants that have a limit, which an
// operator makes by hand.
type tenants struct {
	now func() time.Time

	mu sync.Mutex // guards what follows
	of map[whole]*Window
}

type whole struct {
	kind   Kind
	tenant int64
}

// Whole spends one of what a tenant may do in a second over all its API keys
// (API) or over all its sources (Webhook). No limit is 0. The error is a fault
// of kind Throttled.
func (b *Budgets) Whole(kind Kind, tenant int64, perSecond int) error {
	if perSecond <= 0 {
		return nil
	}
	var k Key
	k[0] = 't'
	binary.BigEndian.PutUint64(k[1:], uint64(tenant)) //nolint:gosec // a number like any other
	d := b.whole.window(whole{kind, tenant}, Rate{perSecond, time.Second}).Take(k)
	if d.Allowed {
		return nil
	}
	if b.Refused != nil {
		b.Refused(Tenant)
	}
	what := "the tenant's API keys together ask faster than its limit (requests_per_second); try again"
	if kind == Webhook {
		what = "the tenant's sources together send faster than its limit (webhooks_per_second); try again"
	}
	return Refuse(Tenant, d, what)
}

// Shared spends one of what a tenant's sources may send together, once a
// request has shown a good signature.
func (b *Budgets) Shared(tenant int64, perSecond int) error {
	return b.Whole(Webhook, tenant, perSecond)
}

// window is the budget of a tenant; a new one when its rate was changed.
func (t *tenants) window(of whole, r Rate) *Window {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.of[of]
	if w == nil || w.rate != r {
		if t.of == nil {
			t.of = map[whole]*Window{}
		}
		w = NewWindow(r, 1, t.now)
		t.of[of] = w
	}
	return w
}
