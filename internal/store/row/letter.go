package row

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// LetterColumns are those of a dead letter d.
const LetterColumns = `d.seq, d.id, d.tenant_id, d.event_seq, d.source_id, d.provider, d.reason, d.error, d.status, d.attempts,
	d.first_received_at, d.last_attempt_at, d.body, d.headers`

// ScanLetter reads a dead letter by LetterColumns; eventSeq is 0 for a body that could not be read.
func ScanLetter(sc Scanner, l *store.Letter) (eventSeq int64, err error) {
	var id, source, headers []byte
	var seq *int64
	var first, last int64
	if err := sc.Scan(&l.Seq, &id, &l.Tenant, &seq, &source, &l.Provider, &l.Reason, &l.Error, &l.Status, &l.Attempts,
		&first, &last, &l.Body, &headers); err != nil {
		return 0, err
	}
	l.ID, l.SourceID, l.FirstReceivedAt, l.LastAttemptAt = ID(id), ID(source), At(first), At(last)
	if len(headers) > 0 {
		if err := json.Unmarshal(headers, &l.Headers); err != nil {
			return 0, fmt.Errorf("read headers of dead letter: %w", err)
		}
	}
	if seq != nil {
		eventSeq = *seq
	}
	return eventSeq, nil
}

// EncodeHeaders is how the headers of a kept body are stored.
func EncodeHeaders(h map[string]string) []byte {
	b, err := json.Marshal(h, json.Deterministic(true))
	if err != nil { // a map of strings that are UTF-8 always marshals; others are dropped
		return []byte("{}")
	}
	return b
}

// NoLetter is the fault of a dead letter that is not there.
func NoLetter(id uuid.UUID) error { return fault.New(fault.NotFound, "there is no dead letter %s", id) }
