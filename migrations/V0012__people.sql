-- Who signs in, what they may do where, and what they let applications do for them.

ALTER TABLE users
    -- May do what concerns the whole installation.
    ADD COLUMN is_administrator boolean NOT NULL DEFAULT false,
    -- argon2id, in the PHC string format. Null: signs in with an identity provider only.
    ADD COLUMN password_hash text,
    -- The secret of one-time passwords, under the master key.
    ADD COLUMN totp_sealed bytea,
    -- Null while the secret was not proven to be in an authenticator.
    ADD COLUMN totp_confirmed_at timestamptz,
    -- The time step of the code that was used last: each is good once.
    ADD COLUMN totp_last_step bigint,
    ADD COLUMN disabled_at timestamptz;
-- Addresses are written as people like, and are one whatever the case of their letters.
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

-- Codes that stand in for an authenticator that was lost; each is good once.
CREATE TABLE recovery_codes (
    user_id uuid NOT NULL CONSTRAINT recovery_codes_user_id_fkey REFERENCES users ON DELETE CASCADE,
    code_hash bytea NOT NULL,
    used_at timestamptz,
    CONSTRAINT recovery_codes_pkey PRIMARY KEY (user_id, code_hash)
);

-- Who a user is at an identity provider.
CREATE TABLE user_identities (
    issuer text NOT NULL,
    subject text NOT NULL,
    user_id uuid NOT NULL CONSTRAINT user_identities_user_id_fkey REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    CONSTRAINT user_identities_pkey PRIMARY KEY (issuer, subject)
);

-- Signed-in browsers.
CREATE TABLE sessions (
    id uuid CONSTRAINT sessions_pkey PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT sessions_user_id_fkey REFERENCES users ON DELETE CASCADE,
    token_hash bytea NOT NULL CONSTRAINT sessions_token_hash_key UNIQUE,
    created_at timestamptz NOT NULL,
    -- To the minute.
    last_used_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    address text,
    user_agent text
);
CREATE INDEX sessions_user_id_id_idx ON sessions (user_id, id);
CREATE INDEX sessions_expires_at_idx ON sessions (expires_at);

-- Links that somebody was given, each good once.
CREATE TABLE account_links (
    id uuid CONSTRAINT account_links_pkey PRIMARY KEY,
    purpose text NOT NULL CONSTRAINT account_links_purpose_check CHECK (purpose IN ('set_up', 'reset_password')),
    token_hash bytea NOT NULL CONSTRAINT account_links_token_hash_key UNIQUE,
    -- Whose password it sets; null for the set-up of the first account.
    user_id uuid CONSTRAINT account_links_user_id_fkey REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);

CREATE TABLE memberships (
    workspace_id uuid NOT NULL CONSTRAINT memberships_workspace_id_fkey REFERENCES workspaces ON DELETE CASCADE,
    user_id uuid NOT NULL CONSTRAINT memberships_user_id_fkey REFERENCES users ON DELETE CASCADE,
    role text NOT NULL CONSTRAINT memberships_role_check CHECK (role IN ('viewer', 'developer', 'admin', 'owner')),
    created_at timestamptz NOT NULL,
    CONSTRAINT memberships_pkey PRIMARY KEY (workspace_id, user_id)
);
CREATE INDEX memberships_user_id_idx ON memberships (user_id);

CREATE TABLE invitations (
    id uuid CONSTRAINT invitations_pkey PRIMARY KEY,
    workspace_id uuid NOT NULL CONSTRAINT invitations_workspace_id_fkey REFERENCES workspaces ON DELETE CASCADE,
    email text NOT NULL,
    role text NOT NULL CONSTRAINT invitations_role_check CHECK (role IN ('viewer', 'developer', 'admin', 'owner')),
    token_hash bytea NOT NULL CONSTRAINT invitations_token_hash_key UNIQUE,
    -- In words, since who invited may be gone.
    invited_by text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX invitations_workspace_id_id_idx ON invitations (workspace_id, id);

ALTER TABLE audit_log
    ADD COLUMN actor_type text NOT NULL DEFAULT 'service_token'
        CONSTRAINT audit_log_actor_type_check CHECK (actor_type IN ('service_token', 'user')),
    -- The application that acted for the user, by its name then.
    ADD COLUMN application text;

ALTER TABLE oauth_clients
    ADD COLUMN description text,
    -- Whose application it is; null for those that came by themselves, and for the built-in one.
    ADD COLUMN workspace_id uuid CONSTRAINT oauth_clients_workspace_id_fkey REFERENCES workspaces ON DELETE CASCADE,
    ADD COLUMN redirect_uris text[] NOT NULL DEFAULT '{}',
    -- Null for a public client, which keeps no secret.
    ADD COLUMN secret_hash bytea,
    -- How it came here.
    ADD COLUMN origin text NOT NULL DEFAULT 'console'
        CONSTRAINT oauth_clients_origin_check CHECK (origin IN ('built_in', 'console', 'registration')),
    ADD COLUMN last_used_at timestamptz;
CREATE INDEX oauth_clients_workspace_id_id_idx ON oauth_clients (workspace_id, id);

ALTER TABLE integrations
    DROP CONSTRAINT integrations_client_id_fkey,
    ADD CONSTRAINT integrations_client_id_fkey FOREIGN KEY (client_id) REFERENCES oauth_clients ON DELETE CASCADE,
    ADD COLUMN last_used_at timestamptz,
    -- Who lets an application do something again adds to what it may do.
    ADD CONSTRAINT integrations_workspace_id_client_id_user_id_key UNIQUE (workspace_id, client_id, user_id);
CREATE INDEX integrations_client_id_idx ON integrations (client_id);
CREATE INDEX integrations_user_id_idx ON integrations (user_id);

-- One authorization: the family of the tokens that came of one consent.
CREATE TABLE oauth_grants (
    id uuid CONSTRAINT oauth_grants_pkey PRIMARY KEY,
    integration_id uuid NOT NULL
        CONSTRAINT oauth_grants_integration_id_fkey REFERENCES integrations ON DELETE CASCADE,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX oauth_grants_integration_id_idx ON oauth_grants (integration_id);

CREATE TABLE oauth_codes (
    code_hash bytea CONSTRAINT oauth_codes_pkey PRIMARY KEY,
    grant_id uuid NOT NULL CONSTRAINT oauth_codes_grant_id_fkey REFERENCES oauth_grants ON DELETE CASCADE,
    redirect_uri text NOT NULL,
    -- S256 of RFC 7636; null where a confidential client sent none.
    code_challenge text,
    expires_at timestamptz NOT NULL,
    -- A code that comes a second time ends the grant.
    used_at timestamptz
);
CREATE INDEX oauth_codes_grant_id_idx ON oauth_codes (grant_id);

CREATE TABLE oauth_refresh_tokens (
    token_hash bytea CONSTRAINT oauth_refresh_tokens_pkey PRIMARY KEY,
    grant_id uuid NOT NULL CONSTRAINT oauth_refresh_tokens_grant_id_fkey REFERENCES oauth_grants ON DELETE CASCADE,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    -- Spent; one that comes a second time ends the grant.
    used_at timestamptz
);
CREATE INDEX oauth_refresh_tokens_grant_id_idx ON oauth_refresh_tokens (grant_id);

CREATE TABLE oauth_access_tokens (
    -- The hash of the random `jti`.
    token_hash bytea CONSTRAINT oauth_access_tokens_pkey PRIMARY KEY,
    grant_id uuid NOT NULL CONSTRAINT oauth_access_tokens_grant_id_fkey REFERENCES oauth_grants ON DELETE CASCADE,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX oauth_access_tokens_grant_id_idx ON oauth_access_tokens (grant_id);
CREATE INDEX oauth_access_tokens_expires_at_idx ON oauth_access_tokens (expires_at);
