//! The files of a log as the file system shows them.

use crate::store::InspectError;
use crate::store::open::beside;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

/// What changes with a file and with its WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    bytes: u64,
    modified: Option<SystemTime>,
    pub(super) wal_bytes: u64,
}

impl State {
    pub(super) fn of(path: &Path) -> Result<Self, InspectError> {
        let metadata = fs::metadata(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => InspectError::Missing { path: path.to_owned() },
            _ => InspectError::Io { path: path.to_owned(), source },
        })?;
        if !metadata.is_file() {
            return Err(InspectError::Missing { path: path.to_owned() });
        }
        let wal_bytes = fs::metadata(beside(path, "-wal")).map_or(0, |wal| wal.len());
        Ok(Self { bytes: metadata.len(), modified: metadata.modified().ok(), wal_bytes })
    }
}
