//! Legal holds: names and reasons why nothing of a stream may be trimmed.

use super::read::{from_sql, to_sql};
use super::{Appender, CommitError, Store, StoreError};
use crate::event::{Seq, StreamName, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row};
use std::sync::Arc;

/// A hold on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The stream; it need not have had an event.
    pub stream: StreamName,
    /// What the hold is called, once for each stream.
    pub name: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
    /// Since when.
    pub created_at: Timestamp,
}

/// A hold, with the oldest event that it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldStream {
    /// The hold.
    pub hold: Hold,
    /// The oldest retained event of its stream; `None` when it has none.
    pub first_seq: Option<Seq>,
}

const SELECT: &str = "SELECT stream, holds.name, reason, created_at, iif(events > 0, first_seq, NULL)
    FROM holds LEFT JOIN streams ON streams.name = stream";

impl Store {
    /// All holds, by stream and name: at most so many.
    ///
    /// *Cancel safety*: safe.
    pub async fn holds(&self, count: usize) -> Result<Vec<HeldStream>, StoreError> {
        let sql = AssertSqlSafe(format!("{SELECT} ORDER BY stream, holds.name LIMIT ?"));
        let rows = sqlx::query(sql).bind(to_sql(count as u64)).fetch_all(self.pool()).await?;
        rows.iter().map(held).collect()
    }

    /// The hold that the trim of this stream, or of the whole log, comes to first.
    ///
    /// *Cancel safety*: safe.
    pub async fn first_hold(&self, stream: Option<&StreamName>) -> Result<Option<HeldStream>, StoreError> {
        let sql = AssertSqlSafe(format!(
            "{SELECT} WHERE (?1 IS NULL OR stream = ?1) AND events > 0 ORDER BY first_seq, holds.name LIMIT 1"
        ));
        let row = sqlx::query(sql).bind(stream.map(StreamName::shared)).fetch_optional(self.pool()).await?;
        row.as_ref().map(held).transpose()
    }
}

impl Appender {
    /// The hold of this name. Call it under the lock.
    pub async fn find_hold(&mut self, stream: &StreamName, name: &str) -> Result<Option<Hold>, StoreError> {
        let sql = AssertSqlSafe(format!("{SELECT} WHERE stream = ? AND holds.name = ?"));
        let query = sqlx::query(sql).bind(stream.shared()).bind(name.to_owned());
        let row = query.fetch_optional(self.connection()).await?;
        Ok(row.as_ref().map(held).transpose()?.map(|held| held.hold))
    }

    /// How many holds there are.
    pub async fn count_holds(&mut self) -> Result<u64, StoreError> {
        let count = sqlx::query_scalar("SELECT count(*) FROM holds").fetch_one(self.connection()).await?;
        Ok(from_sql(count))
    }

    /// Adds a hold. Call it under the lock.
    pub async fn add_hold(&mut self, hold: &Hold) -> Result<(), CommitError> {
        sqlx::query("INSERT INTO holds (stream, name, reason, created_at) VALUES (?, ?, ?, ?)")
            .bind(hold.stream.shared())
            .bind(hold.name.clone())
            .bind(hold.reason.clone())
            .bind(hold.created_at.to_string())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Takes a hold away. Call it under the lock.
    pub async fn remove_hold(&mut self, stream: &StreamName, name: &str) -> Result<(), CommitError> {
        sqlx::query("DELETE FROM holds WHERE stream = ? AND name = ?")
            .bind(stream.shared())
            .bind(name.to_owned())
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

fn held(row: &SqliteRow) -> Result<HeldStream, StoreError> {
    let damaged = StoreError::Damaged { seq: 0, what: "a hold has no time" };
    Ok(HeldStream {
        hold: Hold {
            stream: StreamName::stored(Arc::from(row.try_get::<&str, _>(0)?)),
            name: Arc::from(row.try_get::<&str, _>(1)?),
            reason: Arc::from(row.try_get::<&str, _>(2)?),
            created_at: Timestamp::parse(row.try_get(3)?).ok_or(damaged)?,
        },
        first_seq: row.try_get::<Option<i64>, _>(4)?.map(from_sql),
    })
}
