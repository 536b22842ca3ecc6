//! `evertail bench append`: how many acks a second, and how long each takes.

use super::BenchError;
use super::mark::now;
use super::pace::{Alarm, Schedule};
use super::process::Watched;
use super::producer::Appending;
use super::report::Report;
use super::request::Shape;
use super::target::Target;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What to run.
#[derive(Debug, Clone)]
pub struct AppendRun {
    /// Where to.
    pub target: Target,
    /// What.
    pub shape: Shape,
    /// How many at a time.
    pub connections: usize,
    /// Events a second, in total; as fast as answered when absent.
    pub rate: Option<f64>,
    /// How long it counts.
    pub seconds: f64,
    /// How long before it counts.
    pub warmup_seconds: f64,
    /// The server, if it runs here.
    pub server: Watched,
}

/// *Units*: nanoseconds.
pub(crate) fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// Appends, and says how it went.
pub async fn run(options: &AppendRun) -> Result<Report, BenchError> {
    let start = now() + 1_000_000;
    let measured_from = start + nanoseconds(options.warmup_seconds);
    let until = measured_from + nanoseconds(options.seconds);
    let mut appending =
        Appending::new(options.target.clone(), options.shape.clone(), options.connections, until);
    appending.measured_from = measured_from;
    let per_request = options.shape.batch as f64;
    appending.schedule = options.rate.map(|rate| Schedule::new(start, rate / per_request));
    let appending = Arc::new(appending);

    let watched = async {
        let alarm = Alarm::new().map_err(BenchError::connection("making a timer"))?;
        let mut samples = Vec::new();
        for time in [measured_from, until] {
            alarm.until(time).await.map_err(BenchError::connection("waiting"))?;
            let events = appending.measured.load(Ordering::Relaxed);
            samples.push((now(), events, Watched::this().cpu_us(), options.server.cpu_us()));
        }
        Ok(samples)
    };
    let (ran, samples) = tokio::join!(appending.run(), watched);
    ran?;
    let samples = samples?;
    let seconds = (samples[1].0 - samples[0].0) as f64 / 1e9;
    let events = (samples[1].1 - samples[0].1) as f64;

    let mut report = Report::new("append");
    report.set("connections", options.connections);
    report.set("batch", options.shape.batch);
    report.set("event_bytes", options.shape.bytes);
    report.set("has_ids", options.shape.has_ids);
    report.set_measured("rate_per_second", options.rate);
    report.set_measured("seconds", seconds);
    report.set_measured("acks_per_second", events / seconds);
    let outcome = appending.outcome().clone();
    report.set_latencies("ack", outcome.latencies.first().unwrap_or(&Default::default()));
    let share = |from: Option<f64>, to: Option<f64>| Some(to? - from?);
    let bench = share(samples[0].2, samples[1].2);
    let server = share(samples[0].3, samples[1].3);
    report.set_measured("bench_cpu_us_per_event", bench.map(|us| us / events));
    report.set_measured("bench_cores", bench.map(|us| us / seconds / 1e6));
    report.set_measured("server_cpu_us_per_event", server.map(|us| us / events));
    report.set_measured("server_cores", server.map(|us| us / seconds / 1e6));
    report.set_measured("server_rss_peak_kib", options.server.rss_peak_kib());
    tell_outcome(&mut report, &appending);
    Ok(report)
}

/// What was refused or left unsent.
pub(crate) fn tell_outcome(report: &mut Report, appending: &Appending) {
    for (status, count) in &appending.outcome().refused {
        report.set(&format!("refused_{status}"), *count);
    }
    let unsent = appending.unsent.load(Ordering::Relaxed);
    if unsent > 0 {
        report.set("unsent_events", unsent);
    }
}
