-- What databases have done and how large they were, by the hour; kept while they sleep.
CREATE TABLE usage_hours (
    database_id uuid NOT NULL CONSTRAINT usage_hours_database_id_fkey REFERENCES databases ON DELETE CASCADE,
    hour timestamptz NOT NULL,
    operations bigint NOT NULL,
    -- As the newest measurement of the hour found it.
    storage_bytes bigint NOT NULL,
    measured_at timestamptz NOT NULL,
    CONSTRAINT usage_hours_pkey PRIMARY KEY (database_id, hour)
);
CREATE INDEX usage_hours_hour_idx ON usage_hours (hour);

-- An instance's own counters as they were measured last: what they have grown by is what was done.
CREATE TABLE usage_counters (
    database_id uuid CONSTRAINT usage_counters_pkey PRIMARY KEY
        CONSTRAINT usage_counters_database_id_fkey REFERENCES databases ON DELETE CASCADE,
    instance_id uuid NOT NULL,
    counters jsonb NOT NULL
);

-- Who signs in, and the applications that they let act for them. Nobody does yet.
CREATE TABLE users (
    id uuid CONSTRAINT users_pkey PRIMARY KEY,
    email text NOT NULL,
    display_name text,
    created_at timestamptz NOT NULL
);

CREATE TABLE oauth_clients (
    -- Text, since some clients come with an id of their own.
    id text CONSTRAINT oauth_clients_pkey PRIMARY KEY,
    name text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE integrations (
    id uuid CONSTRAINT integrations_pkey PRIMARY KEY,
    workspace_id uuid NOT NULL CONSTRAINT integrations_workspace_id_fkey REFERENCES workspaces,
    client_id text NOT NULL CONSTRAINT integrations_client_id_fkey REFERENCES oauth_clients,
    user_id uuid NOT NULL CONSTRAINT integrations_user_id_fkey REFERENCES users,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX integrations_workspace_id_id_idx ON integrations (workspace_id, id);
