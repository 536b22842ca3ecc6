//! What the log takes of its disk, and what is left. Nothing here opens a file: closing any descriptor of the log would drop
//! SQLite's locks on it.

use super::open::beside;
use std::fs;
use std::path::{Path, PathBuf};

/// The places of the log on its disk. Cheap to ask: one call to the system each.
#[derive(Debug, Clone)]
pub struct Disk {
    file: PathBuf,
    wal: PathBuf,
    folder: PathBuf,
}

impl Disk {
    pub(super) fn new(file: &Path, folder: PathBuf) -> Self {
        Self { file: file.to_owned(), wal: beside(file, "-wal"), folder }
    }

    /// Size of the file. *Units*: bytes. `None` when it cannot be told.
    pub fn file_bytes(&self) -> Option<u64> {
        fs::metadata(&self.file).ok().map(|file| file.len())
    }

    /// Size of the WAL. *Units*: bytes. `None` when it cannot be told.
    pub fn wal_bytes(&self) -> Option<u64> {
        fs::metadata(&self.wal).ok().map(|wal| wal.len())
    }

    /// What an unprivileged process may still write to the disk. *Units*: bytes. `None` when it cannot be told.
    pub fn free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.folder).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}
