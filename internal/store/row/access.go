package row

import (
	"strings"

	"tallyhook/internal/store"
)

// KeyColumns are those of an API key.
const KeyColumns = `seq, id, tenant_id, name, hash, prefix, scopes, created_at, expires_at, last_used_at, revoked_at`

// ScanKey reads a key by KeyColumns.
func ScanKey(sc Scanner, k *store.Key) (seq int64, err error) {
	var id, hash []byte
	var scopes string
	var created, expires, used, revoked int64
	if err := sc.Scan(&seq, &id, &k.Tenant, &k.Name, &hash, &k.Prefix, &scopes, &created, &expires, &used, &revoked); err != nil {
		return 0, err
	}
	copy(k.Hash[:], hash)
	k.ID, k.Scopes = ID(id), strings.Fields(scopes)
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
