-- Goes up when all tokens of a client are ended, so that a token whose request was under way then isn't kept.
ALTER TABLE clients ADD COLUMN token_epoch INTEGER NOT NULL DEFAULT 0;
