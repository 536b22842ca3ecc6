//! Readers that are held together: connecting them, waiting for them, what they cost and what they were given.

use super::BenchError;
use super::append::nanoseconds;
use super::mark::now;
use super::process::{self, Watched};
use super::reader::{Reader, Reading};
use super::report::Report;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Connections being opened at a time, outside a herd: below every server's listen queue.
const OPENING_MAX: usize = 128;
/// How often progress is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// Memory at one moment. *Units*: KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    server: Option<f64>,
    tcp: Option<f64>,
}

impl Memory {
    pub(crate) fn now(server: &Watched) -> Self {
        Self { server: server.rss_kib(), tcp: process::tcp_kib() }
    }

    pub(crate) fn tell(&self, report: &mut Report, when: &str, before: &Self, readers: usize) {
        let grown = |now: Option<f64>, before: Option<f64>| Some((now? - before?) / readers as f64);
        report.set_measured(&format!("server_rss_{when}_kib"), self.server);
        report.set_measured(&format!("server_rss_{when}_kib_per_reader"), grown(self.server, before.server));
        report.set_measured(&format!("kernel_tcp_{when}_kib_per_reader"), grown(self.tcp, before.tcp));
    }
}

/// Readers that are connected.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) reading: Arc<Reading>,
    pub(crate) readers: Vec<Arc<Reader>>,
    pub(crate) tasks: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Connects them all, live; these numbers are due to them first.
    ///
    /// *Errors*: when one of them is refused.
    pub(crate) async fn gather(reading: Reading, count: usize, due: &[u64]) -> Result<Self, BenchError> {
        process::raise_descriptor_limit(count as u64 + 1024);
        let reading = Arc::new(reading);
        let opening = Arc::new(Semaphore::new(OPENING_MAX));
        let mut crowd = Self { reading, readers: Vec::new(), tasks: Vec::new() };
        for _ in 0..count {
            let reader = Arc::new(Reader::due(due));
            let permit = Arc::clone(&opening).acquire_owned().await.ok();
            let following = Arc::clone(&crowd.reading).follow(Arc::clone(&reader), None, permit);
            crowd.tasks.push(tokio::spawn(following));
            crowd.readers.push(reader);
        }
        while crowd.reading.opened.load(Ordering::Relaxed) < count as u64 {
            if let Some(failure) = crowd.reading.failure() {
                return Err(failure);
            }
            if crowd.reading.ended.load(Ordering::Relaxed) > 0 {
                return Err(BenchError::Answer("a stream ended before it began".into()));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(crowd)
    }

    /// Waits until so many deliveries are made; gives up after so long without any.
    pub(crate) async fn wait_for(&self, deliveries: u64, grace_seconds: f64) {
        let mut progress = (0, now());
        loop {
            let delivered = self.reading.delivered.load(Ordering::Relaxed);
            if delivered >= deliveries {
                return;
            }
            if delivered != progress.0 {
                progress = (delivered, now());
            } else if now() - progress.1 > nanoseconds(grace_seconds) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Adds what was wrong to the report.
    pub(crate) fn verify(&self, report: &mut Report, appended: &[u64], allows_loss: bool) {
        let (mut missing, mut repeated, mut out_of_order) = (0, 0, 0);
        for reader in &self.readers {
            let order = reader.order();
            missing += order.missing(appended);
            repeated += order.repeated;
            out_of_order += order.out_of_order;
        }
        let ended = self.reading.ended.load(Ordering::Relaxed);
        let found = [
            ("missing", missing),
            ("repeated", repeated),
            ("out_of_order", out_of_order),
            ("ended_streams", ended),
        ];
        for (name, count) in found {
            report.set(name, count);
            if count > 0 && !allows_loss {
                report.failures.push(format!("{name}: {count}"));
            }
        }
        if let Some(failure) = self.reading.failure() {
            report.failures.push(failure.to_string());
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
