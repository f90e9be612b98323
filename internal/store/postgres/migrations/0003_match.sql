-- +goose Up
-- What senders used for one request only, with a digest of the events that came
-- with it first. Old ones are forgotten.
CREATE TABLE nonce (
  tenant_id BIGINT NOT NULL,
  key       BYTEA NOT NULL,
  digest    BYTEA NOT NULL,
  kept_at   BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, key)
);
CREATE INDEX nonce_kept ON nonce (kept_at);

-- The event's source enrolls whom it tells of: also an event that waits by now.
ALTER TABLE event ADD COLUMN enrolls BOOLEAN NOT NULL DEFAULT false;
