//! The store: the only place that knows SQLite.
//!
//! Layer L1. May import `event`; knows nothing of readers, frames, HTTP or settings' names.
//!
//! # Layout
//! One file in WAL mode; its tables are described in `migrations/`. Beside it lie SQLite's own `-wal` and
//! `-shm`, and `<file>.lock`, which keeps a second server away and nobody else. `inspect` looks at such a file from outside,
//! `copy` makes copies of it and puts them back.
//!
//! # Who does what
//! [`Appender`] owns the one connection that writes: `BEGIN IMMEDIATE`, a few statements, `COMMIT` with
//! `synchronous=FULL`, as one call. [`Store`] owns a fixed pool of read-only connections; a page is one short statement,
//! finished before its first byte goes to a socket, so that it never pins the WAL.
//!
//! # What a crash leaves
//! * before COMMIT wrote its last frame: nothing of the batch, and nobody was told of it;
//! * between that write and its fsync: perhaps the batch, perhaps not, and nobody was told of it. [`open()`] therefore
//!   moves all of the WAL into the file and syncs it *before* anyone reads, so that what is read once stays;
//! * after the fsync: the batch, acked or not. A producer that was not answered repeats it by id.

mod append;
mod blocks;
mod copy;
mod disk;
mod error;
mod excess;
mod holds;
mod inspect;
mod notes;
mod open;
mod origins;
mod read;
mod row;
mod shape;
mod source;
mod streams;
mod text;
mod tokens;
mod trim;
mod untold;
mod vacuum;

pub use append::{Appender, IdKey, Known, Origins};
pub use copy::{CopyProgress, Restored, back_up, restore};
pub use disk::Disk;
pub use error::{CommitError, CopyError, InspectError, OpenError, StoreError};
pub use excess::{Excess, Shares};
pub use holds::{HeldStream, Hold};
pub use inspect::{Check, Finding, Inspection, LogSummary, Outcome, Progress, Surroundings};
pub use open::{Opened, StoreSettings, open, sqlite_version};
pub use read::{PageLimits, Store, StoredPage};
pub use streams::{StreamEnd, StreamSize, StreamTotals};
pub use text::{TextEvents, TextPage};
pub use tokens::StoredToken;
pub use trim::{StreamMarks, Trimmed};
pub use untold::{Cause, UntoldTrim};

use crate::event::{Seq, Timestamp};

/// What the file says of the log as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// The log's identity.
    pub log_id: String,
    /// Every seq up to here is trimmed.
    pub trimmed_seq: Seq,
    /// Newest committed seq; equal to `trimmed_seq` when nothing is retained.
    pub last_seq: Seq,
    /// `created_at` of the newest event ever stored.
    pub last_created_at: Timestamp,
}
