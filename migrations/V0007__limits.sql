-- How much a workspace may have, where that is not what the server is told for all of them.
-- Null: what the server is told; 0: no limit.
CREATE TABLE workspace_limits (
    workspace_id uuid CONSTRAINT workspace_limits_pkey PRIMARY KEY
        CONSTRAINT workspace_limits_workspace_id_fkey REFERENCES workspaces ON DELETE CASCADE,
    projects integer CONSTRAINT workspace_limits_projects_check CHECK (projects >= 0),
    databases integer CONSTRAINT workspace_limits_databases_check CHECK (databases >= 0),
    connections_per_database integer CONSTRAINT workspace_limits_connections_per_database_check
        CHECK (connections_per_database >= 0)
);
