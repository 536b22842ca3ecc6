//! History that several readers read at the same time is read from the table once.
//!
//! The log never changes, so a page that was read stays true: readers who began together, after a deployment say, stay
//! together on the same few pages, and whoever falls back catches up with the others at the speed of memory.

use crate::event::{Selection, Seq};
use crate::store::{Store, StoreError, TextPage};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OnceCell, Semaphore};

/// How many pages are kept for others.
const SHARED_PAGES_MAX: usize = 16;

/// Reads pages of the table for all readers.
#[derive(Debug)]
pub(super) struct History {
    store: Store,
    /// Bounds the table pages in flight: unthrottled catch-up multiplies the writer's latency.
    turns: Semaphore,
    /// The pages read last, the newest behind.
    pages: Mutex<VecDeque<Shared>>,
}

/// A page without a selection, or one that is being read.
#[derive(Debug)]
struct Shared {
    after: Seq,
    through: Seq,
    text: Arc<OnceCell<Option<Arc<TextPage>>>>,
}

impl History {
    pub(super) fn new(store: Store, pages_max: usize) -> Self {
        Self { store, turns: Semaphore::new(pages_max), pages: Mutex::default() }
    }

    /// See [`Store::text_page`].
    pub(super) async fn text_page(
        &self,
        after: Seq,
        through: Seq,
        selection: &Selection,
        events_max: usize,
    ) -> Result<Option<Arc<TextPage>>, StoreError> {
        let read = async |through| {
            let _turn = self.turn().await;
            let text = self.store.text_page(after, through, selection, events_max).await?;
            Ok(text.map(Arc::new))
        };
        if !selection.is_all() {
            return read(through).await;
        }
        let through = through.min(after.saturating_add(events_max as Seq));
        self.shared(after, through).get_or_try_init(|| read(through)).await.cloned()
    }

    /// The right to read one page of the table.
    pub(super) async fn turn(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.turns.acquire().await.expect("the semaphore is never closed")
    }

    fn shared(&self, after: Seq, through: Seq) -> Arc<OnceCell<Option<Arc<TextPage>>>> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = pages.iter().rev().find(|page| page.after == after && page.through == through) {
            return page.text.clone();
        }
        if pages.len() >= SHARED_PAGES_MAX {
            pages.pop_front();
        }
        let text = Arc::default();
        pages.push_back(Shared { after, through, text: Arc::clone(&text) });
        text
    }
}
