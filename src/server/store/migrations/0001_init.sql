-- Times are milliseconds since 1970. Lists of plain words are divided by spaces, sorted.

CREATE TABLE clients (
    id                 TEXT NOT NULL PRIMARY KEY,
    name               TEXT NOT NULL,
    uri                TEXT,
    redirect_uris      TEXT NOT NULL,
    grant_types        TEXT NOT NULL,
    scopes             TEXT NOT NULL,
    auth_method        TEXT NOT NULL,
    -- `sha256:BASE64URL` of a secret of 256 random bits, or the PHC string of an Argon2id hash.
    secret             TEXT,
    -- JSON; its installation stands beside it, for the list.
    owner              TEXT,
    owner_installation TEXT,
    etag               TEXT NOT NULL,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX clients_by_installation ON clients (owner_installation, id);

-- A grant: what somebody allowed a client. All tokens that come of it are its family, and go with it.
CREATE TABLE grants (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    client_id  TEXT NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    subject    TEXT NOT NULL,
    scopes     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- When its last token expires.
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX grants_by_client ON grants (client_id);
CREATE INDEX grants_by_expiry ON grants (expires_at);

CREATE TABLE refresh_tokens (
    -- SHA-256 of the token.
    hash       BLOB NOT NULL PRIMARY KEY,
    grant_id   INTEGER NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
    issued_at  INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- NULL until it is spent. A spent token stays until it expires, so that its reuse is seen.
    used_at    INTEGER,
    -- The reply that spending it gave, under a key that only this token gives; for the grace only.
    successor  BLOB
) STRICT, WITHOUT ROWID;

CREATE INDEX refresh_tokens_by_grant ON refresh_tokens (grant_id);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);
CREATE INDEX refresh_tokens_with_successor ON refresh_tokens (used_at) WHERE successor IS NOT NULL;

CREATE TABLE access_tokens (
    -- SHA-256 of the token.
    hash       BLOB NOT NULL PRIMARY KEY,
    client_id  TEXT NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    -- NULL where the client acts for itself.
    grant_id   INTEGER REFERENCES grants (id) ON DELETE CASCADE,
    grant_type TEXT NOT NULL,
    scopes     TEXT NOT NULL,
    issued_at  INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX access_tokens_by_client ON access_tokens (client_id);
CREATE INDEX access_tokens_by_grant ON access_tokens (grant_id) WHERE grant_id IS NOT NULL;
CREATE INDEX access_tokens_by_expiry ON access_tokens (expires_at);
