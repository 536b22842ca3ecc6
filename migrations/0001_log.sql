-- The log, format 1. These tables and views are a public interface: anyone may read them with sqlite3 while the server
-- runs, and add events by inserting into the view `events`. They work with SQLite 3.40 and later.
--
-- The promise, whoever writes:
--   * `log` holds one row per event, seq rising by exactly 1, never changed, deleted only below `meta.trimmed_seq`;
--   * `created_at` never decreases with seq;
--   * `ids` names every (id, stream, source) ever stored, trimmed or not, so a repeat is recognised for ever;
--   * `streams` holds the totals of what is retained, kept in the same transaction as the events.
--
-- Why `events` is a view over the table `log`: the server writes `log` directly, with nothing to run for each row (an
-- insert trigger on the table doubles the cost of a row even where it does nothing), and everyone else comes through
-- the view, whose trigger gives the seq and the time, applies the rules of the API, and cannot be got around by
-- INSERT OR REPLACE, which on a table would delete stored events without firing a trigger.

CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    -- Raised only by a change that an older server must not write to.
    format INTEGER NOT NULL,
    -- The log's identity: random, made once. A copy restored elsewhere keeps it.
    log_id TEXT NOT NULL,
    -- Every seq up to here is trimmed. With max(seq) of the log it is the high-water mark that no seq is given below.
    trimmed_seq INTEGER NOT NULL DEFAULT 0,
    -- created_at of the last trimmed event, so that time does not step back when everything is trimmed.
    trimmed_created_at TEXT NOT NULL DEFAULT '1970-01-01T00:00:00.000000Z',
    -- The newest event of another process that the server has seen; written so that its fsync covers that event.
    noticed_seq INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO meta (one, format, log_id) VALUES (1, 1, lower(hex(randomblob(16))));

CREATE TABLE log (
    seq INTEGER PRIMARY KEY CHECK (seq > 0),
    stream TEXT NOT NULL,
    source TEXT NOT NULL DEFAULT '',
    id TEXT,
    type TEXT NOT NULL DEFAULT 'message',
    subject TEXT,
    time TEXT,
    -- RFC 3339, UTC, microseconds, always 27 characters: text order is the order of time.
    created_at TEXT NOT NULL CHECK (length(created_at) = 27),
    -- One JSON value on one line.
    data TEXT
) STRICT;

-- Led by id: producers' time-ordered ids then fall on neighbouring pages whatever their stream.
CREATE TABLE ids (
    id TEXT NOT NULL,
    stream TEXT NOT NULL,
    source TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (id, stream, source)
) STRICT, WITHOUT ROWID;

CREATE TABLE streams (
    name TEXT PRIMARY KEY,
    -- Oldest retained event of the stream; one past last_seq when none is retained.
    first_seq INTEGER NOT NULL,
    -- Newest event ever, retained or not.
    last_seq INTEGER NOT NULL,
    -- Retained events, and the bytes of their data.
    events INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW events (seq, stream, source, id, type, subject, time, created_at, data) AS
SELECT seq, stream, source, id, type, subject, time, created_at, data FROM log;

CREATE TRIGGER log_never_changes BEFORE UPDATE ON log
BEGIN
    SELECT RAISE(ABORT, 'evertail: a stored event never changes');
END;

CREATE TRIGGER log_is_deleted_only_by_trimming BEFORE DELETE ON log
WHEN OLD.seq > (SELECT trimmed_seq FROM meta)
BEGIN
    SELECT RAISE(ABORT, 'evertail: events are deleted only by trimming');
END;

CREATE TRIGGER ids_never_change BEFORE UPDATE ON ids
BEGIN
    SELECT RAISE(ABORT, 'evertail: a stored id never changes');
END;

CREATE TRIGGER ids_are_for_ever BEFORE DELETE ON ids
BEGIN
    SELECT RAISE(ABORT, 'evertail: ids are kept for ever');
END;

-- The door for other processes. Inside one transaction with their own data this is the transactional outbox.
CREATE TRIGGER events_insert INSTEAD OF INSERT ON events
BEGIN
    SELECT RAISE(ABORT, 'evertail: leave seq out, or give the next one')
    WHERE NEW.seq IS NOT NULL
      AND NEW.seq IS NOT (SELECT max(trimmed_seq, coalesce((SELECT max(seq) FROM log), 0)) + 1 FROM meta);

    SELECT RAISE(ABORT, 'evertail: stream must match [a-z0-9][a-z0-9._-]{0,127}')
    WHERE NEW.stream IS NULL OR typeof(NEW.stream) <> 'text' OR length(NEW.stream) NOT BETWEEN 1 AND 128
       OR NEW.stream GLOB '*[^a-z0-9._-]*' OR NEW.stream NOT GLOB '[a-z0-9]*' OR instr(NEW.stream, char(0)) > 0;

    SELECT RAISE(ABORT, 'evertail: this stream name is reserved')
    WHERE NEW.stream IN ('events', 'streams', 'evertail');

    SELECT RAISE(ABORT, 'evertail: type, id and subject must be text of 1 to 128, 256 and 256 characters, source of 0 to 256')
    WHERE (NEW.type IS NOT NULL AND (typeof(NEW.type) <> 'text' OR length(NEW.type) NOT BETWEEN 1 AND 128))
       OR (NEW.id IS NOT NULL AND (typeof(NEW.id) <> 'text' OR length(NEW.id) NOT BETWEEN 1 AND 256))
       OR (NEW.subject IS NOT NULL AND (typeof(NEW.subject) <> 'text' OR length(NEW.subject) NOT BETWEEN 1 AND 256))
       OR (NEW.source IS NOT NULL AND (typeof(NEW.source) <> 'text' OR length(NEW.source) > 256));

    SELECT RAISE(ABORT, 'evertail: type, id, source and subject must not hold control characters')
    FROM (
        SELECT coalesce(NEW.type, '') || coalesce(NEW.id, '') || coalesce(NEW.source, '')
            || coalesce(NEW.subject, '') AS text
    )
    WHERE text GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*'
       OR instr(text, char(0)) > 0;

    SELECT RAISE(ABORT, 'evertail: this type is reserved')
    WHERE NEW.type = 'error' OR NEW.type GLOB 'evertail.*';

    -- date() moves a day that does not exist to the next month, which tells it from one that does.
    SELECT RAISE(ABORT, 'evertail: time must be an RFC 3339 time such as 2026-11-21T09:00:00Z')
    FROM (
        SELECT
            substr(NEW.time, 1, 10) AS day,
            upper(substr(NEW.time, 11, 1)) AS separator,
            substr(NEW.time, 12, 8) AS clock,
            upper(CASE WHEN substr(NEW.time, 20) GLOB '.[0-9]*'
                THEN ltrim(substr(NEW.time, 21), '0123456789') ELSE substr(NEW.time, 20) END) AS zone
    )
    WHERE NEW.time IS NOT NULL AND NOT (
        typeof(NEW.time) = 'text' AND instr(NEW.time, char(0)) = 0
        AND day GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]' AND date(day) IS day
        AND separator IN ('T', ' ')
        AND clock GLOB '[0-2][0-9]:[0-5][0-9]:[0-6][0-9]' AND clock < '24' AND substr(clock, 7) <= '60'
        AND (zone = 'Z' OR (zone GLOB '[+-][0-2][0-9]:[0-5][0-9]' AND substr(zone, 2) < '24'))
    );

    SELECT RAISE(ABORT, 'evertail: data must be JSON; make text JSON with json_quote(...)')
    WHERE NEW.data IS NOT NULL
      AND (typeof(NEW.data) = 'blob' OR instr(NEW.data, char(0)) > 0 OR NOT json_valid(NEW.data));

    SELECT RAISE(ABORT, 'evertail: data must be at most 16 MiB')
    WHERE length(CAST(NEW.data AS BLOB)) > 16777216;

    -- A repeat is stored once, as over HTTP; the same id for something else is an error.
    SELECT RAISE(IGNORE)
    FROM ids LEFT JOIN log ON log.seq = ids.seq
    WHERE ids.id = NEW.id AND ids.stream = NEW.stream AND ids.source = coalesce(NEW.source, '')
      AND (log.seq IS NULL
           OR (log.type = coalesce(NEW.type, 'message') AND log.subject IS NEW.subject AND log.time IS NEW.time
               AND log.data IS CASE WHEN NEW.data IS NOT NULL THEN json(NEW.data) END));

    SELECT RAISE(ABORT, 'evertail: this id is already used for another event of the stream')
    FROM ids
    WHERE ids.id = NEW.id AND ids.stream = NEW.stream AND ids.source = coalesce(NEW.source, '');

    INSERT INTO log (seq, stream, source, id, type, subject, time, created_at, data)
    SELECT
        max(meta.trimmed_seq, coalesce((SELECT max(seq) FROM log), 0)) + 1,
        NEW.stream, coalesce(NEW.source, ''), NEW.id, coalesce(NEW.type, 'message'), NEW.subject, NEW.time,
        max(
            strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z',
            meta.trimmed_created_at,
            coalesce((SELECT created_at FROM log ORDER BY seq DESC LIMIT 1), '')
        ),
        CASE WHEN NEW.data IS NOT NULL THEN json(NEW.data) END
    FROM meta;

    INSERT INTO ids (id, stream, source, seq)
    SELECT id, stream, source, seq FROM log WHERE seq = (SELECT max(seq) FROM log) AND id IS NOT NULL;

    INSERT INTO streams (name, first_seq, last_seq, events, bytes)
    SELECT NEW.stream, 0, 0, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM streams WHERE name = NEW.stream);

    UPDATE streams SET
        first_seq = CASE WHEN events = 0 THEN (SELECT max(seq) FROM log) ELSE first_seq END,
        last_seq = (SELECT max(seq) FROM log),
        events = events + 1,
        bytes = bytes + coalesce((SELECT length(CAST(data AS BLOB)) FROM log ORDER BY seq DESC LIMIT 1), 0)
    WHERE name = NEW.stream;
END;
