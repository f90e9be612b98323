-- +goose Up
-- What senders used for one request only, with a digest of the events that came
-- with it first. Old ones are forgotten.
CREATE TABLE nonce (
  tenant_id INTEGER NOT NULL,
  key       BLOB NOT NULL,
  digest    BLOB NOT NULL,
  kept_at   INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX nonce_kept ON nonce (kept_at);

-- The event's source enrolls whom it tells of: also an event that waits by now.
ALTER TABLE event ADD COLUMN enrolls INTEGER NOT NULL DEFAULT 0;
