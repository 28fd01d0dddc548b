-- What an external tool keeps with a project. Write-only; json, since jsonb refuses some escapes.
ALTER TABLE projects ADD COLUMN settings json;
