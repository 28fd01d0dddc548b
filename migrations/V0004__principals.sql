-- What tokens may do less than everything.

ALTER TABLE service_tokens
    ADD COLUMN read_only boolean NOT NULL DEFAULT false,
    -- The only projects that it sees; null: all of its workspace.
    ADD COLUMN project_ids uuid[],
    -- To the minute.
    ADD COLUMN last_used_at timestamptz;
CREATE INDEX service_tokens_workspace_id_id_idx ON service_tokens (workspace_id, id) WHERE revoked_at IS NULL;
