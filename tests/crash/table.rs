//! The table as any other program sees it, and an event as everyone must agree on it.

use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row, SqliteConnection};
use std::path::Path;
use std::time::Duration;

/// An event: what the table, a reader and a receipt say of it must be the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
    pub(crate) stream: String,
    pub(crate) id: Option<String>,
    pub(crate) r#type: String,
    pub(crate) created_at: String,
    /// The payload, byte for byte.
    pub(crate) data: String,
}

impl Stored {
    /// From the JSON of an event.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Event<'a> {
            seq: u64,
            stream: String,
            id: Option<String>,
            r#type: String,
            created_at: String,
            #[serde(borrow)]
            data: &'a RawValue,
        }
        let event: Event<'_> = serde_json::from_str(json).map_err(|error| format!("{error}: {json}"))?;
        Ok(Self {
            seq: event.seq,
            stream: event.stream,
            id: event.id,
            r#type: event.r#type,
            created_at: event.created_at,
            data: event.data.get().to_owned(),
        })
    }
}

pub(crate) async fn open(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    options.busy_timeout(Duration::from_secs(30)).connect().await.unwrap()
}

/// The events after this seq, whether a server runs or not.
pub(crate) async fn rows(file: &Path, after: u64) -> Vec<Stored> {
    let sql = "SELECT seq, stream, id, type, created_at, data FROM events WHERE seq > ? ORDER BY seq";
    let mut connection = open(file).await;
    let rows = sqlx::query(sql).bind(i64::try_from(after).unwrap()).fetch_all(&mut connection).await.unwrap();
    rows.iter()
        .map(|row| Stored {
            seq: row.get::<i64, _>(0).try_into().unwrap(),
            stream: row.get(1),
            id: row.get(2),
            r#type: row.get(3),
            created_at: row.get(4),
            data: row.get(5),
        })
        .collect()
}

/// Seqs rise by exactly 1 from `after`, and `created_at` never decreases.
pub(crate) fn assert_ordered(after: u64, rows: &[Stored]) {
    let mut expected = after + 1..;
    let mut created_at = "";
    for row in rows {
        assert_eq!(Some(row.seq), expected.next(), "the table has a hole");
        assert!(row.created_at.as_str() >= created_at, "time steps back at seq {}", row.seq);
        created_at = &row.created_at;
    }
}

/// The file is sound, its totals are those of its rows, and every id is named once.
pub(crate) async fn assert_sound(file: &Path) {
    let mut connection = open(file).await;
    let check: String =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
    assert_eq!(check, "ok");
    let wrong: Vec<String> = sqlx::query_scalar(
        "SELECT 'the totals of ' || name FROM streams JOIN
             (SELECT stream, min(seq) AS low, max(seq) AS high, count(*) AS n, sum(octet_length(data)) AS size
              FROM log GROUP BY stream) AS found ON found.stream = streams.name
         WHERE (first_seq, last_seq, events, bytes) IS NOT (low, high, n, size)
         UNION ALL SELECT 'no totals of ' || stream FROM log WHERE stream NOT IN (SELECT name FROM streams)
         UNION ALL SELECT 'the id of seq ' || log.seq FROM log LEFT JOIN ids USING (id, stream, source)
         WHERE log.id IS NOT NULL AND ids.seq IS NOT log.seq
         UNION ALL SELECT 'an id without its event, seq ' || seq FROM ids WHERE seq NOT IN (SELECT seq FROM log)",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Bytes of the write-ahead log beside the file.
pub(crate) fn wal_bytes(file: &Path) -> u64 {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    std::fs::metadata(name).map_or(0, |wal| wal.len())
}
