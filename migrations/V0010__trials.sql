-- Restores for a trial, and restores in place that are given up without leaving anything.

ALTER TABLE backups
    -- How many tables and indexes the last good trial has read.
    ADD COLUMN verified_relations bigint,
    -- Why the last trial failed, for its owner; null when it went well, or there was none.
    ADD COLUMN verification_failure text;

-- When a backup of this vault was last restored for a trial, however that went.
ALTER TABLE vaults ADD COLUMN tried_at timestamptz;

-- The trials under way. No references: the backup may expire and the database be deleted meanwhile, and
-- the instance goes all the same.
CREATE TABLE trials (
    backup_id uuid CONSTRAINT trials_pkey PRIMARY KEY,
    database_id uuid NOT NULL,
    -- The instance that it is restored into, which nobody is routed to.
    instance_id uuid NOT NULL CONSTRAINT trials_instance_id_key UNIQUE,
    -- How fast the restore was, once it is done.
    bytes_per_second bigint,
    -- How many tables and indexes were read and found whole, once they are.
    relations bigint,
    -- It has failed and ends as soon as its instance is gone: why, for the operator and for the owner.
    failure_cause text,
    failure_reason text
);

ALTER TABLE restores
    -- In place: it does not work, and ends as soon as everything is put back: why, for the operator
    -- and for the owner.
    ADD COLUMN failure_cause text,
    ADD COLUMN failure_reason text;
