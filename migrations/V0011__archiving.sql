-- How archiving goes, for whoever has the database, and which moments were lost when it did not.

-- Why nothing could be archived since failing_since.
ALTER TABLE vaults ADD COLUMN failing_reason text;

-- WAL that could not be archived and was given up: no recovery passes it.
CREATE TABLE archive_gaps (
    instance_id uuid NOT NULL CONSTRAINT archive_gaps_instance_id_fkey REFERENCES vaults ON DELETE CASCADE,
    -- Everything committed before is in the vault; null: not known.
    lost_from timestamptz,
    -- When it was given up. A backup that was complete later goes on from there.
    lost_until timestamptz NOT NULL,
    CONSTRAINT archive_gaps_pkey PRIMARY KEY (instance_id, lost_until)
);
INSERT INTO archive_gaps (instance_id, lost_until) SELECT instance_id, gap_at FROM vaults WHERE gap_at IS NOT NULL;
