//! A row of `log` as an event. Total where the file may hold anything: text that is not UTF-8 is shown with
//! replacement characters rather than ending every reader that reaches it.

use super::StoreError;
use crate::event::{Content, Event, EventType, StreamName, Timestamp};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::sync::Arc;

/// The columns that [`event`] reads, in order.
pub(super) const COLUMNS: &str =
    "seq, stream, source, id, type, subject, time, created_at, data, traceparent";

/// *Errors*: [`StoreError::Damaged`] when the row cannot be an event of the log.
pub(super) fn event(row: &SqliteRow) -> Result<Event, StoreError> {
    let raw_seq: i64 = row.try_get(0)?;
    let damaged = |what| StoreError::Damaged { seq: raw_seq, what };
    let required = |column, what| text(row, column)?.ok_or(damaged(what));
    let created_at = Timestamp::parse(&required(7, "created_at is missing")?)
        .ok_or(damaged("created_at is not an RFC 3339 time"))?;
    Ok(Event {
        seq: u64::try_from(raw_seq).map_err(|_| damaged("seq is negative"))?,
        created_at,
        content: Content {
            stream: StreamName::stored(required(1, "stream is missing")?),
            source: required(2, "source is missing")?,
            id: text(row, 3)?,
            r#type: EventType::stored(required(4, "type is missing")?),
            subject: text(row, 5)?,
            time: text(row, 6)?,
            traceparent: text(row, 9)?,
            data: text(row, 8)?.map(on_one_line),
        },
    })
}

fn text(row: &SqliteRow, column: usize) -> Result<Option<Arc<str>>, StoreError> {
    let bytes: Option<&[u8]> = row.try_get_unchecked(column)?;
    Ok(bytes.map(|bytes| Arc::from(String::from_utf8_lossy(bytes))))
}

/// JSON has line ends only between its parts, where a space says the same.
fn on_one_line(data: Arc<str>) -> Arc<str> {
    if data.contains(['\n', '\r']) { Arc::from(data.replace(['\n', '\r'], " ")) } else { data }
}
