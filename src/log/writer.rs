//! The writer: the one task that commits. gather -> commit -> publish -> ack, each a function of its own, because a
//! replicated log would replace only the commit.

mod own;
mod upkeep;

use super::holds::HoldCommand;
use super::plan::{Append, Knowledge, Plan, Position, Refusal, plan};
use super::pulse::Pulse;
use super::retention::Keeper;
use super::tokens::TokenCommand;
use super::trim::Trim;
use super::{AppendError, LogSettings, Shared};
use crate::event::{Event, Receipt, Selection, Seq, StreamName, Timestamp};
use crate::frames::Frames;
use crate::store::{Appender, CommitError, IdKey, LogState, Opened, PageLimits, StoreError};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use upkeep::{Space, Untold};

/// Most events of one commit, unless a single request has more. Beyond this a larger commit is no faster for each event
/// and everyone in it waits longer.
const BATCH_EVENTS_MAX: usize = 1_024;
/// Most content of one commit, unless a single request has more. *Units*: bytes.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How often commits of other processes are looked for where the writer is never idle.
const LOOK_AT_LEAST: Duration = Duration::from_secs(1);
/// Events of other processes that are published at a time.
const NOTICE_LIMITS: PageLimits = PageLimits { events_max: 1_000, bytes_max: 4 << 20 };

/// The log can no longer promise anything; the process must end and start anew.
#[derive(Debug, thiserror::Error)]
pub enum LogFailed {
    /// A commit or a checkpoint failed in a way that leaves open what is on disk.
    #[error("the log file failed while {during}; start again, which makes durable what is there")]
    Store {
        /// What the writer was doing.
        during: &'static str,
        /// Why it failed.
        #[source]
        source: CommitError,
    },
    /// A bug.
    #[error("the writer panicked: {0}; start again, and report it")]
    Panicked(String),
}

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Append(Queued),
    Trim(Trim),
    Hold(HoldCommand),
    Token(TokenCommand),
    /// Answered when its turn comes.
    Probe(oneshot::Sender<()>),
    Close,
}

/// A request that waits. Whoever asked may have gone; it is committed all the same.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) append: Append,
    pub(super) bytes: usize,
    pub(super) queued_at: Instant,
    pub(super) reply: oneshot::Sender<Result<Vec<Receipt>, AppendError>>,
    /// Its share of the queue's bytes, given back when it is answered.
    #[expect(dead_code, reason = "held, not read")]
    pub(super) permit: OwnedSemaphorePermit,
}

pub(super) struct Writer {
    appender: Appender,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    /// A command that did not fit into the batch before it; the next one to be done.
    carried: Option<Command>,
    /// What is still to be trimmed, in the order in which it was asked for.
    trims: VecDeque<Trim>,
    position: Position,
    pulse: Pulse,
    disk_free_bytes_min: u64,
    keeper: Keeper,
    /// The last step of a trim was refused; told once.
    is_trim_refused: bool,
    untold: Untold,
    space: Space,
    /// Ticks while the writer is idle: time to look for commits of other processes.
    idle: Interval,
    data_version: Option<i64>,
    /// When it was last looked at.
    looked_at: Instant,
    /// Fills the recent window; ends by itself, or with the writer.
    loading: JoinHandle<()>,
    /// Keeps other servers off the file until this task has ended.
    _lock: File,
}

/// A failure on the write path with what was being done.
type Failure = (&'static str, CommitError);

impl Writer {
    pub(super) fn new(
        opened: Opened,
        retained: (u64, u64),
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        loading: JoinHandle<()>,
        settings: &LogSettings,
    ) -> Self {
        let Opened { appender, state, lock, store: _, disk: _ } = opened;
        let mut idle = tokio::time::interval(settings.notice_interval.max(Duration::from_millis(1)));
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            appender,
            shared,
            commands,
            carried: None,
            trims: VecDeque::new(),
            position: Position { last_seq: state.last_seq, last_created_at: state.last_created_at },
            pulse: Pulse::new(),
            disk_free_bytes_min: settings.disk_free_bytes_min,
            keeper: Keeper::new(settings.retention.clone(), retained),
            is_trim_refused: false,
            untold: Untold::default(),
            space: Space::default(),
            idle,
            data_version: None,
            looked_at: Instant::now(),
            loading,
            _lock: lock,
        }
    }

    /// Runs until the log is closed or fails. Whatever waits in the queue when it fails is answered `Unavailable`, by
    /// the end of its reply channel.
    pub(super) async fn run(mut self) -> Result<(), LogFailed> {
        let worked = self.work().await;
        self.loading.abort();
        let _ = (&mut self.loading).await;
        match worked {
            Ok(()) => {
                self.shared.store.close().await;
                if let Err(error) = self.appender.close().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "closing the log file failed");
                }
                Ok(())
            }
            Err((during, source)) => {
                self.commands.close();
                Err(LogFailed::Store { during, source })
            }
        }
    }

    async fn work(&mut self) -> Result<(), Failure> {
        self.take_up().await?;
        while let Some(command) = self.next_command().await? {
            match command {
                Command::Append(first) => {
                    let batch = self.gather(first);
                    self.append(batch).await?;
                    self.shared.window.settle();
                }
                Command::Trim(trim) => self.trims.push_back(trim),
                Command::Hold(command) => self.change_hold(command).await?,
                Command::Token(command) => self.change_token(command).await?,
                Command::Probe(reply) => {
                    // Whoever asked may have gone.
                    let _ = reply.send(());
                }
                Command::Close => self.commands.close(),
            }
            self.look_who_waits();
            self.pulse.beat(&self.shared.pulse);
            self.keep_up().await?;
            // Under load it is never idle, and what another process has revoked must not wait for that.
            if self.looked_at.elapsed() >= LOOK_AT_LEAST {
                self.notice_if_changed().await?;
            }
        }
        Ok(())
    }

    /// The next command; while there is none, commits of other processes are looked for.
    async fn next_command(&mut self) -> Result<Option<Command>, Failure> {
        if let Some(command) = self.carried.take() {
            return Ok(Some(command));
        }
        loop {
            while self.has_trims() || self.has_space_to_give() {
                match self.commands.try_recv() {
                    Ok(command) => return Ok(Some(command)),
                    Err(TryRecvError::Empty) => {
                        self.keep_up().await?;
                        self.pulse.beat(&self.shared.pulse);
                    }
                    Err(TryRecvError::Disconnected) => return Ok(None),
                }
            }
            tokio::select! {
                biased;
                command = self.commands.recv() => return Ok(command),
                () = rest_until(self.pulse.due()) => {}
                _ = self.idle.tick() => {
                    self.notice_if_changed().await?;
                    self.keep_up().await?;
                }
            }
            self.pulse.beat(&self.shared.pulse);
        }
    }

    /// Notes since when the oldest append waits that is not answered.
    fn look_who_waits(&self) {
        let waiting = &self.shared.readable.waiting;
        match &self.carried {
            Some(Command::Append(queued)) => waiting.set(queued.queued_at),
            _ => {
                // In this order: who comes in between is seen here, or sees that nobody waits and says so itself.
                waiting.clear();
                if !self.commands.is_empty() {
                    waiting.enter(Instant::now());
                }
            }
        }
    }

    /// One batch: what waits now, up to the bounds. Never waits for more.
    fn gather(&mut self, first: Queued) -> Vec<Queued> {
        self.shared.readable.waiting.set(first.queued_at);
        let (mut events, mut bytes) = (first.append.contents.len(), first.bytes);
        let mut batch = vec![first];
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Append(next)
                    if events + next.append.contents.len() <= BATCH_EVENTS_MAX
                        && bytes + next.bytes <= BATCH_BYTES_MAX =>
                {
                    events += next.append.contents.len();
                    bytes += next.bytes;
                    batch.push(next);
                }
                other => {
                    self.carried = Some(other);
                    break;
                }
            }
        }
        batch
    }

    /// Commits, publishes and acks one batch. Nothing is published or answered before the commit has returned.
    async fn append(&mut self, batch: Vec<Queued>) -> Result<(), Failure> {
        let began = Instant::now();
        let outcome = match self.appender.free_bytes() {
            Some(free) if free < self.disk_free_bytes_min => Err(CommitError::Full),
            _ => self.commit(&batch).await,
        };
        match outcome {
            Ok((plan, frames)) => {
                self.publish(&plan.events, frames);
                self.count(&batch, &plan);
                ack(batch, plan.outcomes);
                self.shared.history.pace.committed(began.elapsed());
                Ok(())
            }
            Err(error) => match refuse(&error) {
                Some(refusal) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        requests = batch.len(),
                        "a batch was refused and nothing of it stored"
                    );
                    for queued in batch {
                        let _ = queued.reply.send(Err(refusal()));
                    }
                    Ok(())
                }
                None => Err(("committing", error)),
            },
        }
    }

    fn count(&self, batch: &[Queued], plan: &Plan) {
        let metrics = &self.shared.readable.metrics;
        let acked = plan.outcomes.iter().flatten().map(Vec::len).sum::<usize>();
        metrics.repeated_events.add(acked.saturating_sub(plan.events.len()) as u64);
        if !plan.events.is_empty() {
            metrics.batch_events.observe(plan.events.len() as u64);
            metrics.batch_requests.observe(batch.len() as u64);
        }
    }

    /// Makes a batch durable and returns what it became.
    ///
    /// Most batches need no look at the table: their seqs and ids are new and their streams open, and if not, the keys
    /// and a constraint say so. Only then, for conditions, and for whatever would be refused, is the batch planned again
    /// under the lock: an answer must not depend on whether it was looked up.
    async fn commit(&mut self, batch: &[Queued]) -> Result<(Plan, Frames), CommitError> {
        let now = Timestamp::now();
        let appends = || batch.iter().map(|queued| &queued.append);
        if appends().all(|append| append.expected.is_none()) {
            let plan = plan(self.position, now, appends(), Knowledge::default());
            if plan.outcomes.iter().all(Result::is_ok) {
                let began = Instant::now();
                match encode_during(self.appender.append(&plan.events, &plan.origins), &plan.events).await {
                    Ok((fsync, frames)) => {
                        self.committed(began, fsync);
                        return Ok((plan, frames));
                    }
                    Err(CommitError::Conflict) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        while !self.lock().await? {}
        let known = self.look_up(appends()).await.map_err(CommitError::Failed)?;
        let plan = plan(self.position, now, appends(), known);
        let began = Instant::now();
        let (fsync, frames) =
            encode_during(self.appender.append_locked(&plan.events, &plan.origins), &plan.events).await?;
        self.committed(began, fsync);
        Ok((plan, frames))
    }

    /// A commit of events is durable; of none, where there is nothing to say of its fsync.
    fn committed(&self, began: Instant, fsync: Option<Duration>) {
        let metrics = &self.shared.readable.metrics;
        if let Some(fsync) = fsync {
            metrics.commit_seconds.observe(began.elapsed());
            metrics.fsync_seconds.observe(fsync);
        }
    }

    /// Takes the write lock. False, with the lock released, if other processes had appended: their events come first.
    async fn lock(&mut self) -> Result<bool, CommitError> {
        self.appender.lock().await?;
        let state = self.appender.log_state().await.map_err(CommitError::Failed)?;
        if state.last_seq == self.position.last_seq {
            return Ok(true);
        }
        self.appender.unlock().await?;
        self.notice().await?;
        Ok(false)
    }

    /// What the table knows of the ids and the streams of a batch. Under the lock.
    async fn look_up<'a>(
        &mut self,
        appends: impl Iterator<Item = &'a Append> + Clone,
    ) -> Result<Knowledge, StoreError> {
        let keys: HashSet<IdKey> =
            appends.clone().flat_map(|append| &append.contents).filter_map(IdKey::of).collect();
        let ids = self.appender.find_ids(&keys.into_iter().collect::<Vec<_>>()).await?;
        let streams: HashSet<&StreamName> =
            appends.clone().flat_map(|append| &append.contents).map(|content| &content.stream).collect();
        let ends = self.appender.find_ends(&streams.into_iter().cloned().collect::<Vec<_>>()).await?;
        let mut last_seqs: HashMap<StreamName, Seq> = HashMap::new();
        for stream in appends.filter_map(|append| append.expected.as_ref()?.stream.as_ref()) {
            if !last_seqs.contains_key(stream) {
                last_seqs.insert(stream.clone(), self.appender.last_seq_of(stream).await?);
            }
        }
        Ok(Knowledge { ids, last_seqs, ends })
    }

    /// Looks whether another process has committed, and if so notices what it appended.
    async fn notice_if_changed(&mut self) -> Result<(), Failure> {
        self.looked_at = Instant::now();
        let during = |error| ("looking for events of other processes", error);
        let version =
            self.appender.data_version().await.map_err(|error| during(CommitError::Failed(error)))?;
        if self.data_version == Some(version) {
            return Ok(());
        }
        // What another process has revoked is revoked.
        self.load_tokens().await?;
        match self.notice().await {
            Ok(()) => self.data_version = Some(version),
            // Not now; the version is not kept, so the next tick tries again.
            Err(CommitError::Busy | CommitError::Full) => {}
            Err(error) => return Err(during(error)),
        }
        Ok(())
    }

    /// Makes durable what other processes appended, and publishes it. Holds no lock while it waits.
    async fn notice(&mut self) -> Result<(), CommitError> {
        let state = self.appender.log_state().await.map_err(CommitError::Failed)?;
        if state.last_seq > self.position.last_seq {
            self.appender.notice(state.last_seq).await?;
            self.publish_noticed(&state).await.map_err(CommitError::Failed)?;
        }
        Ok(())
    }

    /// Publishes what other processes appended, durable by now.
    async fn publish_noticed(&mut self, state: &LogState) -> Result<(), StoreError> {
        while self.position.last_seq < state.last_seq {
            let after = self.position.last_seq;
            let page =
                self.shared.store.page(after, state.last_seq, &Selection::all(), NOTICE_LIMITS).await?;
            let is_contiguous = page.events.iter().zip(after + 1..).all(|(event, seq)| event.seq == seq);
            if !is_contiguous || page.events.is_empty() {
                let seq = i64::try_from(after + 1).unwrap_or(i64::MAX);
                return Err(StoreError::Damaged {
                    seq,
                    what: "it is missing; insert into the view `events`",
                });
            }
            self.shared.readable.metrics.noticed_events.add(page.events.len() as u64);
            self.publish(&page.events, Frames::encode(&page.events));
        }
        Ok(())
    }

    /// Shows durable events to the readers: the window first, then the bounds that wake them.
    fn publish(&mut self, events: &[Event], frames: Frames) {
        let Some(last) = events.last() else { return };
        self.position = Position { last_seq: last.seq, last_created_at: last.created_at };
        self.shared.window.push(frames);
        self.shared.last_created_at.store(last.created_at.microseconds(), Ordering::Release);
        self.shared.bounds.send_modify(|bounds| bounds.last_seq = last.seq);
        self.pulse.want();
        let bytes = self.keeper.add(events);
        let metrics = &self.shared.readable.metrics;
        metrics.appended_events.add(events.len() as u64);
        metrics.appended_bytes.add(bytes);
        self.show_retained();
    }
}

/// Waits for a commit, and meanwhile encodes what it commits: SQLite works on a thread of its own.
async fn encode_during<T>(
    commit: impl Future<Output = Result<T, CommitError>>,
    events: &[Event],
) -> Result<(T, Frames), CommitError> {
    let (committed, frames) = tokio::join!(biased; commit, async { Frames::encode(events) });
    committed.map(|told| (told, frames))
}

/// Waits until this time; for ever if there is none.
async fn rest_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Answers every request of a batch. A requester that has gone is no concern of ours.
fn ack(batch: Vec<Queued>, outcomes: Vec<Result<Vec<Receipt>, Refusal>>) {
    for (queued, outcome) in batch.into_iter().zip(outcomes) {
        let _ = queued.reply.send(outcome.map_err(AppendError::Refused));
    }
}

/// What requesters are told when a commit did not happen; `None` when it cannot be known and acking must end.
fn refuse(error: &CommitError) -> Option<fn() -> AppendError> {
    match error {
        CommitError::Full => Some(|| AppendError::DiskFull),
        CommitError::Busy => Some(|| AppendError::Busy),
        // Under the lock nobody else can have taken a seq or an id: a conflict there is damage.
        CommitError::Conflict | CommitError::Failed(_) => None,
    }
}
