-- How often it was tried to prove who one is, counted for all processes and kept over a restart.
CREATE TABLE sign_in_attempts (
    -- A hash of whose attempts are counted together.
    counter bytea CONSTRAINT sign_in_attempts_pkey PRIMARY KEY,
    -- When every attempt that was taken will have come back; the row says nothing from then on.
    full_at timestamptz NOT NULL
);
CREATE INDEX sign_in_attempts_full_at_idx ON sign_in_attempts (full_at);

-- Where somebody has shown who they are: attempts from elsewhere do not keep them out there.
CREATE TABLE sign_in_places (
    -- A hash of the account and of the network.
    place bytea CONSTRAINT sign_in_places_pkey PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sign_in_places_expires_at_idx ON sign_in_places (expires_at);
