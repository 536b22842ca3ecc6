//! A reader: one pull-driven path over the table and the recent window.
//!
//! Two states, one loop. Behind the window it pages the table (catch-up); within it takes shared bytes; at `last_seq`
//! it waits for the next commit (live). Whoever falls out of the window is simply behind it again.

use super::readers::Place;
use super::{Bounds, Shared};
use crate::event::{Selection, Seq, Timestamp};
use crate::frames::{Format, Frames, Page, PageBuilder, page_of_texts};
use crate::metrics::Source;
use crate::store::{PageLimits, StoreError, TextPage};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// What a reader wants, and how much at a time.
#[derive(Debug, Clone)]
pub struct ReaderOptions {
    /// Which events.
    pub selection: Selection,
    /// In which shape.
    pub format: Format,
    /// End after this seq; `None` follows the log for ever.
    pub through: Option<Seq>,
    /// End before the first event of this time. A time to come is waited for: it ends when such an event is there.
    pub until: Option<Timestamp>,
    /// End after so many events.
    pub limit: Option<u64>,
    /// Most bytes of one page, but for a single event that is larger. *Units*: bytes.
    pub page_bytes_max: usize,
}

/// Seqs that a reader asked for and that are trimmed, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// First missing seq.
    pub from: Seq,
    /// Last missing seq.
    pub to: Seq,
    /// Only events of these streams are missing, where they had any there; `*` when there are too many to name. Empty:
    /// all events are missing.
    pub streams: Vec<String>,
}

/// What a reader gets next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Events it wanted are gone. It goes on behind them, or, where single streams have lost theirs, with what is left.
    Gap(Gap),
    /// The next events, or none if only unwanted ones came: the cursor has moved all the same.
    Page(Page),
    /// Nothing more now; [`Reader::wait`] for the next commit.
    CaughtUp,
    /// It has had all it asked for.
    End,
}

/// A page could not be read. The reader keeps its cursor.
#[derive(Debug, thiserror::Error)]
#[error("the events after {cursor} could not be read")]
pub struct ReadError {
    cursor: Seq,
    #[source]
    source: StoreError,
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        error.source
    }
}

/// Most events of one page of the table.
const PAGE_EVENTS_MAX: usize = 1_000;
/// What an event is taken to be in a reader's first page. *Units*: bytes.
const EVENT_BYTES_EXPECTED: usize = 512;

/// One open reader. It holds its cursor and, while it catches up, what it has read ahead.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    pulse: watch::Receiver<()>,
    cursor: Seq,
    /// Of how many trims of single streams it was told.
    told_trims: u64,
    remaining: u64,
    /// What an event was in the page before: the table is asked for about as many as fit into the next. *Units*: bytes.
    event_bytes: usize,
    /// The last page was one of the table, so the next will be one too.
    is_catching_up: bool,
    /// A page of the table that was read ahead. Not given yet: the cursor stands before it.
    ahead: Option<Page>,
    /// What follows it, as it came from the table.
    text: Option<Arc<TextPage>>,
    /// What it shares with other readers of the same client: a page of the table is read under a permit of it.
    share: Option<Arc<Semaphore>>,
    /// Where it tells how far it is, if it is of those that are counted.
    place: Option<Place>,
    options: ReaderOptions,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, cursor: Seq, options: ReaderOptions) -> Self {
        let pulse = shared.pulse.subscribe();
        let remaining = options.limit.unwrap_or(u64::MAX);
        Self {
            shared,
            pulse,
            cursor,
            told_trims: 0,
            remaining,
            event_bytes: EVENT_BYTES_EXPECTED,
            is_catching_up: false,
            ahead: None,
            text: None,
            share: None,
            place: None,
            options,
        }
    }

    /// Everything up to here was given, told as a gap, or not wanted.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// From now on it reads the table only while it holds a permit of this, as all others that share it.
    pub fn share_history(&mut self, share: Arc<Semaphore>) {
        self.share = Some(share);
    }

    /// From now on it counts as an open event stream, and tells how far it is.
    pub fn count(&mut self) {
        let is_live = self.shared.window.reaches(self.cursor);
        self.place = Some(self.shared.readable.readers.enter(self.cursor, is_live));
    }

    /// It begins anew, so what single streams have lost by now is nothing that it misses: it is not told of it.
    pub fn begin_here(&mut self) {
        self.told_trims = self.shared.trims.count();
    }

    /// The next step; never waits for a commit.
    ///
    /// *Errors*: the table could not be read; the cursor stands and the call may be repeated.
    /// *Cancel safety*: safe; the cursor moves only with the value that is returned.
    pub async fn next(&mut self) -> Result<Step, ReadError> {
        loop {
            let bounds = *self.shared.bounds.borrow();
            if self.is_over().await? {
                return Ok(Step::End);
            }
            if self.cursor + 1 < bounds.first_seq {
                return Ok(Step::Gap(self.skip_to(bounds.first_seq - 1)));
            }
            if self.told_trims < self.shared.trims.count() {
                // What was read before them holds what is trimmed now.
                (self.ahead, self.text) = (None, None);
                if let Some(gap) = self.untold_gap() {
                    return Ok(Step::Gap(gap));
                }
            }
            if let Some(page) = self.ahead.take() {
                return Ok(Step::Page(self.take(page)));
            }
            let through = self.options.through.unwrap_or(Seq::MAX).min(bounds.last_seq);
            if self.cursor >= through {
                self.tell_place(true);
                return Ok(Step::CaughtUp);
            }
            if let Some(recent) = self.shared.window.after(self.cursor, self.options.page_bytes_max) {
                let page = self.page(recent.iter().map(Arc::as_ref), through, None);
                self.is_catching_up = false;
                // A reader far behind in a busy window must not keep the thread to itself.
                tokio::task::consume_budget().await;
                return Ok(Step::Page(self.take(page)));
            }
            // In a box, so that a live reader does not carry along the room of a query.
            match Box::pin(self.catch_up(through)).await {
                Ok(Some((page, stream_trims))) => {
                    if !self.is_catching_up && self.place.as_ref().is_some_and(Place::is_live) {
                        self.shared.readable.metrics.lagged.increment();
                    }
                    self.is_catching_up = true;
                    if stream_trims > self.told_trims {
                        if let Some(gap) = self.untold_gap() {
                            // Told first of what is missing from it.
                            self.ahead = Some(page);
                            return Ok(Step::Gap(gap));
                        }
                        // What was forgotten meanwhile is told as the gap of the whole log, which has passed it.
                        if self.cursor + 1 < self.shared.bounds.borrow().first_seq {
                            continue;
                        }
                    }
                    return Ok(Step::Page(self.take(page)));
                }
                // Trimmed while it was read: look at the bounds again, and tell the gap.
                Ok(None) => {}
                Err(source) => return Err(ReadError { cursor: self.cursor, source }),
            }
        }
    }

    /// What single streams have lost beyond the cursor since it was told of it.
    fn untold_gap(&mut self) -> Option<Gap> {
        // Counted first: what comes in between is told again rather than never.
        let count = self.shared.trims.count();
        let gap = self.shared.trims.gap(self.told_trims, self.cursor, &self.options.selection);
        self.told_trims = count;
        gap
    }

    /// Whether it has had all it asks for, and nothing to come is of it.
    ///
    /// *Errors*: the table could not be searched. *Cancel safety*: safe.
    pub async fn is_over(&mut self) -> Result<bool, ReadError> {
        self.resolve_until().await?;
        Ok(self.remaining == 0 || self.options.through.is_some_and(|through| self.cursor >= through))
    }

    /// Turns the time at which it ends into a seq, once that is certain: no event to come is older than the newest.
    async fn resolve_until(&mut self) -> Result<(), ReadError> {
        let Some(until) = self.options.until.filter(|until| *until <= self.shared.last_created_at()) else {
            return Ok(());
        };
        // The newest event may be newer than the bounds that were seen before.
        let search = Box::pin(self.shared.store.cursor_before(until, 1, Seq::MAX >> 1));
        match search.await {
            Ok(last) => {
                self.options.through = Some(self.options.through.map_or(last, |through| through.min(last)));
                self.options.until = None;
                Ok(())
            }
            Err(source) => Err(ReadError { cursor: self.cursor, source }),
        }
    }

    /// While a page of the table is being sent: makes the next one, and has the table read what follows it. Elsewhere
    /// it does nothing.
    ///
    /// What goes wrong here goes wrong again, and is told, in [`Reader::next`].
    /// *Cancel safety*: safe; what was read is read again.
    pub async fn read_ahead(&mut self) {
        if self.is_catching_up && self.ahead.is_none() {
            // In a box, so that a live reader does not carry along the room of a query.
            (self.ahead, self.text) = Box::pin(self.prepare()).await;
        }
    }

    /// The next page and the text behind it. SQLite's thread reads the one while this thread encodes the other.
    async fn prepare(&mut self) -> (Option<Page>, Option<Arc<TextPage>>) {
        let text = match self.text.take().filter(|text| text.after == self.cursor) {
            Some(text) => Some(text),
            None => self.text_ahead(self.cursor, self.remaining).await,
        };
        let Some(text) = text else { return (None, None) };
        // How many of its events pass the filter is not known before they are looked at.
        let events = if self.options.selection.filter.is_all() { text.events } else { 0 };
        let remaining = self.remaining.saturating_sub(events);
        let (following, page) = tokio::join!(
            biased;
            self.text_ahead(text.scanned_to, remaining),
            async { self.page_of_text(&text) }
        );
        let following =
            following.filter(|_| page.as_ref().is_some_and(|page| page.cursor == text.scanned_to));
        (page, following)
    }

    /// What follows a cursor, if it has to come from the table and came as it should.
    async fn text_ahead(&self, after: Seq, remaining: u64) -> Option<Arc<TextPage>> {
        let last_seq = self.shared.bounds.borrow().last_seq;
        let through = self.options.through.unwrap_or(Seq::MAX).min(last_seq);
        if after >= through || remaining == 0 || self.shared.window.reaches(after) {
            return None;
        }
        let text = self.read_text(after, through, remaining).await.ok().flatten();
        text.filter(|text| text.trimmed_seq <= after && text.stream_trims <= self.told_trims)
    }

    /// Waits until there is something after the cursor, or what is after it was trimmed.
    ///
    /// A log that failed never wakes it: whoever holds a reader ends it when the log ends.
    /// *Cancel safety*: safe.
    pub async fn wait(&mut self) {
        loop {
            // Seen first: a pulse after this one is for bounds that may not be seen below.
            self.pulse.mark_unchanged();
            let bounds = *self.shared.bounds.borrow();
            if bounds.last_seq > self.cursor || bounds.first_seq > self.cursor + 1 {
                return;
            }
            self.pulse.changed().await.expect("the reader itself holds the sender");
        }
    }

    /// One page of the table, and how many trims of single streams it is of, all of them shown by now; `None` if the log
    /// was trimmed beyond the cursor meanwhile.
    async fn catch_up(&self, through: Seq) -> Result<Option<(Page, u64)>, StoreError> {
        if let Some(text) = self.read_text(self.cursor, through, self.remaining).await? {
            self.trims_shown(text.trimmed_seq, text.stream_trims).await;
            if text.trimmed_seq > self.cursor {
                return Ok(None);
            }
            if let Some(page) = self.page_of_text(&text) {
                return Ok(Some((page, text.stream_trims)));
            }
        }
        // What a text cannot tell in one way only, the rows tell.
        let turn = self.shared.history.turn().await;
        let limits = PageLimits {
            events_max: self.events_max(self.remaining),
            bytes_max: self.options.page_bytes_max,
        };
        let stored = self.shared.store.page(self.cursor, through, &self.options.selection, limits).await?;
        drop(turn);
        self.trims_shown(stored.trimmed_seq, stored.stream_trims).await;
        if stored.trimmed_seq > self.cursor {
            return Ok(None);
        }
        let frames = Frames::encode(&stored.events);
        let page = self.page(std::iter::once(&frames), through, Some(stored.scanned_to));
        Ok(Some((page, stored.stream_trims)))
    }

    async fn read_text(
        &self,
        after: Seq,
        through: Seq,
        remaining: u64,
    ) -> Result<Option<Arc<TextPage>>, StoreError> {
        let events_max = self.events_max(remaining).min(self.options.page_bytes_max / self.event_bytes + 1);
        let (history, trims) = (&self.shared.history, self.shared.trims.count());
        let _share = match &self.share {
            Some(share) => Some(share.acquire().await.expect("the semaphore is never closed")),
            None => None,
        };
        history.text_page(after, through, &self.options.selection, events_max, trims).await
    }

    /// `None` if the very first event is one for the rows.
    fn page_of_text(&self, text: &TextPage) -> Option<Page> {
        let mut events = text.read();
        let options = &self.options;
        let filter = &options.selection.filter;
        let wanted = events.by_ref().filter(|event| filter.matches(event));
        let events_max = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let mut page = page_of_texts(text.after, wanted, options.format, options.page_bytes_max, events_max);
        if events.is_whole() {
            page.cursor = text.scanned_to;
        }
        (page.cursor > text.after).then_some(page)
    }

    /// How many events of the table may be read for a page with so many.
    fn events_max(&self, remaining: u64) -> usize {
        let remaining = if self.options.selection.filter.is_all() { remaining } else { u64::MAX };
        usize::try_from(remaining).unwrap_or(usize::MAX).min(PAGE_EVENTS_MAX)
    }

    /// A trim is committed and perhaps not yet shown: waits until it is.
    async fn trims_shown(&self, trimmed_seq: Seq, stream_trims: u64) {
        let trims = &self.shared.trims;
        let is_shown = |bounds: &Bounds| bounds.first_seq > trimmed_seq && trims.count() >= stream_trims;
        if !is_shown(&self.shared.bounds.borrow()) {
            let mut bounds = self.shared.bounds.subscribe();
            let _ = bounds.wait_for(is_shown).await;
        }
    }

    /// Cuts a page from frames. `scanned_to` says how far their source was read.
    fn page<'f>(
        &self,
        frames: impl Iterator<Item = &'f Frames>,
        through: Seq,
        scanned_to: Option<Seq>,
    ) -> Page {
        let options = &self.options;
        let events_max = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let mut page = PageBuilder::new(
            self.cursor,
            &options.selection,
            options.format,
            options.page_bytes_max,
            events_max,
        );
        let mut is_whole = true;
        for frames in frames {
            is_whole = page.add(frames, through);
            if !is_whole {
                break;
            }
        }
        page.finish(scanned_to.filter(|_| is_whole))
    }

    fn take(&mut self, page: Page) -> Page {
        if let Some(bytes) = page.bytes.len().checked_div(page.events) {
            self.event_bytes = bytes.max(1);
        }
        self.cursor = page.cursor;
        self.remaining -= page.events as u64;
        let source = if self.is_catching_up { Source::Table } else { Source::Window };
        let metrics = &self.shared.readable.metrics;
        metrics.reader_pages.of(source).increment();
        metrics.reader_events.of(source).add(page.events as u64);
        self.tell_place(!self.is_catching_up);
        page
    }

    fn tell_place(&self, is_live: bool) {
        if let Some(place) = &self.place {
            place.set(self.cursor, is_live);
        }
    }

    fn skip_to(&mut self, to: Seq) -> Gap {
        let gap = Gap { from: self.cursor + 1, to, streams: Vec::new() };
        self.ahead = None;
        self.cursor = to;
        self.tell_place(!self.is_catching_up);
        gap
    }
}
