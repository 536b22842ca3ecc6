//! Trims that are asked for, and what they would do.

use super::retention::excess;
use super::writer::Command;
use super::{AppendError, Log};
use crate::event::{Origin, Pattern, Retention, Seq, StreamName, Timestamp};
use crate::store::{Excess, HeldStream, Shares, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What is asked to be trimmed: whatever any of its parts says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrimRequest {
    /// Of this stream only.
    pub stream: Option<StreamName>,
    /// Every event before this seq.
    pub before: Option<Seq>,
    /// What this does not keep.
    pub keep: Retention,
    /// Why; told in the event of the trim.
    pub reason: Option<Arc<str>>,
}

/// What a trim has done, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrimReport {
    /// Of this stream only.
    pub stream: Option<StreamName>,
    /// How many events.
    pub events: u64,
    /// Their data. *Units*: bytes.
    pub bytes: u64,
    /// The last of them; `None` when there is none.
    pub through_seq: Option<Seq>,
    /// What each stream loses. Not told of a trim that is done.
    pub streams: Shares,
    /// The hold at which it stops, where more was to go.
    pub held_by: Option<HeldStream>,
}

/// A trim that waits, or is under way: it goes in steps, with appends in between.
#[derive(Debug)]
pub(super) struct Trim {
    pub(super) stream: Option<StreamName>,
    pub(super) reason: Option<Arc<str>>,
    pub(super) origin: Option<Arc<Origin>>,
    /// What is still to go.
    pub(super) excess: Excess,
    pub(super) done: Done,
    pub(super) reply: oneshot::Sender<Result<Done, AppendError>>,
}

/// What a trim has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) through: Seq,
    pub(super) is_held: bool,
}

/// What there is of a stream, or of the log.
#[derive(Debug, Clone, Copy)]
struct Extent {
    events: u64,
    bytes: u64,
    first_seq: Seq,
}

impl Log {
    /// Deletes the events up to this seq, as far as there are such. See [`Log::trim`].
    pub async fn trim_through(&self, through: Seq) -> Result<TrimReport, AppendError> {
        self.trim(&TrimRequest { before: Some(through.saturating_add(1)), ..TrimRequest::default() }).await
    }

    /// Deletes the oldest events, in steps with appends in between; readers that still want them are told of the gap,
    /// and the log by an event of the stream `evertail`. Stops at a hold. Of a single stream the newest event of the
    /// whole log stays.
    ///
    /// *Errors*: as [`Log::append`]. *Cancel safety*: dropping the future does not cancel a trim that has begun.
    pub async fn trim(&self, request: &TrimRequest) -> Result<TrimReport, AppendError> {
        let unavailable = |error: StoreError| {
            if !self.is_open() {
                return AppendError::Closed;
            }
            tracing::error!(error = &error as &dyn std::error::Error, "what is to be trimmed cannot be read");
            AppendError::Unavailable
        };
        let extent = self.extent(request.stream.as_ref()).await.map_err(unavailable)?;
        let excess = self.excess(request, extent).await.map_err(unavailable)?;
        let (reply, answer) = oneshot::channel();
        let trim = Trim {
            stream: request.stream.clone(),
            reason: request.reason.clone(),
            origin: self.origin.clone(),
            excess,
            done: Done::default(),
            reply,
        };
        self.ask(Command::Trim(trim)).await?;
        let done = answer.await.unwrap_or(Err(AppendError::Unavailable))?;
        let held_by = match done.is_held {
            true => self.shared.store.first_hold(request.stream.as_ref()).await.map_err(unavailable)?,
            false => None,
        };
        Ok(TrimReport {
            stream: request.stream.clone(),
            events: done.events,
            bytes: done.bytes,
            through_seq: Some(done.through).filter(|seq| *seq > 0),
            streams: Shares::new(),
            held_by,
        })
    }

    /// What [`Log::trim`] would do now.
    ///
    /// Looks at each event that would go. *Errors*: the table could not be read. *Cancel safety*: safe.
    pub async fn plan_trim(&self, request: &TrimRequest) -> Result<TrimReport, StoreError> {
        let extent = self.extent(request.stream.as_ref()).await?;
        let excess = self.excess(request, extent).await?;
        self.report(request.stream.as_ref(), excess, extent.first_seq).await
    }

    /// What retention would trim now, of the whole log and then of single streams: nothing, unless more has become old or
    /// too much within the last moments, or a hold keeps it.
    ///
    /// *Errors*: the table could not be read. *Cancel safety*: safe.
    pub async fn plan_retention(&self) -> Result<Vec<TrimReport>, StoreError> {
        let rules = &self.shared.retention;
        let of_log = TrimRequest { keep: rules.log.clone(), ..TrimRequest::default() };
        let extent = self.extent(None).await?;
        let whole = self.report(None, self.excess(&of_log, extent).await?, extent.first_seq).await?;
        let (gone, gone_through) = (whole.streams.clone(), whole.through_seq.unwrap_or(0));
        let mut reports = vec![whole];
        if rules.streams.is_empty() {
            return Ok(reports);
        }
        let patterns: Vec<_> = rules.streams.iter().map(|rule| rule.streams.clone()).collect();
        let mut old_seqs = Vec::with_capacity(rules.streams.len());
        for rule in &rules.streams {
            old_seqs.push(self.old_seq(rule.keep.age).await?);
        }
        let mut after = String::new();
        loop {
            let streams = self.shared.store.streams(&patterns, None, &after, 256).await?;
            let Some(last) = streams.last() else { return Ok(reports) };
            last.name.as_str().clone_into(&mut after);
            for stream in streams {
                let Some(rule) = rules.rule_of(&stream.name) else { continue };
                let (events, bytes) = gone.get(&stream.name).copied().unwrap_or_default();
                let excess = excess(&rules.streams[rule].keep, stream.events, stream.bytes, old_seqs[rule]);
                let first_seq = stream.first_seq.max(gone_through + 1);
                let report = self.report(Some(&stream.name), excess.less(events, bytes), first_seq).await?;
                if report.events > 0 || report.held_by.is_some() {
                    reports.push(report);
                }
            }
        }
    }

    /// What is to go, of what there is now.
    async fn excess(&self, request: &TrimRequest, extent: Extent) -> Result<Excess, StoreError> {
        let before = request.before.unwrap_or(0).saturating_sub(1).min(self.bounds().last_seq);
        let through = before.max(self.old_seq(request.keep.age).await?);
        Ok(excess(&request.keep, extent.events, extent.bytes, through))
    }

    /// The newest event that is older; 0 if there is none.
    async fn old_seq(&self, age: Option<Duration>) -> Result<Seq, StoreError> {
        match age {
            Some(age) => self.cursor_before(Timestamp::now().minus(age)).await,
            None => Ok(0),
        }
    }

    async fn extent(&self, stream: Option<&StreamName>) -> Result<Extent, StoreError> {
        let bounds = self.bounds();
        let Some(stream) = stream else {
            let (events, bytes) = self.shared.store.totals().await?;
            return Ok(Extent { events, bytes, first_seq: bounds.first_seq });
        };
        let pattern = Pattern::Exact(stream.as_str().to_owned());
        let totals = self.shared.store.streams(&[pattern], None, "", 1).await?.pop();
        Ok(totals.map_or(Extent { events: 0, bytes: 0, first_seq: bounds.last_seq }, |totals| Extent {
            events: totals.events,
            bytes: totals.bytes,
            first_seq: totals.first_seq,
        }))
    }

    async fn report(
        &self,
        stream: Option<&StreamName>,
        excess: Excess,
        first_seq: Seq,
    ) -> Result<TrimReport, StoreError> {
        let bounds = self.bounds();
        let hold = self.shared.store.first_hold(stream).await?;
        // Of a stream the newest event of the log stays; held, all of it.
        let last = match (stream, hold.as_ref().and_then(|hold| hold.first_seq)) {
            (Some(_), Some(_)) => 0,
            (Some(_), None) => bounds.last_seq.saturating_sub(1),
            (None, Some(held)) => held - 1,
            (None, None) => bounds.last_seq,
        };
        let (streams, through) =
            self.shared.store.excess_of(stream, excess, first_seq.saturating_sub(1), last).await?;
        let (events, bytes) = streams.values().fold((0, 0), |sum, share| (sum.0 + share.0, sum.1 + share.1));
        let left = excess.less(events, bytes);
        let held_by = hold.filter(|hold| {
            let reaches = hold.first_seq.is_some_and(|first| left.through >= first);
            reaches || left.events > 0 || left.bytes > 0
        });
        Ok(TrimReport {
            stream: stream.cloned(),
            events,
            bytes,
            through_seq: Some(through).filter(|seq| *seq > 0),
            streams,
            held_by,
        })
    }
}
