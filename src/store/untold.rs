//! What was trimmed and is still to be told by an event of `evertail`.

use super::append::Appender;
use super::read::from_sql;
use super::trim::stream_name;
use super::{CommitError, StoreError};
use crate::event::{Seq, StreamName};
use sqlx::Row;

/// Why something is trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked for it.
    Request,
    /// Retention does not keep it.
    Retention,
}

impl Cause {
    /// As it stands in the table and in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Retention => "retention",
        }
    }
}

/// What was trimmed and is still to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UntoldTrim {
    /// Of this stream only.
    pub stream: Option<StreamName>,
    /// The first seq that was deleted.
    pub from: Seq,
    /// The last one.
    pub through: Seq,
    /// How many events, those of `evertail` itself aside.
    pub events: u64,
    /// Their data. *Units*: bytes.
    pub bytes: u64,
}

pub(super) const NOTE: &str =
    "INSERT INTO trims (stream, cause, from_seq, through_seq, events, bytes) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET
        from_seq = min(from_seq, excluded.from_seq), through_seq = max(through_seq, excluded.through_seq),
        events = events + excluded.events, bytes = bytes + excluded.bytes";

impl Appender {
    /// What was trimmed for this cause and is not told yet; forgotten with this, so tell it in the same transaction.
    /// Call it under the lock.
    pub async fn take_untold(&mut self, cause: Cause) -> Result<Vec<UntoldTrim>, CommitError> {
        let rows = sqlx::query(
            "DELETE FROM trims WHERE cause = ? AND events > 0
             RETURNING stream, from_seq, through_seq, events, bytes",
        )
        .bind(cause.as_str())
        .fetch_all(self.connection())
        .await?;
        let untold = rows.iter().map(|row| {
            let stream = stream_name(row, 0)?;
            Ok(UntoldTrim {
                stream: Some(stream).filter(|stream| !stream.as_str().is_empty()),
                from: from_sql(row.try_get(1)?),
                through: from_sql(row.try_get(2)?),
                events: from_sql(row.try_get(3)?),
                bytes: from_sql(row.try_get(4)?),
            })
        });
        untold.collect::<Result<_, StoreError>>().map_err(CommitError::Failed)
    }

    /// Whether something was trimmed for this cause and is not told yet.
    pub async fn has_untold(&mut self, cause: Cause) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM trims WHERE cause = ? AND events > 0)";
        Ok(sqlx::query_scalar(sql).bind(cause.as_str()).fetch_one(self.connection()).await?)
    }
}
