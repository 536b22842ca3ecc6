//! The ids against the log: every event with an id is known by it, and every id has its event, or had it.

use super::{Check, FROM_BACKUP, Finding, Marks, Tally};
use crate::store::StoreError;
use crate::store::read::to_sql;
use futures_util::TryStreamExt;
use sqlx::{Row, SqliteConnection};

/// Both ways; each row is one search of a primary key.
pub(super) async fn ids(connection: &mut SqliteConnection, marks: Marks) -> Result<Finding, StoreError> {
    let mut wrong = Tally::default();
    {
        let sql = "SELECT log.seq FROM log LEFT JOIN ids USING (id, stream, source)
                   WHERE log.id IS NOT NULL AND ids.seq IS NOT log.seq";
        let mut rows = sqlx::query(sql).fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            let seq: i64 = row.try_get(0)?;
            wrong.add(|| format!("event {seq} is not known by its id, and would be stored again"));
        }
    }
    let sql = "SELECT ids.seq FROM ids LEFT JOIN log ON log.seq = ids.seq
               WHERE ids.seq > ?1 AND iif(log.seq IS NULL, ids.seq > ?2,
                   log.id IS NOT ids.id OR log.stream <> ids.stream OR log.source <> ids.source)";
    let query = sqlx::query(sql).bind(to_sql(marks.trimmed_seq)).bind(to_sql(marks.stream_trimmed_seq));
    {
        let mut rows = query.fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            let seq: i64 = row.try_get(0)?;
            wrong.add(|| format!("an id is kept for event {seq}, which is not there or has another id"));
        }
    }
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM ids").fetch_one(connection).await?;
    Ok(wrong.finding(Check::Ids, || format!("{count} ids are those of their events"), FROM_BACKUP))
}
