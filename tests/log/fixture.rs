//! A log on a temporary file, and what the tests of the log and its properties ask of it.

use evertail::event::{
    Content, Event, EventType, Receipt, RetentionRules, Selection, Seq, StreamName, Timestamp,
};
use evertail::frames::Format;
use evertail::log::{Append, AppendError, Bounds, Log, LogSettings, LogTask, Reader, ReaderOptions};
use evertail::store::{Finding, Inspection, Outcome, StoreSettings, Surroundings};
use futures_util::FutureExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions, Row, SqliteConnection};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Only ends a test that hangs; no test waits for it.
const HANG_SECONDS: u64 = 120;

/// A place for one log file, gone with the value.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().expect("a folder for temporary files") }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("log.db")
    }

    pub(crate) fn settings(&self) -> LogSettings {
        LogSettings {
            store: StoreSettings {
                file: self.file(),
                read_connections: 2,
                busy_timeout: Duration::from_secs(HANG_SECONDS),
                is_checkpointing: true,
            },
            queue_requests_max: 256,
            queue_bytes_max: 64 << 20,
            window_bytes_max: 1 << 20,
            disk_free_bytes_min: 0,
            retention: RetentionRules::default(),
            catch_up_pages_max: 2,
            notice_interval: Duration::from_millis(1),
        }
    }

    pub(crate) async fn open(&self) -> (Log, LogTask) {
        open(self.settings()).await
    }

    /// A connection of another process, as far as SQLite can tell.
    pub(crate) async fn other_process(&self) -> SqliteConnection {
        other_process(&self.file()).await
    }
}

pub(crate) async fn open(settings: LogSettings) -> (Log, LogTask) {
    Log::open(settings).await.expect("the log opens")
}

pub(crate) async fn other_process(file: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(file).connect().await.expect("the file opens")
}

/// Closes the log and returns once its file is free.
pub(crate) async fn close(log: Log, mut task: LogTask) {
    log.close().await;
    drop(log);
    in_time(task.wait()).await.expect("the writer ends well");
}

/// What a check of a file finds, and after it what a diagnosis of the same file does.
pub(crate) async fn inspect(file: &Path) -> (Vec<Finding>, Vec<Finding>) {
    let mut inspection = Inspection::open(file).await.expect("it is a log");
    let checked = inspection.check(&mut |_| ()).await.expect("it is readable");
    let surroundings = Surroundings { disk_free_bytes_min: 0, now: Timestamp::now() };
    let diagnosed = inspection.diagnose(&surroundings).await.expect("it is readable");
    inspection.close().await.expect("nothing is under way");
    (checked, diagnosed)
}

/// The file keeps what a log promises, as far as looking at all of it can tell.
pub(crate) async fn assert_sound(file: &Path) {
    let (checked, diagnosed) = inspect(file).await;
    let wrong = checked.iter().chain(&diagnosed).find(|finding| finding.outcome == Outcome::Problem);
    assert_eq!(wrong, None);
}

/// Fails a test that would wait for ever.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(HANG_SECONDS);
    tokio::time::timeout(limit, future).await.expect("it happens, rather than never")
}

/// Polls a future once, so that it is under way.
pub(crate) fn start<F: Future>(future: F) -> Pin<Box<F>> {
    let mut future = Box::pin(future);
    assert!((&mut future).now_or_never().is_none(), "it takes more than one step");
    future
}

/// Waits until readers are shown this seq.
pub(crate) async fn shown(log: &Log, seq: Seq) {
    if let Some(cursor) = seq.checked_sub(1) {
        in_time(reader(log, cursor).wait()).await;
    }
}

pub(crate) fn stream(name: &str) -> StreamName {
    StreamName::parse(name).expect("a stream's name")
}

pub(crate) fn event_type(name: &str) -> EventType {
    EventType::parse(name).expect("an event's type")
}

/// An event of this stream, with or without an id.
pub(crate) fn content(name: &str, id: Option<&str>, data: &str) -> Content {
    let mut content = Content::new(stream(name));
    content.id = id.map(Arc::from);
    content.data = Some(Arc::from(data));
    content
}

pub(crate) fn request(contents: impl Into<Vec<Content>>) -> Append {
    Append { contents: contents.into(), ..Append::default() }
}

pub(crate) async fn append(
    log: &Log,
    contents: impl Into<Vec<Content>>,
) -> Result<Vec<Receipt>, AppendError> {
    in_time(log.append(request(contents))).await
}

/// Trims the log up to this seq. An event of the server's own tells of it, unless nothing of others was trimmed.
pub(crate) async fn trim(log: &Log, through: Seq) -> Bounds {
    in_time(log.trim_through(through)).await.expect("the trim is taken");
    log.bounds()
}

pub(crate) fn options() -> ReaderOptions {
    ReaderOptions {
        selection: Selection::all(),
        format: Format::Lines,
        through: None,
        until: None,
        limit: None,
        page_bytes_max: 64 << 10,
    }
}

pub(crate) fn reader(log: &Log, cursor: Seq) -> Reader {
    log.reader(cursor, options())
}

/// The retained events of a stream as another process reads them.
pub(crate) async fn stored_of(connection: &mut SqliteConnection, name: &str) -> Vec<Event> {
    let events = stored(connection).await.into_iter();
    events.filter(|event| event.content.stream.as_str() == name).collect()
}

/// The retained events as another process reads them.
pub(crate) async fn stored(connection: &mut SqliteConnection) -> Vec<Event> {
    let rows = sqlx::query("SELECT * FROM events ORDER BY seq")
        .fetch_all(connection)
        .await
        .expect("the view is readable");
    let text = |row: &SqliteRow, column: &str| row.get::<Option<String>, _>(column).map(Arc::<str>::from);
    let required = |row: &SqliteRow, column: &str| text(row, column).expect("the column is NOT NULL");
    let event = |row: &SqliteRow| Event {
        seq: u64::try_from(row.get::<i64, _>("seq")).expect("a seq is positive"),
        created_at: Timestamp::parse(&required(row, "created_at")).expect("created_at is a time"),
        content: Content {
            stream: StreamName::stored(required(row, "stream")),
            source: required(row, "source"),
            id: text(row, "id"),
            r#type: EventType::stored(required(row, "type")),
            subject: text(row, "subject"),
            time: text(row, "time"),
            // A log that an earlier version left has no such column.
            traceparent: row.try_get::<Option<String>, _>("traceparent").ok().flatten().map(Arc::from),
            data: text(row, "data"),
        },
    };
    rows.iter().map(event).collect()
}

/// An event as one line of JSON, written down from the documentation and not from the encoder.
pub(crate) fn line(event: &Event) -> String {
    let quote = |text: &str| serde_json::to_string(text).expect("text is JSON");
    let Content { stream, source, id, r#type, subject, time, traceparent, data } = &event.content;
    let mut members =
        vec![format!("\"seq\":{}", event.seq), format!("\"stream\":{}", quote(stream.as_str()))];
    if !source.is_empty() {
        members.push(format!("\"source\":{}", quote(source)));
    }
    members.extend(id.as_deref().map(|id| format!("\"id\":{}", quote(id))));
    members.push(format!("\"type\":{}", quote(r#type.as_str())));
    members.extend(subject.as_deref().map(|subject| format!("\"subject\":{}", quote(subject))));
    members.extend(time.as_deref().map(|time| format!("\"time\":{}", quote(time))));
    members.extend(traceparent.as_deref().map(|span| format!("\"traceparent\":{}", quote(span))));
    members.push(format!("\"created_at\":\"{}\"", event.created_at));
    members.extend(data.as_deref().map(|data| format!("\"data\":{data}")));
    format!("{{{}}}\n", members.join(","))
}
