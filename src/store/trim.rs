//! Trimming: the deletion of a prefix of the log, a step at a time.
//!
//! A step is one transaction: the mark, the totals, the index and the events themselves. Appends wait for a step, so a
//! step ends where a block of the index ends, or before it has too many bytes.
//!
//! # What a crash leaves
//! Whole steps: a trim that was under way has trimmed less than it was asked for, and the mark says how much.

use super::append::Appender;
use super::blocks::BLOCK_SEQS;
use super::read::{cursor_before, to_sql};
use super::{CommitError, StoreError};
use crate::event::{Seq, Timestamp};
use sqlx::Row;

/// Most events that one step deletes. *Source*: some 2 us each, so that an append waits for a few milliseconds.
const STEP_EVENTS_MAX: Seq = 1_024;
/// Most data that one step deletes, but for a single event that is larger. *Units*: bytes.
const STEP_BYTES_MAX: i64 = 8 << 20;

/// The totals are those of what is left before anything is deleted: only streams with events in the step are touched,
/// each by its name. The next event of a stream is looked for in the rest of the block, then in the index, then beyond
/// it, so that a step does not grow with the distance to it.
const STEP: &str = "BEGIN IMMEDIATE;
    UPDATE meta SET trimmed_created_at = (SELECT created_at FROM log WHERE seq = ?1), trimmed_seq = ?1;
    UPDATE streams SET
        events = streams.events - gone.events, bytes = streams.bytes - gone.bytes,
        first_seq = iif(streams.events = gone.events, last_seq + 1, 0)
    FROM (SELECT stream, count(*) AS events, coalesce(sum(octet_length(data)), 0) AS bytes
          FROM log WHERE seq <= ?1 GROUP BY stream) AS gone
    WHERE gone.stream = streams.name;
    UPDATE streams SET first_seq = next.seq
    FROM (SELECT stream, min(seq) AS seq FROM log WHERE seq > ?1 AND seq <= ?2 GROUP BY stream) AS next
    WHERE next.stream = streams.name AND first_seq = 0;
    UPDATE streams SET first_seq = coalesce(
        (WITH RECURSIVE looked_at (number) AS (
             SELECT ?2 / 4096
             UNION ALL SELECT number + 1 FROM looked_at WHERE number < (SELECT indexed_seq FROM meta) / 4096)
         SELECT block * 4096 + (SELECT min(value) FROM blocks AS types, json_each('[' || types.seqs || ']')
                                WHERE types.block = blocks.block AND types.stream = streams.name)
         FROM looked_at CROSS JOIN blocks WHERE block = number AND stream = streams.name LIMIT 1),
        (SELECT seq FROM log WHERE seq > max(?2, (SELECT indexed_seq FROM meta)) AND stream = streams.name
         ORDER BY seq LIMIT 1),
        last_seq + 1)
    WHERE name IN (SELECT stream FROM log WHERE seq <= ?1) AND first_seq = 0;
    DELETE FROM log WHERE seq <= ?1;
    DELETE FROM blocks WHERE block < ?1 / 4096;
    COMMIT";

/// What a step of a trim has deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    /// Every seq up to here is trimmed now.
    pub trimmed_seq: Seq,
    /// The payloads of the step. *Units*: bytes.
    pub bytes: u64,
}

impl Appender {
    /// Deletes the oldest events, at most one step of them and at most up to this seq, and keeps the totals true.
    /// The caller sees that there are such events.
    ///
    /// *Errors*: as [`Appender::append`]. *Cancel safety*: none.
    pub async fn trim_step(&mut self, trimmed_seq: Seq, through: Seq) -> Result<Trimmed, CommitError> {
        let block_end = (trimmed_seq / BLOCK_SEQS + 1) * BLOCK_SEQS;
        let mut step = through.min(block_end).min(trimmed_seq + STEP_EVENTS_MAX);
        let mut bytes = self.data_bytes(step).await?;
        while step > trimmed_seq + 1 && bytes > STEP_BYTES_MAX {
            step = trimmed_seq + (step - trimmed_seq) / 2;
            bytes = self.data_bytes(step).await?;
        }
        let rest_of_block = step.next_multiple_of(BLOCK_SEQS);
        self.run(sqlx::query(STEP).bind(to_sql(step)).bind(to_sql(rest_of_block))).await?;
        Ok(Trimmed { trimmed_seq: step, bytes: u64::try_from(bytes).unwrap_or(0) })
    }

    /// The payloads of all that is retained. *Units*: bytes.
    pub async fn retained_bytes(&mut self) -> Result<u64, StoreError> {
        let row =
            sqlx::query("SELECT coalesce(sum(bytes), 0) FROM streams").fetch_one(self.connection()).await?;
        Ok(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0))
    }

    /// As [`super::Store::cursor_before`], on the connection of the writer, which waits for no reader.
    pub async fn cursor_before(&mut self, time: Timestamp, first: Seq, last: Seq) -> Result<Seq, StoreError> {
        cursor_before(self.connection(), time, first, last).await
    }

    async fn data_bytes(&mut self, through: Seq) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT coalesce(sum(octet_length(data)), 0) FROM log WHERE seq <= ?")
            .bind(to_sql(through))
            .fetch_one(self.connection())
            .await?;
        Ok(row.try_get(0)?)
    }
}
