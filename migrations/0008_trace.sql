-- The span that an event was made in.

-- W3C Trace Context, version 00: `00-<32 digits of the trace>-<16 of the span>-<flags>`, in lower case. NULL where the
-- producer said none, which costs nothing. Part of the event as it is read, but not compared with that of a repeat: each
-- attempt to append is a span of its own. No CHECK: adding one would read the whole log, and each row would pay for it.
ALTER TABLE log ADD COLUMN traceparent TEXT;

-- The view gets the column, and SQLite has no other way to add one. Its triggers go with it and are written again; but for
-- the traceparent they are those of the first and the third migration.
DROP VIEW events;

CREATE VIEW events (seq, stream, source, id, type, subject, time, created_at, data, traceparent) AS
SELECT seq, stream, source, id, type, subject, time, created_at, data, traceparent FROM log;

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

    SELECT RAISE(ABORT, 'evertail: traceparent must be a W3C traceparent of version 00, in lower case')
    FROM (
        SELECT substr(NEW.traceparent, 4, 32) AS trace, substr(NEW.traceparent, 37, 16) AS span
    )
    WHERE NEW.traceparent IS NOT NULL AND NOT (
        typeof(NEW.traceparent) = 'text' AND length(CAST(NEW.traceparent AS BLOB)) = 55
        AND substr(NEW.traceparent, 1, 3) = '00-' AND substr(NEW.traceparent, 36, 1) = '-'
        AND substr(NEW.traceparent, 53, 1) = '-' AND instr(NEW.traceparent, char(0)) = 0
        AND (trace || span || substr(NEW.traceparent, 54)) NOT GLOB '*[^0-9a-f]*'
        AND trace GLOB '*[1-9a-f]*' AND span GLOB '*[1-9a-f]*'
    );

    -- A repeat is stored once, as over HTTP, whichever span it is made in; the same id for something else is an error.
    SELECT RAISE(IGNORE)
    FROM ids LEFT JOIN log ON log.seq = ids.seq
    WHERE ids.id = NEW.id AND ids.stream = NEW.stream AND ids.source = coalesce(NEW.source, '')
      AND (log.seq IS NULL
           OR (log.type = coalesce(NEW.type, 'message') AND log.subject IS NEW.subject AND log.time IS NEW.time
               AND log.data IS CASE WHEN NEW.data IS NOT NULL THEN json(NEW.data) END));

    SELECT RAISE(ABORT, 'evertail: this id is already used for another event of the stream')
    FROM ids
    WHERE ids.id = NEW.id AND ids.stream = NEW.stream AND ids.source = coalesce(NEW.source, '');

    INSERT INTO log (seq, stream, source, id, type, subject, time, created_at, data, traceparent)
    SELECT
        max(meta.trimmed_seq, coalesce((SELECT max(seq) FROM log), 0)) + 1,
        NEW.stream, coalesce(NEW.source, ''), NEW.id, coalesce(NEW.type, 'message'), NEW.subject, NEW.time,
        max(
            strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z',
            meta.trimmed_created_at,
            coalesce((SELECT created_at FROM log ORDER BY seq DESC LIMIT 1), '')
        ),
        CASE WHEN NEW.data IS NOT NULL THEN json(NEW.data) END,
        NEW.traceparent
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

-- Other processes need more than the constraint, which INSERT OR IGNORE gets around. A repeat of an event from before
-- the end is left to `events_insert`. In which order the two fire does not matter: what `events_insert` has stored is
-- behind the end.
CREATE TRIGGER events_insert_into_closed_stream INSTEAD OF INSERT ON events
WHEN EXISTS (
    SELECT 1 FROM streams WHERE name = NEW.stream AND closed_seq IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM ids
        WHERE id = NEW.id AND stream = NEW.stream AND source = coalesce(NEW.source, '') AND seq < closed_seq
    )
)
BEGIN
    SELECT RAISE(ABORT, 'evertail: this stream is closed');
END;

-- An older server would lose the column of what it appends.
UPDATE meta SET format = 6;
