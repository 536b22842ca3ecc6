//! Opening the log file: lock, version, pragmas, durability of what is there, schema, pools; in that order.

use super::append::CommitBegan;
use super::blocks::Indexed;
use super::read::log_state;
use super::{Appender, CommitError, Disk, LogState, OpenError, Store, StoreError};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Row, SqliteConnection};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// The newest log format this server can write.
pub(super) const FORMAT_MAX: i64 = 6;
/// `PRAGMA application_id` of a log, which tells it from any other SQLite file: "EvTl".
pub(super) const APPLICATION_ID: i64 = 0x4576_546C;
/// The first SQLite without the WAL-reset corruption bug. *Source*: <https://www.sqlite.org/wal.html#walresetbug>.
const SQLITE_VERSION_MIN: (u32, u32, u32) = (3, 51, 3);
/// *Source*: measured 1.15 to 1.24 times the commits of 1,024 events of the default page of 4,096 bytes.
const PAGE_BYTES: u32 = 8_192;
/// A WAL that a long foreign transaction made larger shrinks to this at the next reset. *Units*: bytes.
const WAL_BYTES_KEPT: u64 = 64 << 20;

/// The version of the SQLite that is part of this binary.
pub fn sqlite_version() -> &'static str {
    libsqlite3_sys::SQLITE_VERSION.to_str().expect("a version is digits and dots")
}

/// How to open the file.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// The log file; its folder is made if missing.
    pub file: PathBuf,
    /// Connections that read. More than 2 to 4 do not help on two cores.
    pub read_connections: u32,
    /// How long to wait for another process that holds a lock.
    pub busy_timeout: Duration,
    /// Whether the WAL is moved into the file by us. Else another program does it, which may keep a transaction open at any
    /// time so that nobody else does.
    pub is_checkpointing: bool,
}

/// A log file, open.
#[derive(Debug)]
pub struct Opened {
    /// The read side.
    pub store: Store,
    /// The write side.
    pub appender: Appender,
    /// The log as it is, all of it durable.
    pub state: LogState,
    /// Where it lies.
    pub disk: Disk,
    /// Keeps other servers away while it lives.
    pub lock: File,
}

/// Opens the log, or makes it.
///
/// When this returns, everything readable in the file is on disk: the WAL was moved into it and synced, or written anew
/// where checkpoints are another program's.
///
/// *Errors*: each says what to do next.
pub async fn open(settings: &StoreSettings) -> Result<Opened, OpenError> {
    let path = settings.file.as_path();
    make_folder(path)?;
    let lock = lock(path)?;
    make_file(path)?;
    let sqlite = |source: sqlx::Error| OpenError::Sqlite { path: path.to_owned(), source: source.into() };

    let mut connection = writing(settings).connect().await.map_err(sqlite)?;
    check_version(&mut connection).await.map_err(sqlite)??;
    // Somebody else's file is looked at and left as it is: nothing that stays in a file is set before this.
    let is_marked = check_owner(&mut connection, path).await?;
    sqlx::query(AssertSqlSafe(format!(
        // Only a new file takes these two. Space of trimmed events can then be given back in steps.
        "PRAGMA page_size = {PAGE_BYTES}; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL"
    )))
    .execute(&mut connection)
    .await
    .map_err(sqlite)?;
    check_pragmas(&mut connection).await?;
    make_durable(&mut connection, settings).await?;
    if !is_marked {
        // Before the first table, so that whatever a killed first start leaves behind is known as ours.
        let mark = format!("PRAGMA application_id = {APPLICATION_ID}");
        sqlx::query(AssertSqlSafe(mark)).execute(&mut connection).await.map_err(sqlite)?;
    }
    MIGRATOR
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|source| OpenError::Migrate { path: path.to_owned(), source })?;
    make_durable(&mut connection, settings).await?;
    let stored = |source: StoreError| OpenError::Sqlite { path: path.to_owned(), source };
    let state = log_state(&mut connection).await.map_err(stored)?;
    let indexed = Indexed::load(&mut connection).await.map_err(stored)?;
    let page_bytes: i64 =
        sqlx::query_scalar("PRAGMA page_size").fetch_one(&mut connection).await.map_err(sqlite)?;

    // Opened all at once and kept: a pool that opens lazily fails to read when descriptors have run out.
    let pool = SqlitePoolOptions::new()
        .min_connections(settings.read_connections)
        .max_connections(settings.read_connections)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(reading(settings))
        .await
        .map_err(sqlite)?;
    for _ in 0..settings.read_connections {
        let mut reader = pool.acquire().await.map_err(sqlite)?;
        check_pragmas(&mut reader).await?;
    }
    let page_bytes = u64::try_from(page_bytes).unwrap_or(u64::from(PAGE_BYTES));
    let disk = Disk::new(path, folder(path));
    let commit_began = CommitBegan::watch(&mut connection).await.map_err(sqlite)?;
    let (indexed_too, is_checkpointing) = (indexed.clone(), settings.is_checkpointing);
    let appender =
        Appender::new(connection, commit_began, disk.clone(), page_bytes, indexed_too, is_checkpointing);
    Ok(Opened { store: Store::new(pool, indexed), appender, state, disk, lock })
}

/// What both kinds of connection have in common. Every pragma is set by name, defaults too.
fn common(settings: &StoreSettings) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(&settings.file)
        // An fsync of the WAL at each commit, before COMMIT returns: the ack's promise.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(settings.busy_timeout)
        // The file may come from anywhere: its schema calls no function that could do harm.
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        // Sorts and temporary tables stay in memory: nothing is written beside the log.
        .pragma("temp_store", "MEMORY")
        // *Units*: KiB when negative. 16 MiB for each connection.
        .pragma("cache_size", "-16384")
        // An I/O error on a mapped page is a signal that kills the process.
        .pragma("mmap_size", "0")
        // `log` references nothing.
        .foreign_keys(false)
        .thread_name(|id| format!("evertail-sqlite-{id}"))
        .disable_statement_logging()
}

fn writing(settings: &StoreSettings) -> SqliteConnectOptions {
    common(settings)
        .create_if_missing(true)
        // The writer checkpoints by itself, after the ack, and sees the errors.
        .pragma("wal_autocheckpoint", "0")
        .pragma("journal_size_limit", WAL_BYTES_KEPT.to_string())
}

fn reading(settings: &StoreSettings) -> SqliteConnectOptions {
    common(settings).read_only(true).pragma("query_only", "ON")
}

/// Makes the folder, and makes durable that it is there: what is in a folder that a power cut takes is gone with it.
pub(super) fn make_folder(path: &Path) -> Result<(), OpenError> {
    let folder = folder(path);
    let failed = |source| OpenError::Folder { path: folder.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
    let absolute = fs::canonicalize(&folder).map_err(failed)?;
    let parent = absolute.parent().unwrap_or(&absolute);
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)
}

pub(super) fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// How often a start tries the lock, and for how long it rests in between: whoever looks whether a server has the file
/// holds it for a moment.
const LOCK_TRIES: u32 = 5;
const LOCK_REST: Duration = Duration::from_millis(10);

/// A file beside this one, of the same name and what is added.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The lock is a file of its own: locking the database itself would meet SQLite's locks and shut `sqlite3` out.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = beside(path, ".lock");
    let failed = |source| OpenError::Folder { path: lock_path.clone(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(failed)?;
    let mut locked = file.try_lock();
    for _ in 1..LOCK_TRIES {
        if matches!(locked, Err(TryLockError::WouldBlock)) {
            std::thread::sleep(LOCK_REST);
            locked = file.try_lock();
        }
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::InUse { path: path.to_owned(), holder: holder_name(&lock_path) });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

/// The server that has the file: ` (process 123)`, or nothing where that is not told. Changes nothing.
pub(super) fn holder(path: &Path) -> std::io::Result<Option<String>> {
    let lock_path = beside(path, ".lock");
    let lock = match File::open(&lock_path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(holder_name(&lock_path))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn holder_name(lock_path: &Path) -> String {
    let holder = fs::read_to_string(lock_path).unwrap_or_default();
    holder.trim().parse::<u32>().map_or(String::new(), |pid| format!(" (process {pid})"))
}

/// Makes the file with mode 0600, which SQLite then gives its companions too. Never opens one that exists: closing any
/// descriptor of it would drop this process's SQLite locks.
fn make_file(path: &Path) -> Result<(), OpenError> {
    let made = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    made.and_then(|()| File::open(folder(path))?.sync_all())
        .map_err(|source| OpenError::Folder { path: path.to_owned(), source })
}

pub(super) async fn check_version(
    connection: &mut SqliteConnection,
) -> Result<Result<(), OpenError>, sqlx::Error> {
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(connection).await?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let number = (next(), next(), next());
    Ok(if number < SQLITE_VERSION_MIN { Err(OpenError::SqliteTooOld { version }) } else { Ok(()) })
}

/// An empty file becomes a log; a log of a known format is one; anything else is left alone.
///
/// A file with our mark and no `meta` is a first start that did not come to its end. Returns whether it has the mark.
async fn check_owner(connection: &mut SqliteConnection, path: &Path) -> Result<bool, OpenError> {
    let sqlite = |source: sqlx::Error| OpenError::Sqlite { path: path.to_owned(), source: source.into() };
    let (tables, is_complete): (i64, bool) =
        sqlx::query_as("SELECT count(*), coalesce(max(name = 'meta'), 0) FROM sqlite_schema")
            .fetch_one(&mut *connection)
            .await
            .map_err(sqlite)?;
    let owner: i64 =
        sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await.map_err(sqlite)?;
    if tables > 0 && owner != APPLICATION_ID {
        return Err(OpenError::NotALog { path: path.to_owned() });
    }
    if !is_complete {
        return Ok(owner == APPLICATION_ID);
    }
    let format: i64 =
        sqlx::query_scalar("SELECT format FROM meta").fetch_one(&mut *connection).await.map_err(sqlite)?;
    if format > FORMAT_MAX {
        return Err(OpenError::Newer { path: path.to_owned(), format, format_max: FORMAT_MAX });
    }
    Ok(true)
}

/// Reads back what the promise rests on: a file system without shared memory, say, silently stays out of WAL mode.
async fn check_pragmas(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    for (pragma, wanted) in [("journal_mode", "wal"), ("synchronous", "2"), ("trusted_schema", "0")] {
        let row = sqlx::query(AssertSqlSafe(format!("PRAGMA {pragma}"))).fetch_one(&mut *connection).await;
        let got = row
            .and_then(|row| row.try_get_unchecked::<String, _>(0))
            .unwrap_or_else(|error| error.to_string());
        if got != wanted {
            return Err(OpenError::Pragma { pragma, wanted: wanted.to_owned(), got });
        }
    }
    Ok(())
}

/// Moves all of the WAL into the file and syncs both, so that nothing is shown that a power cut could take back, even
/// if a killed server had written it and not yet synced, or had been told of an I/O error.
async fn make_durable(connection: &mut SqliteConnection, settings: &StoreSettings) -> Result<(), OpenError> {
    let path = settings.file.as_path();
    if !settings.is_checkpointing {
        return write_wal_anew(connection, path).await;
    }
    let busy: i64 = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(connection)
        .await
        .map_err(|source| OpenError::Sqlite { path: path.to_owned(), source: source.into() })?;
    if busy != 0 { Err(OpenError::Busy { path: path.to_owned() }) } else { Ok(()) }
}

/// The same where the WAL stays where it is: each byte of it is written over itself, and synced. A sync alone would not do.
/// After one that failed, what did not get to the disk may count as clean, and the next sync leaves it out.
///
/// Under the write lock, so that nobody appends to the WAL or begins it anew meanwhile; whoever reads it or moves it into the
/// file reads the same bytes as before.
async fn write_wal_anew(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |source: sqlx::Error| OpenError::Sqlite { path: path.to_owned(), source: source.into() };
    if let Err(error) = sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await {
        return Err(match CommitError::from(error) {
            CommitError::Busy => OpenError::Busy { path: path.to_owned() },
            CommitError::Failed(source) => OpenError::Sqlite { path: path.to_owned(), source },
            error => OpenError::Folder { path: path.to_owned(), source: std::io::Error::other(error) },
        });
    }
    let wal = beside(path, "-wal");
    let written = tokio::task::spawn_blocking(move || write_anew(&wal)).await;
    let written = written.map_err(std::io::Error::other).and_then(|written| written);
    sqlx::query("ROLLBACK").execute(connection).await.map_err(sqlite)?;
    written.map_err(|source| OpenError::Folder { path: beside(path, "-wal"), source })
}

fn write_anew(wal: &Path) -> std::io::Result<()> {
    let file = match OpenOptions::new().read(true).write(true).open(wal) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            return file.sync_all();
        }
        file.write_all_at(&buffer[..read], at)?;
        at += read as u64;
    }
}
