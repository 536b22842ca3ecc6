//! The resume contract: where a reader begins, and what it must be told first.

use super::{Log, ReaderOptions, Step};
use crate::event::{Selection, Seq, Timestamp};
use crate::frames::Format;
use crate::store::StoreError;

/// How many seqs the first step back looks at; each further one at twice as many, up to the most.
const LOOK_BACK_SEQS: Seq = 1_024;
const LOOK_BACK_SEQS_MAX: Seq = 65_536;
/// What is held of them at a time. *Units*: bytes.
const LOOK_BACK_PAGE_BYTES: usize = 64 << 10;

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
        From::Last(count) => (before_last(log, count, selection, last).await?, None),
    };
    Ok(Resume { cursor, reset })
}

/// The cursor from which the newest `count` wanted events up to `last` follow, or all that are retained.
///
/// Where a filter has to look at each event: backward, in steps that are read forward.
pub(super) async fn before_last(
    log: &Log,
    count: u64,
    selection: &Selection,
    last: Seq,
) -> Result<Seq, StoreError> {
    let first = log.bounds().first_seq;
    if selection.filter.is_all() {
        let whole_after = log.shared.trims.max_seq();
        return log.shared.store.cursor_before_last(count, selection, first, last, whole_after).await;
    }
    let floor = first - 1;
    let (mut through, mut missing, mut seqs) = (last, count, LOOK_BACK_SEQS);
    while through > floor {
        let after = through.saturating_sub(seqs).max(floor);
        let (_, found) = read(log, selection, after, through, u64::MAX).await?;
        if found >= missing {
            let (cursor, _) = read(log, selection, after, through, found - missing).await?;
            return Ok(cursor);
        }
        missing -= found;
        through = after;
        seqs = (seqs * 2).min(LOOK_BACK_SEQS_MAX);
    }
    Ok(floor)
}

/// Reads so many wanted events of a range: the last of them, and how many they are.
async fn read(
    log: &Log,
    selection: &Selection,
    after: Seq,
    through: Seq,
    limit: u64,
) -> Result<(Seq, u64), StoreError> {
    let options = ReaderOptions {
        selection: selection.clone(),
        format: Format::Lines,
        through: Some(through),
        until: None,
        limit: Some(limit),
        page_bytes_max: LOOK_BACK_PAGE_BYTES,
    };
    let mut reader = log.reader(after, options);
    let (mut cursor, mut found) = (after, 0);
    loop {
        match reader.next().await? {
            Step::Page(page) => {
                cursor = page.last_seq.unwrap_or(cursor);
                found += page.events as u64;
            }
            Step::Gap(_) => cursor = reader.cursor(),
            Step::CaughtUp | Step::End => return Ok((cursor, found)),
        }
    }
}
