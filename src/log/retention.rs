//! Retention: how much of the log is kept, decided by the writer between appends.

use crate::event::{Event, Seq, Timestamp};
use std::time::Duration;
use tokio::time::Instant;

/// How many events more than it must keep the log may hold, so that trimming is a step for many appends.
const RETENTION_STEP: Seq = 1_024;
/// How often is looked for events that have become old.
const AGE_LOOK: Duration = Duration::from_secs(1);

/// What is kept of the log; what any of these does not keep is trimmed. `None` keeps all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// The newest events, and up to 1,024 more.
    pub events: Option<u64>,
    /// At most so much data, the newest. *Units*: bytes of payloads.
    pub bytes: Option<u64>,
    /// Events received no longer ago than this.
    pub age: Option<Duration>,
}

/// Applies a retention: a function of what there is, and of the time at which it last looked.
#[derive(Debug)]
pub(super) struct Keeper {
    retention: Retention,
    /// The payloads that are retained. *Units*: bytes. Counted only where it matters.
    bytes: u64,
    /// The newest event that is too old, as of the last look.
    old_seq: Seq,
    looked_at: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(retention: Retention) -> Self {
        Self { retention, bytes: 0, old_seq: 0, looked_at: None }
    }

    /// Whether the payloads that are there have to be counted at the start.
    pub(super) fn counts_bytes(&self) -> bool {
        self.retention.bytes.is_some()
    }

    pub(super) fn add_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    pub(super) fn add(&mut self, events: &[Event]) {
        if self.counts_bytes() {
            let data = events.iter().filter_map(|event| event.content.data.as_deref());
            self.add_bytes(data.map(|data| data.len() as u64).sum());
        }
    }

    pub(super) fn take_bytes(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Events received before this time are too old, if it is time to look for such.
    pub(super) fn look(&mut self, now: Instant) -> Option<Timestamp> {
        let age = self.retention.age?;
        if self.looked_at.is_some_and(|at| now < at + AGE_LOOK) {
            return None;
        }
        self.looked_at = Some(now);
        Some(Timestamp::now().minus(age))
    }

    /// What the look found.
    pub(super) fn found_old(&mut self, seq: Seq) {
        self.old_seq = seq;
    }

    /// The last seq that is not to be kept, if there is one; perhaps not all of it at once.
    pub(super) fn beyond(&self, trimmed_seq: Seq, last_seq: Seq) -> Option<Seq> {
        let Retention { events, bytes, age: _ } = self.retention;
        let by_count = events
            .map(|kept| last_seq.saturating_sub(kept))
            .filter(|seq| *seq >= trimmed_seq + RETENTION_STEP);
        // As many as hold the excess if all are of one size, at least one; then it is looked at again.
        let by_bytes = bytes.and_then(|kept| self.bytes.checked_sub(kept)).filter(|excess| *excess > 0);
        let by_bytes = by_bytes.map(|excess| {
            let average = self.bytes / last_seq.saturating_sub(trimmed_seq).max(1);
            trimmed_seq + (excess / average.max(1)).clamp(1, RETENTION_STEP)
        });
        let by_age = Some(self.old_seq);
        by_count.max(by_bytes).max(by_age).filter(|seq| *seq > trimmed_seq && *seq <= last_seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whichever_keeps_least_decides() {
        let mut keeper =
            Keeper::new(Retention { events: Some(10), bytes: Some(100), age: Some(Duration::from_secs(60)) });
        assert_eq!(keeper.beyond(0, 0), None);
        keeper.add_bytes(100);
        assert_eq!(keeper.beyond(0, 1_033), None);
        assert_eq!(keeper.beyond(0, 1_034), Some(1_024));
        keeper.add_bytes(1);
        assert_eq!(keeper.beyond(5, 500), Some(6));
        keeper.add_bytes(99);
        assert_eq!(keeper.beyond(10, 110), Some(60), "two bytes each, a hundred too many");
        keeper.take_bytes(100);
        assert_eq!(keeper.beyond(5, 500), None);
        keeper.found_old(400);
        assert_eq!(keeper.beyond(5, 500), Some(400));
        assert_eq!(keeper.beyond(400, 500), None);
        let now = Instant::now();
        assert!(keeper.look(now).is_some());
        assert!(keeper.look(now).is_none());
        assert!(keeper.look(now + AGE_LOOK).is_some());
    }
}
