-- Everything that the main job needs: who owns what, who may log in where, and the work under way.
-- Constraint names are chosen: the code matches them.

CREATE TABLE installation (
    id uuid PRIMARY KEY,
    only_one boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    CONSTRAINT installation_only_one CHECK (only_one),
    CONSTRAINT installation_only_one_key UNIQUE (only_one)
);

-- Secrets that Howdah itself must be able to use, encrypted under the master key.
CREATE TABLE keys (
    purpose text NOT NULL,
    key_id text NOT NULL,
    sealed bytea NOT NULL,
    public text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT keys_pkey PRIMARY KEY (purpose, key_id)
);

CREATE TABLE workspaces (
    id uuid CONSTRAINT workspaces_pkey PRIMARY KEY,
    name text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE service_tokens (
    id uuid CONSTRAINT service_tokens_pkey PRIMARY KEY,
    workspace_id uuid NOT NULL CONSTRAINT service_tokens_workspace_id_fkey REFERENCES workspaces,
    name text NOT NULL,
    token_hash bytea NOT NULL CONSTRAINT service_tokens_token_hash_key UNIQUE,
    value_hint text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz
);

CREATE TABLE projects (
    id uuid CONSTRAINT projects_pkey PRIMARY KEY,
    workspace_id uuid NOT NULL CONSTRAINT projects_workspace_id_fkey REFERENCES workspaces,
    name text NOT NULL,
    logical_id text,
    region text,
    created_at timestamptz NOT NULL,
    -- Deleted for everybody; the row goes when its last database is gone.
    deleted_at timestamptz
);
CREATE INDEX projects_workspace_id_id_idx ON projects (workspace_id, id) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX projects_workspace_id_logical_id_key ON projects (workspace_id, logical_id)
    WHERE deleted_at IS NULL;

CREATE TABLE databases (
    id uuid CONSTRAINT databases_pkey PRIMARY KEY,
    project_id uuid NOT NULL CONSTRAINT databases_project_id_fkey REFERENCES projects,
    name text NOT NULL,
    region text NOT NULL,
    is_default boolean NOT NULL,
    status text NOT NULL CONSTRAINT databases_status_check
        CHECK (status IN ('provisioning', 'ready', 'recovering', 'failure')),
    failure_reason text,
    instance_id uuid NOT NULL CONSTRAINT databases_instance_id_key UNIQUE,
    -- Chosen when the instance is made.
    major smallint,
    default_connection_id uuid,
    created_at timestamptz NOT NULL,
    -- Deleted for everybody; the row goes when the instance is gone.
    deleted_at timestamptz
);
CREATE INDEX databases_project_id_id_idx ON databases (project_id, id);
CREATE UNIQUE INDEX databases_project_id_default_key ON databases (project_id)
    WHERE is_default AND deleted_at IS NULL;

CREATE TABLE connections (
    id uuid CONSTRAINT connections_pkey PRIMARY KEY,
    database_id uuid NOT NULL CONSTRAINT connections_database_id_fkey REFERENCES databases ON DELETE CASCADE,
    name text NOT NULL,
    user_name text NOT NULL CONSTRAINT connections_user_name_key UNIQUE,
    verifier text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX connections_database_id_id_idx ON connections (database_id, id);

-- Short-lived platform credentials that prove a database through the gateway. In no list.
CREATE TABLE probes (
    user_name text CONSTRAINT probes_pkey PRIMARY KEY,
    database_id uuid NOT NULL CONSTRAINT probes_database_id_fkey REFERENCES databases ON DELETE CASCADE,
    verifier text NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX probes_database_id_idx ON probes (database_id);

CREATE TABLE workflows (
    id uuid CONSTRAINT workflows_pkey PRIMARY KEY,
    kind text NOT NULL,
    -- What it works on; one workflow at a time for each subject.
    subject uuid NOT NULL,
    step text NOT NULL,
    state text NOT NULL CONSTRAINT workflows_state_check
        CHECK (state IN ('waiting', 'running', 'succeeded', 'failed', 'superseded')),
    attempts integer NOT NULL DEFAULT 0,
    reason text,
    run_after timestamptz NOT NULL DEFAULT now(),
    -- Grows with each claim, so that a worker that lost its lease can no longer write.
    fence bigint NOT NULL DEFAULT 0,
    lease_expires_at timestamptz,
    step_deadline timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
CREATE INDEX workflows_open_idx ON workflows (run_after, id) WHERE state IN ('waiting', 'running');
CREATE INDEX workflows_subject_idx ON workflows (subject, id);
CREATE UNIQUE INDEX workflows_running_subject_key ON workflows (subject) WHERE state = 'running';
