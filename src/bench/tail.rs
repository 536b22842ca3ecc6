//! `evertail bench tail`: many readers, each event verified, end to end.

use super::BenchError;
use super::append::{nanoseconds, tell_outcome};
use super::mark::now;
use super::pace::Schedule;
use super::process::{self, Watched};
use super::producer::{Appending, Distance};
use super::reader::{Reader, Reading};
use super::report::Report;
use super::request::Shape;
use super::target::Target;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Connections being opened at a time, outside a herd: below every server's listen queue.
const OPENING_MAX: usize = 128;
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What to run.
#[derive(Debug, Clone)]
pub struct TailRun {
    /// Where to append.
    pub append: Target,
    /// What to read.
    pub tail: Target,
    /// What the events look like.
    pub shape: Shape,
    /// How many streams.
    pub readers: usize,
    /// How many producers.
    pub connections: usize,
    /// Events a second; as fast as acked and delivered when absent.
    pub rate: Option<f64>,
    /// How long to append.
    pub seconds: f64,
    /// How long to wait once all are connected.
    pub settle_seconds: f64,
    /// How long without any delivery until what is missing is given up.
    pub grace_seconds: f64,
    /// Without a rate: how far to be ahead of the readers, in events.
    pub ahead: u64,
    /// Count what is missing, do not fail.
    pub allows_loss: bool,
    /// The server, if it runs here.
    pub server: Watched,
}

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
    /// Connects them all, live.
    ///
    /// *Errors*: when one of them is refused.
    pub(crate) async fn gather(reading: Reading, count: usize) -> Result<Self, BenchError> {
        process::raise_descriptor_limit(count as u64 + 1024);
        let reading = Arc::new(reading);
        let opening = Arc::new(Semaphore::new(OPENING_MAX));
        let mut crowd = Self { reading, readers: Vec::new(), tasks: Vec::new() };
        for _ in 0..count {
            let reader = Arc::new(Reader::default());
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

/// Reads and appends, and says how it went.
pub async fn run(options: &TailRun) -> Result<Report, BenchError> {
    let delivered = Arc::new(AtomicU64::new(0));
    let mut appending = Appending::new(options.append.clone(), options.shape.clone(), options.connections, 0);
    let before = Memory::now(&options.server);
    let connecting = now();
    let reading = Reading::new(options.tail.clone(), appending.run, Arc::clone(&delivered));
    let crowd = Crowd::gather(reading, options.readers).await?;
    let connected = (now() - connecting) as f64 / 1e9;
    tokio::time::sleep(Duration::from_secs_f64(options.settle_seconds)).await;
    let idle = Memory::now(&options.server);

    let cpu = (Watched::this().cpu_us(), options.server.cpu_us());
    let start = now();
    appending.until = start + nanoseconds(options.seconds);
    match options.rate {
        Some(rate) => {
            appending.schedule = Some(Schedule::new(start, rate / options.shape.batch as f64));
        }
        None => {
            appending.distance = Some(Distance {
                events_max: options.ahead,
                readers: options.readers as u64,
                delivered,
                given_up: AtomicU64::new(0),
            });
        }
    }
    let appending = Arc::new(appending);
    appending.run().await?;
    let appended_seconds = (now() - start) as f64 / 1e9;
    let appended = appending.total();
    crowd.wait_for(appended * options.readers as u64, options.grace_seconds).await;

    let count = crowd.reading.delivered.load(Ordering::Relaxed);
    let last = crowd.reading.last.load(Ordering::Relaxed);
    let seconds = last.saturating_sub(start) as f64 / 1e9;
    let spent = |before: Option<f64>, now: Option<f64>| Some((now? - before?) / count as f64);
    let mut report = Report::new("tail");
    report.set("readers", options.readers);
    report.set("connections", options.connections);
    report.set("batch", options.shape.batch);
    report.set("event_bytes", options.shape.bytes);
    report.set_measured("rate_per_second", options.rate);
    report.set_measured("connected_after_seconds", connected);
    report.set("appended", appended);
    report.set_measured("appended_per_second", appended as f64 / appended_seconds);
    report.set("delivered", count);
    report.set_measured("seconds", seconds);
    report.set_measured("delivered_per_second", count as f64 / seconds);
    report.set_latencies("end_to_end", &crowd.reading.latencies());
    if let Some(latencies) = appending.outcome().latencies.first() {
        report.set_latencies("ack", latencies);
    }
    report.set_measured("bench_cpu_us_per_delivery", spent(cpu.0, Watched::this().cpu_us()));
    report.set_measured("server_cpu_us_per_delivery", spent(cpu.1, options.server.cpu_us()));
    idle.tell(&mut report, "idle", &before, options.readers);
    Memory::now(&options.server).tell(&mut report, "after", &before, options.readers);
    tell_outcome(&mut report, &appending);
    crowd.verify(&mut report, &appending.counts(), options.allows_loss);
    Ok(report)
}
