//! The index of sparse selections: which seqs of a block of 4,096 are of which stream and type. See
//! `migrations/0002_blocks.sql`.
//!
//! # Who does what
//! The writer adds a block once it is complete, after its acks, in a short transaction of its own. Readers use what is
//! known to be added, and look at the log itself beyond it. Rows of the index never change, and go only with the trim
//! of their whole block: so a reader that found seqs in it and then reads the events misses none without seeing, in
//! the same moment as the events, that the log was trimmed beyond its cursor.
//!
//! # What a crash leaves
//! A block is in the index whole, with the mark that says so, or not at all; then it is added later.

use super::append::Appender;
use super::read::{Store, from_sql, push_names, to_sql};
use super::{CommitError, StoreError};
use crate::event::{Pattern, Selection, Seq};
use sqlx::{QueryBuilder, Row, SqliteConnection};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seqs of one block.
pub(super) const BLOCK_SEQS: Seq = 4_096;
/// From how many wanted seqs in one block on looking at each event is cheaper than going through the index.
///
/// *Source*: a seq from the index costs about 1 us and a seek in the log, an event looked at 0.08 us.
const DENSE_SEQS_MIN: Seq = 256;
/// Most blocks of one statement where each stream is sought by its name.
///
/// *Source*: about a microsecond for each, and at most 20 KB of seqs.
const BLOCKS_SOUGHT_MAX: Seq = 256;
/// Most blocks of one statement that looks at all rows of a block, of which there may be 4,096.
const BLOCKS_SCANNED_MAX: Seq = 16;
/// Most statements of one search, so that a search is some milliseconds at most.
const STATEMENTS_MAX: usize = 12;

/// Up to which seq the index is known to reach: raised by the writer after the commit, so that whoever reads it and
/// then begins to read the file finds there what it says.
#[derive(Debug, Clone, Default)]
pub(super) struct Indexed(Arc<AtomicU64>);

impl Indexed {
    pub(super) fn seq(&self) -> Seq {
        self.0.load(Ordering::Acquire)
    }

    fn raise(&self, seq: Seq) {
        self.0.store(seq, Ordering::Release);
    }

    /// Takes up what the file says at the start.
    pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Self, StoreError> {
        let seq: i64 = sqlx::query_scalar("SELECT indexed_seq FROM meta").fetch_one(connection).await?;
        let indexed = Self::default();
        indexed.raise(from_sql(seq));
        Ok(indexed)
    }
}

impl Appender {
    /// Adds the next block to the index, if it is complete. False when there is none.
    ///
    /// *Errors*: as [`Appender::append`]; [`CommitError::Full`] and [`CommitError::Busy`] leave the index as it was.
    /// *Cancel safety*: none.
    pub async fn index_block(&mut self, last_seq: Seq, trimmed_seq: Seq) -> Result<bool, CommitError> {
        // What was trimmed before it was indexed never will be.
        let after = self.indexed().seq().max(trimmed_seq / BLOCK_SEQS * BLOCK_SEQS);
        let through = after + BLOCK_SEQS;
        if through > last_seq {
            return Ok(false);
        }
        // A row that is there already is of a file that was tampered with; it is derived, and written anew.
        let mut query = QueryBuilder::new(
            "BEGIN IMMEDIATE; INSERT OR REPLACE INTO blocks (block, stream, type, events, seqs) ",
        );
        match self.notes().take(through).filter(|_| trimmed_seq <= after) {
            Some(places) => {
                let mut rows: Vec<_> = places.into_iter().collect();
                rows.sort_unstable_by(|(a, _), (b, _)| (&a.0, a.1.as_str()).cmp(&(&b.0, b.1.as_str())));
                query.push_values(rows, |mut row, ((stream, r#type), place)| {
                    row.push_bind(to_sql(after / BLOCK_SEQS)).push_bind(stream.shared());
                    row.push_bind(r#type.shared()).push_bind(place.events).push_bind(place.seqs);
                });
            }
            None => {
                query.push(
                    "SELECT (seq - 1) / 4096, stream, type, count(*), group_concat((seq - 1) % 4096 + 1)
                     FROM log WHERE seq > ",
                );
                query.push_bind(to_sql(after)).push(" AND seq <= ").push_bind(to_sql(through));
                query.push(" GROUP BY stream, type");
            }
        }
        query.push("; UPDATE meta SET indexed_seq = ").push_bind(to_sql(through)).push("; COMMIT");
        // One of many shapes: kept, each would push a statement of the appends out of the cache.
        self.run(query.build().persistent(false)).await?;
        self.indexed().raise(through);
        Ok(true)
    }
}

impl Store {
    /// The first wanted seqs of `after < seq <= through`, at most so many, and how far was looked. `None` when so many
    /// events are wanted there that the index is a detour.
    ///
    /// The first statement looks at one block, each further one at four times as many as the one before.
    pub(super) async fn wanted_after(
        &self,
        after: Seq,
        through: Seq,
        selection: &Selection,
        events_max: usize,
    ) -> Result<Option<(Vec<Seq>, Seq)>, StoreError> {
        let (mut wanted, mut scanned_to, mut blocks) = (Vec::new(), after, 1);
        for _ in 0..STATEMENTS_MAX {
            let first = scanned_to / BLOCK_SEQS;
            let last = (first + blocks - 1).min(through.saturating_sub(1) / BLOCK_SEQS);
            let dense = if blocks == 1 { DENSE_SEQS_MIN } else { Seq::MAX };
            let Some(mut found) = self.wanted_in(first, last, selection, dense).await? else {
                return Ok(None);
            };
            found.retain(|seq| *seq > after && *seq <= through);
            wanted.append(&mut found);
            scanned_to = ((last + 1) * BLOCK_SEQS).min(through);
            if wanted.len() >= events_max || scanned_to >= through {
                break;
            }
            blocks = (blocks * 4).min(blocks_max(selection));
        }
        if wanted.len() > events_max {
            wanted.truncate(events_max);
            scanned_to = wanted.last().copied().unwrap_or(scanned_to);
        }
        Ok(Some((wanted, scanned_to)))
    }

    /// The wanted seqs of these blocks, in order; `None` if there are so many of them.
    pub(super) async fn wanted_in(
        &self,
        first: Seq,
        last: Seq,
        selection: &Selection,
        dense: Seq,
    ) -> Result<Option<Vec<Seq>>, StoreError> {
        let mut query = QueryBuilder::new("WITH RECURSIVE looked_at (number) AS (SELECT ");
        query.push_bind(to_sql(first));
        query.push(" UNION ALL SELECT number + 1 FROM looked_at WHERE number < ").push_bind(to_sql(last));
        query.push(
            ") SELECT total(events), group_concat(block || ':' || seqs, ' ') FROM looked_at CROSS JOIN blocks WHERE block = number",
        );
        push_names(&mut query, selection);
        let row = query.build().fetch_one(self.pool()).await?;
        if row.try_get::<f64, _>(0)? >= dense as f64 {
            return Ok(None);
        }
        let text: Option<&str> = row.try_get(1)?;
        let damaged = StoreError::Damaged {
            seq: to_sql(first * BLOCK_SEQS + 1),
            what: "its block in the index is no list",
        };
        let mut seqs = parse(text.unwrap_or_default()).ok_or(damaged)?;
        // Each stream and type has its own, in order.
        seqs.sort_unstable();
        Ok(Some(seqs))
    }
}

/// Most blocks that one statement may look at.
pub(super) fn blocks_max(selection: &Selection) -> Seq {
    let is_exact = |pattern: &Pattern| matches!(pattern, Pattern::Exact(_));
    // What is granted is sought as what is asked for is, where nothing else is said.
    let streams = match selection.granted.as_deref() {
        Some(granted) if selection.streams.is_empty() => granted,
        _ => &selection.streams,
    };
    let is_sought = !streams.is_empty() && streams.iter().all(is_exact);
    let streams = streams.len() as Seq;
    if is_sought { (BLOCKS_SOUGHT_MAX / streams).max(BLOCKS_SCANNED_MAX) } else { BLOCKS_SCANNED_MAX }
}

/// Reads `block:place,place block:place`.
fn parse(text: &str) -> Option<Vec<Seq>> {
    let mut seqs = Vec::with_capacity(text.len() / 5);
    for row in text.split_ascii_whitespace() {
        let (block, places) = row.split_once(':')?;
        let before = block.parse::<Seq>().ok()?.checked_mul(BLOCK_SEQS)?;
        for place in places.split(',') {
            seqs.push(before.checked_add(place.parse().ok()?)?);
        }
    }
    Some(seqs)
}
