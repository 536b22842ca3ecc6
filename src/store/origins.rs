//! Who appended an event, and from where: beside the event, for those who may see it.

use super::read::{from_sql, to_sql};
use super::{Store, StoreError};
use crate::event::{Origin, Seq};
use sqlx::Row;
use std::collections::HashMap;

impl Store {
    /// The origins of these events, of those that have one.
    ///
    /// *Cancel safety*: safe.
    pub async fn origins(&self, seqs: &[Seq]) -> Result<HashMap<Seq, Origin>, StoreError> {
        let list: Vec<String> = seqs.iter().map(|seq| to_sql(*seq).to_string()).collect();
        let rows = sqlx::query(
            "SELECT seq, producer, address FROM log
             WHERE seq IN (SELECT value FROM json_each(?)) AND producer IS NOT NULL",
        )
        .bind(format!("[{}]", list.join(",")))
        .fetch_all(self.pool())
        .await?;
        let mut origins = HashMap::with_capacity(rows.len());
        for row in rows {
            let producer: &str = row.try_get(1)?;
            let address: Option<&str> = row.try_get(2)?;
            let origin = Origin { producer: producer.into(), address: address.map(Into::into) };
            origins.insert(from_sql(row.try_get(0)?), origin);
        }
        Ok(origins)
    }
}
