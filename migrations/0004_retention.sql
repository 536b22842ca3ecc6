-- Retention of single streams, legal holds, and the trims that are still to be told by an event of `evertail`.

-- Every event of the stream up to here is trimmed; of the log as a whole `meta.trimmed_seq` says it. What is between
-- that and this is a hole in the log, which readers of the stream are told of.
ALTER TABLE streams ADD COLUMN trimmed_seq INTEGER NOT NULL DEFAULT 0;

-- How many times events of a single stream were trimmed: who reads a page and this number in one moment knows whether
-- it has been told of all that is missing from the page.
ALTER TABLE meta ADD COLUMN stream_trims INTEGER NOT NULL DEFAULT 0;

-- While a stream is held no trim passes its oldest retained event, whoever asks for it. A stream may be held under
-- several names, and before its first event.
CREATE TABLE holds (
    stream TEXT NOT NULL,
    name TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at TEXT NOT NULL CHECK (length(created_at) = 27),
    PRIMARY KEY (stream, name)
) STRICT, WITHOUT ROWID;

-- What was trimmed and is not yet an event of the stream `evertail`. Written in the transaction of the trim, deleted in
-- that of the event, so that no trim goes untold whatever happens in between.
CREATE TABLE trims (
    -- '' for the whole log.
    stream TEXT NOT NULL,
    -- `request` or `retention`.
    cause TEXT NOT NULL,
    from_seq INTEGER NOT NULL,
    through_seq INTEGER NOT NULL,
    -- Without those of `evertail` itself: what only deletes what told of earlier trims is not told, or there would be no
    -- end of it.
    events INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (stream, cause)
) STRICT, WITHOUT ROWID;

DROP TRIGGER log_is_deleted_only_by_trimming;

-- The newest event of the log goes only with the whole log: its seq and time are where the next one continues.
CREATE TRIGGER log_is_deleted_only_by_trimming BEFORE DELETE ON log
WHEN OLD.seq > (SELECT trimmed_seq FROM meta)
 AND (OLD.seq > coalesce((SELECT trimmed_seq FROM streams WHERE name = OLD.stream), 0)
      OR OLD.seq = (SELECT max(seq) FROM log))
BEGIN
    SELECT RAISE(ABORT, 'evertail: events are deleted only by trimming');
END;

CREATE TRIGGER held_events_stay BEFORE DELETE ON log
WHEN EXISTS (SELECT 1 FROM holds WHERE stream = OLD.stream)
BEGIN
    SELECT RAISE(ABORT, 'evertail: this stream is held');
END;

-- An older server would take the holes for damage, and would not stop at a hold.
UPDATE meta SET format = 3;
