//! What is to be trimmed, and what that would delete.

use super::read::{from_sql, to_sql};
use super::trim::stream_name;
use super::{Store, StoreError};
use crate::event::{Seq, StreamName};
use sqlx::{AssertSqlSafe, Row};
use std::collections::BTreeMap;

/// How many seqs a statement of a dry run looks at.
///
/// *Source*: about a microsecond each; while a statement runs the WAL cannot be reset.
pub(super) const LOOK_SEQS_MAX: Seq = 16_384;

/// What is to go: the oldest events, as long as any of these says so. In a trim that goes in steps it is what is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Excess {
    /// Every event up to this seq.
    pub through: Seq,
    /// The oldest so many.
    pub events: u64,
    /// The oldest that hold so much data together. *Units*: bytes.
    pub bytes: u64,
}

impl Excess {
    /// What is left of it when these have gone.
    pub fn less(self, events: u64, bytes: u64) -> Self {
        Self {
            events: self.events.saturating_sub(events),
            bytes: self.bytes.saturating_sub(bytes),
            through: self.through,
        }
    }
}

/// The events that go, of those that `candidates` gives: `seq`, `stream` and `size` of the oldest, in order, `?1` to `?3`
/// being the [`Excess`]. Always a prefix of the candidates, since each part of the excess is one.
pub(super) const TAKE: &str = " SELECT seq, stream, size FROM (
        SELECT seq, stream, size, row_number() OVER oldest_first AS number, sum(size) OVER oldest_first AS total
        FROM candidates WINDOW oldest_first AS (ORDER BY seq ROWS UNBOUNDED PRECEDING))
    WHERE (seq <= ?1 OR number <= ?2 OR total - size < ?3)";

/// Events and the bytes of their data, by stream.
pub type Shares = BTreeMap<StreamName, (u64, u64)>;

impl Store {
    /// What a trim of `after < seq <= through` would delete, by stream, and the last seq of it. Holds are not looked at.
    ///
    /// Looks at each event, in bounded statements. *Cancel safety*: safe.
    pub async fn excess_of(
        &self,
        stream: Option<&StreamName>,
        mut excess: Excess,
        after: Seq,
        through: Seq,
    ) -> Result<(Shares, Seq), StoreError> {
        let of_stream = if stream.is_some() { "AND stream = ?6" } else { "" };
        let sql = format!(
            "WITH candidates AS (
                 SELECT seq, stream, coalesce(octet_length(data), 0) AS size FROM log
                 WHERE seq > ?4 AND seq <= ?5 {of_stream})
             SELECT stream, count(*), sum(size), max(seq) FROM ({TAKE}) GROUP BY stream"
        );
        let (mut shares, mut from, mut last) = (Shares::new(), after, 0);
        while from < through && (excess.through > from || excess.events > 0 || excess.bytes > 0) {
            let to = (from + LOOK_SEQS_MAX).min(through);
            let mut query = sqlx::query(AssertSqlSafe(sql.as_str()))
                .bind(to_sql(excess.through))
                .bind(to_sql(excess.events))
                .bind(to_sql(excess.bytes))
                .bind(to_sql(from))
                .bind(to_sql(to));
            if let Some(stream) = stream {
                query = query.bind(stream.shared());
            }
            for row in query.fetch_all(self.pool()).await? {
                let (events, bytes) = (from_sql(row.try_get(1)?), from_sql(row.try_get(2)?));
                let share = shares.entry(stream_name(&row, 0)?).or_default();
                *share = (share.0 + events, share.1 + bytes);
                excess = excess.less(events, bytes);
                last = last.max(from_sql(row.try_get(3)?));
            }
            from = to;
        }
        Ok((shares, last))
    }
}
