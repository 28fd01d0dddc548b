-- It was the second in which a backup ended: while there are writes only moments after that second are sure.
UPDATE backups SET completed_at = completed_at + interval '1 second' WHERE state = 'completed';
