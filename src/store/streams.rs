//! The streams: their totals, as the table keeps them. Nothing is counted here.

use super::append::LOOKUP_KEYS_MAX;
use super::read::{from_sql, push_any, push_granted, to_sql};
use super::trim::stream_name;
use super::{Appender, Store, StoreError};
use crate::event::{Pattern, Seq, StreamName, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row};
use std::collections::HashMap;
use std::sync::Arc;

/// What is known of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamTotals {
    /// The stream.
    pub name: StreamName,
    /// Retained events.
    pub events: u64,
    /// Their data. *Units*: bytes.
    pub bytes: u64,
    /// Oldest retained event; `last_seq + 1` when none is retained.
    pub first_seq: Seq,
    /// Newest event ever, retained or not.
    pub last_seq: Seq,
    /// `created_at` of the oldest retained event.
    pub first_created_at: Option<Arc<str>>,
    /// `created_at` of the newest event, if it is retained.
    pub last_created_at: Option<Arc<str>>,
    /// The event that closed it.
    pub closed_seq: Option<Seq>,
}

/// What retention needs to know of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSize {
    /// The stream.
    pub name: StreamName,
    /// Retained events.
    pub events: u64,
    /// Their data. *Units*: bytes.
    pub bytes: u64,
    /// The oldest of them.
    pub first_seq: Seq,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEnd {
    /// Its final event.
    pub seq: Seq,
    /// When, if that is retained.
    pub created_at: Option<Timestamp>,
}

impl Store {
    /// The streams that any of the patterns means, or all, by name, and of those what is granted: at most so many that
    /// follow `after`.
    ///
    /// Each pattern is a range of the primary key, so that what is looked at is what is returned. One statement: the
    /// totals and times are those of one moment, which may be ahead of what the log shows.
    /// *Cancel safety*: safe.
    pub async fn streams(
        &self,
        patterns: &[Pattern],
        granted: Option<&[Pattern]>,
        after: &str,
        count: usize,
    ) -> Result<Vec<StreamTotals>, StoreError> {
        let every = [Pattern::Prefix(String::new())];
        let patterns = match granted {
            Some(granted) if patterns.is_empty() => granted,
            _ if patterns.is_empty() => &every,
            _ => patterns,
        };
        if patterns.is_empty() {
            return Ok(Vec::new());
        }
        let count = to_sql(count as u64);
        let mut query = QueryBuilder::new("WITH wanted (name) AS (");
        for (index, pattern) in patterns.iter().enumerate() {
            query.push(if index == 0 { "" } else { " UNION " });
            query.push("SELECT * FROM (SELECT name FROM streams WHERE name > ").push_bind(after.to_owned());
            push_any(&mut query, "name", std::slice::from_ref(pattern));
            push_granted(&mut query, "name", granted);
            query.push(" ORDER BY name LIMIT ").push_bind(count).push(")");
        }
        query.push(
            ") SELECT name, events, bytes, first_seq, last_seq, oldest.created_at, newest.created_at, closed_seq
               FROM wanted CROSS JOIN streams USING (name)
               LEFT JOIN log AS oldest ON oldest.seq = first_seq
               LEFT JOIN log AS newest ON newest.seq = last_seq
               ORDER BY name LIMIT ",
        );
        query.push_bind(count);
        let rows = query.build().fetch_all(self.pool()).await?;
        rows.iter().map(totals).collect()
    }

    /// Retained events, and the bytes of their data.
    ///
    /// *Cancel safety*: safe.
    pub async fn totals(&self) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT coalesce(sum(events), 0), coalesce(sum(bytes), 0) FROM streams";
        let row = sqlx::query(sql).fetch_one(self.pool()).await?;
        Ok((from_sql(row.try_get(0)?), from_sql(row.try_get(1)?)))
    }

    /// The final event of a stream, if it is closed. May be ahead of what the log shows.
    ///
    /// *Cancel safety*: safe.
    pub async fn closed_seq(&self, stream: &str) -> Result<Option<Seq>, StoreError> {
        let query =
            sqlx::query_scalar("SELECT closed_seq FROM streams WHERE name = ?").bind(stream.to_owned());
        let seq: Option<Option<i64>> = query.fetch_optional(self.pool()).await?;
        Ok(seq.flatten().map(from_sql))
    }
}

impl Appender {
    /// Streams with retained events, by name: at most so many that follow `after`.
    pub async fn stream_sizes(&mut self, after: &str, count: usize) -> Result<Vec<StreamSize>, StoreError> {
        let query = sqlx::query(
            "SELECT name, events, bytes, first_seq FROM streams WHERE name > ? ORDER BY name LIMIT ?",
        );
        let rows =
            query.bind(after.to_owned()).bind(to_sql(count as u64)).fetch_all(self.connection()).await?;
        rows.iter()
            .map(|row| {
                Ok(StreamSize {
                    name: stream_name(row, 0)?,
                    events: from_sql(row.try_get(1)?),
                    bytes: from_sql(row.try_get(2)?),
                    first_seq: from_sql(row.try_get(3)?),
                })
            })
            .collect()
    }

    /// Those of these streams that are closed. Call it under the lock.
    pub async fn find_ends(
        &mut self,
        streams: &[StreamName],
    ) -> Result<HashMap<StreamName, StreamEnd>, StoreError> {
        let mut ends = HashMap::new();
        for streams in streams.chunks(LOOKUP_KEYS_MAX) {
            let mut query = QueryBuilder::new(
                "SELECT name, closed_seq, created_at FROM streams LEFT JOIN log ON seq = closed_seq
                 WHERE closed_seq IS NOT NULL AND name IN (",
            );
            let mut names = query.separated(",");
            for stream in streams {
                names.push_bind(stream.shared());
            }
            query.push(")");
            for row in query.build().fetch_all(self.connection()).await? {
                let name = StreamName::stored(Arc::from(row.try_get::<&str, _>(0)?));
                let created_at: Option<&str> = row.try_get(2)?;
                let created_at = created_at.and_then(Timestamp::parse);
                ends.insert(name, StreamEnd { seq: from_sql(row.try_get(1)?), created_at });
            }
        }
        Ok(ends)
    }
}

fn totals(row: &SqliteRow) -> Result<StreamTotals, StoreError> {
    let number = |column: usize| row.try_get(column).map(from_sql);
    let events = number(1)?;
    // Past the end of a stream without retained events stands another stream's event.
    let oldest: Option<&str> = row.try_get(5)?;
    let newest: Option<&str> = row.try_get(6)?;
    Ok(StreamTotals {
        name: StreamName::stored(Arc::from(row.try_get::<&str, _>(0)?)),
        events,
        bytes: number(2)?,
        first_seq: number(3)?,
        last_seq: number(4)?,
        first_created_at: oldest.filter(|_| events > 0).map(Arc::from),
        last_created_at: newest.map(Arc::from),
        closed_seq: row.try_get::<Option<i64>, _>(7)?.map(from_sql),
    })
}
