-- Initial access tokens (RFC 7591 section 3): who holds one may register clients.
CREATE TABLE registration_tokens (
    id         TEXT NOT NULL PRIMARY KEY,
    -- SHA-256 of the token.
    hash       BLOB NOT NULL UNIQUE,
    uses       INTEGER NOT NULL,
    uses_left  INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX registration_tokens_by_expiry ON registration_tokens (expires_at);

-- The registration access token (RFC 7592) of each client that was registered with one of those.
CREATE TABLE registrations (
    client_id TEXT NOT NULL PRIMARY KEY REFERENCES clients (id) ON DELETE CASCADE,
    -- SHA-256 of the newest token.
    hash      BLOB NOT NULL,
    -- SHA-256 of the one before, until the newest was used; and the newest, under a key that only the one before gives.
    previous  BLOB,
    successor BLOB
) STRICT, WITHOUT ROWID;
