//! What can go wrong in the store, one enum for each operation.

use std::path::PathBuf;

/// Reading failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused or failed.
    #[error("reading the log file failed")]
    Sqlite(#[from] sqlx::Error),
    /// A row is not what the schema promises.
    #[error("event {seq} in the log file is damaged: {what}")]
    Damaged {
        /// The row.
        seq: i64,
        /// Which promise is broken.
        what: &'static str,
    },
}

/// A commit did not happen, or nobody can know whether it did.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A seq or an id is already there, or a stream is closed. Nothing was stored; look again under the lock.
    #[error("a seq or an id of the batch is already stored, or a stream of it is closed")]
    Conflict,
    /// The disk is full. Nothing was stored; try again when there is space.
    #[error("the disk is full")]
    Full,
    /// Another process has held the file's write lock for the whole busy time. Nothing was stored; try again.
    #[error("another process holds the write lock of the log file")]
    Busy,
    /// Anything else, I/O errors first: what is on disk is unknown, and this process must not ack again.
    #[error("committing to the log file failed")]
    Failed(#[source] StoreError),
}

const SQLITE_BUSY: i32 = 5;
const SQLITE_FULL: i32 = 13;
const SQLITE_CONSTRAINT: i32 = 19;
/// The one constraint of this kind that a batch can violate is that of a closed stream.
const SQLITE_CONSTRAINT_CHECK: i32 = 19 | (1 << 8);
/// No room to grow the `-shm` index, which is rebuilt at need and holds no data: a full disk like any other.
const SQLITE_IOERR_SHMSIZE: i32 = 10 | (19 << 8);

impl From<sqlx::Error> for CommitError {
    fn from(error: sqlx::Error) -> Self {
        let code: Option<i32> =
            error.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse().ok());
        match code {
            Some(SQLITE_IOERR_SHMSIZE) => Self::Full,
            Some(SQLITE_CONSTRAINT_CHECK) => Self::Conflict,
            Some(code) => match code & 0xff {
                SQLITE_BUSY => Self::Busy,
                SQLITE_FULL => Self::Full,
                SQLITE_CONSTRAINT if error.as_database_error().is_some_and(|e| e.is_unique_violation()) => {
                    Self::Conflict
                }
                _ => Self::Failed(error.into()),
            },
            None => Self::Failed(error.into()),
        }
    }
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Sqlite(error) => error.into(),
            StoreError::Damaged { .. } => Self::Failed(error),
        }
    }
}

/// The file cannot be opened as a log. Each display ends with the next step to take.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another server has it.
    #[error(
        "{path} is in use by another evertail{holder}; stop that one, or choose another file with --file"
    )]
    InUse {
        /// The log file.
        path: PathBuf,
        /// ` (process 123)` when known.
        holder: String,
    },
    /// A file or folder cannot be made or locked.
    #[error(
        "{path} cannot be used; check that the folder exists and is writable, or choose another file with --file"
    )]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An SQLite file of somebody else.
    #[error("{path} is an SQLite file but not an Evertail log; choose another file with --file")]
    NotALog {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer server.
    #[error("{path} has log format {format}, this server knows up to {format_max}; start a newer evertail")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: i64,
        /// The newest format this server writes.
        format_max: i64,
    },
    /// The bundled SQLite is older than the first one without the WAL-reset corruption bug.
    #[error("this binary has SQLite {version}, which can corrupt a WAL; build it with 3.51.3 or later")]
    SqliteTooOld {
        /// The library's version.
        version: String,
    },
    /// A pragma that the promise needs was not accepted.
    #[error(
        "SQLite set {pragma} to {got} where {wanted} is needed; use a local file system that supports it"
    )]
    Pragma {
        /// Its name.
        pragma: &'static str,
        /// What the promise needs.
        wanted: String,
        /// What SQLite says it is.
        got: String,
    },
    /// Another process keeps a transaction open, so that the WAL cannot be made durable.
    #[error("another program keeps a transaction open on {path}; end it, then start again")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// SQLite cannot open, migrate or read it.
    #[error("{path} cannot be opened as a log; look at it with `sqlite3 {path} 'pragma quick_check'`")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The schema cannot be brought up to date.
    #[error("{path} cannot be migrated; restore it from a backup, or choose another file with --file")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
}

/// A file cannot be looked at as a log, or copied. Each display ends with the next step to take.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no such file.
    #[error("{path} is not there; name the log file")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The system does not let us at it.
    #[error("{path} cannot be looked at; run as its owner")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of somebody else.
    #[error("{path} is not an Evertail log; name the log file")]
    NotALog {
        /// The file.
        path: PathBuf,
    },
    /// Written by another version.
    #[error(
        "{path} has log format {format}, this version has {known}; use the evertail that wrote it, or, for an older format, start \
         this one on it once"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: i64,
        /// That of this version.
        known: i64,
    },
    /// SQLite cannot read it.
    #[error("{path} cannot be read as a log; restore a backup that `evertail check` finds sound")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// Someone wrote to it while it was read as nobody's.
    #[error("{path} changed while it was read; try again")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The copy could not be written.
    #[error("{path} could not be copied to {target}; look for free space there")]
    Copy {
        /// The log.
        path: PathBuf,
        /// The copy.
        target: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// SQLite takes names of files as text.
    #[error("{path} is not UTF-8; give another name")]
    Name {
        /// The copy.
        path: PathBuf,
    },
}

/// A log was not backed up, or not restored. Each display ends with the next step to take.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// What is to be copied, or the copy, cannot be read.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The place of a log cannot be taken from its server.
    #[error(transparent)]
    Place(#[from] OpenError),
    /// Something is there already.
    #[error("{path} is there already; choose another name, or replace it with --force")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// What is there must not be replaced.
    #[error("{path} is part of a log that is in use; choose another name")]
    Taken {
        /// The file.
        path: PathBuf,
    },
    /// A program has the log open.
    #[error("another program has {path} open; end it, then restore again")]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// The log does not keep its promises, nor does a copy of it.
    #[error(
        "{path} is not sound, and no copy was kept: {found}; `evertail check` tells more, and `sqlite3 {path} \"vacuum into \
         'copy.db'\"` copies it as it is"
    )]
    Unsound {
        /// The log.
        path: PathBuf,
        /// The first promise that does not hold.
        found: String,
    },
    /// The file system refuses.
    #[error("{path} cannot be written; look for free space and permissions there")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
