//! Copies of a log: a backup of a file that serves, and the way back.
//!
//! # What a crash leaves
//! A copy is written under another name beside its place, synced, checked, and only then renamed: at any moment there is the
//! file that was, or the one that is to be, whole. What a killed process leaves is a file `....partial-<pid>`, which
//! nobody takes for a log.
//!
//! A restore has the lock of the server. What is replaced keeps a name of its own, given before the rename; its WAL is moved
//! into it first, so that the new file never finds a WAL that is not its own.

use super::inspect::{Inspection, LogSummary, Outcome, Progress};
use super::open::{APPLICATION_ID, beside, folder, holder, lock, make_folder};
use super::{CopyError, InspectError};
use crate::event::Timestamp;
use rustix::process::geteuid;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the growing copy is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyProgress {
    /// Writing. *Units*: bytes, of about so many.
    Copying(Progress),
    /// Looking at what was written. *Units*: events.
    Checking(Progress),
}

/// What was restored.
#[derive(Debug, Clone)]
pub struct Restored {
    /// What the file holds now.
    pub log: LogSummary,
    /// Where the file is that was there before.
    pub kept: Option<PathBuf>,
}

/// Copies a log to `target`, as of one moment: every event that was acked before this is called is in it. The log may be
/// serving; no append waits, and the WAL grows until the copy is written.
///
/// *Errors*: see [`CopyError`]; `target` is then what it was. *Cancel safety*: safe.
pub async fn back_up(
    file: &Path,
    target: &Path,
    is_forced: bool,
    progress: &mut dyn FnMut(CopyProgress),
) -> Result<LogSummary, CopyError> {
    let is_the_log = |path: &Path| match (fs::canonicalize(path), fs::canonicalize(file)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    };
    let refuse_taken = || {
        let taken = |path: PathBuf| Err(CopyError::Taken { path });
        match holder(target) {
            Err(source) => return Err(CopyError::Io { path: target.to_owned(), source }),
            Ok(Some(_)) => return taken(target.to_owned()),
            Ok(None) if is_the_log(target) => return taken(target.to_owned()),
            Ok(None) => {}
        }
        // SQLite would take it for the WAL of the copy.
        let wal = beside(target, "-wal");
        match (wal.exists(), target.exists()) {
            (true, _) => taken(wal),
            (false, true) if !is_forced => Err(CopyError::Exists { path: target.to_owned() }),
            _ => Ok(()),
        }
    };
    refuse_taken()?;
    let (partial, log) = copy(file, target, progress).await?;
    refuse_taken()?;
    partial.put(target)?;
    Ok(log)
}

/// Puts a backup in the place of a log that no server has. What was there is kept beside it.
///
/// *Errors*: see [`CopyError`]; the file is then what it was. *Cancel safety*: safe.
pub async fn restore(
    backup: &Path,
    file: &Path,
    progress: &mut dyn FnMut(CopyProgress),
) -> Result<Restored, CopyError> {
    if let (Ok(one), Ok(other)) = (fs::canonicalize(backup), fs::canonicalize(file))
        && one == other
    {
        return Err(CopyError::Taken { path: file.to_owned() });
    }
    // Before anything is made: a backup that is not there must leave no folder.
    Inspection::open(backup).await?.close().await?;
    make_folder(file)?;
    let _lock = lock(file)?;
    let (partial, log) = copy(backup, file, progress).await?;
    partial.give_to_owner_of(file)?;
    let kept = if file.exists() { Some(keep(file).await?) } else { None };
    partial.put(file)?;
    Ok(Restored { log, kept })
}

/// A sound copy beside its place.
async fn copy(
    from: &Path,
    place: &Path,
    progress: &mut dyn FnMut(CopyProgress),
) -> Result<(Partial, LogSummary), CopyError> {
    let mut inspection = Inspection::open(from).await?;
    let total = inspection.copy_bytes().await?;
    let partial = Partial::beside(place)?;
    {
        let mut copying = std::pin::pin!(inspection.copy_into(&partial.path));
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                copied = &mut copying => break copied?,
                _ = look.tick() => {
                    let done = fs::metadata(&partial.path).map_or(0, |copy| copy.len());
                    progress(CopyProgress::Copying(Progress { done, total: total.max(done) }));
                }
            }
        }
    }
    inspection.close().await?;
    partial.sync()?;
    let mut inspection = Inspection::open(&partial.path).await?;
    let log = inspection.summary().await?;
    let findings = inspection.check(&mut |done| progress(CopyProgress::Checking(done))).await?;
    inspection.close().await?;
    match findings.into_iter().find(|finding| finding.outcome == Outcome::Problem) {
        Some(problem) => Err(CopyError::Unsound { path: from.to_owned(), found: problem.found }),
        None => Ok((partial, log)),
    }
}

/// A file on its way to its place; removed if it does not get there.
#[derive(Debug)]
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn beside(place: &Path) -> Result<Self, CopyError> {
        let path = beside(place, &format!(".partial-{}", std::process::id()));
        let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        made.map_err(|source| CopyError::Io { path: path.clone(), source })?;
        Ok(Self { path })
    }

    fn sync(&self) -> Result<(), CopyError> {
        let synced = File::open(&self.path).and_then(|file| file.sync_all());
        synced.map_err(|source| CopyError::Io { path: self.path.clone(), source })
    }

    /// A server that is not root's must be able to open what root restores.
    fn give_to_owner_of(&self, file: &Path) -> Result<(), CopyError> {
        if !geteuid().is_root() {
            return Ok(());
        }
        let owner = fs::metadata(file).or_else(|_| fs::metadata(folder(file)));
        let given = owner.and_then(|owner| chown(&self.path, Some(owner.uid()), Some(owner.gid())));
        given.map_err(|source| CopyError::Io { path: self.path.clone(), source })
    }

    fn put(self, place: &Path) -> Result<(), CopyError> {
        let put = fs::rename(&self.path, place).and_then(|()| sync_folder(place));
        put.map_err(|source| CopyError::Io { path: place.to_owned(), source })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // It is not there any more when it got to its place.
        let _ = fs::remove_file(&self.path);
    }
}

/// Gives the file that is to be replaced another name too, with all that is in its WAL, and returns that name.
async fn keep(file: &Path) -> Result<PathBuf, CopyError> {
    let io = |source: io::Error| CopyError::Io { path: file.to_owned(), source };
    let now: String = Timestamp::now().to_string().chars().filter(char::is_ascii_digit).take(14).collect();
    let kept = beside(file, &format!(".before-{now}"));
    let is_readable = settle(file).await?;
    let (wal, shm) = (beside(file, "-wal"), beside(file, "-shm"));
    if is_readable && (wal.exists() || shm.exists()) {
        return Err(CopyError::Open { path: file.to_owned() });
    }
    fs::hard_link(file, &kept).and_then(|()| sync_folder(file)).map_err(io)?;
    if wal.exists() {
        // Of a file that SQLite cannot read any more: what a crash leaves of the two is no worse than they were.
        fs::rename(&wal, beside(&kept, "-wal")).map_err(io)?;
    }
    if shm.exists() {
        fs::remove_file(&shm).map_err(io)?;
    }
    Ok(kept)
}

/// Moves the WAL into its file and removes it, as a server does that ends. False if SQLite cannot read the file.
async fn settle(file: &Path) -> Result<bool, CopyError> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(Duration::from_secs(5))
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging();
    let Ok(mut connection) = options.connect().await else { return Ok(false) };
    let (tables, owner) = match who(&mut connection).await {
        Ok(who) => who,
        Err(_) => return Ok(false),
    };
    if tables > 0 && owner != APPLICATION_ID {
        return Err(InspectError::NotALog { path: file.to_owned() }.into());
    }
    let busy: Result<i64, _> =
        sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut connection).await;
    let closed = connection.close().await;
    match (busy, closed) {
        (Ok(0), Ok(())) => Ok(true),
        (Ok(_), _) => Err(CopyError::Open { path: file.to_owned() }),
        _ => Ok(false),
    }
}

async fn who(connection: &mut SqliteConnection) -> Result<(i64, i64), sqlx::Error> {
    let tables = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut *connection).await?;
    let owner = sqlx::query_scalar("PRAGMA application_id").fetch_one(connection).await?;
    Ok((tables, owner))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}
