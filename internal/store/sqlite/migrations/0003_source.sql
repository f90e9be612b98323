-- +goose Up
-- Tokens that a source's URL had before it was rotated. They work until
-- ends_at; a while longer it is known whose they were, so that a refusal is in
-- the vendor's dialect.
CREATE TABLE former_token (
  seq        INTEGER PRIMARY KEY,
  token_hash BLOB NOT NULL UNIQUE,
  tenant_id  INTEGER NOT NULL,
  source_id  BLOB NOT NULL,
  ends_at    INTEGER NOT NULL
) STRICT;

CREATE INDEX former_token_source ON former_token (source_id);
