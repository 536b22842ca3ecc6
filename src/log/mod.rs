//! The log: order, durability and fan-out.
//!
//! Layer L2. May import `event`, `frames`, `metrics`, `wire` and `store`; knows no HTTP and no SQL.
//!
//! # The way of an event
//! [`Log::append`] puts a checked request into a bounded queue. The one writer task takes what is waiting as one batch,
//! plans it (`plan`, a pure function), commits it, publishes it to the recent window, and only then acks. While one
//! fsync runs, the next batch gathers in the queue by itself.
//!
//! [`Reader`] pulls: "what is after my cursor, up to so many bytes". The recent window answers when it reaches back far
//! enough, the table when not; the reader cannot tell which. A reader that falls behind loses its place in memory and
//! nothing else, and the writer never waits for one.
//!
//! # What a crash leaves
//! Memory holds only what the table holds: queue entries that nobody was told of, and a cache. See `store`.

mod history;
mod holds;
mod own;
mod plan;
mod pulse;
mod reader;
mod readers;
mod readings;
mod resume;
mod retention;
mod streams;
mod tokens;
mod trim;
mod trims;
mod window;
mod writer;

pub use holds::{HOLDS_MAX, HoldError};
pub use plan::{Append, ExpectedLastSeq, Refusal};
pub use reader::{Gap, ReadError, Reader, ReaderOptions, Step};
pub use resume::{From, Reset, Resume};
pub use streams::StreamsError;
pub use tokens::{TOKENS_MAX, TokenError, TokenTable};
pub use trim::{TrimReport, TrimRequest};
pub use writer::LogFailed;

pub use crate::store::{HeldStream, Hold, StoredToken, StreamTotals};

use crate::event::{Event, Origin, Receipt, RetentionRules, Selection, Seq, Timestamp};
use crate::store::{self, OpenError, Store, StoreError, StoreSettings};
use history::History;
use readings::Readable;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokens::SealKey;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use trims::StreamTrims;
use window::Window;
use writer::{Command, Queued, Writer};

/// How to open a log.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// The file and its connections.
    pub store: StoreSettings,
    /// Most append requests that wait for the writer.
    pub queue_requests_max: usize,
    /// Most content that waits for the writer. *Units*: bytes.
    pub queue_bytes_max: usize,
    /// Most memory for the recent window. *Units*: bytes.
    pub window_bytes_max: usize,
    /// Appends are refused below this much free disk. *Units*: bytes.
    pub disk_free_bytes_min: u64,
    /// What is kept; the rest is trimmed.
    pub retention: RetentionRules,
    /// Pages that all readers together may be reading from the table at one time.
    pub catch_up_pages_max: usize,
    /// How often the writer looks for commits of other processes while it is idle.
    pub notice_interval: Duration,
}

/// What the log holds at one moment. Never shows a seq that is not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Oldest retained seq; `last_seq + 1` when nothing is retained.
    pub first_seq: Seq,
    /// Newest committed seq; 0 for a new log.
    pub last_seq: Seq,
}

/// A handle on the log; cheap to clone, all clones are the same log.
///
/// Behind it runs the writer task, which [`LogTask`] owns.
#[derive(Debug, Clone)]
pub struct Log {
    shared: Arc<Shared>,
    /// Bounded by requests; the writer is the one receiver, and closes it when the log closes or fails.
    queue: mpsc::Sender<Command>,
    /// On whose behalf this handle asks.
    origin: Option<Arc<Origin>>,
}

/// What the handles, the readers and the writer share.
#[derive(Debug)]
pub(crate) struct Shared {
    log_id: String,
    store: Store,
    window: Window,
    /// Set by the writer only, after the window holds what it promises.
    bounds: watch::Sender<Bounds>,
    /// Set by the writer only, before it touches the bounds.
    trims: StreamTrims,
    retention: RetentionRules,
    /// `created_at` of the newest event, set before the bounds that show it. *Units*: microseconds since 1970.
    last_created_at: AtomicI64,
    /// Sent by the writer after the bounds have changed, at its own pace; wakes every waiting reader.
    pulse: watch::Sender<()>,
    /// Bounds the queue in bytes: a permit a byte, taken on entry, given back with the ack.
    queue_bytes: Arc<Semaphore>,
    queue_bytes_max: usize,
    history: History,
    /// Set by the writer only, after the commit; wakes whoever has let someone in by them.
    tokens: watch::Sender<Arc<TokenTable>>,
    seal_key: SealKey,
    readable: Readable,
}

impl Shared {
    /// `created_at` of the newest event; no event to come has an earlier one.
    fn last_created_at(&self) -> Timestamp {
        Timestamp::from_microseconds(self.last_created_at.load(Ordering::Acquire))
    }
}

/// The writer task of a log. Await it: it ends when the log is closed, or fails.
#[derive(Debug)]
pub struct LogTask {
    task: JoinHandle<Result<(), LogFailed>>,
}

/// An append was not acked.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The writer has as much waiting as it may; nothing was stored.
    #[error("the queue of appends is full")]
    QueueFull,
    /// The request cannot be stored as it is; nothing of it was.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// The disk is full, or below its floor; nothing was stored. Heals by itself.
    #[error("the disk is full")]
    DiskFull,
    /// Another process holds the write lock of the file; nothing was stored.
    #[error("another process holds the write lock of the log file")]
    Busy,
    /// The log is closing; nothing was stored.
    #[error("the log is closing")]
    Closed,
    /// The log has failed. The events may or may not be stored; append them again by id.
    #[error("the log is unavailable")]
    Unavailable,
}

impl Log {
    /// Opens the log, starts the writer, and begins to load the recent window.
    ///
    /// *Errors*: see [`OpenError`]. *Cancel safety*: safe.
    pub async fn open(settings: LogSettings) -> Result<(Self, LogTask), OpenError> {
        let mut opened = store::open(&settings.store).await?;
        let state = opened.state.clone();
        let read = |source| OpenError::Sqlite { path: settings.store.file.clone(), source };
        let trims = StreamTrims::new(opened.appender.stream_marks().await.map_err(read)?);
        let retained = opened.store.totals().await.map_err(read)?;
        let tokens = tokens::table(opened.appender.tokens().await.map_err(read)?);
        let seal_key = SealKey::new(opened.appender.seal_key().await.map_err(read)?);
        // The window has no holes: it begins beyond them.
        let loaded_after = state.trimmed_seq.max(trims.max_seq());
        let window = Window::new(settings.window_bytes_max, state.last_seq, loaded_after);
        // The newest page now, for whoever comes at once; the rest beside the writer, so that a start takes no longer for it.
        window.load_page(&opened.store).await.map_err(read)?;
        let bounds = Bounds { first_seq: state.trimmed_seq + 1, last_seq: state.last_seq };
        let shared = Arc::new(Shared {
            log_id: state.log_id.clone(),
            history: History::new(opened.store.clone(), settings.catch_up_pages_max),
            store: opened.store.clone(),
            window,
            bounds: watch::Sender::new(bounds),
            trims,
            retention: settings.retention.clone(),
            last_created_at: AtomicI64::new(state.last_created_at.microseconds()),
            pulse: watch::Sender::new(()),
            queue_bytes: Arc::new(Semaphore::new(settings.queue_bytes_max)),
            queue_bytes_max: settings.queue_bytes_max,
            tokens: watch::Sender::new(tokens),
            seal_key,
            readable: Readable::new(opened.disk.clone(), &settings, retained),
        });
        let (queue, commands) = mpsc::channel(settings.queue_requests_max);
        let loading = tokio::spawn(load_window(shared.clone()));
        let writer = Writer::new(opened, retained, shared.clone(), commands, loading, &settings);
        let task = tokio::spawn(writer.run());
        Ok((Self { shared, queue, origin: None }, LogTask { task }))
    }

    /// A handle that asks on someone's behalf: what it appends, and what the server appends for what it asks, is stored with
    /// this origin.
    pub fn by(&self, origin: Option<Arc<Origin>>) -> Self {
        Self { origin, ..self.clone() }
    }

    /// Who appended these events, and from where, where that is known.
    ///
    /// *Errors*: the table could not be read. *Cancel safety*: safe.
    pub async fn origins(&self, seqs: &[Seq]) -> Result<HashMap<Seq, Origin>, StoreError> {
        self.shared.store.origins(seqs).await
    }

    /// The log's identity.
    pub fn id(&self) -> &str {
        &self.shared.log_id
    }

    /// What the log holds now.
    pub fn bounds(&self) -> Bounds {
        *self.shared.bounds.borrow()
    }

    /// Whether appends are taken: the writer runs and the log is not closing.
    pub fn is_open(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Waits until the writer has done what it was asked before, and whether it answers that it has. Without an end while it
    /// is stuck, in a disk that does not answer say; false when it has ended.
    ///
    /// *Cancel safety*: safe.
    pub async fn is_answering(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Probe(reply)).await.is_ok() && answer.await.is_ok()
    }

    /// Stores a request, all of it or nothing, and returns a receipt for each event once they are durable.
    ///
    /// *Errors*: see [`AppendError`]; only [`AppendError::Unavailable`] leaves open whether it was stored.
    /// *Cancel safety*: dropping the future never cancels the commit.
    pub async fn append(&self, mut append: Append) -> Result<Vec<Receipt>, AppendError> {
        append.origin.clone_from(&self.origin);
        let bytes = append.contents.iter().map(|content| content.size_bytes()).sum::<usize>();
        // A request larger than the whole queue takes all of it, rather than be refused for ever.
        let permits =
            u32::try_from(bytes.min(self.shared.queue_bytes_max)).map_err(|_| AppendError::QueueFull)?;
        let permit = self.shared.queue_bytes.clone().try_acquire_many_owned(permits);
        let permit = permit.map_err(|_| AppendError::QueueFull)?;
        let (reply, answer) = oneshot::channel();
        let queued_at = Instant::now();
        let queued = Queued { append, bytes, queued_at, reply, permit };
        self.shared.readable.waiting.enter(queued_at);
        self.queue.try_send(Command::Append(queued)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AppendError::QueueFull,
            mpsc::error::TrySendError::Closed(_) => AppendError::Closed,
        })?;
        let outcome = answer.await.unwrap_or(Err(AppendError::Unavailable));
        let waited = queued_at.elapsed();
        self.shared.history.pace.acked(waited);
        if outcome.is_ok() {
            self.shared.readable.metrics.append_seconds.observe(waited);
        }
        outcome
    }

    /// Hands the writer something to do between appends.
    async fn ask(&self, command: Command) -> Result<(), AppendError> {
        self.queue.send(command).await.map_err(|_| AppendError::Closed)
    }

    /// One event, if it is retained.
    ///
    /// *Cancel safety*: safe.
    pub async fn event(&self, seq: Seq) -> Result<Option<Event>, StoreError> {
        let bounds = self.bounds();
        if seq < bounds.first_seq || seq > bounds.last_seq {
            return Ok(None);
        }
        self.shared.store.event(seq).await
    }

    /// Where a reader that comes with this cursor begins.
    ///
    /// Takes a search of the index at most, but for [`From::Last`] with a filter: see [`Log::before_last`].
    /// *Errors*: the table could not be searched. *Cancel safety*: safe.
    pub async fn resume(
        &self,
        from: From,
        log_id: Option<&str>,
        selection: &Selection,
    ) -> Result<Resume, StoreError> {
        resume::resume(self, from, log_id, selection).await
    }

    /// The cursor from which the newest `count` wanted events up to `through` follow, or all that are retained.
    ///
    /// With a filter each event is looked at, backward from `through`, until so many are found: where few pass, that is the
    /// whole log. There is no bound beyond which wanted events would be left out, so nobody should be kept waiting for the
    /// first byte of an answer meanwhile.
    /// *Errors*: the table could not be searched. *Cancel safety*: safe.
    pub async fn before_last(
        &self,
        count: u64,
        selection: &Selection,
        through: Seq,
    ) -> Result<Seq, StoreError> {
        resume::before_last(self, count, selection, through).await
    }

    /// The newest seq before this time.
    ///
    /// *Errors*: the table could not be searched. *Cancel safety*: safe.
    pub async fn cursor_before(&self, time: Timestamp) -> Result<Seq, StoreError> {
        let bounds = self.bounds();
        self.shared.store.cursor_before(time, bounds.first_seq, bounds.last_seq).await
    }

    /// A reader of what is after this cursor.
    pub fn reader(&self, cursor: Seq, options: ReaderOptions) -> Reader {
        Reader::new(self.shared.clone(), cursor, options)
    }

    /// Takes no further appends, answers those already taken, and closes the file. [`LogTask::wait`] tells when.
    ///
    /// *Cancel safety*: safe; once sent it goes on by itself.
    pub async fn close(&self) {
        // An error means that the writer is gone already.
        let _ = self.queue.send(Command::Close).await;
    }
}

/// Fills the recent window, page by page and in turn with readers. The writer stops it when it ends.
async fn load_window(shared: Arc<Shared>) {
    loop {
        let turn = shared.history.turn().await;
        let loaded = shared.window.load_page(&shared.store).await;
        drop(turn);
        match loaded {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the recent window was not loaded; readers who come back are served from the table"
                );
                return;
            }
        }
    }
}

impl LogTask {
    /// Waits for the writer to end.
    ///
    /// *Errors*: the log failed, or its writer panicked; the process must not ack again.
    /// *Cancel safety*: safe; it may be awaited again.
    pub async fn wait(&mut self) -> Result<(), LogFailed> {
        match (&mut self.task).await {
            Ok(result) => result,
            Err(error) => Err(LogFailed::Panicked(error.to_string())),
        }
    }
}
