//! The one connection that writes: commits, trims, checkpoints, and notices what other processes committed.
//!
//! # Two ways to commit
//! * [`Appender::append`] sends the whole transaction as one call and looks nothing up. Seqs and ids are given by the
//!   caller, so the primary keys of `log` and `ids` tell when another process came first or an id is a repeat, and a
//!   constraint of `streams` when one is closed:
//!   [`CommitError::Conflict`], nothing stored.
//! * [`Appender::lock`] takes the write lock; then look up, [`Appender::append_locked`], or [`Appender::unlock`].
//!
//! # After an error
//! SQLite may or may not have rolled back by itself, so `ROLLBACK` is sent and its complaint that there is nothing to
//! roll back is expected. `sqlx::Transaction` is not used: its depth count would refuse every later begin.

use super::blocks::Indexed;
use super::notes::Notes;
use super::read::{from_sql, log_state, to_sql};
use super::shape::Shape;
use super::{CommitError, Disk, LogState, StoreError, row};
use crate::event::{Content, Event, Origin, Seq, StreamName};
use futures_util::TryStreamExt;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments};
use sqlx::{AssertSqlSafe, Connection, QueryBuilder, Row, SqliteConnection};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Pages in the WAL that make a checkpoint due.
///
/// *Source*: SQLite's own default, and the best p99.9 of a commit under load of those measured (1,000, 4,000, 16,000).
const CHECKPOINT_PAGES: u64 = 1_000;
/// What a checkpoint may leave in the WAL before the operator is told. *Units*: bytes.
const WAL_BYTES_WARNED: u64 = 64 << 20;
/// What a step of trimming or indexing is taken to add to the WAL.
const PAGES_OF_UPKEEP: u64 = 16;
/// How many looked-up keys go into one statement.
pub(super) const LOOKUP_KEYS_MAX: usize = 256;

/// The origin of each event of an append, by its place; those behind the end have none, so that where nobody is known the
/// list is empty and costs nothing.
pub type Origins<'a> = &'a [Option<Arc<Origin>>];

/// An event's own key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdKey {
    /// The producer's id.
    pub id: Arc<str>,
    /// Within this stream,
    pub stream: StreamName,
    /// and this source.
    pub source: Arc<str>,
}

impl IdKey {
    /// The key of an event that has an id.
    pub fn of(content: &Content) -> Option<Self> {
        let id = content.id.clone()?;
        Some(Self { id, stream: content.stream.clone(), source: content.source.clone() })
    }
}

/// What the table holds for an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// This event.
    Stored(Box<Event>),
    /// An event that was trimmed since; its content can no longer be compared.
    Trimmed(Seq),
}

/// The write side of the store; there is one.
#[derive(Debug)]
pub struct Appender {
    connection: SqliteConnection,
    commit_began: CommitBegan,
    disk: Disk,
    page_bytes: u64,
    pages_since_checkpoint: u64,
    /// It has been said that the WAL is large, and is not said again until it was small.
    is_wal_large: bool,
    /// The WAL is moved into the file here; else by another program.
    is_checkpointing: bool,
    indexed: Indexed,
    notes: Notes,
}

impl Appender {
    pub(super) fn new(
        connection: SqliteConnection,
        commit_began: CommitBegan,
        disk: Disk,
        page_bytes: u64,
        indexed: Indexed,
        is_checkpointing: bool,
    ) -> Self {
        Self {
            connection,
            commit_began,
            disk,
            page_bytes,
            pages_since_checkpoint: 0,
            is_wal_large: false,
            is_checkpointing,
            indexed,
            notes: Notes::default(),
        }
    }

    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    pub(super) fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    pub(super) fn indexed(&self) -> &Indexed {
        &self.indexed
    }

    /// Runs a whole transaction that is not an append.
    pub(super) async fn run(
        &mut self,
        transaction: Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<(), CommitError> {
        if cfg!(feature = "without-storage") {
            return Ok(());
        }
        match transaction.execute(&mut self.connection).await {
            Ok(_) => {
                self.pages_since_checkpoint += PAGES_OF_UPKEEP;
                Ok(())
            }
            Err(error) => Err(self.roll_back(error.into()).await),
        }
    }

    /// Commits these events as one durable transaction. They are new, in order, and continue the log. Returns how long COMMIT
    /// itself took, its fsync included; nothing where there was nothing to commit.
    ///
    /// *Errors*: see [`CommitError`]; only after [`CommitError::Failed`] may they be stored all the same.
    /// *Cancel safety*: none; the writer task never drops it.
    pub async fn append(
        &mut self,
        events: &[Event],
        origins: Origins<'_>,
    ) -> Result<Option<Duration>, CommitError> {
        self.execute(events, origins, true).await
    }

    /// Takes the write lock of the file, so that nothing changes between a look and an append.
    pub async fn lock(&mut self) -> Result<(), CommitError> {
        match sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.roll_back(error.into()).await),
        }
    }

    /// Commits these events under the lock, and releases it. Returns what [`Appender::append`] does.
    pub async fn append_locked(
        &mut self,
        events: &[Event],
        origins: Origins<'_>,
    ) -> Result<Option<Duration>, CommitError> {
        self.execute(events, origins, false).await
    }

    /// Releases the lock and leaves the file as it was.
    pub async fn unlock(&mut self) -> Result<(), CommitError> {
        sqlx::query("ROLLBACK").execute(&mut self.connection).await?;
        Ok(())
    }

    /// Makes durable what other processes committed up to this seq.
    ///
    /// Their connections may run with `synchronous=NORMAL`. A commit of our own fsyncs the WAL, theirs included.
    pub async fn notice(&mut self, seq: Seq) -> Result<(), CommitError> {
        let notice = sqlx::query("UPDATE meta SET noticed_seq = ?").bind(to_sql(seq));
        match notice.execute(&mut self.connection).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.roll_back(error.into()).await),
        }
    }

    async fn execute(
        &mut self,
        events: &[Event],
        origins: Origins<'_>,
        is_begin: bool,
    ) -> Result<Option<Duration>, CommitError> {
        if events.is_empty() {
            return if is_begin { Ok(None) } else { self.unlock().await.map(|()| None) };
        }
        if cfg!(feature = "without-storage") {
            return Ok(None);
        }
        let shape = Shape::of(events, origins, is_begin);
        let arguments = shape.arguments(events).map_err(|error| CommitError::Failed(error.into()))?;
        let result =
            sqlx::query_with(AssertSqlSafe(shape.sql()), arguments).execute(&mut self.connection).await;
        match result {
            Ok(_) => {
                let took = self.commit_began.elapsed();
                self.count_pages(events);
                self.notes.add(events);
                Ok(Some(took))
            }
            Err(error) => Err(self.roll_back(error.into()).await),
        }
    }

    /// After a failed statement: no transaction may stay open. Keeps the error, unless rolling back fails too.
    pub async fn roll_back(&mut self, error: CommitError) -> CommitError {
        if matches!(error, CommitError::Failed(_)) {
            return error;
        }
        match sqlx::query("ROLLBACK").execute(&mut self.connection).await {
            Ok(_) => error,
            Err(rollback) if rollback.to_string().contains("no transaction is active") => error,
            Err(rollback) => CommitError::Failed(rollback.into()),
        }
    }

    /// What is stored for these ids. Call it under the lock.
    pub async fn find_ids(&mut self, keys: &[IdKey]) -> Result<HashMap<IdKey, Known>, StoreError> {
        let mut known = HashMap::new();
        for keys in keys.chunks(LOOKUP_KEYS_MAX) {
            let mut query = QueryBuilder::new("WITH wanted (id, stream, source) AS (");
            query.push_values(keys, |mut row, key| {
                row.push_bind(key.id.clone()).push_bind(key.stream.shared()).push_bind(key.source.clone());
            });
            query.push(
                ") SELECT log.seq, log.stream, log.source, log.id, log.type, log.subject, log.time, log.created_at,
                          log.data, log.traceparent, ids.seq, ids.id, ids.stream, ids.source
                   FROM wanted JOIN ids USING (id, stream, source) LEFT JOIN log ON log.seq = ids.seq",
            );
            let mut rows = query.build().fetch(&mut self.connection);
            while let Some(row) = rows.try_next().await? {
                let found = match row.try_get::<Option<i64>, _>(0)? {
                    Some(_) => Known::Stored(Box::new(row::event(&row)?)),
                    None => Known::Trimmed(from_sql(row.try_get(10)?)),
                };
                let key = IdKey {
                    id: Arc::from(row.try_get::<&str, _>(11)?),
                    stream: StreamName::stored(Arc::from(row.try_get::<&str, _>(12)?)),
                    source: Arc::from(row.try_get::<&str, _>(13)?),
                };
                known.insert(key, found);
            }
        }
        Ok(known)
    }

    /// The newest seq of a stream, 0 if it has had no event. Call it under the lock.
    pub async fn last_seq_of(&mut self, stream: &StreamName) -> Result<Seq, StoreError> {
        let seq: Option<i64> = sqlx::query_scalar("SELECT last_seq FROM streams WHERE name = ?")
            .bind(stream.shared())
            .fetch_optional(&mut self.connection)
            .await?;
        Ok(seq.map_or(0, from_sql))
    }

    /// The state of the log, the commits of other processes included.
    pub async fn log_state(&mut self) -> Result<LogState, StoreError> {
        log_state(&mut self.connection).await
    }

    /// A number that changes when another process has committed to the file, and only then.
    pub async fn data_version(&mut self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut self.connection).await?)
    }

    /// About how many pages this commit added to the WAL: its rows, the tree above them, and a page for each id, since
    /// ids need not be neighbours.
    fn count_pages(&mut self, events: &[Event]) {
        let bytes: usize = events.iter().map(|event| event.content.size_bytes() + 64).sum();
        let ids = events.iter().filter(|event| event.content.id.is_some()).count();
        self.pages_since_checkpoint += 3 + bytes as u64 / self.page_bytes + ids as u64;
    }

    /// Makes the next checkpoint due.
    pub(super) fn hasten_checkpoint(&mut self) {
        self.pages_since_checkpoint = CHECKPOINT_PAGES;
    }

    /// Moves the WAL into the file when enough has gathered, and says whether it has; or, where that is another program's, sees
    /// whether it is done.
    ///
    /// Ours and not SQLite's own, which runs inside COMMIT, before the ack, and hides its I/O errors: a failed fsync of
    /// the file would be forgotten, and the WAL that still held the events overwritten.
    ///
    /// *Errors*: [`CommitError::Full`] and [`CommitError::Busy`] lose nothing, the WAL just keeps growing.
    pub async fn checkpoint_if_due(&mut self) -> Result<bool, CommitError> {
        if self.pages_since_checkpoint < CHECKPOINT_PAGES {
            return Ok(false);
        }
        self.pages_since_checkpoint = 0;
        let bytes = if self.is_checkpointing {
            let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut self.connection).await?;
            let (pages, moved): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
            u64::try_from(pages - moved).unwrap_or(0) * self.page_bytes
        } else {
            self.disk.wal_bytes().unwrap_or(0)
        };
        let is_large = bytes > WAL_BYTES_WARNED;
        if is_large && !self.is_wal_large {
            let why = match self.is_checkpointing {
                true => "another program keeps a transaction open",
                false => "EVERTAIL_CHECKPOINTS leaves it to another program; start that one",
            };
            tracing::warn!(bytes, why, "the WAL is not moved into the file and grows");
        }
        self.is_wal_large = is_large;
        Ok(self.is_checkpointing)
    }

    /// What an unprivileged process may still write to the file's disk. *Units*: bytes. `None` when it cannot be told.
    pub fn free_bytes(&self) -> Option<u64> {
        self.disk.free_bytes()
    }

    /// Closes the connection; SQLite moves the rest of the WAL into the file.
    pub async fn close(self) -> Result<(), StoreError> {
        Ok(self.connection.close().await?)
    }
}

/// When the last COMMIT began. SQLite's thread says so itself, however busy the others are, by the hook that it calls before it
/// writes; when it has ended is known as the writer hears of it. Closer to the fsync leads only a VFS of our own, which is
/// unsafe code.
#[derive(Debug, Clone)]
pub(super) struct CommitBegan {
    start: Instant,
    /// *Units*: nanoseconds after `start`.
    at: Arc<AtomicU64>,
}

impl CommitBegan {
    /// Has the connection note each of its commits from now on.
    pub(super) async fn watch(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let began = Self { start: Instant::now(), at: Arc::default() };
        let noting = began.clone();
        connection.lock_handle().await?.set_commit_hook(move || {
            noting.at.store(noting.nanoseconds(), Ordering::Release);
            // It goes on.
            true
        });
        Ok(began)
    }

    fn nanoseconds(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// How long ago it was.
    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds().saturating_sub(self.at.load(Ordering::Acquire)))
    }
}
