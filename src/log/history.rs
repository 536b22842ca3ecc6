//! History that several readers read at the same time is read from the table once.
//!
//! The log never changes, so a page that was read stays true: readers who began together, after a deployment say, stay
//! together on the same few pages, and whoever falls back catches up with the others at the speed of memory.
//!
//! History gives way to appends: while acks take much longer than a commit needs, because processor or disk are short,
//! all readers of history together are given a page a millisecond.

use crate::event::{Selection, Seq};
use crate::store::{Store, StoreError, TextPage};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, Semaphore};
use tokio::time::{Instant, sleep_until};

/// How many pages are kept for others.
const SHARED_PAGES_MAX: usize = 16;

/// How long the readers of history wait for each other's pages while acks are late.
const PACE: Duration = Duration::from_millis(1);
/// How long acks count as late after one was.
const LATE: Duration = Duration::from_millis(20);
/// Acks are late when they take so many times as long as the quickest commits of late, and this much longer.
const LATE_TIMES: u32 = 4;
const LATE_MORE: Duration = Duration::from_millis(2);

/// Reads pages of the table for all readers.
#[derive(Debug)]
pub(super) struct History {
    store: Store,
    /// Bounds the table pages in flight: unthrottled catch-up multiplies the writer's latency.
    turns: Semaphore,
    pub(super) pace: Pace,
    /// The pages read last, the newest behind.
    pages: Mutex<VecDeque<Shared>>,
}

/// Makes history give way to appends.
#[derive(Debug)]
pub(super) struct Pace {
    /// About how long a commit takes that waits for nothing: the quickest ones, forgotten over some hundreds. *Units*:
    /// microseconds; 0 before the first.
    commit_micros: AtomicU64,
    /// Until when history gives way.
    late_until: Mutex<Option<Instant>>,
    /// When the last page was given while it gave way.
    paced: AsyncMutex<Instant>,
}

impl Pace {
    fn new() -> Self {
        Self {
            commit_micros: AtomicU64::new(0),
            late_until: Mutex::default(),
            paced: AsyncMutex::new(Instant::now()),
        }
    }

    /// The writer has committed, and it took so long.
    pub(super) fn committed(&self, took: Duration) {
        let before = self.commit_micros.load(Ordering::Relaxed);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let quickest = if before == 0 { took } else { took.min(before + before / 256 + 1) };
        self.commit_micros.store(quickest, Ordering::Relaxed);
    }

    /// A producer has waited so long for its ack.
    pub(super) fn acked(&self, waited: Duration) {
        let commit = Duration::from_micros(self.commit_micros.load(Ordering::Relaxed));
        if waited > commit * LATE_TIMES + LATE_MORE {
            *self.late_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + LATE);
        }
    }

    /// Waits for a turn while history gives way.
    async fn wait(&self) {
        let is_late = || {
            let until = *self.late_until.lock().unwrap_or_else(PoisonError::into_inner);
            until.is_some_and(|until| Instant::now() < until)
        };
        if is_late() {
            let mut paced = self.paced.lock().await;
            if is_late() {
                sleep_until(*paced + PACE).await;
            }
            *paced = Instant::now();
        }
    }
}

/// A page of all names, or one that is being read.
#[derive(Debug)]
struct Shared {
    after: Seq,
    through: Seq,
    /// How many trims of single streams were told of: a page from before one holds what is trimmed now.
    stream_trims: u64,
    text: Arc<OnceCell<Option<Arc<TextPage>>>>,
}

impl History {
    pub(super) fn new(store: Store, pages_max: usize) -> Self {
        Self { store, turns: Semaphore::new(pages_max), pace: Pace::new(), pages: Mutex::default() }
    }

    /// See [`Store::text_page`].
    pub(super) async fn text_page(
        &self,
        after: Seq,
        through: Seq,
        selection: &Selection,
        events_max: usize,
        stream_trims: u64,
    ) -> Result<Option<Arc<TextPage>>, StoreError> {
        self.pace.wait().await;
        let read = async |through| {
            let _turn = self.turn().await;
            let text = self.store.text_page(after, through, selection, events_max).await?;
            Ok(text.map(Arc::new))
        };
        if !selection.has_all_names() {
            return read(through).await;
        }
        let through = through.min(after.saturating_add(events_max as Seq));
        self.shared(after, through, stream_trims).get_or_try_init(|| read(through)).await.cloned()
    }

    /// The right to read one page of the table.
    pub(super) async fn turn(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.turns.acquire().await.expect("the semaphore is never closed")
    }

    fn shared(&self, after: Seq, through: Seq, stream_trims: u64) -> Arc<OnceCell<Option<Arc<TextPage>>>> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (after, through, stream_trims);
        let is_it = |page: &&Shared| (page.after, page.through, page.stream_trims) == key;
        if let Some(page) = pages.iter().rev().find(is_it) {
            return page.text.clone();
        }
        if pages.len() >= SHARED_PAGES_MAX {
            pages.pop_front();
        }
        let text = Arc::default();
        pages.push_back(Shared { after, through, stream_trims, text: Arc::clone(&text) });
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn history_waits_only_while_acks_are_late() {
        let pace = Pace::new();
        let free = Instant::now();
        pace.committed(Duration::from_millis(1));
        pace.acked(Duration::from_millis(6));
        pace.wait().await;
        assert_eq!(free.elapsed(), Duration::ZERO, "four commits and two milliseconds are not late");
        pace.acked(Duration::from_millis(7));
        let start = Instant::now();
        let mut pages = 0;
        while start.elapsed() < LATE {
            pace.wait().await;
            pages += 1;
        }
        assert!((15..=20).contains(&pages), "{pages} in {LATE:?}");
        let free = Instant::now();
        for _ in 0..1_000 {
            pace.wait().await;
        }
        assert_eq!(free.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_disk_is_not_late() {
        let pace = Pace::new();
        for _ in 0..2_000 {
            pace.committed(Duration::from_millis(20));
        }
        pace.acked(Duration::from_millis(60));
        let free = Instant::now();
        pace.wait().await;
        assert_eq!(free.elapsed(), Duration::ZERO);
    }
}
