-- +goose Up
-- Times are microseconds since 1970 in UTC, ids are UUIDs of 16 bytes, keys are
-- hashes of 16 bytes. Every table carries its tenant. On the way of a new event
-- every insert goes to the end of its table (see generation).

CREATE TABLE tenant (
  id         INTEGER PRIMARY KEY,
  uid        BLOB NOT NULL UNIQUE,
  name       TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL
) STRICT;

-- The account of a tenant's events; see store.Ledger.
CREATE TABLE ledger (
  tenant_id   INTEGER PRIMARY KEY,
  received    INTEGER NOT NULL DEFAULT 0,
  duplicates  INTEGER NOT NULL DEFAULT 0,
  applied     INTEGER NOT NULL DEFAULT 0,
  orphaned    INTEGER NOT NULL DEFAULT 0,
  dead        INTEGER NOT NULL DEFAULT 0,
  ignored     INTEGER NOT NULL DEFAULT 0,
  archived    INTEGER NOT NULL DEFAULT 0,
  undecodable INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE setting (
  name  TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_key (
  seq          INTEGER PRIMARY KEY,
  id           BLOB NOT NULL UNIQUE,
  tenant_id    INTEGER NOT NULL,
  name         TEXT NOT NULL,
  hash         BLOB NOT NULL UNIQUE,
  prefix       TEXT NOT NULL,
  scopes       TEXT NOT NULL,
  created_at   INTEGER NOT NULL,
  expires_at   INTEGER NOT NULL,
  last_used_at INTEGER NOT NULL,
  revoked_at   INTEGER NOT NULL
) STRICT;

CREATE TABLE source (
  seq              INTEGER PRIMARY KEY,
  id               BLOB NOT NULL UNIQUE,
  tenant_id        INTEGER NOT NULL,
  provider         TEXT NOT NULL,
  name             TEXT NOT NULL,
  token_hash       BLOB NOT NULL UNIQUE,
  sealed           BLOB NOT NULL,
  created_at       INTEGER NOT NULL,
  updated_at       INTEGER NOT NULL,
  deleted_at       INTEGER NOT NULL,
  received         INTEGER NOT NULL DEFAULT 0,
  last_received_at INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE template (
  seq         INTEGER PRIMARY KEY,
  id          BLOB NOT NULL UNIQUE,
  tenant_id   INTEGER NOT NULL,
  name        TEXT NOT NULL,
  description TEXT NOT NULL,
  type        TEXT NOT NULL,
  path_type   TEXT NOT NULL,
  settings    BLOB,
  steps       BLOB NOT NULL,
  created_at  INTEGER NOT NULL,
  updated_at  INTEGER NOT NULL,
  deleted_at  INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE instance (
  seq          INTEGER PRIMARY KEY,
  id           BLOB NOT NULL UNIQUE,
  tenant_id    INTEGER NOT NULL,
  template_id  BLOB NOT NULL,
  name         TEXT NOT NULL,
  status       TEXT NOT NULL,
  settings     BLOB,
  created_at   INTEGER NOT NULL,
  updated_at   INTEGER NOT NULL,
  started_at   INTEGER NOT NULL,
  completed_at INTEGER NOT NULL
) STRICT;
CREATE INDEX instance_template ON instance (template_id, status);

CREATE TABLE provider_campaign (
  tenant_id   INTEGER NOT NULL,
  key         BLOB NOT NULL,
  provider    TEXT NOT NULL,
  campaign    TEXT NOT NULL,
  instance_id BLOB NOT NULL,
  PRIMARY KEY (tenant_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX provider_campaign_instance ON provider_campaign (instance_id);

CREATE TABLE enrollment (
  seq          INTEGER PRIMARY KEY,
  id           BLOB NOT NULL UNIQUE,
  tenant_id    INTEGER NOT NULL,
  instance_id  BLOB NOT NULL,
  contact_key  BLOB,
  address_key  BLOB,
  profile_key  BLOB,
  contact_id   TEXT NOT NULL,
  email        TEXT NOT NULL,
  linkedin_url TEXT NOT NULL,
  metadata     BLOB,
  status       TEXT NOT NULL,
  created_at   INTEGER NOT NULL,
  updated_at   INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX enrollment_contact ON enrollment (instance_id, contact_key) WHERE contact_key IS NOT NULL;
CREATE UNIQUE INDEX enrollment_address ON enrollment (instance_id, address_key) WHERE address_key IS NOT NULL;
CREATE UNIQUE INDEX enrollment_profile ON enrollment (instance_id, profile_key) WHERE profile_key IS NOT NULL;
CREATE INDEX enrollment_status ON enrollment (instance_id, status, seq);

-- What an enrollment is found by: its address and the providers' references.
CREATE TABLE match_key (
  tenant_id     INTEGER NOT NULL,
  key           BLOB NOT NULL,
  nth           INTEGER NOT NULL, -- 0 and 1 for two of its owners, 2 for all further ones
  enrollment_id BLOB NOT NULL,
  instance_id   BLOB NOT NULL,
  provider      TEXT NOT NULL,
  kind          TEXT NOT NULL, -- address, message, action, lead
  value         TEXT NOT NULL,
  PRIMARY KEY (tenant_id, key, nth, enrollment_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX match_key_enrollment ON match_key (enrollment_id);

CREATE TABLE event (
  seq                 INTEGER PRIMARY KEY,
  id                  BLOB NOT NULL,
  tenant_id           INTEGER NOT NULL,
  source_id           BLOB,
  scope               TEXT NOT NULL,
  provider            TEXT NOT NULL,
  kind                TEXT NOT NULL,
  control             INTEGER NOT NULL,
  type                TEXT NOT NULL,
  channel             TEXT NOT NULL,
  provider_event_id   TEXT NOT NULL,
  provider_message_id TEXT NOT NULL,
  action_id           TEXT NOT NULL,
  lead_id             TEXT NOT NULL,
  claimed_enrollment  TEXT NOT NULL,
  email               TEXT NOT NULL,
  campaign            TEXT NOT NULL,
  step                INTEGER NOT NULL,
  bounce              TEXT NOT NULL,
  machine             INTEGER NOT NULL,
  url                 TEXT NOT NULL,
  occurred_at         INTEGER NOT NULL,
  estimated           INTEGER NOT NULL,
  received_at         INTEGER NOT NULL,
  state               TEXT NOT NULL,
  reason              TEXT NOT NULL,
  detail              TEXT NOT NULL,
  enrollment_id       BLOB,
  instance_id         BLOB,
  parked_at           INTEGER NOT NULL,
  settled_at          INTEGER NOT NULL,
  settled_by          TEXT NOT NULL,
  duplicates          INTEGER NOT NULL DEFAULT 0,
  last_duplicate_at   INTEGER NOT NULL DEFAULT 0,
  identity            BLOB NOT NULL, -- 16 bytes
  metadata            BLOB,
  payload             BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX event_id ON event (id); -- UUIDv7: grows at its end
CREATE INDEX event_unsettled ON event (tenant_id, state, seq) WHERE state <> 'applied';

-- Indexes of events in random order are kept in generations: sorted runs that
-- are written once, at the end of their table, when enough events have come
-- in. What is younger is held in memory and read back from event at a start.
CREATE TABLE generation (
  id       INTEGER PRIMARY KEY,
  last_seq INTEGER NOT NULL, -- events up to here are in this generation or an older one
  filter   BLOB NOT NULL     -- Bloom filter over the identities
) STRICT;

-- What makes two submissions one event.
CREATE TABLE identity (
  generation INTEGER NOT NULL,
  tenant_id  INTEGER NOT NULL,
  key        BLOB NOT NULL,
  event_seq  INTEGER NOT NULL,
  PRIMARY KEY (generation, tenant_id, key)
) STRICT, WITHOUT ROWID;

-- By what events are searched: address, message, enrollment. Generation 0
-- holds enrollments that were found after the event's generation was written.
CREATE TABLE event_search (
  generation INTEGER NOT NULL,
  tenant_id  INTEGER NOT NULL,
  key        BLOB NOT NULL, -- 8 bytes
  event_seq  INTEGER NOT NULL,
  PRIMARY KEY (generation, tenant_id, key, event_seq)
) STRICT, WITHOUT ROWID;

-- The retry schedule, narrow: a retry never rewrites an event.
CREATE TABLE orphan (
  event_seq  INTEGER PRIMARY KEY,
  tenant_id  INTEGER NOT NULL,
  route      TEXT NOT NULL,
  attempts   INTEGER NOT NULL,
  failures   INTEGER NOT NULL, -- attempts that failed alone for a reason of the event's own
  due_at     INTEGER NOT NULL, -- when the next attempt may be spent
  visible_at INTEGER NOT NULL, -- when it may be claimed: due_at, or the end of a lease
  token      INTEGER NOT NULL  -- of the lease, 0 = none
) STRICT;
CREATE INDEX orphan_visible ON orphan (route, tenant_id, visible_at, token); -- covers the gauges

-- What orphans and adoptable dead letters wait for.
CREATE TABLE waiting_key (
  tenant_id INTEGER NOT NULL,
  key       BLOB NOT NULL,
  event_seq INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, key, event_seq)
) STRICT, WITHOUT ROWID;

-- Adoptions too large for the enrolling transaction, continued at once.
CREATE TABLE adopting (
  tenant_id INTEGER NOT NULL,
  key       BLOB NOT NULL,
  after_seq INTEGER NOT NULL,
  served_at INTEGER NOT NULL, -- the one served longest ago is next
  PRIMARY KEY (tenant_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE timeline (
  tenant_id INTEGER NOT NULL,
  event_seq INTEGER NOT NULL,
  at        INTEGER NOT NULL,
  what      TEXT NOT NULL,
  detail    TEXT NOT NULL,
  PRIMARY KEY (event_seq, at, what)
) STRICT, WITHOUT ROWID;

CREATE TABLE fact (
  tenant_id     INTEGER NOT NULL,
  instance_id   BLOB NOT NULL,
  enrollment_id BLOB NOT NULL,
  type          TEXT NOT NULL,
  qualifier     TEXT NOT NULL,
  step          INTEGER NOT NULL,
  machine       INTEGER NOT NULL,
  provider      TEXT NOT NULL,
  variant       TEXT NOT NULL,
  count         INTEGER NOT NULL,
  first_at      INTEGER NOT NULL,
  last_at       INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, instance_id, enrollment_id, type, qualifier, step, machine, provider, variant)
) STRICT, WITHOUT ROWID;

CREATE TABLE counter (
  tenant_id   INTEGER NOT NULL,
  instance_id BLOB NOT NULL,
  bucket      INTEGER NOT NULL, -- unix seconds, start of a quarter hour of event time
  type        TEXT NOT NULL,
  qualifier   TEXT NOT NULL,
  step        INTEGER NOT NULL,
  machine     INTEGER NOT NULL,
  provider    TEXT NOT NULL,
  variant     TEXT NOT NULL,
  count       INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, instance_id, bucket, type, qualifier, step, machine, provider, variant)
) STRICT, WITHOUT ROWID;

CREATE TABLE suppression (
  seq             INTEGER PRIMARY KEY,
  tenant_id       INTEGER NOT NULL,
  address_key     BLOB NOT NULL,
  email           TEXT NOT NULL,
  unsubscribed_at INTEGER NOT NULL,
  resubscribed_at INTEGER NOT NULL,
  complained_at   INTEGER NOT NULL,
  bounced_at      INTEGER NOT NULL,
  manual_at       INTEGER NOT NULL,
  removed_at      INTEGER NOT NULL,
  updated_at      INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX suppression_address ON suppression (tenant_id, address_key);

CREATE TABLE dead_letter (
  seq               INTEGER PRIMARY KEY,
  id                BLOB NOT NULL UNIQUE,
  tenant_id         INTEGER NOT NULL,
  event_seq         INTEGER UNIQUE,     -- NULL for a body that could not be read
  source_id         BLOB,
  provider          TEXT NOT NULL,
  reason            TEXT NOT NULL,
  error             TEXT NOT NULL,
  status            TEXT NOT NULL,
  attempts          INTEGER NOT NULL,
  first_received_at INTEGER NOT NULL,
  last_attempt_at   INTEGER NOT NULL,
  body_key          BLOB UNIQUE,        -- so that a resent body is one letter
  body              BLOB,
  headers           BLOB
) STRICT;
CREATE INDEX dead_letter_status ON dead_letter (tenant_id, status, seq);

CREATE TABLE replay (
  id         BLOB PRIMARY KEY,
  tenant_id  INTEGER NOT NULL,
  status     TEXT NOT NULL,
  filter     BLOB NOT NULL,    -- which dead letters; JSON of store.LetterFilter
  by_ids     INTEGER NOT NULL, -- 1: those in replay_item
  after_seq  INTEGER NOT NULL, -- letters up to here are done
  until_seq  INTEGER NOT NULL, -- the last letter there was at the start
  matched    INTEGER NOT NULL,
  applied    INTEGER NOT NULL DEFAULT 0,
  orphaned   INTEGER NOT NULL DEFAULT 0,
  duplicate  INTEGER NOT NULL DEFAULT 0,
  dead       INTEGER NOT NULL DEFAULT 0,
  skipped    INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE replay_item (
  tenant_id  INTEGER NOT NULL,
  replay_id  BLOB NOT NULL,
  letter_seq INTEGER NOT NULL,
  PRIMARY KEY (replay_id, letter_seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
  tenant_id  INTEGER NOT NULL,
  key        BLOB NOT NULL,
  request    BLOB NOT NULL,
  resource   BLOB NOT NULL,
  note       TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  seq       INTEGER PRIMARY KEY,
  tenant_id INTEGER NOT NULL,
  at        INTEGER NOT NULL,
  actor     TEXT NOT NULL,
  action    TEXT NOT NULL,
  subject   TEXT NOT NULL,
  detail    TEXT NOT NULL
) STRICT;
