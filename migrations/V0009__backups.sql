-- What can be restored: the vaults of instances and the backups in them, and the restores under way.

-- For how many days every moment stays restorable; null: as the workspace has it, or the installation.
ALTER TABLE workspaces ADD COLUMN backup_retention_days integer;
ALTER TABLE projects ADD COLUMN backup_retention_days integer;

ALTER TABLE databases
    -- Null once a deleted database's instance is gone, while it can still be restored.
    ALTER COLUMN instance_id DROP NOT NULL,
    ADD COLUMN source_type text NOT NULL DEFAULT 'empty'
        CONSTRAINT databases_source_type_check CHECK (source_type IN ('empty', 'backup', 'database')),
    -- What it was made from or brought back to; no references, since that may be gone.
    ADD COLUMN source_database_id uuid,
    ADD COLUMN source_backup_id uuid,
    -- Deleted, and to be forgotten then.
    ADD COLUMN forget_at timestamptz;

-- How far a workflow's step has come, in bytes.
ALTER TABLE workflows
    ADD COLUMN progress_done bigint,
    ADD COLUMN progress_total bigint;

-- The backups and WAL of one instance that a database has, or had before it was restored in place.
CREATE TABLE vaults (
    instance_id uuid CONSTRAINT vaults_pkey PRIMARY KEY,
    database_id uuid NOT NULL CONSTRAINT vaults_database_id_fkey REFERENCES databases,
    -- What opens it, encrypted under the master key.
    sealed_key bytea NOT NULL,
    opened_at timestamptz NOT NULL,
    -- The instance was replaced or destroyed: nothing comes after this.
    closed_at timestamptz,
    -- Everything committed before is in it.
    archived_until timestamptz,
    -- Since when nothing could be archived, and why, for its owner.
    failing_since timestamptz,
    -- When WAL was lost last: what lies between the backup before and the next one cannot be restored.
    gap_at timestamptz
);
CREATE INDEX vaults_database_id_idx ON vaults (database_id);

CREATE TABLE backups (
    id uuid CONSTRAINT backups_pkey PRIMARY KEY,
    instance_id uuid NOT NULL CONSTRAINT backups_instance_id_fkey REFERENCES vaults ON DELETE CASCADE,
    database_id uuid NOT NULL CONSTRAINT backups_database_id_fkey REFERENCES databases,
    -- Its name in the vault, once it is there.
    label text,
    kind text NOT NULL CONSTRAINT backups_kind_check CHECK (kind IN ('full', 'differential', 'incremental')),
    state text NOT NULL CONSTRAINT backups_state_check CHECK (state IN ('running', 'completed', 'failed')),
    -- Somebody asked for it: their project is not deleted meanwhile.
    requested boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    -- The earliest moment that it can be restored to.
    completed_at timestamptz,
    size bigint,
    failure_reason text,
    -- The last time that it was restored for a trial and found whole, and how fast that was.
    verified_at timestamptz,
    restore_bytes_per_second bigint,
    CONSTRAINT backups_instance_id_label_key UNIQUE (instance_id, label)
);
CREATE INDEX backups_database_id_id_idx ON backups (database_id, id);

-- What a database is being made from, or brought back to.
CREATE TABLE restores (
    database_id uuid CONSTRAINT restores_pkey PRIMARY KEY
        CONSTRAINT restores_database_id_fkey REFERENCES databases ON DELETE CASCADE,
    source_database_id uuid NOT NULL,
    -- Null for a copy of a database as it is, until a backup for that is found or made.
    backup_id uuid,
    -- Null for the end of the backup, or, for a copy, of the archive.
    target_time timestamptz,
    -- The instance that it is restored into. Another one than the database's own: in place.
    instance_id uuid NOT NULL CONSTRAINT restores_instance_id_key UNIQUE,
    -- In place: the instance that was the database's before, once it was replaced.
    replaced_instance_id uuid,
    -- In place: how the database stood before.
    status_before text
);
