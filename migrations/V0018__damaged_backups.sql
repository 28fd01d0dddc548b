-- Backups that do not restore, and those that build on them.

-- When it was found that it does not restore; null: it was not, or was found whole since.
ALTER TABLE backups ADD COLUMN damaged_at timestamptz;
UPDATE backups
   SET damaged_at = now()
 WHERE state = 'completed'
   AND (verification_failure LIKE 'the backup is damaged;%' OR verification_failure LIKE 'what the backup holds is not whole:%');

-- What a trial has found tells of the backup, and not only of what was in the trial's way.
ALTER TABLE trials ADD COLUMN damaged boolean NOT NULL DEFAULT false;

-- A differential backup builds on the full one that its label begins with, an incremental one on all since
-- the last differential or full one too. What was itself found whole later is whole all the same.
CREATE VIEW damaged_backups AS
SELECT b.id
  FROM backups b
 WHERE b.state = 'completed'
   AND EXISTS (SELECT
                 FROM backups d
                WHERE d.instance_id = b.instance_id
                  AND d.damaged_at IS NOT NULL
                  AND (d.id = b.id
                       OR (b.verified_at IS NULL OR b.verified_at < d.damaged_at)
                          AND split_part(b.label, '_', 1) = split_part(d.label, '_', 1)
                          AND b.label > d.label COLLATE "C"
                          AND (d.kind = 'full'
                               OR b.kind = 'incremental'
                                  AND NOT EXISTS (SELECT
                                                    FROM backups n
                                                   WHERE n.instance_id = b.instance_id
                                                     AND n.kind = 'differential'
                                                     AND split_part(n.label, '_', 1) = split_part(b.label, '_', 1)
                                                     AND n.label > d.label COLLATE "C"
                                                     AND n.label < b.label COLLATE "C"))));
