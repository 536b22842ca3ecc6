//! What the log is at this moment, for whoever operates it.

use super::readers::Readers;
use super::{Log, LogSettings};
use crate::event::Timestamp;
use crate::metrics::{LogMetrics, LogReadings};
use crate::store::Disk;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// What is kept for whoever asks, and of no use to the log itself.
#[derive(Debug)]
pub(super) struct Readable {
    pub(super) metrics: LogMetrics,
    pub(super) readers: Arc<Readers>,
    pub(super) waiting: Waiting,
    /// *Units*: microseconds since 1970.
    last_checkpoint: AtomicI64,
    disk: Disk,
    disk_free_bytes_min: u64,
    window_bytes_max: u64,
}

impl Readable {
    /// Of a log that was opened just now, which is a checkpoint.
    pub(super) fn new(disk: Disk, settings: &LogSettings, (events, bytes): (u64, u64)) -> Self {
        let metrics = LogMetrics::default();
        metrics.retained_events.set(events);
        metrics.retained_bytes.set(bytes);
        Self {
            metrics,
            readers: Arc::default(),
            waiting: Waiting::new(),
            last_checkpoint: AtomicI64::new(Timestamp::now().microseconds()),
            disk,
            disk_free_bytes_min: settings.disk_free_bytes_min,
            window_bytes_max: settings.window_bytes_max as u64,
        }
    }

    /// A checkpoint has ended, and took so long.
    pub(super) fn checkpointed(&self, took: Duration) {
        self.metrics.checkpoint_seconds.observe(took);
        self.last_checkpoint.store(Timestamp::now().microseconds(), Ordering::Relaxed);
    }
}

/// Since when the oldest append waits that is not answered: of the batch under way, or of the queue.
///
/// An append pays a look, and sets it only where nobody waited before it.
#[derive(Debug)]
pub(super) struct Waiting {
    start: Instant,
    /// *Units*: microseconds after `start`, from 1; 0 when none waits.
    since: AtomicU64,
}

impl Waiting {
    fn new() -> Self {
        Self { start: Instant::now(), since: AtomicU64::new(0) }
    }

    fn micros(&self, at: Instant) -> u64 {
        let micros = at.saturating_duration_since(self.start).as_micros();
        u64::try_from(micros).unwrap_or(u64::MAX).max(1)
    }

    /// An append is about to wait.
    pub(super) fn enter(&self, at: Instant) {
        if self.since.load(Ordering::Relaxed) == 0 {
            let at = self.micros(at);
            let _ = self.since.compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The oldest that waits has waited since then. Called by the writer alone.
    pub(super) fn set(&self, oldest: Instant) {
        self.since.store(self.micros(oldest), Ordering::Relaxed);
    }

    /// None waits any more. Called by the writer alone, which then looks whether one has come meanwhile.
    pub(super) fn clear(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.start.elapsed().saturating_sub(Duration::from_micros(since)),
        }
    }
}

impl Log {
    /// What the log has counted since it was opened.
    pub fn metrics(&self) -> &LogMetrics {
        &self.shared.readable.metrics
    }

    /// What the log is now. Asks the system for sizes, and reads nothing of the table.
    pub fn readings(&self) -> LogReadings {
        let (bounds, shared) = (self.bounds(), &self.shared);
        let readable = &shared.readable;
        let (readers, reader_lag) = readable.readers.read(bounds.last_seq);
        let seconds = |micros: i64| micros as f64 / 1e6;
        let waiting = self.queue.max_capacity() - self.queue.capacity();
        let bytes = shared.queue_bytes_max.saturating_sub(shared.queue_bytes.available_permits());
        let retention = &shared.retention.log;
        let created_at = shared.last_created_at().microseconds();
        LogReadings {
            log_open: u64::from(self.is_open()),
            first_seq: bounds.first_seq,
            last_seq: bounds.last_seq,
            last_event_time: (bounds.last_seq > 0).then(|| seconds(created_at)),
            queue_requests: waiting as u64,
            queue_requests_max: self.queue.max_capacity() as u64,
            queue_bytes: bytes as u64,
            queue_bytes_max: shared.queue_bytes_max as u64,
            queue_age_seconds: readable.waiting.age().as_secs_f64(),
            readers,
            reader_lag,
            window_bytes: shared.window.size_bytes() as u64,
            window_bytes_max: readable.window_bytes_max,
            file_bytes: readable.disk.file_bytes(),
            wal_bytes: readable.disk.wal_bytes(),
            last_checkpoint: seconds(readable.last_checkpoint.load(Ordering::Relaxed)),
            disk_free_bytes: readable.disk.free_bytes(),
            disk_free_bytes_min: readable.disk_free_bytes_min,
            retention_events: retention.events,
            retention_bytes: retention.bytes,
            retention_age: retention.age.map(|age| age.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn age_is_that_of_the_oldest_append() {
        let waiting = Waiting::new();
        assert_eq!(waiting.age(), Duration::ZERO);
        let first = Instant::now();
        waiting.enter(first);
        tokio::time::advance(Duration::from_secs(2)).await;
        waiting.enter(Instant::now());
        let age = waiting.age();
        assert!(age > Duration::from_millis(1_999) && age <= Duration::from_secs(2), "{age:?}");
        waiting.clear();
        assert_eq!(waiting.age(), Duration::ZERO);
        waiting.set(first);
        assert_eq!(waiting.age(), age);
    }
}
