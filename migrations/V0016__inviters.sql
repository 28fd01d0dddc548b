-- An invitation is good for as long as whoever made it may give that role. Of the open ones that is not known.
DELETE FROM invitations;
ALTER TABLE invitations
    ADD COLUMN inviter_id uuid NOT NULL
        CONSTRAINT invitations_inviter_id_fkey REFERENCES users ON DELETE CASCADE;
CREATE INDEX invitations_inviter_id_idx ON invitations (inviter_id);
