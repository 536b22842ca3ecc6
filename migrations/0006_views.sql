-- Views for people: the same log in human units. They are a public interface as the tables are: columns may be added at
-- the end, none goes or changes its meaning. Times are UTC, as text that is easy to read (`2026-11-21 09:00:00`); what is
-- called `size` is text such as `1.5 MiB`, and stands beside `bytes`, by which it is sorted and summed. They work with
-- SQLite 3.40 and later, and are read with trusted_schema off.
--
-- What a view costs is what it reads: the first two a row for each stream, the others every event of the log, unless a
-- condition on `seq` says where to begin.

-- The log as a whole, in one row.
CREATE VIEW log_summary (log_id, streams, events, bytes, size, first_seq, last_seq, first_at, last_at) AS
SELECT
    meta.log_id, total.streams, total.events, total.bytes,
    CASE WHEN total.bytes < 1024 THEN format('%d bytes', total.bytes)
         WHEN total.bytes < 1048576 THEN format('%.1f KiB', total.bytes / 1024.0)
         WHEN total.bytes < 1073741824 THEN format('%.1f MiB', total.bytes / 1048576.0)
         ELSE format('%.1f GiB', total.bytes / 1073741824.0) END,
    meta.trimmed_seq + 1, max(meta.trimmed_seq, coalesce(newest.seq, 0)),
    replace(substr(oldest.created_at, 1, 19), 'T', ' '), replace(substr(newest.created_at, 1, 19), 'T', ' ')
FROM meta
CROSS JOIN (
    SELECT count(*) AS streams, coalesce(sum(events), 0) AS events, coalesce(sum(bytes), 0) AS bytes FROM streams
) AS total
LEFT JOIN log AS oldest ON oldest.seq = (SELECT min(seq) FROM log)
LEFT JOIN log AS newest ON newest.seq = (SELECT max(seq) FROM log);

-- Each stream: how much it holds, from when to when, whether it has ended, and what holds it.
CREATE VIEW stream_summary (
    stream, events, bytes, size, mean_size, first_seq, last_seq, first_at, last_at, state, held_by
) AS
SELECT
    name, events, bytes,
    CASE WHEN bytes < 1024 THEN format('%d bytes', bytes)
         WHEN bytes < 1048576 THEN format('%.1f KiB', bytes / 1024.0)
         WHEN bytes < 1073741824 THEN format('%.1f MiB', bytes / 1048576.0)
         ELSE format('%.1f GiB', bytes / 1073741824.0) END,
    CASE WHEN events = 0 THEN NULL
         WHEN bytes / events < 1024 THEN format('%d bytes', bytes / events)
         WHEN bytes / events < 1048576 THEN format('%.1f KiB', bytes / 1024.0 / events)
         ELSE format('%.1f MiB', bytes / 1048576.0 / events) END,
    iif(events > 0, first_seq, NULL), last_seq,
    replace(substr(oldest.created_at, 1, 19), 'T', ' '), replace(substr(newest.created_at, 1, 19), 'T', ' '),
    iif(closed_seq IS NULL, 'open', 'closed'),
    (SELECT group_concat(holds.name, ', ') FROM holds WHERE holds.stream = streams.name)
FROM streams
LEFT JOIN log AS oldest ON streams.events > 0 AND oldest.seq = streams.first_seq
LEFT JOIN log AS newest ON newest.seq = streams.last_seq;

-- What was received in each hour, by stream and type.
CREATE VIEW type_hours (hour, stream, type, events, bytes, size) AS
SELECT
    hour, stream, type, events, bytes,
    CASE WHEN bytes < 1024 THEN format('%d bytes', bytes)
         WHEN bytes < 1048576 THEN format('%.1f KiB', bytes / 1024.0)
         WHEN bytes < 1073741824 THEN format('%.1f MiB', bytes / 1048576.0)
         ELSE format('%.1f GiB', bytes / 1073741824.0) END
FROM (
    SELECT
        replace(substr(created_at, 1, 13), 'T', ' ') || ':00' AS hour, stream, type,
        count(*) AS events, coalesce(sum(length(CAST(data AS BLOB))), 0) AS bytes
    FROM log GROUP BY 1, 2, 3
);

-- The hundred events with the most data, the largest first.
CREATE VIEW largest_events (seq, stream, type, received_at, bytes, size) AS
SELECT
    seq, stream, type, replace(substr(created_at, 1, 19), 'T', ' '), bytes,
    CASE WHEN bytes < 1024 THEN format('%d bytes', bytes)
         WHEN bytes < 1048576 THEN format('%.1f KiB', bytes / 1024.0)
         ELSE format('%.1f MiB', bytes / 1048576.0) END
FROM (
    SELECT seq, stream, type, created_at, coalesce(length(CAST(data AS BLOB)), 0) AS bytes
    FROM log ORDER BY 5 DESC, seq LIMIT 100
);

-- The payloads taken apart: a row for each value, with the path to it (`$.actor`, `$.items[0].name`), which `->>` takes
-- too, and its kind: text, integer, real, true, false or null. Empty arrays and objects have no row.
CREATE VIEW payload_fields (seq, stream, type, path, kind, value) AS
SELECT log.seq, log.stream, log.type, part.fullkey, part.type, part.atom
FROM log, json_tree(log.data) AS part
WHERE part.type NOT IN ('object', 'array');

-- An older server would find a migration that it does not know, and call the file damaged.
UPDATE meta SET format = 5;
