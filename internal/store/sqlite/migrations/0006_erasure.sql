-- +goose Up
-- Who must not come back: tombstones of match keys, of contacts and of
-- profiles, made with a key of the installation's own (store.Tombstones).
CREATE TABLE erased (
  tenant_id INTEGER NOT NULL,
  key       BLOB NOT NULL,
  at        INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, key)
) STRICT, WITHOUT ROWID;

-- Erasures and how far they are.
CREATE TABLE erasure (
  seq         INTEGER PRIMARY KEY,
  id          BLOB NOT NULL UNIQUE,
  tenant_id   INTEGER NOT NULL,
  status      TEXT NOT NULL,
  task        BLOB NOT NULL,    -- JSON of store.EraseTask; empty when nothing of the contact is left
  phase       INTEGER NOT NULL,
  item        INTEGER NOT NULL, -- which of the references that events are searched by
  after_seq   INTEGER NOT NULL, -- rows up to here are done
  enrollments INTEGER NOT NULL DEFAULT 0,
  events      INTEGER NOT NULL DEFAULT 0,
  letters     INTEGER NOT NULL DEFAULT 0,
  created_at  INTEGER NOT NULL,
  updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX erasure_running ON erasure (seq) WHERE status = 'running';

-- What a request with a key has made, found by the resource.
CREATE INDEX idempotency_resource ON idempotency (resource);

-- Events that retention has removed: what their identities still meet, until
-- those are forgotten too. The highest number is never removed, so that none
-- is given twice.
CREATE TABLE retired (
  seq           INTEGER PRIMARY KEY,
  id            BLOB NOT NULL,
  tenant_id     INTEGER NOT NULL,
  identity      BLOB NOT NULL,
  state         TEXT NOT NULL,
  enrollment_id BLOB,
  received_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX retired_received ON retired (received_at);

-- The part of each sum whose events are removed.
ALTER TABLE counter ADD COLUMN archived INTEGER NOT NULL DEFAULT 0;
ALTER TABLE fact ADD COLUMN archived INTEGER NOT NULL DEFAULT 0;
ALTER TABLE fact ADD COLUMN archived_first INTEGER NOT NULL DEFAULT 0;
ALTER TABLE fact ADD COLUMN archived_last INTEGER NOT NULL DEFAULT 0;
