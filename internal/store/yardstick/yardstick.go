// Package yardstick measures what SQLite alone does with the rows of events on
// this machine: what the embedded store's figures are held against.
//
// Guarantees: it writes the same event row and the same identity row as the
// embedded store, under the same durability (WAL, synchronous=FULL), through
// prepared statements of the lowest interface there is, and nothing else: no
// matching, no counters, no other index. Only its own file is touched.
package yardstick

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/event"
)

// Options of one measurement.
type Options struct {
	Path     string        // of the database file; it must not exist yet
	Batch    int           // rows in one transaction
	Duration time.Duration // when it is over no further transaction begins
	Samples  []event.Event // written in turn, each time with an identity of its own
}

// Result is what was measured.
type Result struct {
	Rows         int64
	Transactions int64
	Took         time.Duration
}

// The tables are those of the embedded store, without what this measurement
// leaves out on purpose.
const schema = `
CREATE TABLE event (
  seq INTEGER PRIMARY KEY, id BLOB NOT NULL, tenant_id INTEGER NOT NULL, source_id BLOB, scope TEXT NOT NULL,
  provider TEXT NOT NULL, kind TEXT NOT NULL, control INTEGER NOT NULL, type TEXT NOT NULL, channel TEXT NOT NULL,
  provider_event_id TEXT NOT NULL, provider_message_id TEXT NOT NULL, action_id TEXT NOT NULL, lead_id TEXT NOT NULL,
  claimed_enrollment TEXT NOT NULL, email TEXT NOT NULL, campaign TEXT NOT NULL, step INTEGER NOT NULL,
  bounce TEXT NOT NULL, machine INTEGER NOT NULL, url TEXT NOT NULL, occurred_at INTEGER NOT NULL,
  estimated INTEGER NOT NULL, received_at INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
  detail TEXT NOT NULL, enrollment_id BLOB, instance_id BLOB, parked_at INTEGER NOT NULL, settled_at INTEGER NOT NULL,
  settled_by TEXT NOT NULL, duplicates INTEGER NOT NULL DEFAULT 0, last_duplicate_at INTEGER NOT NULL DEFAULT 0,
  metadata BLOB, payload BLOB NOT NULL
) STRICT;
CREATE TABLE identity (
  tenant_id INTEGER NOT NULL, key BLOB NOT NULL, event_seq INTEGER NOT NULL, PRIMARY KEY (tenant_id, key)
) STRICT, WITHOUT ROWID;`

const insertEvent = `INSERT INTO event (seq, id, tenant_id, scope, provider, kind, control, type, channel, provider_event_id,
  provider_message_id, action_id, lead_id, claimed_enrollment, email, campaign, step, bounce, machine, url, occurred_at,
  estimated, received_at, state, reason, detail, enrollment_id, instance_id, parked_at, settled_at, settled_by, metadata, payload)
  VALUES (?1, ?2, 1, ?3, ?4, ?5, 0, ?5, ?6, ?7, ?8, '', '', '', ?9, ?10, ?11, '', 0, '', ?12, 0, ?12, 'applied', '', '', ?2, ?2, 0, ?12, 'live', ?13, ?14)`

const insertIdentity = `INSERT INTO identity (tenant_id, key, event_seq) VALUES (1, ?1, ?2)`

// Insert writes batches for the duration and tells how many rows became
// durable. It ends early, with ctx's error, when ctx does.
func Insert(ctx context.Context, o Options) (res Result, err error) {
	if o.Batch < 1 || len(o.Samples) == 0 {
		return res, errors.New("a batch size and samples are needed")
	}
	q := url.Values{"_pragma": {"journal_mode(wal)", "synchronous(full)", "wal_autocheckpoint(4000)", "cache_size(-65536)"}}
	conn, err := sqlite3.Open("file:" + (&url.URL{Path: o.Path}).EscapedPath() + "?" + q.Encode())
	if err != nil {
		return res, fmt.Errorf("open %s: %w", o.Path, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.Exec(schema); err != nil {
		return res, fmt.Errorf("make tables: %w", err)
	}
	w := writer{conn: conn, samples: o.Samples, rnd: rand.NewPCG(1, uint64(o.Batch))}
	var statements []*sqlite3.Stmt
	defer func() {
		for _, s := range statements {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, p := range []struct {
		to    **sqlite3.Stmt
		query string
	}{{&w.begin, "BEGIN IMMEDIATE"}, {&w.commit, "COMMIT"}, {&w.event, insertEvent}, {&w.identity, insertIdentity}} {
		s, _, err := conn.Prepare(p.query)
		if err != nil {
			return res, fmt.Errorf("prepare: %w", err)
		}
		*p.to = s
		statements = append(statements, s)
	}
	start := time.Now()
	for res.Took < o.Duration {
		if err := ctx.Err(); err != nil {
			return res, err
		}
		if err := w.batch(o.Batch); err != nil {
			return res, fmt.Errorf("insert: %w", err)
		}
		res.Rows += int64(o.Batch)
		res.Transactions++
		res.Took = time.Since(start)
	}
	return res, nil
}

type writer struct {
	conn                           *sqlite3.Conn
	begin, commit, event, identity *sqlite3.Stmt
	samples                        []event.Event
	rnd                            *rand.PCG
	seq                            int64
}

func (w *writer) batch(n int) error {
	if err := w.begin.Exec(); err != nil {
		return err
	}
	for range n {
		w.seq++
		if err := w.row(&w.samples[int(w.seq)%len(w.samples)]); err != nil {
			return err
		}
	}
	return w.commit.Exec()
}

// row writes one event and its identity. Identities are hashes, so any even
// spread of 16 bytes costs the index the same.
func (w *writer) row(e *event.Event) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make id: %w", err)
	}
	var key [16]byte
	binary.BigEndian.PutUint64(key[:8], w.rnd.Uint64())
	binary.BigEndian.PutUint64(key[8:], w.rnd.Uint64())
	if err := errors.Join(w.identity.BindBlob(1, key[:]), w.identity.BindInt64(2, w.seq)); err != nil {
		return err
	}
	if err := w.identity.Exec(); err != nil {
		return err
	}
	s := w.event
	err = errors.Join(
		s.BindInt64(1, w.seq), s.BindBlob(2, id[:]), s.BindText(3, "api:"+e.Provider), s.BindText(4, e.Provider),
		s.BindText(5, string(e.Type)), s.BindText(6, string(e.Channel)), s.BindText(7, e.ProviderEventID),
		s.BindText(8, e.ProviderMessageID), s.BindText(9, e.Email), s.BindText(10, e.Campaign), s.BindInt(11, e.StepNumber),
		s.BindInt64(12, e.OccurredAt.UnixMicro()), s.BindBlob(13, e.Metadata), s.BindBlob(14, e.Payload))
	if err != nil {
		return err
	}
	return s.Exec()
}
