//! The index of sparse selections against the log.

use super::{Marks, Tally};
use crate::event::Seq;
use crate::store::StoreError;
use crate::store::blocks::BLOCK_SEQS;
use crate::store::read::to_sql;
use futures_util::TryStreamExt;
use sqlx::{Row, SqliteConnection};
use std::collections::HashMap;

/// What helps against a wrong index: it is derived.
pub(super) const REBUILD: &str = "readers of few streams or types may miss events; stop the server, run `sqlite3 FILE \"delete from \
                                  blocks; update meta set indexed_seq = 0\"`, and start it: the index is made anew";

/// The places in a block of each stream and type, in order.
pub(super) type Places = HashMap<(String, String), Vec<Seq>>;

/// The end of the index is that of a block, within the log, and nothing stands behind it.
pub(super) async fn beyond_its_end(
    connection: &mut SqliteConnection,
    marks: Marks,
) -> Result<Tally, StoreError> {
    let mut wrong = Tally::default();
    let Marks { indexed_seq, last_seq, .. } = marks;
    if !indexed_seq.is_multiple_of(BLOCK_SEQS) || indexed_seq > last_seq {
        wrong.add(|| {
            format!("the index is said to reach to seq {indexed_seq}, where no block of the log ends")
        });
    }
    let block: Option<i64> =
        sqlx::query_scalar("SELECT block FROM blocks WHERE block >= ? ORDER BY block LIMIT 1")
            .bind(to_sql(indexed_seq / BLOCK_SEQS))
            .fetch_optional(connection)
            .await?;
    if let Some(block) = block {
        wrong.add(|| format!("the index has block {block}, which is behind its end"));
    }
    Ok(wrong)
}

/// One block of the index against what the log holds of it. What is trimmed of the whole log may still stand there.
pub(super) async fn compare(
    connection: &mut SqliteConnection,
    block: Seq,
    trimmed_seq: Seq,
    mut places: Places,
    wrong: &mut Tally,
) -> Result<(), StoreError> {
    let sql = "SELECT stream, type, events, seqs FROM blocks WHERE block = ?";
    let mut rows = sqlx::query(sql).bind(to_sql(block)).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let (stream, r#type): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (events, text): (i64, &str) = (row.try_get(2)?, row.try_get(3)?);
        let listed: Option<Vec<Seq>> = text.split(',').map(|place| place.parse().ok()).collect();
        let held = places.remove(&(stream.clone(), r#type.clone())).unwrap_or_default();
        let is_true = listed.is_some_and(|mut listed| {
            let is_counted = listed.len() as i64 == events;
            listed.retain(|place| block * BLOCK_SEQS + place > trimmed_seq);
            is_counted && listed == held
        });
        if !is_true {
            wrong.add(|| {
                format!("block {block} of the index does not agree with the log about {stream}, {type}")
            });
        }
    }
    if let Some((stream, r#type)) = places.into_keys().min() {
        wrong.add(|| format!("block {block} of the index leaves out {stream}, {type}"));
    }
    Ok(())
}
