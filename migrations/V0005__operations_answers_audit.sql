-- Work that its owners can see, answers that can be given again, and who changed what.

ALTER TABLE workflows
    -- The reason in words for the owner of what it works on; `reason` is the operator's.
    ADD COLUMN explanation text,
    DROP CONSTRAINT workflows_state_check,
    ADD CONSTRAINT workflows_state_check
        CHECK (state IN ('waiting', 'running', 'succeeded', 'failed', 'superseded', 'cancelled'));

-- A workflow as the owner of its database sees it. It outlives the database, so it refers to no row of it.
CREATE TABLE operations (
    id uuid CONSTRAINT operations_pkey PRIMARY KEY
        CONSTRAINT operations_id_fkey REFERENCES workflows ON DELETE CASCADE,
    workspace_id uuid NOT NULL,
    project_id uuid NOT NULL,
    database_id uuid NOT NULL,
    database_name text NOT NULL
);
CREATE INDEX operations_workspace_id_id_idx ON operations (workspace_id, id);
CREATE INDEX operations_project_id_idx ON operations (project_id);
CREATE INDEX operations_database_id_id_idx ON operations (database_id, id);

INSERT INTO operations (id, workspace_id, project_id, database_id, database_name)
SELECT w.id, p.workspace_id, p.id, d.id, d.name
  FROM workflows w
  JOIN databases d ON d.id = w.subject
  JOIN projects p ON p.id = d.project_id;

ALTER TABLE databases
    -- The workflow that is changing it, or changed it last.
    ADD COLUMN operation_id uuid;
UPDATE databases d SET operation_id = (SELECT o.id FROM operations o WHERE o.database_id = d.id ORDER BY o.id DESC LIMIT 1);

ALTER TABLE projects ADD COLUMN delete_protection boolean NOT NULL DEFAULT false;

-- What was answered to a request with an Idempotency-Key, encrypted under the master key.
CREATE TABLE idempotency_keys (
    id uuid CONSTRAINT idempotency_keys_pkey PRIMARY KEY,
    principal_id uuid NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    -- Changes hands when the one who had it died: only who has it now may answer.
    claim uuid NOT NULL,
    claimed_until timestamptz NOT NULL,
    -- Null while the request is under way.
    answer bytea,
    -- False while the answer may still be replaced by one that says more.
    settled boolean NOT NULL DEFAULT false,
    expires_at timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_principal_id_key_key UNIQUE (principal_id, key)
);
CREATE INDEX idempotency_keys_expires_at_idx ON idempotency_keys (expires_at);

CREATE TABLE audit_log (
    id uuid CONSTRAINT audit_log_pkey PRIMARY KEY,
    workspace_id uuid NOT NULL CONSTRAINT audit_log_workspace_id_fkey REFERENCES workspaces,
    project_id uuid,
    recorded_at timestamptz NOT NULL,
    action text NOT NULL,
    outcome text NOT NULL CONSTRAINT audit_log_outcome_check CHECK (outcome IN ('allowed', 'refused')),
    -- Of the answer, where it was refused.
    status smallint,
    reason text,
    actor_id uuid NOT NULL,
    actor_name text NOT NULL,
    address text,
    request_id text NOT NULL,
    resource_type text,
    resource_id text,
    resource_name text,
    before jsonb,
    after jsonb,
    -- Whether it has been written to the stream, where there is one.
    streamed boolean NOT NULL DEFAULT false
);
CREATE INDEX audit_log_workspace_id_id_idx ON audit_log (workspace_id, id);
CREATE INDEX audit_log_recorded_at_idx ON audit_log (recorded_at);
CREATE INDEX audit_log_not_streamed_idx ON audit_log (id) WHERE NOT streamed;
