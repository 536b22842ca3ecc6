//! What a log file lies in: who may read it, on what file system, with how much space left, under which clock.

use super::{Check, Finding};
use crate::event::Timestamp;
use crate::store::open::{beside, check_version, folder};
use crate::store::{OpenError, StoreError};
use rustix::fs::{Access, access, statfs, statvfs};
use rustix::process::geteuid;
use sqlx::SqliteConnection;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a WAL may have without being told of. *Units*: bytes.
const WAL_BYTES_WARNED: u64 = 64 << 20;
/// How far the newest event may be ahead of the clock. *Units*: microseconds.
const CLOCK_BACK_MAX: i64 = 5_000_000;
/// File systems of other machines, by the number that `statfs` has for them. *Source*: statfs(2).
const NETWORK: [u32; 4] = [0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42];
/// File systems in memory: tmpfs and ramfs.
const MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58F6];

/// What a diagnosis goes by that is not of the file.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings {
    /// Appends are refused below this much free disk. *Units*: bytes.
    pub disk_free_bytes_min: u64,
    /// The clock of the machine.
    pub now: Timestamp,
}

/// What the file system says.
pub(super) fn of_files(path: &Path, surroundings: &Surroundings) -> Vec<Finding> {
    let mut findings = vec![permissions(path), wal(path)];
    findings.extend(file_system(path));
    findings.extend(free_space(path, surroundings.disk_free_bytes_min));
    findings
}

fn permissions(path: &Path) -> Finding {
    let shown = path.display();
    let problem = |found: String, next: String| Finding::problem(Check::Permissions, found, next);
    let (file, above) = match (fs::metadata(path), fs::metadata(folder(path))) {
        (Ok(file), Ok(above)) => (file, above),
        (Err(error), _) | (_, Err(error)) => {
            return problem(format!("the file cannot be looked at: {error}"), "run as its owner".to_owned());
        }
    };
    let mode = |metadata: &Metadata| metadata.mode() & 0o777;
    if mode(&file) & 0o007 != 0 && mode(&above) & 0o001 != 0 {
        let found = format!("everyone on this machine may open the file, mode {:04o}", mode(&file));
        return problem(found, format!("`chmod o= {shown}*`"));
    }
    if mode(&file) & 0o600 != 0o600 {
        let found = format!("its owner may not read and write the file, mode {:04o}", mode(&file));
        return problem(found, format!("`chmod u+rw {shown}*`"));
    }
    for suffix in ["-wal", "-shm", ".lock"] {
        let Ok(beside) = fs::metadata(beside(path, suffix)) else { continue };
        if beside.uid() != file.uid() {
            let found =
                format!("{shown}{suffix} belongs to user {}, the file to {}", beside.uid(), file.uid());
            return problem(
                found,
                format!("`chown {} {shown}*`; open the file as that user only", file.uid()),
            );
        }
    }
    let is_ours = geteuid().as_raw() == file.uid();
    if is_ours && access(folder(path), Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let found = "its owner cannot make files in the folder, where the WAL has to lie".to_owned();
        return problem(found, format!("`chmod u+wx {}`", folder(path).display()));
    }
    Finding::ok(
        Check::Permissions,
        format!("the file is that of user {}, mode {:04o}", file.uid(), mode(&file)),
    )
}

fn wal(path: &Path) -> Finding {
    let bytes = fs::metadata(beside(path, "-wal")).map_or(0, |wal| wal.len());
    if bytes <= WAL_BYTES_WARNED {
        return Finding::ok(Check::Wal, format!("the WAL has {} MiB", bytes >> 20));
    }
    let next = format!(
        "a program keeps a transaction open, or is to do the checkpoints and does not run; `fuser -v {}` names who has the file",
        path.display()
    );
    Finding::warning(
        Check::Wal,
        format!("the WAL has {} MiB and is not moved into the file", bytes >> 20),
        next,
    )
}

fn file_system(path: &Path) -> Option<Finding> {
    let kind = u32::try_from(statfs(path).ok()?.f_type & 0xFFFF_FFFF).ok()?;
    Some(if NETWORK.contains(&kind) {
        let found = "the file lies on a network file system, where SQLite's locks do not hold";
        Finding::problem(Check::FileSystem, found, "move it to a local disk")
    } else if MEMORY.contains(&kind) {
        let found = "the file lies in memory, and is gone when the machine stops";
        Finding::problem(Check::FileSystem, found, "move it to a disk")
    } else {
        Finding::ok(Check::FileSystem, "the file lies on a local file system")
    })
}

fn free_space(path: &Path, floor: u64) -> Option<Finding> {
    let disk = statvfs(folder(path)).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let found =
        format!("{} MiB of the disk are free, appends are refused below {} MiB", free >> 20, floor >> 20);
    let next = "make room: a larger disk, or retention, which also gives space back; see EVERTAIL_DISK_FREE_BYTES_MIN";
    Some(match free {
        _ if free < floor => Finding::problem(Check::FreeSpace, found, next),
        _ if free / 2 < floor => Finding::warning(Check::FreeSpace, found, next),
        _ => Finding::ok(Check::FreeSpace, found),
    })
}

/// The SQLite in this binary.
pub(super) async fn sqlite(connection: &mut SqliteConnection) -> Result<Finding, StoreError> {
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut *connection).await?;
    Ok(match check_version(connection).await? {
        Err(OpenError::SqliteTooOld { version }) => Finding::problem(
            Check::Sqlite,
            format!("this binary has SQLite {version}, which can corrupt a WAL"),
            "build it with 3.51.3 or later",
        ),
        _ => Finding::ok(Check::Sqlite, format!("this binary has SQLite {version}")),
    })
}

/// Those settings that stay in a file.
pub(super) async fn pragmas(connection: &mut SqliteConnection) -> Result<Finding, StoreError> {
    let (encoding, auto_vacuum): (String, i64) =
        sqlx::query_as("SELECT encoding, auto_vacuum FROM pragma_encoding, pragma_auto_vacuum")
            .fetch_one(connection)
            .await?;
    Ok(if encoding != "UTF-8" {
        let next = "`evertail export` it, and `evertail import` it into a new log";
        Finding::problem(Check::Pragmas, format!("texts of the file are {encoding} and not UTF-8"), next)
    } else if auto_vacuum != 2 {
        let next = "stop the server and run `sqlite3 FILE 'pragma auto_vacuum = incremental; vacuum'`";
        Finding::warning(Check::Pragmas, "the file does not shrink when events are trimmed", next)
    } else {
        Finding::ok(Check::Pragmas, "texts are UTF-8, and the file shrinks when events are trimmed")
    })
}

/// New events never get a time before that of the newest.
pub(super) async fn clock(connection: &mut SqliteConnection, now: Timestamp) -> Result<Finding, StoreError> {
    let newest: Option<String> = sqlx::query_scalar("SELECT created_at FROM log ORDER BY seq DESC LIMIT 1")
        .fetch_optional(connection)
        .await?;
    let Some(newest) = newest else { return Ok(Finding::ok(Check::Clock, "the log has no events yet")) };
    let ahead = Timestamp::parse(&newest).map_or(0, |time| time.microseconds() - now.microseconds());
    Ok(if ahead > CLOCK_BACK_MAX {
        let found = format!(
            "the newest event was received at {newest}, {} seconds ahead of the clock; until then all events get that time",
            ahead / 1_000_000
        );
        Finding::problem(Check::Clock, found, "set the clock, by NTP at best")
    } else {
        Finding::ok(Check::Clock, format!("the newest event was received at {newest}"))
    })
}
