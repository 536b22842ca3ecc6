//! Trimming: the deletion of the oldest events, of the whole log or of one stream, a step at a time.
//!
//! A step is one transaction: the marks, the totals, the index, the events themselves, and the note that an event of
//! `evertail` is still to tell of it. Appends wait for a step, so a step is bounded in events and bytes. It looks at
//! the holds under its own lock, and the table refuses to delete a held event.
//!
//! # What a crash leaves
//! Whole steps: a trim that was under way has trimmed less than it was asked for, the marks say how much, and the notes
//! that it is still to be told.

use super::append::Appender;
use super::blocks::BLOCK_SEQS;
use super::excess::{Excess, LOOK_SEQS_MAX, TAKE};
use super::read::{cursor_before, from_sql, to_sql};
use super::untold::{Cause, NOTE};
use super::{CommitError, StoreError};
use crate::event::{Seq, StreamName, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row};
use std::sync::Arc;

/// Most events that one step deletes. *Source*: some 2 us each, so that an append waits for a few milliseconds.
const STEP_EVENTS_MAX: i64 = 1_024;
/// Most data that one step deletes, but for a single event that is larger. *Units*: bytes.
const STEP_BYTES_MAX: i64 = 8 << 20;
/// How many blocks of the index one step looks at for the events of a stream.
const STEP_BLOCKS_MAX: Seq = 256;
/// What a step of a trim has deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// The last seq that was deleted; 0 when nothing was.
    pub through: Seq,
    /// How many events. When there are none, nothing is left that may go.
    pub events: u64,
    /// Their data. *Units*: bytes.
    pub bytes: u64,
    /// Every seq of the log up to here is trimmed now.
    pub trimmed_seq: Seq,
    /// How many times events of single streams were trimmed by now.
    pub stream_trims: u64,
    /// It stopped at a hold, where more was to go.
    pub is_held: bool,
}

/// Which events single streams have lost.
#[derive(Debug, Clone, Default)]
pub struct StreamMarks {
    /// How many times events of single streams were trimmed.
    pub stream_trims: u64,
    /// Up to where each of them is trimmed, where that is beyond the trim of the whole log.
    pub trimmed_seqs: Vec<(StreamName, Seq)>,
}

/// The candidates of a step of the whole log end with a block of the index, which then goes whole.
const OF_LOG: &str = "WITH candidates AS (
        SELECT seq, stream, coalesce(octet_length(data), 0) AS size FROM log WHERE seq <= ?6 ORDER BY seq LIMIT ?4)";

/// The oldest events of a stream that are in the index. A place that is not of the stream is of a damaged index.
const OF_STREAM_INDEXED: &str = "WITH RECURSIVE looked_at (number) AS (
        SELECT ?7 UNION ALL SELECT number + 1 FROM looked_at WHERE number < ?8),
    places (seq) AS (
        SELECT block * 4096 + place.value FROM looked_at CROSS JOIN blocks, json_each('[' || seqs || ']') AS place
        WHERE block = number AND stream = ?6 ORDER BY 1 LIMIT ?4),
    candidates AS (
        SELECT log.seq, stream, coalesce(octet_length(data), 0) AS size FROM places CROSS JOIN log
        WHERE log.seq = places.seq AND stream = ?6 AND log.seq < ?9)";

/// Those that are not in it yet.
const OF_STREAM: &str = "WITH candidates AS (
        SELECT seq, stream, coalesce(octet_length(data), 0) AS size FROM log
        WHERE seq >= ?7 AND seq <= ?8 AND stream = ?6 AND seq < ?9 ORDER BY seq LIMIT ?4)";

/// The totals are those of what is left before anything is deleted: only streams with events in the step are touched,
/// each by its name. The next event of a stream is looked for in the rest of the block, then in the index, then beyond
/// it, so that a step does not grow with the distance to it. The mark passes the holes behind it.
const STEP_OF_LOG: &str = "
    UPDATE meta SET
        trimmed_created_at = coalesce(
            (SELECT created_at FROM log WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1), trimmed_created_at),
        trimmed_seq = coalesce((SELECT seq - 1 FROM log WHERE seq > ?1 ORDER BY seq LIMIT 1), ?1);
    UPDATE streams SET
        events = streams.events - gone.events, bytes = streams.bytes - gone.bytes,
        first_seq = iif(streams.events = gone.events, last_seq + 1, 0)
    FROM (SELECT stream, count(*) AS events, coalesce(sum(octet_length(data)), 0) AS bytes
          FROM log WHERE seq <= ?1 GROUP BY stream) AS gone
    WHERE gone.stream = streams.name;
    UPDATE streams SET first_seq = next.seq
    FROM (SELECT stream, min(seq) AS seq FROM log WHERE seq > ?1 AND seq <= ?2 GROUP BY stream) AS next
    WHERE next.stream = streams.name AND first_seq = 0;
    UPDATE streams SET first_seq = NEXT_OF_STREAM
    WHERE name IN (SELECT stream FROM log WHERE seq <= ?1) AND first_seq = 0;
    DELETE FROM log WHERE seq <= ?1;
    DELETE FROM blocks WHERE block < ?1 / 4096;
    COMMIT";

/// The first event of a stream beyond the block that ends with `?2`.
const NEXT_OF_STREAM: &str = "coalesce(
        (WITH RECURSIVE looked_at (number) AS (
             SELECT ?2 / 4096
             UNION ALL SELECT number + 1 FROM looked_at WHERE number < (SELECT indexed_seq FROM meta) / 4096)
         SELECT block * 4096 + (SELECT min(value) FROM blocks AS types, json_each('[' || types.seqs || ']')
                                WHERE types.block = blocks.block AND types.stream = streams.name)
         FROM looked_at CROSS JOIN blocks WHERE block = number AND stream = streams.name LIMIT 1),
        (SELECT seq FROM log WHERE seq > max(?2, (SELECT indexed_seq FROM meta)) AND stream = streams.name
         ORDER BY seq LIMIT 1),
        last_seq + 1)";

/// The index loses them too: of the last block by place, of those before it whole.
///
/// `?1` is the stream, `?2` the seqs that go. The numbers stand in the text: a statement of several may not leave out a
/// parameter before one that it has, or sqlx binds NULL.
const STEP_OF_STREAM: &str = "
    UPDATE streams SET
        trimmed_seq = LAST, events = events - EVENTS, bytes = bytes - BYTES,
        first_seq = iif(events = EVENTS, last_seq + 1, coalesce(
            (SELECT min(seq) FROM log WHERE seq > LAST AND seq <= BLOCK_END AND stream = ?1), 0))
    WHERE name = ?1;
    UPDATE streams SET first_seq = NEXT_OF_STREAM WHERE name = ?1 AND first_seq = 0;
    DELETE FROM log WHERE seq IN (SELECT value FROM json_each(?2)) AND stream = ?1;
    DELETE FROM blocks WHERE stream = ?1 AND block IN (SELECT DISTINCT (value - 1) / 4096 FROM json_each(?2))
        AND NOT EXISTS (SELECT 1 FROM json_each('[' || seqs || ']') WHERE block * 4096 + value > LAST);
    UPDATE blocks SET seqs = kept.seqs, events = kept.events
    FROM (SELECT blocks.type, group_concat(place.value) AS seqs, count(*) AS events
          FROM blocks, json_each('[' || seqs || ']') AS place
          WHERE block = (LAST - 1) / 4096 AND stream = ?1 AND block * 4096 + place.value > LAST
          GROUP BY blocks.type) AS kept
    WHERE blocks.block = (LAST - 1) / 4096 AND blocks.stream = ?1 AND blocks.type = kept.type;
    UPDATE meta SET
        stream_trims = stream_trims + 1,
        trimmed_seq = max(trimmed_seq, (SELECT seq - 1 FROM log ORDER BY seq LIMIT 1));
    COMMIT";

/// What a step takes.
struct Taken {
    first: i64,
    last: i64,
    events: i64,
    bytes: i64,
    /// Those of `evertail` itself, and their data.
    own: (i64, i64),
    seqs: Option<String>,
}

impl Appender {
    /// Deletes the oldest events of the log, or of one stream, at most one step of what is to go. Does nothing when
    /// nothing may go.
    ///
    /// *Errors*: as [`Appender::append`]. *Cancel safety*: none.
    pub async fn trim_step(
        &mut self,
        stream: Option<&StreamName>,
        excess: Excess,
        cause: Cause,
    ) -> Result<Trimmed, CommitError> {
        self.lock().await?;
        match self.trim_locked(stream, excess, cause).await {
            Ok(trimmed) => Ok(trimmed),
            Err(error) => Err(self.roll_back(error).await),
        }
    }

    async fn trim_locked(
        &mut self,
        stream: Option<&StreamName>,
        excess: Excess,
        cause: Cause,
    ) -> Result<Trimmed, CommitError> {
        let (taken, is_held) = match stream {
            None => self.take_of_log(excess).await?,
            Some(stream) => self.take_of_stream(stream, excess).await?,
        };
        let Some(taken) = taken else {
            self.unlock().await?;
            let marks = self.marks().await?;
            return Ok(Trimmed {
                trimmed_seq: marks.0,
                stream_trims: marks.1,
                is_held,
                ..Trimmed::default()
            });
        };
        sqlx::query(NOTE)
            .bind(stream.map_or("", StreamName::as_str))
            .bind(cause.as_str())
            .bind(taken.first)
            .bind(taken.last)
            .bind(taken.events - taken.own.0)
            .bind(taken.bytes - taken.own.1)
            .execute(self.connection())
            .await?;
        let last = from_sql(taken.last);
        let block_end = to_sql(last.next_multiple_of(BLOCK_SEQS));
        match stream {
            None => {
                let sql = STEP_OF_LOG.replace("NEXT_OF_STREAM", NEXT_OF_STREAM);
                self.run(sqlx::query(AssertSqlSafe(sql)).bind(taken.last).bind(block_end)).await?;
            }
            Some(stream) => {
                let sql = STEP_OF_STREAM
                    .replace("NEXT_OF_STREAM", &NEXT_OF_STREAM.replace("?2", "BLOCK_END"))
                    .replace("BLOCK_END", &block_end.to_string())
                    .replace("LAST", &taken.last.to_string())
                    .replace("EVENTS", &taken.events.to_string())
                    .replace("BYTES", &taken.bytes.to_string());
                let query = sqlx::query(AssertSqlSafe(sql)).bind(stream.shared()).bind(taken.seqs);
                // One of many texts: kept, each would push a statement of the appends out of the cache.
                self.run(query.persistent(false)).await?;
                if last > self.indexed().seq() {
                    self.notes().forget();
                }
            }
        }
        let (trimmed_seq, stream_trims) = self.marks().await?;
        Ok(Trimmed {
            through: last,
            events: from_sql(taken.events),
            bytes: from_sql(taken.bytes),
            trimmed_seq,
            stream_trims,
            is_held,
        })
    }

    async fn take_of_log(&mut self, excess: Excess) -> Result<(Option<Taken>, bool), StoreError> {
        let row = sqlx::query(
            "SELECT (SELECT min(seq) FROM log),
                    (SELECT min(first_seq) FROM streams JOIN holds ON holds.stream = streams.name WHERE events > 0)",
        )
        .fetch_one(self.connection())
        .await?;
        let Some(oldest) = row.try_get::<Option<i64>, _>(0)?.map(from_sql) else { return Ok((None, false)) };
        let held: Option<Seq> = row.try_get::<Option<i64>, _>(1)?.map(from_sql);
        let block_end = oldest.next_multiple_of(BLOCK_SEQS);
        let last = held.map_or(block_end, |held| block_end.min(held - 1));
        let taken = self.take(OF_LOG, excess, |query| query.bind(to_sql(last))).await?;
        let reached = taken.as_ref().map_or(oldest - 1, |taken| from_sql(taken.last));
        let is_held = held.is_some_and(|held| reached + 1 >= held) && {
            // Whether more would have gone.
            let left = taken.as_ref().map_or(excess, |t| excess.less(from_sql(t.events), from_sql(t.bytes)));
            left.events > 0 || left.bytes > 0 || left.through > reached
        };
        Ok((taken, is_held))
    }

    async fn take_of_stream(
        &mut self,
        stream: &StreamName,
        excess: Excess,
    ) -> Result<(Option<Taken>, bool), StoreError> {
        let row = sqlx::query(
            "SELECT first_seq, EXISTS (SELECT 1 FROM holds WHERE holds.stream = streams.name), (SELECT max(seq) FROM log)
             FROM streams WHERE name = ? AND events > 0",
        )
        .bind(stream.shared())
        .fetch_optional(self.connection())
        .await?;
        let Some(row) = row else { return Ok((None, false)) };
        let (first, newest) = (from_sql(row.try_get(0)?), row.try_get::<Option<i64>, _>(2)?);
        if row.try_get(1)? {
            let is_held = excess.events > 0 || excess.bytes > 0 || excess.through >= first;
            return Ok((None, is_held));
        }
        let indexed = self.indexed().seq();
        let (candidates, from, to) = if first <= indexed {
            let block = (first - 1) / BLOCK_SEQS;
            (OF_STREAM_INDEXED, block, (block + STEP_BLOCKS_MAX - 1).min((indexed - 1) / BLOCK_SEQS))
        } else {
            (OF_STREAM, first, first + LOOK_SEQS_MAX)
        };
        let taken = self.take(candidates, excess, |query| {
            query.bind(stream.shared()).bind(to_sql(from)).bind(to_sql(to)).bind(newest)
        });
        Ok((taken.await?, false))
    }

    /// What of the candidates goes in one step.
    async fn take<'q>(
        &mut self,
        candidates: &'static str,
        excess: Excess,
        bind: impl FnOnce(SqliteQuery<'q>) -> SqliteQuery<'q>,
    ) -> Result<Option<Taken>, StoreError> {
        let sql = format!(
            "{candidates} SELECT min(seq), max(seq), count(*), coalesce(sum(size), 0),
                 count(*) FILTER (WHERE stream = 'evertail'),
                 coalesce(sum(size) FILTER (WHERE stream = 'evertail'), 0), json_group_array(seq)
             FROM ({TAKE} AND (number = 1 OR total <= ?5))"
        );
        let query = sqlx::query(AssertSqlSafe(sql))
            .bind(to_sql(excess.through))
            .bind(to_sql(excess.events))
            .bind(to_sql(excess.bytes))
            .bind(STEP_EVENTS_MAX)
            .bind(STEP_BYTES_MAX);
        let row = bind(query).fetch_one(self.connection()).await?;
        let (Some(first), Some(last)) = (row.try_get(0)?, row.try_get(1)?) else { return Ok(None) };
        Ok(Some(Taken {
            first,
            last,
            events: row.try_get(2)?,
            bytes: row.try_get(3)?,
            own: (row.try_get(4)?, row.try_get(5)?),
            seqs: row.try_get(6)?,
        }))
    }

    /// `trimmed_seq` and `stream_trims`.
    async fn marks(&mut self) -> Result<(Seq, u64), StoreError> {
        let row =
            sqlx::query("SELECT trimmed_seq, stream_trims FROM meta").fetch_one(self.connection()).await?;
        Ok((from_sql(row.try_get(0)?), from_sql(row.try_get(1)?)))
    }

    /// As [`super::Store::cursor_before`], on the connection of the writer, which waits for no reader.
    pub async fn cursor_before(&mut self, time: Timestamp, first: Seq, last: Seq) -> Result<Seq, StoreError> {
        cursor_before(self.connection(), time, first, last).await
    }

    /// Which events single streams have lost.
    pub async fn stream_marks(&mut self) -> Result<StreamMarks, StoreError> {
        let (trimmed_seq, stream_trims) = self.marks().await?;
        let query = sqlx::query("SELECT name, trimmed_seq FROM streams WHERE trimmed_seq > ?");
        let rows = query.bind(to_sql(trimmed_seq)).fetch_all(self.connection()).await?;
        let marks = rows.iter().map(|row| Ok((stream_name(row, 0)?, from_sql(row.try_get(1)?))));
        Ok(StreamMarks { stream_trims, trimmed_seqs: marks.collect::<Result<_, StoreError>>()? })
    }
}

type SqliteQuery<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

pub(super) fn stream_name(row: &SqliteRow, column: usize) -> Result<StreamName, StoreError> {
    Ok(StreamName::stored(Arc::from(row.try_get::<&str, _>(column)?)))
}
