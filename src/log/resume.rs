//! The resume contract: where a reader begins, and what it must be told first.

use super::Log;
use crate::event::{Selection, Seq, Timestamp};
use crate::store::StoreError;

/// What a reader comes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// Nothing: live from now.
    Now,
    /// A cursor: what is after it.
    After(Seq),
    /// A time: what was received since then.
    Since(Timestamp),
    /// A count: the newest so many, then live.
    Last(u64),
}

/// Why a reader's cursor does not hold for this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// The cursor is beyond the log: an older backup was restored. The reader goes on live.
    Ahead {
        /// The cursor it came with.
        cursor: Seq,
    },
    /// The reader named another log. It begins at the beginning.
    Replaced {
        /// The cursor it came with.
        cursor: Option<Seq>,
    },
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// Its cursor from now on. May lie below what is retained; the reader then tells the gap.
    pub cursor: Seq,
    /// What it must be told first.
    pub reset: Option<Reset>,
}

pub(super) async fn resume(
    log: &Log,
    from: From,
    log_id: Option<&str>,
    selection: &Selection,
) -> Result<Resume, StoreError> {
    let bounds = log.bounds();
    if log_id.is_some_and(|id| id != log.id()) {
        let cursor = if let From::After(cursor) = from { Some(cursor) } else { None };
        return Ok(Resume { cursor: bounds.first_seq - 1, reset: Some(Reset::Replaced { cursor }) });
    }
    let store = &log.shared.store;
    let (first, last) = (bounds.first_seq, bounds.last_seq);
    let (cursor, reset) = match from {
        From::Now => (last, None),
        // 0 asks for what there is, and misses nothing that it ever had.
        From::After(0) => (first - 1, None),
        From::After(cursor) if cursor > last => (last, Some(Reset::Ahead { cursor })),
        From::After(cursor) => (cursor, None),
        From::Since(time) => (store.cursor_before(time, first, last).await?, None),
        From::Last(count) => (store.cursor_before_last(count, selection, first, last).await?, None),
    };
    Ok(Resume { cursor, reset })
}
