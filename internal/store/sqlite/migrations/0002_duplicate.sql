-- +goose Up
-- Deliveries that were counted as duplicates, by the id that each was given
-- (UUIDv7: grows at its end), so that the repetition of a commit whose outcome
-- nobody heard of counts none twice. Old ones are forgotten.
CREATE TABLE duplicate (
  id        BLOB PRIMARY KEY,
  tenant_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
