-- What an external tool keeps with a project. Write-only; json, since jsonb refuses some escapes.
ALTER TABLE projects ADD COLUMN settings json;

-- Every live project has exactly one default branch, and every database is on a branch.
CREATE TABLE branches (
    id uuid CONSTRAINT branches_pkey PRIMARY KEY,
    project_id uuid NOT NULL CONSTRAINT branches_project_id_fkey REFERENCES projects ON DELETE CASCADE,
    git_name text NOT NULL,
    is_default boolean NOT NULL,
    role text NOT NULL CONSTRAINT branches_role_check CHECK (role IN ('production', 'preview')),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- Deleted for everybody; the row goes with its project.
    deleted_at timestamptz
);
CREATE INDEX branches_project_id_id_idx ON branches (project_id, id);
CREATE UNIQUE INDEX branches_project_id_git_name_key ON branches (project_id, git_name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX branches_project_id_default_key ON branches (project_id) WHERE is_default AND deleted_at IS NULL;

-- The project's own id: as old as the project, and so before every branch that is made later.
INSERT INTO branches (id, project_id, git_name, is_default, role, created_at, updated_at)
SELECT id, id, 'main', true, 'production', created_at, created_at FROM projects;

ALTER TABLE databases
    ADD COLUMN branch_id uuid CONSTRAINT databases_branch_id_fkey REFERENCES branches,
    ADD COLUMN logical_id text;
UPDATE databases SET branch_id = project_id;
ALTER TABLE databases ALTER COLUMN branch_id SET NOT NULL;
CREATE INDEX databases_branch_id_idx ON databases (branch_id);
CREATE UNIQUE INDEX databases_branch_id_logical_id_key ON databases (branch_id, logical_id) WHERE deleted_at IS NULL;
