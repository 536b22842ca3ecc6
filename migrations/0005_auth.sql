-- Who may do what, and who did it.

-- API tokens. What stands here is enough to recognise a token and not enough to make one: `hash` is the SHA-256 of its
-- secret, 32 random bytes that were shown once. A row stays when its token is revoked, so that what an event names as its
-- producer is never without a name. The server takes up what another process changes here within seconds:
-- `UPDATE tokens SET revoked_at = strftime(...)` revokes.
CREATE TABLE tokens (
    -- Part of the token itself, by which it is found.
    id TEXT PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    -- What people call it; not unique.
    name TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    -- Streams that it may append to, and read: names and prefixes with commas, such as `audits,orders.*`.
    append TEXT NOT NULL DEFAULT '',
    read TEXT NOT NULL DEFAULT '',
    -- 1 for trims, holds and tokens.
    admin INTEGER NOT NULL DEFAULT 0 CHECK (admin IN (0, 1)),
    created_at TEXT NOT NULL CHECK (length(created_at) = 27),
    -- NULL for a token without an end.
    expires_at TEXT CHECK (length(expires_at) = 27),
    revoked_at TEXT CHECK (length(revoked_at) = 27)
) STRICT, WITHOUT ROWID;

-- With this key the server seals sessions and tickets of pages, so that they outlive a restart. Random, made once; a copy
-- of the file holds it too. Replacing it, while no server runs, ends all sessions and tickets.
ALTER TABLE meta ADD COLUMN seal_key TEXT NOT NULL DEFAULT '';
UPDATE meta SET seal_key = lower(hex(randomblob(32)));

-- Who appended an event (`token:<id>:<name>`, `jwt:<subject>`) and from where. NULL for what was appended without
-- authentication, by another process, or by the server itself. Not part of the event: they are not compared with those
-- of a repeat, and not in the view `events`.
ALTER TABLE log ADD COLUMN producer TEXT;
ALTER TABLE log ADD COLUMN address TEXT;

-- An older server would serve everyone.
UPDATE meta SET format = 4;
