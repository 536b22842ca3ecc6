//! The recent window: the newest events in memory, encoded, bounded in bytes. A cache: emptied at any moment, nothing
//! changes but speed.

use crate::event::{Selection, Seq};
use crate::frames::Frames;
use crate::store::{PageLimits, Store, StoreError};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Holds every event in `floor < seq <= last pushed`.
#[derive(Debug)]
pub(super) struct Window {
    bytes_max: usize,
    /// Held for a few pointer copies: by the writer and the loader to push, by readers to take. Nothing waits under it.
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    frames: VecDeque<Arc<Frames>>,
    bytes: usize,
    floor: Seq,
    /// Nothing up to here is held or loaded: it is trimmed, in whole or in part.
    trimmed_seq: Seq,
}

/// Largest entry that smaller ones are joined to. *Units*: bytes. As much as a socket takes at a time.
const JOINED_BYTES_MAX: usize = 64 << 10;
/// Events of one page while the window is loaded from the table.
const LOAD_EVENTS: u64 = 1_000;

impl Window {
    /// An empty window at the end of a log in which no seq is missing after `trimmed_seq`.
    pub(super) fn new(bytes_max: usize, last_seq: Seq, trimmed_seq: Seq) -> Self {
        let inner = Inner { frames: VecDeque::new(), bytes: 0, floor: last_seq, trimmed_seq };
        Self { bytes_max, inner: RwLock::new(inner) }
    }

    /// Adds the next older page of the table below the floor, so that readers who come back after a restart are served
    /// from memory. False when there is none, or no room for it. May run beside the writer, which fills the window from
    /// the other end.
    pub(super) async fn load_page(&self, store: &Store) -> Result<bool, StoreError> {
        let limits = PageLimits { events_max: LOAD_EVENTS as usize, bytes_max: self.bytes_max };
        let (floor, trimmed_seq) = {
            let inner = self.read();
            (inner.floor, inner.trimmed_seq)
        };
        if floor <= trimmed_seq {
            return Ok(false);
        }
        let mut step = LOAD_EVENTS;
        loop {
            let after = floor.saturating_sub(step).max(trimmed_seq);
            let page = store.page(after, floor, &Selection::all(), limits).await?;
            if page.scanned_to < floor && step > 1 {
                // Large events: the page was cut before it reached what is already loaded.
                step /= 2;
                continue;
            }
            // What is trimmed by now may be missing from the page, before the writer has said so here.
            let is_whole = page.events.len() as u64 == floor - after;
            return Ok(is_whole && self.push_front(Arc::new(Frames::encode(&page.events)), after, floor));
        }
    }

    /// Lowers the floor by the events between; false, and nothing added, if they do not fit, the floor has moved, or they
    /// were trimmed.
    fn push_front(&self, frames: Arc<Frames>, after: Seq, floor: Seq) -> bool {
        let mut inner = self.write();
        let bytes = frames.size_bytes();
        let is_retained = after >= inner.trimmed_seq;
        let fits = is_retained && inner.floor == floor && inner.bytes + bytes <= self.bytes_max;
        if fits {
            inner.bytes += bytes;
            inner.floor = after;
            inner.frames.push_front(frames);
        }
        fits
    }

    /// Adds the newest events and lets the oldest go.
    pub(super) fn push(&self, frames: Frames) {
        let mut inner = self.write();
        inner.bytes += frames.size_bytes();
        inner.frames.push_back(Arc::new(frames));
        while inner.bytes > self.bytes_max && inner.drop_oldest() {}
    }

    /// Joins the newest small entries, so that a reader gets few large pieces. Called by the one task that pushes.
    ///
    /// Only an entry that is no larger than the one after it is joined with it, so an event is copied a few times at most.
    pub(super) fn settle(&self) {
        loop {
            let (last, newest) = {
                let inner = self.read();
                let mut from_newest = inner.frames.iter().rev();
                let (Some(newest), Some(last)) = (from_newest.next(), from_newest.next()) else { return };
                let is_small = last.size_bytes() + newest.size_bytes() <= JOINED_BYTES_MAX;
                if !is_small || last.size_bytes() > newest.size_bytes() {
                    return;
                }
                (last.clone(), newest.clone())
            };
            let joined = Arc::new(last.join(&newest));
            let mut inner = self.write();
            // The loader adds at the other end only.
            inner.bytes -= last.size_bytes() + newest.size_bytes();
            inner.bytes += joined.size_bytes();
            let kept = inner.frames.len() - 2;
            inner.frames.truncate(kept);
            inner.frames.push_back(joined);
        }
    }

    /// Lets go what was trimmed, in whole or in part, so that trimmed events are gone from memory too.
    pub(super) fn trim(&self, through: Seq) {
        let mut inner = self.write();
        inner.trimmed_seq = inner.trimmed_seq.max(through);
        while inner.frames.front().and_then(|f| f.first_seq()).is_some_and(|first| first <= through) {
            inner.drop_oldest();
        }
    }

    /// What it holds. *Units*: bytes.
    pub(super) fn size_bytes(&self) -> usize {
        self.read().bytes
    }

    /// Whether the window holds what follows the cursor.
    pub(super) fn reaches(&self, cursor: Seq) -> bool {
        cursor >= self.read().floor
    }

    /// What follows the cursor, as whole frames up to about so many bytes; `None` if the window does not reach back
    /// that far.
    pub(super) fn after(&self, cursor: Seq, bytes_max: usize) -> Option<Vec<Arc<Frames>>> {
        let inner = self.read();
        if cursor < inner.floor {
            return None;
        }
        let from = inner.frames.partition_point(|frames| frames.last_seq().is_none_or(|last| last <= cursor));
        let mut bytes = 0;
        let taken = inner.frames.iter().skip(from).take_while(|frames| {
            let is_wanted = bytes < bytes_max;
            bytes += frames.size_bytes();
            is_wanted
        });
        Some(taken.cloned().collect())
    }

    // A panic under the lock leaves whole entries behind, at worst a wrong byte count: nothing to refuse service for.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn drop_oldest(&mut self) -> bool {
        let Some(frames) = self.frames.pop_front() else { return false };
        self.bytes -= frames.size_bytes();
        self.floor = self.floor.max(frames.last_seq().unwrap_or(0));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Content, Event, StreamName, Timestamp};
    use crate::frames::{Format, PageBuilder};

    fn frames(seqs: std::ops::RangeInclusive<Seq>) -> Frames {
        let content = Content::new(StreamName::parse("a").unwrap());
        Frames::encode(
            &seqs
                .map(|seq| Event { seq, created_at: Timestamp::EPOCH, content: content.clone() })
                .collect::<Vec<_>>(),
        )
    }

    fn first_after(window: &Window, cursor: Seq) -> Option<Option<Seq>> {
        window.after(cursor, usize::MAX).map(|found| found.first().and_then(|f| f.first_seq()))
    }

    #[test]
    fn a_cursor_below_the_floor_is_the_tables() {
        let window = Window::new(1 << 20, 10, 0);
        assert_eq!(first_after(&window, 10), Some(None));
        assert_eq!(first_after(&window, 9), None);
        window.push(frames(11..=12));
        window.push(frames(13..=13));
        assert_eq!(first_after(&window, 10), Some(Some(11)));
        assert_eq!(first_after(&window, 12), Some(Some(13)));
        assert_eq!(first_after(&window, 13), Some(None));
        assert_eq!(first_after(&window, 9), None);
    }

    #[test]
    fn the_oldest_go_when_the_bytes_are_used_up() {
        let window = Window::new(frames(11..=20).size_bytes() * 2, 0, 0);
        for start in [1, 11, 21] {
            window.push(frames(start..=start + 9));
        }
        assert_eq!(first_after(&window, 9), None);
        assert_eq!(first_after(&window, 10), Some(Some(11)));
        window.trim(15);
        assert_eq!(first_after(&window, 19), None);
        assert_eq!(first_after(&window, 20), Some(Some(21)));
    }

    #[test]
    fn small_entries_are_joined_and_nothing_else_changes() {
        let (settled, plain) = (Window::new(1 << 20, 0, 0), Window::new(1 << 20, 0, 0));
        let json = |window: &Window, cursor| {
            let all = Selection::all();
            let mut page = PageBuilder::new(cursor, &all, Format::Lines, usize::MAX, usize::MAX);
            let found = window.after(cursor, usize::MAX).unwrap();
            assert!(found.iter().all(|frames| page.add(frames, Seq::MAX)));
            (found.len(), page.finish(None).bytes)
        };
        for seq in 1..=21 {
            plain.push(frames(seq..=seq));
            settled.push(frames(seq..=seq));
            settled.settle();
        }
        for cursor in 0..=21 {
            assert_eq!(json(&settled, cursor).1, json(&plain, cursor).1, "after {cursor}");
        }
        let sizes = |window: &Window| {
            let found = window.after(0, usize::MAX).unwrap();
            (found.iter().map(|frames| frames.size_bytes()).sum::<usize>(), window.read().bytes, found.len())
        };
        let (held, counted, entries) = sizes(&settled);
        assert_eq!(held, counted);
        assert!(entries <= 5 && sizes(&plain).2 == 21, "{entries}");
    }

    #[test]
    fn an_event_larger_than_the_window_leaves_it_empty_and_true() {
        let window = Window::new(10, 0, 0);
        window.push(frames(1..=1));
        assert_eq!(first_after(&window, 0), None);
        assert_eq!(first_after(&window, 1), Some(None));
    }
}
