-- What concerns the whole installation is in the audit log too, and a workspace can be deleted.

ALTER TABLE audit_log
    -- It outlives the workspace that it is about.
    DROP CONSTRAINT audit_log_workspace_id_fkey,
    -- Null: about the whole installation, and the people who have accounts on it.
    ALTER COLUMN workspace_id DROP NOT NULL,
    -- Null: nobody knows who it was.
    ALTER COLUMN actor_id DROP NOT NULL,
    DROP CONSTRAINT audit_log_actor_type_check,
    ADD CONSTRAINT audit_log_actor_type_check CHECK (actor_type IN ('service_token', 'user', 'anonymous')),
    ADD CONSTRAINT audit_log_actor_id_check CHECK ((actor_id IS NULL) = (actor_type = 'anonymous'));

-- Administrators read the logs of these, until their last entries are forgotten.
CREATE TABLE deleted_workspaces (
    id uuid CONSTRAINT deleted_workspaces_pkey PRIMARY KEY,
    name text NOT NULL,
    deleted_at timestamptz NOT NULL
);

-- Deleting a workspace deletes what gives others access to it.
ALTER TABLE service_tokens
    DROP CONSTRAINT service_tokens_workspace_id_fkey,
    ADD CONSTRAINT service_tokens_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES workspaces ON DELETE CASCADE;
ALTER TABLE integrations
    DROP CONSTRAINT integrations_workspace_id_fkey,
    ADD CONSTRAINT integrations_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES workspaces ON DELETE CASCADE;
