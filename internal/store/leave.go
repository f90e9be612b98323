package store

import (
	"github.com/google/uuid"

	"tallyhook/internal/fault"
)

// Book is a transaction that writes down who did what, and for which request.
type Book interface {
	// Idempotent finds what a request with this key made before.
	Idempotent(tenant int64, idem Idempotency) (resource uuid.UUID, note string, done bool, err error)
	KeepIdempotent(tenant int64, idem Idempotency, resource uuid.UUID, note string) error
	Audit(a Audit) error
}

// Leave writes what a change of a resource leaves beside its own rows. A
// Conflict when another request with the same Idempotency-Key was first.
func Leave(b Book, resource uuid.UUID, traces []Trace) error {
	for _, tr := range traces {
		_, _, done, err := b.Idempotent(tr.Audit.Tenant, tr.Idempotency)
		if err == nil && done {
			err = fault.New(fault.Conflict, "this Idempotency-Key was used a moment ago; ask again")
		}
		if err == nil {
			err = b.KeepIdempotent(tr.Audit.Tenant, tr.Idempotency, resource, "")
		}
		if err == nil {
			err = b.Audit(tr.Audit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Same is a Conflict unless a request is the one that the key came with first.
func (i Idempotency) Same(request []byte) error {
	if string(request) != string(i.Request[:]) {
		return fault.New(fault.Conflict, "this Idempotency-Key was used with another request")
	}
	return nil
}
