-- The process that carries a request out, by the application name of its sessions: the claim of one that has no
-- session left is free. Null: the row is older than this column.
ALTER TABLE idempotency_keys ADD COLUMN holder text;
