//! `evertail bench tail`: many readers, each event verified, end to end.

use super::BenchError;
use super::append::{nanoseconds, tell_outcome};
use super::crowd::{Crowd, Memory};
use super::mark::now;
use super::pace::Schedule;
use super::process::Watched;
use super::producer::{Appending, Distance};
use super::reader::Reading;
use super::report::Report;
use super::request::Shape;
use super::target::Target;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

/// Reads and appends, and says how it went.
pub async fn run(options: &TailRun) -> Result<Report, BenchError> {
    let delivered = Arc::new(AtomicU64::new(0));
    let mut appending = Appending::new(options.append.clone(), options.shape.clone(), options.connections, 0);
    let before = Memory::now(&options.server);
    let connecting = now();
    let reading = Reading::new(options.tail.clone(), appending.run, Arc::clone(&delivered));
    let crowd = Crowd::gather(reading, options.readers, &[]).await?;
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
    appending.run_apart().await?;
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
