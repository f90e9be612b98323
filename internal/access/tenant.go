package access

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// maxPerSecond bounds a rate that a tenant may be given, and maxQuota a number
// of things: more is no limit at all, and 0 says that.
const (
	maxPerSecond = 1_000_000
	maxQuota     = 1_000_000
)

// tenantOf tells from memory, as the keys are known, what a tenant may do. The
// default tenant may do everything, and no store is asked about it.
func (s *Service) tenantOf(ctx context.Context, id int64) (store.Tenant, error) {
	if id == store.DefaultTenant {
		return store.Tenant{ID: id}, nil
	}
	n, ok, err := s.tenants.find(id, s.now(), "read tenant", func() (store.Tenant, error) {
		return ask(ctx, s, func(ctx context.Context) (store.Tenant, error) { return s.store.Tenant(ctx, id) })
	})
	if err == nil && !ok {
		err = fault.New(fault.Internal, "a key or source belongs to no tenant")
	}
	return n, err
}

// away tells whether what is not in memory comes from the snapshot.
func (s *Service) away() bool { return s.file != "" && s.outage.is() }

// CreateTenant makes a tenant with its first admin key, which is shown as by
// MakeKey.
func (s *Service) CreateTenant(ctx context.Context, by Principal, in TenantInput) (n store.Tenant, plain string, err error) {
	if wrong := checkName(checkLimits(nil, in.Limits), in.Name); len(wrong) > 0 {
		return n, "", fault.BadInput(wrong...)
	}
	shown, id, again, err := s.once(ctx, by, in.Idempotency, func() ([]string, error) {
		plain, err := makeKey()
		if err != nil {
			return nil, fmt.Errorf("make key: %w", err)
		}
		n, err = s.addTenant(ctx, by, in, plain)
		return []string{plain}, err
	})
	if err == nil && again {
		n, err = s.store.TenantByUID(ctx, id)
	}
	if err != nil {
		return store.Tenant{}, "", err
	}
	return n, shown[0], nil
}

func (s *Service) addTenant(ctx context.Context, by Principal, in TenantInput, plain string) (store.Tenant, error) {
	uid, err := uuid.NewV7()
	if err != nil {
		return store.Tenant{}, fmt.Errorf("make id: %w", err)
	}
	first := store.Key{Name: "first key", Scopes: []string{ScopeAdmin}}
	if err := s.completeKey(&first, 0, plain); err != nil {
		return store.Tenant{}, err
	}
	trace := s.line(by, "tenant.create", uid, in.Name+": "+limitsText(in.Limits)+", first key "+first.ID.String())
	if trace.Idempotency, err = s.sealShown(in.Idempotency, uid, plain); err != nil {
		return store.Tenant{}, err
	}
	n, err := s.store.CreateTenant(ctx, store.Tenant{UID: uid, Name: in.Name, Limits: in.Limits}, first, trace)
	if err != nil {
		return store.Tenant{}, fmt.Errorf("create tenant: %w", err)
	}
	s.admitKey(first)
	return n, nil
}

// Tenants lists all tenants.
func (s *Service) Tenants(ctx context.Context, p store.Page) (rows []store.Tenant, next int64, err error) {
	rows, next, err = s.store.Tenants(ctx, p)
	if err != nil {
		return nil, 0, fmt.Errorf("list tenants: %w", err)
	}
	return rows, next, nil
}

// Tenant shows one tenant.
func (s *Service) Tenant(ctx context.Context, uid uuid.UUID) (store.Tenant, error) {
	n, err := s.store.TenantByUID(ctx, uid)
	switch {
	case fault.Is(err, fault.NotFound):
		return store.Tenant{}, noTenant()
	case err != nil:
		return store.Tenant{}, fmt.Errorf("read tenant: %w", err)
	}
	return n, nil
}

func noTenant() error { return fault.New(fault.NotFound, "there is no tenant with this id") }

// PatchTenant changes what is not nil. Limits are replaced as a whole; what
// there is beyond a lower quota stays.
func (s *Service) PatchTenant(ctx context.Context, by Principal, uid uuid.UUID, patch TenantPatch) (store.Tenant, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	n, err := s.Tenant(ctx, uid)
	if err != nil {
		return store.Tenant{}, err
	}
	var wrong []fault.Field
	var changed []string
	if patch.Name != nil {
		wrong = checkName(wrong, *patch.Name)
		n.Name = *patch.Name
		changed = append(changed, "name: "+n.Name)
	}
	if patch.Limits != nil {
		wrong = checkLimits(wrong, *patch.Limits)
		n.Limits = *patch.Limits
		changed = append(changed, "limits: "+limitsText(n.Limits))
	}
	switch {
	case len(wrong) > 0:
		return store.Tenant{}, fault.BadInput(wrong...)
	case len(changed) == 0:
		return n, nil
	case n.ID == store.DefaultTenant && patch.Limits != nil && *patch.Limits != (store.Limits{}):
		return store.Tenant{}, fault.New(fault.Conflict, "the default tenant is the operator's own and has no limits")
	}
	err = s.store.UpdateTenant(ctx, n, s.line(by, "tenant.update", uid, strings.Join(changed, ", ")))
	s.forgetTenant(n.ID) // whatever the store said: the commit may have happened
	if err != nil {
		return store.Tenant{}, fmt.Errorf("update tenant: %w", err)
	}
	return n, nil
}

// SuspendTenant ends what a tenant may do until it is resumed: its keys are
// refused, and its vendors told to send again later. Nothing of it is lost.
func (s *Service) SuspendTenant(ctx context.Context, by Principal, uid uuid.UUID) (store.Tenant, error) {
	return s.setSuspended(ctx, by, uid, s.at(), "tenant.suspend")
}

// ResumeTenant lets a suspended tenant act again.
func (s *Service) ResumeTenant(ctx context.Context, by Principal, uid uuid.UUID) (store.Tenant, error) {
	return s.setSuspended(ctx, by, uid, time.Time{}, "tenant.resume")
}

func (s *Service) setSuspended(ctx context.Context, by Principal, uid uuid.UUID, at time.Time, action string) (store.Tenant, error) {
	n, err := s.Tenant(ctx, uid)
	switch {
	case err != nil:
		return store.Tenant{}, err
	case n.ID == store.DefaultTenant:
		return store.Tenant{}, fault.New(fault.Conflict, "the default tenant is the operator's own: it cannot be suspended")
	}
	err = s.store.SuspendTenant(ctx, uid, at, s.line(by, action, uid, n.Name))
	s.forgetTenant(n.ID)
	switch {
	case fault.Is(err, fault.Conflict) && at.IsZero():
		return store.Tenant{}, fault.New(fault.Conflict, "the tenant is not suspended")
	case fault.Is(err, fault.Conflict):
		return store.Tenant{}, fault.New(fault.Conflict, "the tenant is suspended already")
	case err != nil:
		return store.Tenant{}, fmt.Errorf("suspend tenant: %w", err)
	}
	n.SuspendedAt = at
	return n, nil
}

// forgetTenant forgets what is known of a tenant that has changed.
func (s *Service) forgetTenant(id int64) {
	s.change()
	s.tenants.forget(func(k int64, _ store.Tenant) bool { return k == id }, func(k int64) bool { return k == id })
}

func checkLimits(wrong []fault.Field, l store.Limits) []fault.Field {
	for _, of := range []struct {
		name      string
		n, atMost int
	}{
		{"requests_per_second", l.RequestsPerSecond, maxPerSecond},
		{"webhooks_per_second", l.WebhooksPerSecond, maxPerSecond},
		{"max_keys", l.MaxKeys, maxQuota},
		{"max_sources", l.MaxSources, maxQuota},
		{"max_instances", l.MaxInstances, maxQuota},
	} {
		if of.n < 0 || of.n > of.atMost {
			wrong = append(wrong, fault.Field{Location: "body.limits." + of.name, Message: fmt.Sprintf("must be from 0 (no limit) to %d", of.atMost)})
		}
	}
	return wrong
}

func limitsText(l store.Limits) string {
	text, err := json.Marshal(l)
	if err != nil {
		return "limits"
	}
	return string(text)
}
