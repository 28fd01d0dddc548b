-- How much WAL waits to be archived, in bytes.
ALTER TABLE vaults ADD COLUMN waiting_bytes bigint NOT NULL DEFAULT 0;
