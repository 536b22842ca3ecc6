//! `evertail bench mixed`: appends at a rate, while some readers follow live and others read history again and again.

use super::BenchError;
use super::append::{nanoseconds, tell_outcome};
use super::crowd::Crowd;
use super::mark::now;
use super::pace::Schedule;
use super::process::Watched;
use super::producer::Appending;
use super::reader::Reading;
use super::replay::{Form, Read, last_seq, read_numbers};
use super::report::Report;
use super::request::Shape;
use super::target::Target;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// How often the size of the WAL is looked at.
const WAL_LOOK: Duration = Duration::from_millis(50);

/// What to run.
#[derive(Debug, Clone)]
pub struct MixedRun {
    /// Where to append, and what live readers read.
    pub target: Target,
    /// What the events look like.
    pub shape: Shape,
    /// How many producers.
    pub connections: usize,
    /// Events a second.
    pub rate: f64,
    /// How long.
    pub seconds: f64,
    /// Readers that follow.
    pub readers: usize,
    /// Readers that read from the beginning again and again.
    pub catch_up: usize,
    /// How long without any delivery until what is missing is given up.
    pub grace_seconds: f64,
    /// The log file, whose WAL is watched. It is never opened.
    pub file: Option<PathBuf>,
    /// The server, if it runs here.
    pub server: Watched,
}

/// What the readers of history have had.
#[derive(Debug, Default)]
struct History {
    events: AtomicU64,
    passes: AtomicU64,
    wrong: AtomicU64,
}

/// Runs all of it, and says how it went.
pub async fn run(options: &MixedRun) -> Result<Report, BenchError> {
    let mut appending = Appending::new(options.target.clone(), options.shape.clone(), options.connections, 0);
    let reading = Reading::new(options.target.clone(), appending.run, Arc::new(AtomicU64::new(0)));
    let crowd = Crowd::gather(reading, options.readers, &[]).await?;
    let cpu = (Watched::this().cpu_us(), options.server.cpu_us());
    let start = now();
    appending.until = start + nanoseconds(options.seconds);
    appending.schedule = Some(Schedule::new(start, options.rate / options.shape.batch as f64));
    let appending = Arc::new(appending);

    let history = Arc::new(History::default());
    let mut beside = JoinSet::new();
    for _ in 0..options.catch_up {
        beside.spawn(read_again_and_again(options.target.clone(), Arc::clone(&history)));
    }
    let wal_max = Arc::new(AtomicU64::new(0));
    if let Some(file) = &options.file {
        beside.spawn(watch_wal(wal_of(file), Arc::clone(&wal_max)));
    }
    let producing = appending.run_apart();
    tokio::pin!(producing);
    loop {
        tokio::select! {
            ran = &mut producing => break ran?,
            // A reader of history ends only when it fails.
            Some(ended) = beside.join_next() => ended.expect("a reader does not panic")?,
        }
    }
    let seconds = (now() - start) as f64 / 1e9;
    let bench = Watched::this().cpu_us().zip(cpu.0).map(|(now, before)| (now - before) / seconds / 1e6);
    let server = options.server.cpu_us().zip(cpu.1).map(|(now, before)| (now - before) / seconds / 1e6);
    beside.abort_all();
    let appended = appending.total();
    crowd.wait_for(appended * options.readers as u64, options.grace_seconds).await;

    let mut report = Report::new("mixed");
    report.set("connections", options.connections);
    report.set("readers", options.readers);
    report.set("catch_up_readers", options.catch_up);
    report.set_measured("rate_per_second", options.rate);
    report.set_measured("seconds", seconds);
    report.set_measured("acks_per_second", appended as f64 / seconds);
    let outcome = appending.outcome().clone();
    report.set_latencies("ack", outcome.latencies.first().unwrap_or(&Default::default()));
    report.set_latencies("end_to_end", &crowd.reading.latencies());
    report.set("delivered", crowd.reading.delivered.load(Ordering::Relaxed));
    let caught_up = history.events.load(Ordering::Relaxed);
    report.set_measured("catch_up_events_per_second", caught_up as f64 / seconds);
    report.set("catch_up_passes", history.passes.load(Ordering::Relaxed));
    if options.file.is_some() {
        report.set_measured("wal_max_mib", wal_max.load(Ordering::Relaxed) as f64 / f64::from(1 << 20));
    }
    report.set_measured("bench_cores", bench);
    report.set_measured("server_cores", server);
    report.set_measured("server_rss_peak_kib", options.server.rss_peak_kib());
    tell_outcome(&mut report, &appending);
    crowd.verify(&mut report, &appending.counts(), false);
    let wrong = history.wrong.load(Ordering::Relaxed);
    if wrong > 0 {
        report.failures.push(format!("history out of order: {wrong}"));
    }
    Ok(report)
}

/// One reader of history: the whole log up to what was its end when the reader began, then again. What is trimmed
/// before it gets there is a gap to it, and no fault.
async fn read_again_and_again(target: Target, history: Arc<History>) -> Result<(), BenchError> {
    let whole = target.at("/api/v1/events?since=1970-01-01T00:00:00Z");
    loop {
        let last = last_seq(&whole).await?;
        if last == 0 {
            tokio::time::sleep(WAL_LOOK).await;
            continue;
        }
        let Read { wrong, .. } = read_numbers(&whole, Form::Sse, last, true, &history.events).await?;
        history.wrong.fetch_add(wrong, Ordering::Relaxed);
        history.passes.fetch_add(1, Ordering::Relaxed);
    }
}

fn wal_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// The largest that the WAL was.
async fn watch_wal(file: PathBuf, largest: Arc<AtomicU64>) -> Result<(), BenchError> {
    loop {
        if let Ok(metadata) = std::fs::metadata(&file) {
            largest.fetch_max(metadata.len(), Ordering::Relaxed);
        }
        tokio::time::sleep(WAL_LOOK).await;
    }
}
