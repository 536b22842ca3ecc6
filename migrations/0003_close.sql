-- The end of a stream: an event of the reserved type `evertail.closed`, which only the server writes, and after which
-- the stream takes no more. The event and this mark are of one transaction.
--
-- The constraint keeps every later event out of the server's own appends: each of them moves `last_seq` on. It costs a
-- comparison for each stream of a commit, where a trigger would have SQLite keep a journal for each statement.

ALTER TABLE streams ADD COLUMN closed_seq INTEGER
    CONSTRAINT "evertail: this stream is closed" CHECK (closed_seq IS NULL OR closed_seq = last_seq);

CREATE TRIGGER closed_streams_stay_closed BEFORE UPDATE OF closed_seq ON streams
WHEN OLD.closed_seq IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'evertail: a closed stream stays closed');
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

-- An older server would take the constraint for damage.
UPDATE meta SET format = 2;
