package row

import (
	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// ScanErasure reads the progress of an erasure.
func ScanErasure(sc Scanner, e *store.Erasure) error {
	var created, updated int64
	err := sc.Scan(&e.Status, &e.Enrollments, &e.Events, &e.Letters, &created, &updated)
	e.CreatedAt, e.UpdatedAt = At(created), At(updated)
	return err
}

// NoErasure is the fault of an erasure that is not there.
func NoErasure(id uuid.UUID) error { return fault.New(fault.NotFound, "there is no erasure %s", id) }

// EncodeTask is what an erasure is at, as its row holds it.
func EncodeTask(t *store.EraseTask) ([]byte, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "write erasure", err)
	}
	return b, nil
}

// DecodeTask reads what EncodeTask wrote; nothing is an empty task.
func DecodeTask(b []byte) (t store.EraseTask, err error) {
	if len(b) == 0 {
		return t, nil
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return t, fault.Wrap(fault.Internal, "read erasure", err)
	}
	return t, nil
}
