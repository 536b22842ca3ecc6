-- The index of sparse selections. Derived from `log` and never the truth: the server fills it in while it serves, and
-- reads what is not in it yet from `log` itself.
--
-- A block is 4,096 neighbouring seqs: block n holds the seqs n * 4096 + 1 to n * 4096 + 4096. For each complete block
-- there is a row for each stream and type that occur in it, with their places in the block, so that a reader of few
-- streams or types looks at a row for each block and not at 4,096 events:
--
--   SELECT block * 4096 + place.value AS seq FROM blocks, json_each('[' || seqs || ']') AS place
--   WHERE stream = 'audits';
--
-- Led by block: a block is added at the end of the table, once, and is never touched again until it is trimmed whole.
-- An index over (stream, seq) would put each event on a page of its own stream and cost half the appends.

CREATE TABLE blocks (
    block INTEGER NOT NULL,
    stream TEXT NOT NULL,
    type TEXT NOT NULL,
    -- How many events of this stream and type the block holds.
    events INTEGER NOT NULL,
    -- Their places in the block, 1 to 4096: `3,17,88`.
    seqs TEXT NOT NULL,
    PRIMARY KEY (block, stream, type)
) STRICT, WITHOUT ROWID;

-- Everything up to here is in `blocks`, or trimmed.
ALTER TABLE meta ADD COLUMN indexed_seq INTEGER NOT NULL DEFAULT 0;
