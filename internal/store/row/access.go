package row

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/go-json-experiment/json"

	"tallyhook/internal/store"
)

// KeyColumns are those of an API key.
const KeyColumns = `seq, id, tenant_id, name, hash, prefix, scopes, created_at, expires_at, last_used_at, revoked_at, allowed_ips, replaced_by`

// ScanKey reads a key by KeyColumns.
func ScanKey(sc Scanner, k *store.Key) (seq int64, err error) {
	var id, hash, replaced []byte
	var scopes, allowed string
	var created, expires, used, revoked int64
	if err := sc.Scan(&seq, &id, &k.Tenant, &k.Name, &hash, &k.Prefix, &scopes, &created, &expires, &used, &revoked, &allowed, &replaced); err != nil {
		return 0, err
	}
	for text := range strings.FieldsSeq(allowed) {
		p, err := netip.ParsePrefix(text)
		if err != nil { // never as if there were none: then the key could be used from everywhere
			return 0, fmt.Errorf("allowed addresses of a key: %w", err)
		}
		k.AllowedIPs = append(k.AllowedIPs, p)
	}
	copy(k.Hash[:], hash)
	k.ID, k.Scopes, k.ReplacedBy = ID(id), strings.Fields(scopes), ID(replaced)
	k.CreatedAt, k.ExpiresAt, k.LastUsedAt, k.RevokedAt = At(created), At(expires), At(used), At(revoked)
	return seq, nil
}

// ScanSource reads a source; each store has its own columns for what the source brought.
func ScanSource(sc Scanner, r *store.Source) (seq int64, err error) {
	var id, hash []byte
	var created, updated, deleted, last int64
	if err := sc.Scan(&seq, &id, &r.Tenant, &r.Provider, &r.Name, &hash, &r.Sealed, &created, &updated, &deleted, &r.Received, &last); err != nil {
		return 0, err
	}
	copy(r.TokenHash[:], hash)
	r.ID, r.CreatedAt, r.UpdatedAt, r.DeletedAt, r.LastReceivedAt = ID(id), At(created), At(updated), At(deleted), At(last)
	return seq, nil
}

// FormerColumns are those of a token that a source's URL had before.
const FormerColumns = `seq, token_hash, source_id, ends_at`

// ScanFormer reads a former token by FormerColumns, and what follows them.
func ScanFormer(sc Scanner, f *store.FormerToken, more ...any) (seq int64, err error) {
	var hash, source []byte
	var ends int64
	if err := sc.Scan(append([]any{&seq, &hash, &source, &ends}, more...)...); err != nil {
		return 0, err
	}
	copy(f.Hash[:], hash)
	f.Source, f.EndsAt = ID(source), At(ends)
	return seq, nil
}

// Prefixes are addresses and ranges as they are stored.
func Prefixes(all []netip.Prefix) string {
	texts := make([]string, len(all))
	for i, p := range all {
		texts[i] = p.String()
	}
	return strings.Join(texts, " ")
}

// TenantColumns are those of a tenant.
const TenantColumns = `id, uid, name, limits, created_at, suspended_at`

// ScanTenant reads a tenant by TenantColumns.
func ScanTenant(sc Scanner, n *store.Tenant) error {
	var uid []byte
	var limits string
	var created, suspended int64
	if err := sc.Scan(&n.ID, &uid, &n.Name, &limits, &created, &suspended); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(limits), &n.Limits); err != nil {
		return fmt.Errorf("limits of a tenant: %w", err)
	}
	n.UID, n.CreatedAt, n.SuspendedAt = ID(uid), At(created), At(suspended)
	return nil
}

// Limits are a tenant's limits as they are stored.
func Limits(l store.Limits) (string, error) {
	text, err := json.Marshal(l)
	return string(text), err
}

// AuditColumns are those of a line of the audit log.
const AuditColumns = `seq, tenant_id, at, actor, action, subject, detail, remote, request_id`

// ScanAudit reads a line by AuditColumns.
func ScanAudit(sc Scanner, a *store.Audit) (seq int64, err error) {
	var at int64
	err = sc.Scan(&seq, &a.Tenant, &at, &a.Actor, &a.Action, &a.Subject, &a.Detail, &a.Remote, &a.RequestID)
	a.At = At(at)
	return seq, err
}
