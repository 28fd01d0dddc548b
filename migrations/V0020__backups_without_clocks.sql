-- The labels that were in the vault when the backup began. One that is not among them is of that backup; its time
-- would not tell, since a clock may be set back.
ALTER TABLE backups ADD COLUMN labels_before text[];

-- The first segment of WAL that a restore of the backup needs; null: not known.
ALTER TABLE backups ADD COLUMN first_segment text;

-- The last segment that was lost; null: not known. A backup whose first segment is a later one goes on from there.
ALTER TABLE archive_gaps ADD COLUMN last_segment text;

-- The backup that was restored for a trial last.
ALTER TABLE vaults ADD COLUMN tried_backup uuid;
