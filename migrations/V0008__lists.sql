-- A page of a workspace's databases or connections is read off an index in its order, however many
-- others the store holds. The foreign keys keep the workspace right when a project moves to another.

ALTER TABLE projects ADD CONSTRAINT projects_id_workspace_id_key UNIQUE (id, workspace_id);

ALTER TABLE databases ADD COLUMN workspace_id uuid;
UPDATE databases d SET workspace_id = p.workspace_id FROM projects p WHERE p.id = d.project_id;
ALTER TABLE databases
    ALTER COLUMN workspace_id SET NOT NULL,
    DROP CONSTRAINT databases_project_id_fkey,
    ADD CONSTRAINT databases_project_id_workspace_id_fkey FOREIGN KEY (project_id, workspace_id)
        REFERENCES projects (id, workspace_id) ON UPDATE CASCADE,
    ADD CONSTRAINT databases_id_workspace_id_key UNIQUE (id, workspace_id);
CREATE INDEX databases_workspace_id_id_idx ON databases (workspace_id, id) WHERE deleted_at IS NULL;

ALTER TABLE connections ADD COLUMN workspace_id uuid;
UPDATE connections c SET workspace_id = d.workspace_id FROM databases d WHERE d.id = c.database_id;
ALTER TABLE connections
    ALTER COLUMN workspace_id SET NOT NULL,
    DROP CONSTRAINT connections_database_id_fkey,
    ADD CONSTRAINT connections_database_id_workspace_id_fkey FOREIGN KEY (database_id, workspace_id)
        REFERENCES databases (id, workspace_id) ON UPDATE CASCADE ON DELETE CASCADE;
CREATE INDEX connections_workspace_id_id_idx ON connections (workspace_id, id);
