//! Inspecting a log file and changing nothing of it: for a copy that is to be trusted, and for a file that serves.
//!
//! # How a file is read
//! As it is while it is nobody's: a copy without a WAL is opened as immutable, so that nothing is made beside it and it may
//! lie where nothing can be written. Should it change meanwhile, what was found is thrown away. A file that a server has,
//! or that has a WAL beside it, is read as any other process reads it.
//!
//! # What a finding is
//! One sentence about one promise, and, where the promise is broken, the next step to take. Memory is bounded: of what is
//! wrong many times the first is shown and the rest counted.

mod files;
mod ids;
mod index;
mod schema;
mod surroundings;
mod totals;
mod walk;

pub use surroundings::Surroundings;

use super::open::{APPLICATION_ID, FORMAT_MAX, holder};
use super::read::from_sql;
use super::{InspectError, StoreError};
use crate::event::Seq;
use files::State;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What helps where the log itself is damaged.
const FROM_BACKUP: &str = "restore the newest backup that `evertail check` finds sound; what is readable here can be saved with \
                           `evertail export` first";

/// A promise of the file, or of what it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// SQLite's own look at every page and constraint.
    Integrity,
    /// Tables, views and triggers are those of the migrations.
    Schema,
    /// Every seq is there, or trimmed.
    Contiguity,
    /// `created_at` never decreases.
    Time,
    /// Data is JSON on one line.
    Data,
    /// The row of each stream says what the log holds of it.
    Totals,
    /// Every id is known, once.
    Ids,
    /// The index of sparse selections says what the log holds.
    Index,
    /// Who may read and write the files.
    Permissions,
    /// Settings that stay in the file.
    Pragmas,
    /// Size of the write-ahead log.
    Wal,
    /// The kind of file system.
    FileSystem,
    /// Free space of the disk.
    FreeSpace,
    /// The clock of the machine.
    Clock,
    /// The SQLite in this binary.
    Sqlite,
}

impl Check {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Integrity => "integrity",
            Self::Schema => "schema",
            Self::Contiguity => "contiguity",
            Self::Time => "time",
            Self::Data => "data",
            Self::Totals => "totals",
            Self::Ids => "ids",
            Self::Index => "index",
            Self::Permissions => "permissions",
            Self::Pragmas => "pragmas",
            Self::Wal => "wal",
            Self::FileSystem => "file_system",
            Self::FreeSpace => "free_space",
            Self::Clock => "clock",
            Self::Sqlite => "sqlite",
        }
    }
}

/// How it stands with a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It holds.
    Ok,
    /// It holds, and something should be done.
    Warning,
    /// It does not hold.
    Problem,
}

impl Outcome {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// What was found about one promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub check: Check,
    /// How it stands.
    pub outcome: Outcome,
    /// One sentence, lower-case.
    pub found: String,
    /// What to do, unless all is well.
    pub next_step: Option<String>,
}

impl Finding {
    fn ok(check: Check, found: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Ok, found: found.into(), next_step: None }
    }

    fn warning(check: Check, found: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Warning, found: found.into(), next_step: Some(next_step.into()) }
    }

    fn problem(check: Check, found: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Problem, found: found.into(), next_step: Some(next_step.into()) }
    }
}

/// What is wrong many times: the first, and how many.
#[derive(Debug, Default)]
struct Tally {
    count: u64,
    first: Option<String>,
}

impl Tally {
    fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(what);
    }

    /// The finding: what was added, or that all is well.
    fn finding(self, check: Check, well: impl FnOnce() -> String, next_step: &str) -> Finding {
        let Some(first) = self.first else { return Finding::ok(check, well()) };
        let more = match self.count - 1 {
            0 => String::new(),
            more => format!(", and {more} more like it"),
        };
        Finding::problem(check, format!("{first}{more}"), next_step)
    }
}

/// What a log file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSummary {
    /// The log's identity.
    pub log_id: String,
    /// Its format.
    pub format: i64,
    /// Oldest retained seq, or the one after the newest.
    pub first_seq: Seq,
    /// Newest seq.
    pub last_seq: Seq,
    /// Retained events, by the totals.
    pub events: u64,
    /// Streams.
    pub streams: u64,
    /// Data of the events. *Units*: bytes.
    pub bytes: u64,
    /// `created_at` of the newest event.
    pub last_created_at: Option<String>,
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Events looked at.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}

/// What the whole of a check needs to know.
#[derive(Debug, Clone, Copy)]
struct Marks {
    trimmed_seq: Seq,
    /// Up to where any single stream is trimmed: holes beyond it are nobody's.
    stream_trimmed_seq: Seq,
    last_seq: Seq,
    indexed_seq: Seq,
}

/// A log file, open to be looked at. One transaction: everything is of one moment.
#[derive(Debug)]
pub struct Inspection {
    path: PathBuf,
    connection: SqliteConnection,
    /// The server that has it.
    server: Option<String>,
    /// As it was when it was opened as immutable.
    unchanged: Option<State>,
}

impl Inspection {
    /// Opens a log file of this version's format.
    ///
    /// *Errors*: each says what to do next. *Cancel safety*: safe.
    pub async fn open(path: &Path) -> Result<Self, InspectError> {
        let state = State::of(path)?;
        let io = |source| InspectError::Io { path: path.to_owned(), source };
        let server = holder(path).map_err(io)?;
        let unchanged = (server.is_none() && state.wal_bytes == 0).then_some(state);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .immutable(unchanged.is_some())
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(false)
            .pragma("trusted_schema", "OFF")
            .pragma("cell_size_check", "ON")
            .pragma("temp_store", "MEMORY")
            .pragma("cache_size", "-16384")
            .pragma("mmap_size", "0")
            .disable_statement_logging();
        let sqlite =
            |source: sqlx::Error| InspectError::Sqlite { path: path.to_owned(), source: source.into() };
        let mut connection = options.connect().await.map_err(sqlite)?;
        sqlx::query("BEGIN").execute(&mut connection).await.map_err(sqlite)?;
        let owner: i64 =
            sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut connection).await.map_err(sqlite)?;
        if owner != APPLICATION_ID {
            return Err(InspectError::NotALog { path: path.to_owned() });
        }
        let format: i64 =
            sqlx::query_scalar("SELECT format FROM meta").fetch_one(&mut connection).await.map_err(sqlite)?;
        if format != FORMAT_MAX {
            return Err(InspectError::Format { path: path.to_owned(), format, known: FORMAT_MAX });
        }
        Ok(Self { path: path.to_owned(), connection, server, unchanged })
    }

    /// The server that has the file: ` (process 123)`, or empty where it cannot be told which.
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// What the file holds.
    ///
    /// *Cancel safety*: safe.
    pub async fn summary(&mut self) -> Result<LogSummary, InspectError> {
        let row = sqlx::query(
            "SELECT log_id, format, trimmed_seq, max(trimmed_seq, coalesce((SELECT max(seq) FROM log), 0)),
                    (SELECT coalesce(sum(events), 0) FROM streams), (SELECT count(*) FROM streams),
                    (SELECT coalesce(sum(bytes), 0) FROM streams),
                    (SELECT created_at FROM log ORDER BY seq DESC LIMIT 1)
             FROM meta",
        )
        .fetch_one(&mut self.connection)
        .await;
        let summary = row.and_then(|row| {
            Ok(LogSummary {
                log_id: row.try_get(0)?,
                format: row.try_get(1)?,
                first_seq: from_sql(row.try_get(2)?) + 1,
                last_seq: from_sql(row.try_get(3)?),
                events: from_sql(row.try_get(4)?),
                streams: from_sql(row.try_get(5)?),
                bytes: from_sql(row.try_get(6)?),
                last_created_at: row.try_get(7)?,
            })
        });
        summary.map_err(|error| self.failed(error.into()))
    }

    /// Looks at everything: every page, every event, every id. Takes as long as reading the file a few times.
    ///
    /// *Errors*: the file cannot be read to its end, or changed meanwhile. *Cancel safety*: safe.
    pub async fn check(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<Vec<Finding>, InspectError> {
        let findings = self.look_at_all(progress).await.map_err(|error| self.failed(error));
        match &self.unchanged {
            Some(state) if *state != State::of(&self.path)? => {
                Err(InspectError::Changed { path: self.path.clone() })
            }
            _ => findings,
        }
    }

    async fn look_at_all(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<Vec<Finding>, StoreError> {
        let connection = &mut self.connection;
        let integrity = schema::integrity(connection).await?;
        let mut findings = vec![integrity, schema::schema(connection).await?];
        let marks = Marks::load(connection).await?;
        findings.extend(walk::walk(connection, marks, progress).await?);
        findings.push(totals::totals(connection, marks).await?);
        findings.push(ids::ids(connection, marks).await?);
        Ok(findings)
    }

    /// Looks at what goes wrong around a file, and, of the log, at the newest events and at where each stream begins and
    /// ends: short enough for a file that serves.
    ///
    /// *Errors*: the file cannot be read. *Cancel safety*: safe.
    pub async fn diagnose(&mut self, surroundings: &Surroundings) -> Result<Vec<Finding>, InspectError> {
        let findings = self.look_around(surroundings).await;
        findings.map_err(|error| self.failed(error))
    }

    async fn look_around(&mut self, surroundings: &Surroundings) -> Result<Vec<Finding>, StoreError> {
        let mut findings = surroundings::of_files(&self.path, surroundings);
        let connection = &mut self.connection;
        findings.push(surroundings::sqlite(connection).await?);
        findings.push(surroundings::pragmas(connection).await?);
        findings.push(surroundings::clock(connection, surroundings.now).await?);
        findings.push(schema::schema(connection).await?);
        let marks = Marks::load(connection).await?;
        findings.extend(walk::newest(connection, marks).await?);
        findings.push(totals::ends(connection, marks).await?);
        Ok(findings)
    }

    /// Writes all of the file as of one moment into another, which is empty or not there. Blocks no writer; the WAL of a
    /// server grows meanwhile.
    ///
    /// *Errors*: the disk is full, or the file cannot be read; what was written so far is the caller's to remove.
    /// *Cancel safety*: none; it goes on until it is done or the process ends.
    pub async fn copy_into(&mut self, target: &Path) -> Result<(), InspectError> {
        let failed = |path: &Path, source: sqlx::Error| InspectError::Copy {
            path: path.to_owned(),
            target: target.to_owned(),
            source: source.into(),
        };
        // It is a transaction of its own.
        let end = sqlx::query("COMMIT").execute(&mut self.connection).await;
        end.map_err(|error| failed(&self.path, error))?;
        let target_text = target.to_str().ok_or_else(|| InspectError::Name { path: target.to_owned() })?;
        let copy = sqlx::query("VACUUM INTO ?").bind(target_text).execute(&mut self.connection).await;
        copy.map_err(|error| failed(&self.path, error))?;
        match &self.unchanged {
            Some(state) if *state != State::of(&self.path)? => {
                Err(InspectError::Changed { path: self.path.clone() })
            }
            _ => Ok(()),
        }
    }

    /// About how large a copy becomes. *Units*: bytes.
    pub async fn copy_bytes(&mut self) -> Result<u64, InspectError> {
        let sql = "SELECT (page_count - freelist_count) * page_size
                   FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
        let bytes = sqlx::query_scalar(sql).fetch_one(&mut self.connection).await;
        bytes.map(from_sql).map_err(|error| self.failed(error.into()))
    }

    /// Closes the file.
    pub async fn close(self) -> Result<(), InspectError> {
        let path = self.path;
        let closed = self.connection.close().await;
        closed.map_err(|source| InspectError::Sqlite { path, source: source.into() })
    }

    fn failed(&self, source: StoreError) -> InspectError {
        InspectError::Sqlite { path: self.path.clone(), source }
    }
}

impl Marks {
    async fn load(connection: &mut SqliteConnection) -> Result<Self, StoreError> {
        let row = sqlx::query(
            "SELECT trimmed_seq, (SELECT coalesce(max(trimmed_seq), 0) FROM streams),
                    max(trimmed_seq, coalesce((SELECT max(seq) FROM log), 0)), indexed_seq
             FROM meta",
        )
        .fetch_one(connection)
        .await?;
        Ok(Self {
            trimmed_seq: from_sql(row.try_get(0)?),
            stream_trimmed_seq: from_sql(row.try_get(1)?),
            last_seq: from_sql(row.try_get(2)?),
            indexed_seq: from_sql(row.try_get(3)?),
        })
    }
}
