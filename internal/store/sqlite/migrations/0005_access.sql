-- +goose Up
-- Where a key may be used from (addresses and ranges, between blanks; empty:
-- from everywhere), and the key that took its place.
ALTER TABLE api_key ADD COLUMN allowed_ips TEXT NOT NULL DEFAULT '';
ALTER TABLE api_key ADD COLUMN replaced_by BLOB;

-- JSON of store.Limits, and since when nothing is taken of a tenant.
ALTER TABLE tenant ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
ALTER TABLE tenant ADD COLUMN suspended_at INTEGER NOT NULL DEFAULT 0;

-- From where something was done, and by which request.
ALTER TABLE audit ADD COLUMN remote TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN request_id TEXT NOT NULL DEFAULT '';
CREATE INDEX audit_tenant ON audit (tenant_id, seq);

-- What a creating request was answered that showed a secret, encrypted; it is
-- forgotten after a day.
ALTER TABLE idempotency ADD COLUMN sealed BLOB;
CREATE INDEX idempotency_sealed ON idempotency (created_at) WHERE sealed IS NOT NULL;
