//! What the writer does after the acks and while it is idle: trimming, the index, space given back, checkpoints. A step
//! of each at a time, so that appends wait for no more.

use super::{Failure, Writer, refuse};
use crate::event::{Origin, StreamName};
use crate::log::AppendError;
use crate::log::trim::{Done, Trim};
use crate::metrics;
use crate::store::{Cause, CommitError, Excess, Trimmed};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Retention is told of by events at most so often: what goes a little at a time would else leave a trail as long.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// How long after it was not possible telling is tried again.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// Streams that retention looks at in one step.
const WALK_STREAMS: usize = 256;
/// How often is looked for space to give back.
const SPACE_LOOK: Duration = Duration::from_secs(10);

/// What was trimmed and is not told yet.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// Since when retention has trimmed something.
    since: Option<Instant>,
    told_at: Option<Instant>,
    /// What was asked for could not be told at once; when that was tried.
    request: Option<Instant>,
}

/// Giving space back.
#[derive(Debug, Default)]
pub(super) struct Space {
    looked_at: Option<Instant>,
    /// More is to be given back.
    has_more: bool,
}

impl Writer {
    /// What a crash left to be done.
    pub(super) async fn take_up(&mut self) -> Result<(), Failure> {
        let during = |error| ("looking for trims to tell of", CommitError::Failed(error));
        if self.appender.has_untold(Cause::Request).await.map_err(during)? {
            self.tell_request(None, None).await?;
        }
        if self.appender.has_untold(Cause::Retention).await.map_err(during)? {
            self.untold.since = Some(Instant::now());
        }
        Ok(())
    }

    /// What is due after the acks. A step of each, so that appends wait for no more.
    pub(super) async fn keep_up(&mut self) -> Result<(), Failure> {
        self.look_for_old().await?;
        match self.trims.pop_front() {
            Some(trim) => self.asked_step(trim).await?,
            None => self.retention_step().await?,
        }
        let trimmed_seq = self.shared.bounds.borrow().first_seq - 1;
        match self.appender.index_block(self.position.last_seq, trimmed_seq).await {
            // What cannot be indexed now is searched without the index.
            Ok(_) | Err(CommitError::Full | CommitError::Busy) => {}
            Err(error) => return Err(("indexing", error)),
        }
        self.give_back_space().await?;
        let began = Instant::now();
        match self.appender.checkpoint_if_due().await {
            Ok(true) => self.shared.readable.checkpointed(began.elapsed()),
            Ok(false) => {}
            Err(error @ CommitError::Failed(_)) => return Err(("checkpointing", error)),
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, "the WAL was not checkpointed and grows");
            }
        }
        let excess_events = self.keeper.excess_events(self.shared.bounds.borrow().first_seq);
        self.shared.readable.metrics.excess_events.set(excess_events);
        Ok(())
    }

    /// Shows how much there is, for whoever asks.
    pub(super) fn show_retained(&self) {
        let (events, bytes) = self.keeper.retained();
        let metrics = &self.shared.readable.metrics;
        metrics.retained_events.set(events);
        metrics.retained_bytes.set(bytes);
    }

    /// Whether there is something to trim at once.
    pub(super) fn has_trims(&self) -> bool {
        let first_seq = self.shared.bounds.borrow().first_seq;
        !self.trims.is_empty() || self.keeper.has_work(first_seq, Instant::now())
    }

    async fn look_for_old(&mut self) -> Result<(), Failure> {
        let Some(ages) = self.keeper.look(Instant::now()) else { return Ok(()) };
        let bounds = *self.shared.bounds.borrow();
        let mut old_seqs = Vec::with_capacity(ages.len());
        for age in ages {
            let old = match age {
                Some(time) => self.appender.cursor_before(time, bounds.first_seq, bounds.last_seq).await,
                None => Ok(0),
            };
            old_seqs.push(old.map_err(|error| ("looking for old events", error.into()))?);
        }
        self.keeper.found_old(old_seqs);
        Ok(())
    }

    /// One step of a trim that was asked for; when it is through, the log tells of it, and whoever asked is answered.
    async fn asked_step(&mut self, mut trim: Trim) -> Result<(), Failure> {
        let trimmed = match self.step(trim.stream.as_ref(), trim.excess, Cause::Request).await? {
            Ok(trimmed) => trimmed,
            Err(refusal) => {
                if trim.done.events > 0 {
                    self.tell_request(trim.reason.as_deref(), trim.origin.take()).await?;
                }
                let _ = trim.reply.send(Err(refusal));
                return Ok(());
            }
        };
        let Done { events, bytes, through, .. } = trim.done;
        trim.done = Done {
            events: events + trimmed.events,
            bytes: bytes + trimmed.bytes,
            through: through.max(trimmed.through),
            is_held: trimmed.is_held,
        };
        trim.excess = trim.excess.less(trimmed.events, trimmed.bytes);
        let Excess { events, bytes, through } = trim.excess;
        if trimmed.events > 0 && (events > 0 || bytes > 0 || through > trimmed.through) {
            self.trims.push_front(trim);
            return Ok(());
        }
        if trim.done.events > 0 {
            self.tell_request(trim.reason.as_deref(), trim.origin.take()).await?;
        }
        let _ = trim.reply.send(Ok(trim.done));
        Ok(())
    }

    /// Tells of what was asked for, or tries again later.
    async fn tell_request(
        &mut self,
        reason: Option<&str>,
        origin: Option<Arc<Origin>>,
    ) -> Result<(), Failure> {
        let is_told = self.tell(Cause::Request, reason, origin).await?;
        self.untold.request = (!is_told).then(Instant::now);
        Ok(())
    }

    /// One step of what retention does not keep.
    async fn retention_step(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let first_seq = self.shared.bounds.borrow().first_seq;
        if let Some(excess) = self.keeper.excess(first_seq, now) {
            match self.step(None, excess, Cause::Retention).await? {
                Ok(Trimmed { events: 1.., .. }) => {}
                Ok(_) | Err(_) => self.keeper.rest(now),
            }
        } else if let Some((stream, excess)) = self.keeper.due_stream().cloned() {
            match self.step(Some(&stream), excess, Cause::Retention).await? {
                Ok(trimmed) => {
                    self.keeper.trimmed_stream(trimmed.through, trimmed.events, trimmed.bytes);
                }
                Err(_) => self.keeper.stop_walk(),
            }
        } else if let Some(after) = self.keeper.walked_to() {
            let sizes = self.appender.stream_sizes(after, WALK_STREAMS).await;
            self.keeper.walk(sizes.map_err(|error| ("looking at the streams", error.into()))?);
        } else if self.untold.request.is_some_and(|tried_at| now >= tried_at + TELL_AGAIN) {
            self.tell_request(None, None).await?;
        } else if let Some(since) = self.untold.since {
            let is_time = |at: Option<Instant>| at.is_none_or(|at| now >= at + TOLD_EVERY);
            if is_time(self.untold.told_at) && (!self.has_trims() || is_time(Some(since))) {
                (self.untold.since, self.untold.told_at) = (None, Some(now));
                if !self.tell(Cause::Retention, None, None).await? {
                    self.untold.since = Some(since);
                }
            }
        }
        Ok(())
    }

    /// Trims one step, then shows it: to the window, the readers, the totals.
    async fn step(
        &mut self,
        stream: Option<&StreamName>,
        excess: Excess,
        cause: Cause,
    ) -> Result<Result<Trimmed, AppendError>, Failure> {
        match self.appender.trim_step(stream, excess, cause).await {
            Ok(trimmed) => {
                self.is_trim_refused = false;
                if trimmed.events > 0 {
                    self.show(stream, &trimmed);
                    self.count_trimmed(&trimmed, cause);
                    if cause == Cause::Retention {
                        self.untold.since.get_or_insert_with(Instant::now);
                    }
                }
                Ok(Ok(trimmed))
            }
            Err(error) => {
                let Some(refusal) = refuse(&error) else { return Err(("trimming", error)) };
                if !self.is_trim_refused {
                    tracing::warn!(error = &error as &dyn Error, "nothing was trimmed");
                }
                self.is_trim_refused = true;
                Ok(Err(refusal()))
            }
        }
    }

    fn count_trimmed(&self, trimmed: &Trimmed, cause: Cause) {
        let cause = match cause {
            Cause::Retention => metrics::Cause::Retention,
            Cause::Request => metrics::Cause::Request,
        };
        let metrics = &self.shared.readable.metrics;
        metrics.trimmed_events.of(cause).add(trimmed.events);
        metrics.trimmed_bytes.of(cause).add(trimmed.bytes);
        self.show_retained();
    }

    fn show(&mut self, stream: Option<&StreamName>, trimmed: &Trimmed) {
        self.keeper.take(trimmed.events, trimmed.bytes);
        self.shared.window.trim(trimmed.through.max(trimmed.trimmed_seq));
        if let Some(stream) = stream {
            self.shared.trims.set(stream.clone(), trimmed.through, trimmed.stream_trims);
        }
        self.shared.bounds.send_modify(|bounds| bounds.first_seq = trimmed.trimmed_seq + 1);
        // After the bounds, by which a reader is told of what is forgotten here.
        self.shared.trims.pass(trimmed.trimmed_seq);
        self.pulse.want();
    }

    /// Gives pages back that the events to come do not need, a step at a time.
    async fn give_back_space(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        if !self.space.has_more && self.space.looked_at.is_some_and(|at| now < at + SPACE_LOOK) {
            return Ok(());
        }
        self.space.looked_at = Some(now);
        match self.appender.give_back_step().await {
            Ok(is_more) => self.space.has_more = is_more,
            Err(CommitError::Full | CommitError::Busy) => self.space.has_more = false,
            Err(error) => return Err(("giving space back", error)),
        }
        Ok(())
    }

    /// Whether space is to be given back at once.
    pub(super) fn has_space_to_give(&self) -> bool {
        self.space.has_more
    }
}
