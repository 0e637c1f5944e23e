-- The secret that a client had before, in the same form, and until when it still authenticates. Both or neither.
ALTER TABLE clients ADD COLUMN previous_secret TEXT;
ALTER TABLE clients ADD COLUMN previous_expires_at INTEGER;

CREATE INDEX clients_by_previous_expiry ON clients (previous_expires_at) WHERE previous_expires_at IS NOT NULL;
