-- A database that waits for room says so while it is still provisioning: not only a failure has a reason.

ALTER TABLE databases RENAME COLUMN failure_reason TO status_reason;
