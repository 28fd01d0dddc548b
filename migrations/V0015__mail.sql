-- Mail that Howdah writes to people, until it is delivered or given up.

CREATE TABLE mails (
    id uuid CONSTRAINT mails_pkey PRIMARY KEY,
    -- What it is about, in a word.
    topic text NOT NULL,
    -- Address, subject and text, encrypted under the master key, since there may be a link in it that lets
    -- whoever has it in. Null once it was delivered or given up.
    sealed bytea,
    created_at timestamptz NOT NULL,
    -- Not worth delivering any more.
    expires_at timestamptz NOT NULL,
    delivered_at timestamptz,
    -- Why it was given up, for whoever had it written.
    failure_reason text,
    -- An invitation that is taken back takes its mail with it.
    invitation_id uuid CONSTRAINT mails_invitation_id_fkey REFERENCES invitations ON DELETE CASCADE
);
CREATE INDEX mails_invitation_id_idx ON mails (invitation_id) WHERE invitation_id IS NOT NULL;

ALTER TABLE vaults
    -- When the workspace's administrators were told that archiving is stuck; null: they were told nothing,
    -- or that it goes on.
    ADD COLUMN stuck_told_at timestamptz;
