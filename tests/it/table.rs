//! The table as any other process sees it: what every answer is held against.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Row as _};
use std::path::Path;

/// One event, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) seq: u64,
    pub(crate) stream: String,
    pub(crate) source: String,
    pub(crate) id: Option<String>,
    pub(crate) r#type: String,
    pub(crate) subject: Option<String>,
    pub(crate) time: Option<String>,
    pub(crate) created_at: String,
    pub(crate) data: Option<String>,
    pub(crate) traceparent: Option<String>,
}

impl Row {
    /// The event as section 5 of the design writes it, built without any code of the server.
    pub(crate) fn json(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let mut members =
            vec![format!("\"seq\":{}", self.seq), format!("\"stream\":{}", quoted(&self.stream))];
        let source = Some(&self.source).filter(|source| !source.is_empty());
        for (name, value) in [
            ("source", source),
            ("id", self.id.as_ref()),
            ("type", Some(&self.r#type)),
            ("subject", self.subject.as_ref()),
            ("time", self.time.as_ref()),
            ("traceparent", self.traceparent.as_ref()),
            ("created_at", Some(&self.created_at)),
        ] {
            members.extend(value.map(|value| format!("\"{name}\":{}", quoted(value))));
        }
        members.extend(self.data.as_ref().map(|data| format!("\"data\":{data}")));
        format!("{{{}}}", members.join(","))
    }
}

/// A connection of another process, so to say.
pub(crate) async fn connect(file: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(file).connect().await.unwrap()
}

/// All events, in order, which must be contiguous.
pub(crate) async fn read(file: &Path) -> Vec<Row> {
    let mut connection = connect(file).await;
    let rows = sqlx::query(
        "SELECT seq, stream, source, id, type, subject, time, created_at, data, traceparent FROM events ORDER BY seq",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let rows: Vec<Row> = rows
        .iter()
        .map(|row| Row {
            seq: u64::try_from(row.get::<i64, _>(0)).unwrap(),
            stream: row.get(1),
            source: row.get(2),
            id: row.get(3),
            r#type: row.get(4),
            subject: row.get(5),
            time: row.get(6),
            created_at: row.get(7),
            data: row.get(8),
            traceparent: row.get(9),
        })
        .collect();
    for pair in rows.windows(2) {
        assert_eq!(pair[0].seq + 1, pair[1].seq, "the table has a hole");
        assert!(pair[0].created_at <= pair[1].created_at, "created_at decreases at {}", pair[1].seq);
    }
    rows
}
